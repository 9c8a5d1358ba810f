// Proves that a master which no client reaches makes way before any session ends, that one whose clients have closed
// their connections stays, and that the next one does not pass it on.

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { startTestCluster, type TestCluster } from '../../testing/test-cluster.ts'

const CLIENT_HOST = 'client.host'
const owner = { uid: 0, gid: 0 }
/** Another pause than that of any other lost master would be a broken promise (fail-over within 3 s). */
const PAUSE_MS_MAX = 3_000

function termOf(cluster: TestCluster): number {
  return cluster.master()?.role?.server.log.status.term ?? assert.fail('there is a master')
}

test('a master that only clients cannot reach makes way, and their sessions live on', async () => {
  for (const seed of [1, 2, 3, 4, 5, 6]) {
    const cluster = await startTestCluster({ seed, metadataServers: 3 })
    const { client, network } = cluster
    await cluster.run(client.fileSystem.makeNode(1, 'before', 'file', 0o600, 0, owner))
    await cluster.advance(1_000)
    const hidden = cluster.master() ?? assert.fail('there is a master')
    const session = [...(hidden.role?.server.state.sessions.keys() ?? [])]
    network.partition(hidden.host, CLIENT_HOST)
    const startedMs = cluster.clock.nowMs()
    await cluster.run(client.fileSystem.makeNode(1, 'meanwhile', 'file', 0o600, 0, owner), PAUSE_MS_MAX)
    assert.ok(cluster.clock.nowMs() - startedMs <= PAUSE_MS_MAX, `seed ${seed}`)
    assert.notEqual(cluster.master(), hidden)
    await cluster.advance(10_000)
    assert.deepEqual([...(cluster.master()?.role?.server.state.sessions.keys() ?? [])], session)
  }
})

test('a master whose only client has lost its connection stays', async () => {
  const cluster = await startTestCluster({ seed: 7, metadataServers: 3 })
  await cluster.advance(1_000)
  const term = termOf(cluster)
  for (const { host } of cluster.metadataServers) cluster.network.partition(host, CLIENT_HOST)
  for (const { host } of cluster.metadataServers) cluster.network.cut(host, CLIENT_HOST)
  await cluster.advance(10_000)
  assert.equal(termOf(cluster), term)
})

test('clients that fall silent to all of them cost one change of the master, not many', async () => {
  const cluster = await startTestCluster({ seed: 8, metadataServers: 3 })
  await cluster.advance(1_000)
  const term = termOf(cluster)
  for (const { host } of cluster.metadataServers) cluster.network.partition(host, CLIENT_HOST)
  await cluster.advance(30_000)
  assert.ok(termOf(cluster) > term)
  assert.ok(termOf(cluster) <= term + 1, `from term ${term} to ${termOf(cluster)}`)
})
