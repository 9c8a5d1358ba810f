/** Truncate, zero, allocate, discard: rules T1 and T2. */
import assert from 'node:assert/strict'
import test from 'node:test'
import { CHUNK_SIZE_BYTES } from '../../base/units.ts'
import { FakeCluster, readOf, writeOf } from '../testing/fake-cluster.ts'

async function withFile() {
  const cluster = new FakeCluster(3)
  const client = await cluster.connect()
  const file = await cluster.create(client)
  return { cluster, client, file, clock: cluster.clock }
}

test('shrink, grow: the old bytes are not back, on any replica (T1)', async () => {
  const { cluster, file, clock } = await withFile()
  await clock.wait(writeOf(file, 0, Buffer.alloc(10_000, 7)))
  await clock.wait(file.truncate(100))
  assert.equal(file.attributes().size, 100)
  assert.equal(cluster.master.inodes.get(file.inode)?.zeroFrom, 100)
  await clock.wait(file.truncate(10_000))
  const read = await clock.wait(readOf(file, 0, 10_000))
  assert.deepEqual(read, Buffer.concat([Buffer.alloc(100, 7), Buffer.alloc(9900)]))
  const chunk = cluster.master.chunkAt(file.inode, 0)
  for (const server of cluster.servers)
    assert.deepEqual(server.contents(chunk.id, 100, 10_000), Buffer.alloc(9900))
  assert.equal(cluster.master.inodes.get(file.inode)?.zeroFrom, undefined)
})

test('a write behind the mark zeros the tail first, and durably (T1)', async () => {
  const { cluster, file, clock } = await withFile()
  await clock.wait(writeOf(file, 0, Buffer.alloc(10_000, 7)))
  await clock.wait(file.truncate(100))
  await clock.wait(writeOf(file, 9000, Buffer.alloc(1000, 8)))
  const read = await clock.wait(readOf(file, 0, 10_000))
  assert.deepEqual(read.subarray(100, 9000), Buffer.alloc(8900))
  assert.equal(read[9500], 8)
  const log = cluster.master.server(1).log.map((line) => line.split(' ')[0])
  assert.deepEqual(log, ['write', 'zero', 'flush', 'write'])
})

test('a size that the quorum does not know yet is told before it is cut (T1)', async () => {
  const { cluster, file, clock } = await withFile()
  await clock.wait(writeOf(file, 0, Buffer.alloc(10_000, 7)))
  await clock.wait(file.truncate(5000))
  assert.equal(cluster.master.inodes.get(file.inode)?.zeroFrom, 5000)
})

test('truncate waits for writes in flight (T2)', async () => {
  const { cluster, file, clock } = await withFile()
  await clock.wait(writeOf(file, 0, Buffer.alloc(100, 1)))
  cluster.master.server(2).isHanging = true
  const order: string[] = []
  file.write(0, Buffer.alloc(100, 2), () => order.push('write'))
  void file.truncate(0).then(() => order.push('truncate'))
  await clock.advance(1000)
  assert.deepEqual(order, [])
  cluster.unhang(2)
  await clock.until(() => order.length === 2)
  assert.deepEqual(order, ['write', 'truncate'])
})

test('open with truncate', async () => {
  const { cluster, client, file, clock } = await withFile()
  await clock.wait(writeOf(file, 0, Buffer.alloc(100, 1)))
  const again = await clock.wait(client.fileSystem.open(file.inode, { truncate: true }))
  assert.equal(again.attributes().size, 0)
  assert.equal(cluster.master.inodes.get(file.inode)?.chunks.size, 0)
})

test('zero unmaps whole chunks and zeros the edges on all members (T2)', async () => {
  const { cluster, file, clock } = await withFile()
  const edge = Buffer.alloc(8192, 5)
  for (const index of [0, 1, 2])
    await clock.wait(writeOf(file, (index + 1) * CHUNK_SIZE_BYTES - 8192, Buffer.concat([edge, edge])))
  await clock.wait(file.zero(CHUNK_SIZE_BYTES - 4096, CHUNK_SIZE_BYTES + 4096 + 100, true))
  const chunks = cluster.master.inodes.get(file.inode)?.chunks
  assert.equal(chunks?.has(1), false)
  assert.equal(chunks?.has(0), true)
  const first = await clock.wait(readOf(file, CHUNK_SIZE_BYTES - 8192, 8192))
  assert.deepEqual(first, Buffer.concat([Buffer.alloc(4096, 5), Buffer.alloc(4096)]))
  assert.deepEqual(
    await clock.wait(readOf(file, 2 * CHUNK_SIZE_BYTES, 200)),
    Buffer.concat([Buffer.alloc(100), Buffer.alloc(100, 5)]),
  )
})

test('zero over a hole creates nothing, and extends when asked', async () => {
  const { cluster, file, clock } = await withFile()
  await clock.wait(file.truncate(3 * CHUNK_SIZE_BYTES))
  await clock.wait(file.zero(100, 5000, true))
  assert.equal(cluster.master.inodes.get(file.inode)?.chunks.size, 0)
  await clock.wait(file.zero(100, 4 * CHUNK_SIZE_BYTES, false))
  assert.equal(file.attributes().size, 100 + 4 * CHUNK_SIZE_BYTES)
})

test('allocate makes the chunks, and they stay', async () => {
  const { cluster, file, clock } = await withFile()
  await clock.wait(file.allocate(0, 3 * CHUNK_SIZE_BYTES, true))
  assert.equal(file.attributes().size, 0)
  file.close()
  await clock.until(() => cluster.master.inodes.get(file.inode)?.lease === 0)
  assert.equal(cluster.master.inodes.get(file.inode)?.chunks.size, 3)
})

test('discard on a block device reads as zeros', async () => {
  const { client, file, clock } = await withFile()
  await clock.wait(file.truncate(CHUNK_SIZE_BYTES))
  const device = await clock.wait(client.openBlockDevice('file'))
  await clock.wait(writeOf(device as never, 0, Buffer.alloc(4096, 1)))
  let code = ''
  device.discard(512, 1024, (error) => (code = error?.code ?? 'ok'))
  await clock.until(() => code !== '')
  assert.equal(code, 'ok')
  const read = await clock.wait(readOf(device as never, 0, 4096))
  assert.deepEqual(read, Buffer.concat([Buffer.alloc(512, 1), Buffer.alloc(1024), Buffer.alloc(2560, 1)]))
  await clock.wait(device.close())
})
