// Proves rule B3: of two processes on copies of one store only one is served, whichever way the copy was made.

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { MetadataScene } from '../../testing/metadata-scene.ts'
import type { FakeChunkServer } from '../../testing/fake-chunk-server.ts'

const two = { replicasNormal: 2, replicasMinimum: 1, failureDomain: 'host' } as const

async function scene() {
  const opened = await MetadataScene.open({ chunkServerCount: 2, placement: two })
  const [original] = opened.chunkServers
  assert.ok(original !== undefined)
  return { scene: opened, original }
}

function codeOf(server: FakeChunkServer): unknown {
  return (server.lastError as { code?: string } | null)?.code
}

test('a copy that is started while its original runs is refused, and told (rule B3)', async () => {
  const { scene: opened, original } = await scene()
  const copy = opened.addChunkServer('copy', { copyOf: original, incarnation: 40 })
  copy.start()
  await opened.until(() => opened.eventCodes().includes('STORE_COPY'))
  await opened.clock.advance(5_000)
  assert.deepEqual([codeOf(copy), copy.isRegistered], ['REFUSED', false])
  assert.equal(original.isRegistered, true)
  assert.equal(opened.mds.state.servers.get(original.server)?.state, 'active')
})

test('of a process that was copied while it ran the one that registers last goes on, the other is refused (rule B3)', async () => {
  const { scene: opened, original } = await scene()
  const copy = opened.addChunkServer('copy', { copyOf: original, incarnation: 0 })
  copy.start()
  await opened.until(() => copy.isRegistered)
  assert.ok(copy.registration > original.registration)
  await opened.clock.advance(10_000)
  assert.deepEqual([codeOf(original), copy.isRegistered], ['REFUSED', true])
})

test('a heartbeat counter that goes back comes from a copy: it has to register again (rule B3)', async () => {
  const { scene: opened, original } = await scene()
  await opened.clock.advance(3_000)
  const before = original.registration
  original.rollBackHeartbeat()
  await opened.until(() => original.registration > before)
})
