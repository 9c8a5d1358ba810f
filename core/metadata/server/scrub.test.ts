/** Scrubbing as the master drives it: pace, what is compared, who is right, holders that never pause (rule R2). */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { CHUNK_SIZE_BYTES, PAGES_PER_REGION } from '../../base/units.ts'
import type { FakeChunkServer } from '../../testing/fake-chunk-server.ts'
import { MetadataScene, type SceneSession } from '../../testing/metadata-scene.ts'
import { PAGE_RECORD_BYTES } from '../../wire/data.ts'

const three = { replicasNormal: 3, replicasMinimum: 2, failureDomain: 'host' } as const
const DAY_MS = 24 * 60 * 60 * 1000

interface Stage {
  readonly scene: MetadataScene
  readonly session: SceneSession
  readonly inode: number
  readonly lease: number
  readonly chunks: number[]
}

/** A file of some chunks that nobody writes any more, unless `isInUse`. */
async function stage(count: number, isInUse = false): Promise<Stage> {
  const scene = await MetadataScene.open({ chunkServerCount: 3, placement: three })
  const session = await scene.session('client')
  const inode = await session.createFile('file')
  const lease = await session.lease(inode)
  const indexes = Array.from({ length: count }, (_, index) => index)
  const { locations } = await session.insist(() =>
    session.call('intent.grant', { inode, lease, indexes, sizeLimit: count * CHUNK_SIZE_BYTES }),
  )
  const chunks = locations.map(({ chunk }) => chunk)
  if (!isInUse) await session.call('intent.clear', { inode, lease, chunks })
  return { scene, session, inode, lease, chunks }
}

/** Page 3 of the first region of a replica. */
function setPage(server: FakeChunkServer, chunk: number, stamp: number, checksum: number): void {
  const records = Buffer.alloc(PAGES_PER_REGION * PAGE_RECORD_BYTES)
  records.writeUInt32LE(stamp, 3 * PAGE_RECORD_BYTES)
  records.writeUInt32LE(checksum, 3 * PAGE_RECORD_BYTES + 4)
  records.writeUInt32LE(1, 3 * PAGE_RECORD_BYTES + 8)
  const replica = server.replicas.get(chunk)
  assert.ok(replica !== undefined)
  replica.records = new Map([[0, records]])
}

/** As a chunk server does: what was verified is offered last. */
function offer(server: FakeChunkServer, chunks: readonly number[], ageMs = DAY_MS): void {
  server.due = chunks.map((chunk) => ({ chunk, ageMs }))
}

function verifiedCount(server: FakeChunkServer): number {
  return server.ordersOf('replica.verified').length
}

const setConfig = (session: SceneSession, key: string, value: string) =>
  session.mutate('admin.setConfig', { key, value })

test('two chunks a minute by default, each on all its servers at once; set-config changes the pace at once', async () => {
  const { scene, session, chunks } = await stage(8)
  const [first, second] = scene.chunkServers
  assert.ok(first !== undefined && second !== undefined)
  offer(first, chunks)
  await scene.clock.advance(61_000)
  assert.equal(first.ordersOf('replica.verify').length, 2)
  assert.equal(second.ordersOf('replica.verify').length, 2, 'compared with what the others have')
  assert.equal(verifiedCount(second), 2, 'which need not be read again for their own sake')
  await setConfig(session, 'mds.wd.verify_chunks', '120')
  await scene.clock.advance(3000)
  assert.ok(first.ordersOf('replica.verify').length >= 6)
})

test('the period sets the pace when it needs more than the parameter', async () => {
  const { scene, session, chunks } = await stage(40)
  const [first] = scene.chunkServers
  assert.ok(first !== undefined)
  await setConfig(session, 'mds.wd.verify_chunks', '0')
  offer(first, chunks)
  await scene.clock.advance(1000)
  const before = first.ordersOf('replica.verify').length
  // 40 chunks in a day: one in 36 minutes
  await setConfig(session, 'cs.scrub.period_days', '1')
  await scene.clock.advance(30 * 60_000)
  assert.equal(first.ordersOf('replica.verify').length, before)
  await scene.clock.advance(8 * 60_000)
  assert.equal(first.ordersOf('replica.verify').length, before + 1)
})

