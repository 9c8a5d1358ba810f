/** The metadata server with fake chunk servers and plain sessions on simulated time: what it orders and answers. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { MIB } from '../../base/units.ts'
import { MetadataScene, type SceneSession } from '../../testing/metadata-scene.ts'

const three = { replicasNormal: 3, replicasMinimum: 2, failureDomain: 'host' } as const

async function writtenFile(session: SceneSession, name = 'file') {
  const inode = await session.createFile(name)
  const lease = await session.lease(inode)
  const located = await session.insist(() =>
    session.call('intent.grant', { inode, lease, indexes: [0], sizeLimit: MIB }),
  )
  const location = located.locations[0]
  assert.ok(location !== undefined)
  return { inode, lease, chunk: location.chunk, location }
}

test('a new chunk has its replicas on different hosts, durable before the intent is granted (rule E12)', async () => {
  const scene = await MetadataScene.open({ chunkServerCount: 4, placement: three })
  const session = await scene.session('client')
  const { chunk, location } = await writtenFile(session)
  assert.equal(location.version, 1)
  assert.equal(location.writable, true)
  assert.equal(new Set(location.members.map((member) => member.server)).size, 3)
  for (const { server } of location.members)
    assert.equal(scene.server(server).replicas.get(chunk)?.version, 1)
})
