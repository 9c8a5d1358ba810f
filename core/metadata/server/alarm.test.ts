/** The alarm of rule G1: chunk servers report what these metadata cannot have given out. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { MIB } from '../../base/units.ts'
import { MetadataScene, type SceneSession } from '../../testing/metadata-scene.ts'

const three = { replicasNormal: 3, replicasMinimum: 2, failureDomain: 'host' } as const

/** With an intent on its only chunk. */
async function writtenFile(session: SceneSession, name = 'file') {
  const inode = await session.createFile(name)
  const lease = await session.lease(inode)
  const located = await session.insist(() =>
    session.call('intent.grant', { inode, lease, indexes: [0], sizeLimit: MIB }),
  )
  const chunk = located.locations[0]?.chunk ?? assert.fail('it has a chunk')
  return { inode, lease, chunk }
}

test('a replica the quorum never gave out stops all collection (rule G1)', async () => {
  const scene = await MetadataScene.open({ chunkServerCount: 3, placement: three })
  const [server] = scene.chunkServers
  server?.crash()
  const facts = { role: 'in-sync', lease: 0, unclean: false, damaged: false, complete: true } as const
  server?.replicas.set(999_999, { ...facts, version: 7, writtenEnd: 0 })
  server?.start()
  await scene.until(() => scene.eventCodes().includes('METADATA_BEHIND'))
  const session = await scene.session('client')
  const { inode, lease, chunk } = await writtenFile(session)
  await session.call('intent.clear', { inode, lease, chunks: [chunk] })
  await session.mutate('lease.truncate', { inode, lease, size: 0 })
  await scene.clock.advance(60_000)
  const isThere = () => scene.chunkServers.some((candidate) => candidate.replicas.has(chunk))
  assert.ok(isThere())
  // It is in the log: the next master does not begin to delete either, though nobody reports it again.
  server?.crash()
  server?.replicas.delete(999_999)
  scene.crashMetadataServer()
  await scene.startMetadataServer()
  server?.start()
  await scene.clock.advance(60_000)
  assert.ok(isThere(), 'until an administrator has looked')
  assert.ok(scene.mds.state.counters.get('nextChunk') >= 1_000_000, 'no id is given to two chunks')
  const status = await scene.clock.settled(scene.mds.control.recovery.status())
  assert.match(status.alarm ?? '', /chunk 999999 at version 7/)
  await scene.clock.settled(scene.mds.control.recovery.acknowledge())
  await scene.until(() => !isThere())
  const after = await scene.clock.settled(scene.mds.control.recovery.status())
  assert.deepEqual([after.alarm, after.keepsUnknown], [undefined, true])
})

test('after an alarm by version what is unknown is kept, too, and no id is given again (rule G1)', async () => {
  const scene = await MetadataScene.open({ chunkServerCount: 3, placement: three })
  const session = await scene.session('client')
  const { chunk } = await writtenFile(session)
  const [server, other] = scene.chunkServers
  assert.ok(server !== undefined && other !== undefined)
  const facts = { role: 'in-sync', lease: 0, unclean: false, damaged: false, complete: true } as const
  const ids = scene.mds.state.counters.get('nextChunk')
  // of a history that these metadata have lost: below the next id, since ids are reserved many at a time
  const lost = ids - 1
  other.crash()
  other.replicas.set(lost - 1, { ...facts, version: 1, writtenEnd: 0 })
  other.start()
  await scene.until(() => scene.mds.state.condemned.has(lost - 1, other.server))
  server.crash()
  server.replicas.set(lost, { ...facts, version: 1, writtenEnd: 0 })
  const known = server.replicas.get(chunk)
  assert.ok(known !== undefined)
  server.replicas.set(chunk, { ...known, version: 99 })
  server.start()
  await scene.until(() => scene.eventCodes().includes('METADATA_BEHIND'))
  const later = await writtenFile(await scene.session('later'), 'later')
  assert.ok(later.chunk >= ids, `chunk ${later.chunk} of ${ids}`)
  await scene.clock.settled(scene.mds.control.recovery.acknowledge())
  scene.crashMetadataServer()
  await scene.startMetadataServer()
  await scene.clock.advance(120_000)
  assert.ok(server.replicas.has(lost), 'reported with the alarm, in one page')
  assert.ok(other.replicas.has(lost - 1), 'condemned before the alarm')
})