test('a replica that verifies and differs from two others gives the page up, and is told what it must be', async () => {
  const { scene, chunks } = await stage(1)
  const [chunk = 0] = chunks
  const [first, second, third] = scene.chunkServers
  assert.ok(first !== undefined && second !== undefined && third !== undefined)
  setPage(first, chunk, 1, 55)
  setPage(second, chunk, 1, 77)
  setPage(third, chunk, 1, 77)
  offer(second, chunks)
  await scene.until(() => verifiedCount(second) === 1)
  const page = { page: 3, stamp: 1, checksum: 55, rightStamp: 1, rightChecksum: 77 }
  assert.deepEqual(first.ordersOf('replica.reject'), [{ chunk, version: 1, pages: [page] }])
  assert.deepEqual(
    [second, third].flatMap((server) => server.ordersOf('replica.reject')),
    [],
  )
  await scene.until(() => scene.eventCodes().includes('REPLICAS_DIFFER'))
  assert.ok(!scene.eventCodes().includes('REPLICAS_GUESSED'))
})

test('two that differ: one is kept by rule, and an event says that it was a guess', async () => {
  const scene = await MetadataScene.open({
    chunkServerCount: 2,
    placement: { ...three, replicasNormal: 2, replicasMinimum: 1 },
  })
  const session = await scene.session('client')
  const inode = await session.createFile('file')
  const lease = await session.lease(inode)
  const grant = { inode, lease, indexes: [0], sizeLimit: CHUNK_SIZE_BYTES }
  const [location] = (await session.insist(() => session.call('intent.grant', grant))).locations
  const chunk = location?.chunk ?? 0
  await session.call('intent.clear', { inode, lease, chunks: [chunk] })
  const [low, high] = scene.chunkServers.toSorted((a, b) => a.server - b.server)
  assert.ok(low !== undefined && high !== undefined)
  setPage(low, chunk, 1, 55)
  setPage(high, chunk, 1, 77)
  offer(low, [chunk])
  await scene.until(() => scene.eventCodes().includes('REPLICAS_GUESSED'))
  assert.equal(low.ordersOf('replica.reject').length, 0)
  assert.equal(high.ordersOf('replica.reject').length, 1)
})

test('a difference that is gone at the second look was a write on its way', async () => {
  const { scene, chunks } = await stage(1)
  const [chunk = 0] = chunks
  const [first, second, third] = scene.chunkServers
  assert.ok(first !== undefined && second !== undefined && third !== undefined)
  setPage(first, chunk, 1, 55)
  offer(second, chunks)
  await scene.until(() => second.ordersOf('replica.verify').length === 1)
  for (const server of scene.chunkServers) setPage(server, chunk, 1, 55)
  await scene.until(() => verifiedCount(second) === 1)
  assert.equal(second.ordersOf('replica.records').length, 1, 'looked at again')
  for (const server of scene.chunkServers) assert.deepEqual(server.ordersOf('replica.reject'), [])
  assert.ok(!scene.eventCodes().includes('REPLICAS_DIFFER'))
})

test('a chunk that somebody writes is verified, not compared, and not called verified (rule R2)', async () => {
  const { scene, chunks } = await stage(1, true)
  const [chunk = 0] = chunks
  const [first, second] = scene.chunkServers
  assert.ok(first !== undefined && second !== undefined)
  setPage(first, chunk, 1, 55)
  offer(second, chunks)
  await scene.until(() => first.ordersOf('replica.verify').length === 1)
  await scene.clock.advance(5000)
  for (const server of scene.chunkServers) {
    assert.equal(verifiedCount(server), 0)
    assert.deepEqual(server.ordersOf('replica.records'), [])
  }
})

test('an intent that came and went while replicas were read spoils the comparison (rule R2)', async () => {
  const { scene, session, inode, lease, chunks } = await stage(1)
  const [chunk = 0] = chunks
  const [first, second, third] = scene.chunkServers
  assert.ok(first !== undefined && second !== undefined && third !== undefined)
  // the third one answers late: what it says is from after the write
  third.verifyMs = 3000
  setPage(third, chunk, 1, 77)
  offer(second, chunks)
  await scene.until(() => third.ordersOf('replica.verify').length === 1)
  await session.call('intent.grant', { inode, lease, indexes: [0], sizeLimit: CHUNK_SIZE_BYTES })
  await session.call('intent.clear', { inode, lease, chunks })
  await scene.clock.advance(10_000)
  for (const server of scene.chunkServers) assert.deepEqual(server.ordersOf('replica.reject'), [])
  assert.equal(verifiedCount(second), 0)
})

