/** A chunk server whose disk takes no writes any more, and says so: everything leaves it (rules F7, R1, G2). */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { CHUNK_SIZE_BYTES } from '../../base/units.ts'
import { MetadataScene } from '../../testing/metadata-scene.ts'

const three = { replicasNormal: 3, replicasMinimum: 2, failureDomain: 'host' } as const
/** Of `three` chunks that nobody uses. */
const LEFT_MS_MAX = 10_000

/** `chunks`: that nobody uses. */
async function stage(chunkServerCount: number, replicasNormal = 3) {
  const placement = { ...three, replicasNormal, replicasMinimum: Math.min(2, replicasNormal) }
  const scene = await MetadataScene.open({ chunkServerCount, placement })
  const session = await scene.session('client')
  const inode = await session.createFile('file')
  const lease = await session.lease(inode)
  const indexes = [0, 1, 2]
  const { locations } = await session.insist(() =>
    session.call('intent.grant', { inode, lease, indexes, sizeLimit: 3 * CHUNK_SIZE_BYTES }),
  )
  const chunks = locations.map(({ chunk }) => chunk)
  await session.call('intent.clear', { inode, lease, chunks })
  const holder = scene.chunkServers.find((server) => chunks.some((chunk) => server.replicas.has(chunk)))
  assert.ok(holder !== undefined)
  const counted = (): number[] => chunks.filter((chunk) => scene.inSync(chunk).includes(holder.server))
  return { scene, session, inode, chunks, holder, counted }
}

test('chunks that nobody uses leave a disk that takes no writes, and are whole elsewhere', async () => {
  const { scene, chunks, holder, counted } = await stage(4)
  const sinceMs = scene.clock.nowMs()
  holder.isDiskDead = true
  await scene.until(() => counted().length === 0)
  await scene.until(() => chunks.every((chunk) => scene.inSync(chunk).length === 3))
  assert.ok(scene.clock.nowMs() - sinceMs < LEFT_MS_MAX, `${scene.clock.nowMs() - sinceMs} ms`)
  assert.ok(scene.eventCodes().includes('DISK_FAILING'))
})

test('a bad page on such a disk, which cannot be repaired there, does not keep its replica in the chunk', async () => {
  const { scene, chunks, holder, counted } = await stage(4)
  const [chunk = 0] = counted()
  const version = scene.chunk(chunk).version
  holder.refuse.set('replica.repair', 'DISK_FAILED')
  holder.report('cs.badPages', { chunk, version, pages: [3], reason: 'read' })
  holder.isDiskDead = true
  await scene.until(() => counted().length === 0)
  await scene.until(() => chunks.every((one) => scene.inSync(one).length === 3))
})

test('replicas that have nowhere to go stay there, and are read from (rule R1)', async () => {
  const { scene, chunks, holder, counted } = await stage(3)
  holder.isDiskDead = true
  await scene.until(() => scene.eventCodes().includes('DISK_FAILING'))
  await scene.clock.advance(30_000)
  assert.equal(counted().length, chunks.length)
  scene.addChunkServer('another').start()
  await scene.until(() => counted().length === 0)
})

test('the last replica in sync stays where it is, and is read from (rule G2)', async () => {
  const { scene, holder, counted } = await stage(2, 1)
  const before = counted()
  assert.ok(before.length > 0)
  holder.isDiskDead = true
  await scene.until(() => scene.eventCodes().includes('DISK_FAILING'))
  await scene.clock.advance(30_000)
  assert.deepEqual(counted(), before)
})

test('a replica that fails while the next epoch is pending, which it has persisted, leaves and joins again', async () => {
  const { scene, session, inode, holder, counted } = await stage(4)
  const [chunk = 0] = counted()
  const late = scene.chunkServers.find((server) => server !== holder && server.replicas.has(chunk))
  assert.ok(late !== undefined)
  // A fourth replica: the epoch stays pending while this member does not answer.
  scene.network.partition(late.name, 'mds')
  const attributes = { replicasNormal: 4, replicasMinimum: 2 }
  await session.mutate('attr.set', { inode, recursive: false, attributes })
  const pendingVersion = (): number => scene.chunk(chunk).pending?.version ?? 0
  await scene.until(() => pendingVersion() > 0 && holder.replicas.get(chunk)?.version === pendingVersion())
  holder.report('cs.badReplica', { chunk, version: pendingVersion(), reason: 'disk error' })
  await scene.clock.advance(100)
  scene.network.heal(late.name, 'mds')
  const hasJoined = (): boolean =>
    holder.ordersOf('replica.join').some((order) => (order as { chunk: number }).chunk === chunk)
  await scene.until(() => hasJoined() && scene.inSync(chunk).length === 4)
})
