/** Space is promised with intents, and only once (rule A2): fake chunk servers that say how much is free. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { CHUNK_SIZE_BYTES, MIB } from '../../base/units.ts'
import { MetadataScene, type SceneSession } from '../../testing/metadata-scene.ts'

const three = { replicasNormal: 3, replicasMinimum: 2, failureDomain: 'host' } as const
const MARGIN_BYTES = 5 * 1024 * MIB
const KIB = 1024

/** Three servers with this much more than the margin. */
async function sceneWith(roomBytes: number) {
  const scene = await MetadataScene.open({ chunkServerCount: 3, placement: three })
  await setRoom(scene, roomBytes)
  return { scene, session: await scene.session('client') }
}

async function setRoom(scene: MetadataScene, roomBytes: number): Promise<void> {
  for (const server of scene.chunkServers) server.freeBytes = MARGIN_BYTES + roomBytes
  await scene.clock.advance(2000)
}

async function writer(session: SceneSession, name: string) {
  const inode = await session.createFile(name)
  const lease = await session.lease(inode)
  const grant = (index: number, limit: number) =>
    session.call('intent.grant', {
      inode,
      lease,
      indexes: [index],
      sizeLimit: index * CHUNK_SIZE_BYTES + limit,
      limits: [limit],
    })
  const clear = (chunk: number) => session.call('intent.clear', { inode, lease, chunks: [chunk] })
  const write = (size: number) => session.mutate('lease.update', { inode, lease, size })
  return { inode, lease, grant, clear, write }
}

test('small files are promised what they ask for, not whole chunks', async () => {
  const { session } = await sceneWith(200 * MIB)
  for (let i = 0; i < 200; i++) await (await writer(session, `small ${i}`)).grant(0, MIB)
  const last = await writer(session, 'one too many')
  await assert.rejects(last.grant(0, MIB), { code: 'ENOSPC' })
})

test('a higher limit is promised too, or refused while the intent stays', async () => {
  const { scene, session } = await sceneWith(-MARGIN_BYTES + 100 * MIB + MARGIN_BYTES)
  const one = await writer(session, 'one')
  const other = await writer(session, 'other')
  const first = await one.grant(0, MIB)
  assert.deepEqual(first.limits, [MIB])
  assert.deepEqual((await one.grant(0, 40 * MIB)).limits, [40 * MIB])
  await assert.rejects(other.grant(0, 61 * MIB), { code: 'ENOSPC' })
  // The margin is for the growth of chunks that exist.
  await other.grant(0, 60 * MIB)
  for (const server of scene.chunkServers) server.freeBytes = 110 * MIB
  await scene.clock.advance(2000)
  await assert.rejects(one.grant(0, 60 * MIB), { code: 'ENOSPC' })
  await one.grant(0, 50 * MIB)
  assert.equal(scene.chunk(first.locations[0]?.chunk ?? 0).intentLease, one.lease)
})

test('what was written is not counted twice: heartbeats tell how much replicas have grown', async () => {
  const { scene, session } = await sceneWith(100 * MIB)
  const one = await writer(session, 'one')
  const chunk = (await one.grant(0, 60 * MIB)).locations[0]?.chunk ?? 0
  for (const server of scene.chunkServers) server.grown.set(chunk, 60 * MIB)
  await setRoom(scene, 40 * MIB)
  await (await writer(session, 'other')).grant(0, 40 * MIB)
  await assert.rejects((await writer(session, 'third')).grant(0, 64 * KIB), { code: 'ENOSPC' })
})

test('a promise ends with the intent, with the lease and with the chunk', async () => {
  const { scene, session } = await sceneWith(64 * MIB)
  const one = await writer(session, 'one')
  const chunk = (await one.grant(0, 64 * MIB)).locations[0]?.chunk ?? 0
  const two = await writer(session, 'two')
  await assert.rejects(two.grant(0, MIB), { code: 'ENOSPC' })
  await one.clear(chunk)
  // What was written may not show in the free space before the next heartbeat.
  await assert.rejects(two.grant(0, MIB), { code: 'ENOSPC' })
  await scene.clock.advance(2000)
  await two.grant(0, 64 * MIB)
  const third = await writer(session, 'three')
  await session.mutate('lease.unmap', { inode: two.inode, lease: two.lease, indexes: [0] })
  await scene.clock.advance(4000)
  await third.grant(0, 64 * MIB)
})