test('a holder that wrote for a whole period is asked to pause; its next intent waits for the comparison', async () => {
  const { scene, session, inode, lease, chunks } = await stage(1, true)
  const [chunk = 0] = chunks
  const [first, second, third] = scene.chunkServers
  assert.ok(first !== undefined && second !== undefined && third !== undefined)
  offer(first, chunks, 13 * DAY_MS)
  await scene.until(() => first.ordersOf('replica.verify').length === 1)
  await scene.clock.advance(70_000)
  assert.deepEqual(session.recalledIntents, [], 'the period is not over')
  offer(first, chunks, 15 * DAY_MS)
  await scene.until(() => session.recalledIntents.length === 1)
  assert.deepEqual(session.recalledIntents, [{ inode, lease, chunks }])
  third.verifyMs = 500
  setPage(first, chunk, 1, 55)
  setPage(second, chunk, 1, 77)
  setPage(third, chunk, 1, 77)
  const sinceMs = scene.clock.nowMs()
  const compared = scene.chunkServers.map((server) => server.ordersOf('replica.verify').length)
  await session.call('intent.clear', { inode, lease, chunks })
  await session.call('intent.grant', { inode, lease, indexes: [0], sizeLimit: CHUNK_SIZE_BYTES })
  assert.ok(scene.clock.nowMs() - sinceMs >= 500, 'held until all had answered')
  assert.deepEqual(
    scene.chunkServers.map((server, at) => server.ordersOf('replica.verify').slice(compared[at] ?? 0)),
    scene.chunkServers.map(() => [{ chunk, version: 1, depth: 'records' }]),
  )
  assert.equal(first.ordersOf('replica.reject').length, 1, 'what differs is decided meanwhile')
  await scene.until(() => verifiedCount(second) === 1)
})

test('a grant is never held for long, whatever a chunk server does', async () => {
  const { scene, session, inode, lease, chunks } = await stage(1, true)
  const [first, , third] = scene.chunkServers
  assert.ok(first !== undefined && third !== undefined)
  offer(first, chunks, 15 * DAY_MS)
  await scene.until(() => session.recalledIntents.length === 1)
  third.verifyMs = 60_000
  const sinceMs = scene.clock.nowMs()
  await session.call('intent.clear', { inode, lease, chunks })
  await session.call('intent.grant', { inode, lease, indexes: [0], sizeLimit: CHUNK_SIZE_BYTES })
  const heldMs = scene.clock.nowMs() - sinceMs
  assert.ok(heldMs > 1900 && heldMs < 2500, `${heldMs} ms`)
})

test('a disk with bad pages in too many chunks is emptied, never below the norm, and gets nothing more (rule R1)', async () => {
  const { scene, session, chunks } = await stage(3)
  const [first] = scene.chunkServers
  assert.ok(first !== undefined)
  first.counters = { badChunks: 16 }
  await scene.clock.advance(5000)
  assert.ok(!scene.eventCodes().includes('DISK_FAILING'))
  first.counters = { badChunks: 17 }
  await scene.until(() => scene.eventCodes().includes('DISK_FAILING'))
  await scene.clock.advance(5000)
  for (const chunk of chunks) assert.equal(scene.inSync(chunk).length, 3, 'no other place: it stays')
  const fourth = scene.addChunkServer('cs4')
  fourth.start()
  const others = () =>
    [...scene.chunkServers.filter((server) => server !== first)].map(({ server }) => server)
  await scene.until(() =>
    chunks.every(
      (chunk) =>
        scene.inSync(chunk).join() ===
        others()
          .toSorted((a, b) => a - b)
          .join(),
    ),
  )
  // the administrator thinks otherwise
  await setConfig(session, 'cs.bad_chunks_max', '0')
  await scene.clock.advance(3000)
  assert.equal(scene.mds.control.replication.view.isFailing(first.server), false)
})

test('fsck checks as scrubbing does, and leaves what differs as it is unless asked to repair', async () => {
  const { scene, session, chunks } = await stage(1)
  const [chunk = 0] = chunks
  const [first] = scene.chunkServers
  assert.ok(first !== undefined)
  setPage(first, chunk, 2, 55)
  const checked = await session.call('admin.check', { chunk, repairs: false })
  const problems = checked.problems.map(({ kind, server, page }) => ({ kind, server, page }))
  const others = scene.inSync(chunk).filter((server) => server !== first.server)
  assert.deepEqual(
    problems.toSorted((a, b) => a.server - b.server),
    others.map((server) => ({ kind: 'differs', server, page: 3 })),
  )
  assert.deepEqual(scene.server(others[0] ?? 0).ordersOf('replica.reject'), [])
  await session.call('admin.check', { chunk, repairs: true })
  for (const server of others) assert.equal(scene.server(server).ordersOf('replica.reject').length, 1)
  assert.equal((await session.call('admin.check', { chunk: chunk + 77, repairs: false })).exists, false)
})
