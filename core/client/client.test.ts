/** The plain path: what is written is read, by pieces of any size and place. */
import assert from 'node:assert/strict'
import test from 'node:test'
import { CHUNK_SIZE_BYTES, MIB } from '../base/units.ts'
import { FakeCluster, flushOf, readOf, writeOf } from './testing/fake-cluster.ts'

test('what was written is read back, on every replica, and flushed on every member', async () => {
  const cluster = new FakeCluster(3)
  const client = await cluster.connect()
  const file = await cluster.create(client)
  const data = Buffer.from('hello, replicated world')
  await cluster.clock.wait(writeOf(file, 100, data))
  assert.equal(file.attributes().size, 100 + data.length)
  assert.deepEqual(await cluster.clock.wait(readOf(file, 100, 1000)), data)
  assert.deepEqual(await cluster.clock.wait(readOf(file, 0, 100)), Buffer.alloc(100))
  const chunk = cluster.master.chunkAt(file.inode, 0)
  for (const server of cluster.servers)
    assert.deepEqual(server.contents(chunk.id, 100, 100 + data.length), data)
  await cluster.clock.wait(flushOf(file))
  assert.deepEqual(
    cluster.servers.map((server) => server.flushCount),
    [1, 1, 1],
  )
  assert.equal(cluster.master.inodes.get(file.inode)?.attributes.size, 100 + data.length)
})

test('a write across chunks is cut, a read across chunks is gathered, holes are zeros', async () => {
  const cluster = new FakeCluster(3)
  const client = await cluster.connect()
  const file = await cluster.create(client)
  const data = cluster.random.bytes(3 * MIB)
  const at = 2 * CHUNK_SIZE_BYTES - MIB - 777
  await cluster.clock.wait(writeOf(file, at, data))
  assert.deepEqual(await cluster.clock.wait(readOf(file, at, data.length)), data)
  assert.deepEqual(await cluster.clock.wait(readOf(file, 10, 10)), Buffer.alloc(10))
  assert.equal(cluster.master.inodes.get(file.inode)?.chunks.has(0), false)
})