test('a chunk that was idle promises again, but not what it holds', async () => {
  const { scene, session } = await sceneWith(64 * MIB)
  const one = await writer(session, 'one')
  const chunk = (await one.grant(0, 10 * MIB)).locations[0]?.chunk ?? 0
  await one.write(10 * MIB)
  await one.clear(chunk)
  for (const server of scene.chunkServers) server.freeBytes = 20 * MIB
  await scene.clock.advance(2000)
  await assert.rejects(one.grant(0, 31 * MIB), { code: 'ENOSPC' })
  assert.deepEqual((await one.grant(0, MIB)).limits, [10 * MIB], 'what is there may be overwritten')
  await one.grant(0, 30 * MIB)
  await assert.rejects(one.grant(0, 31 * MIB), { code: 'ENOSPC' })
})

test('a new chunk within a known size promises what is asked for, not what the size says', async () => {
  const { session } = await sceneWith(10 * MIB)
  const thin = await writer(session, 'thin')
  await thin.write(100 * CHUNK_SIZE_BYTES)
  for (let index = 0; index < 10; index++) {
    assert.deepEqual((await thin.grant(index, MIB)).limits, [MIB])
    assert.deepEqual((await thin.grant(index, MIB)).limits, [MIB])
  }
  await assert.rejects(thin.grant(50, MIB), { code: 'ENOSPC' })
})

test('a new master promises again what intents stand for', async () => {
  const { scene, session } = await sceneWith(64 * MIB)
  await (await writer(session, 'one')).grant(0, 60 * MIB)
  scene.crashMetadataServer()
  await scene.startMetadataServer()
  await scene.until(() => scene.chunkServers.every((server) => server.isRegistered))
  await session.resume()
  await scene.clock.advance(3000)
  const two = await writer(session, 'two')
  await assert.rejects(
    session.insist(() => two.grant(0, 5 * MIB)),
    { code: 'ENOSPC' },
  )
  await two.grant(0, 4 * MIB)
})

test('no grant reaches behind the upper size, whatever the replicas had before a truncation (rule F8)', async () => {
  const { scene, session } = await sceneWith(10 * MIB)
  const one = await writer(session, 'one')
  const chunk = (await one.grant(0, 4 * MIB)).locations[0]?.chunk ?? 0
  await one.write(4 * MIB)
  await one.clear(chunk)
  const { inode } = one
  await session.mutate('lease.release', { inode, lease: one.lease })
  const lease = await session.lease(inode)
  const grant = (indexes: number[], limits: number[], sizeLimit: number) =>
    session.call('intent.grant', { inode, lease, indexes, limits, sizeLimit })
  // room is promised to the first chunk, and then the second one is refused
  const both = grant([0, 1], [KIB, 60 * MIB], CHUNK_SIZE_BYTES + 60 * MIB)
  await assert.rejects(both, { code: 'ENOSPC' })
  await session.mutate('lease.truncate', { inode, lease, size: 100 })
  await session.mutate('lease.zeroed', { inode, lease, zeroFrom: 100 })
  const { limits } = await grant([0], [KIB], KIB)
  assert.deepEqual(limits, [KIB])
  assert.equal(scene.mds.state.inodes.get(inode)?.sizeLimit, KIB)
})

test('a truncation under the lease leaves the upper size of what was granted (rule F8)', async () => {
  const { scene, session } = await sceneWith(100 * MIB)
  const one = await writer(session, 'one')
  const chunk = (await one.grant(0, 4 * MIB)).locations[0]?.chunk ?? 0
  await one.write(4 * MIB)
  await one.clear(chunk)
  const { inode } = one
  await session.mutate('lease.release', { inode, lease: one.lease })
  const lease = await session.lease(inode)
  const { limits } = await session.call('intent.grant', {
    ...{ inode, lease, indexes: [0], limits: [KIB], sizeLimit: KIB },
  })
  assert.deepEqual(limits, [4 * MIB], 'what the replicas have may be written without asking')
  await session.mutate('lease.truncate', { inode, lease, size: 100 })
  await session.mutate('lease.zeroed', { inode, lease, zeroFrom: 100 })
  const { size, sizeLimit } = scene.mds.state.inodes.get(inode) ?? {}
  assert.deepEqual([size, sizeLimit], [100, 4 * MIB])
})
