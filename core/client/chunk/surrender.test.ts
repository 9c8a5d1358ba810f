/** An intent that goes back while the file is in use (rules L7, E5, R2, L8). */
import assert from 'node:assert/strict'
import test from 'node:test'
import { CHUNK_SIZE_BYTES } from '../../base/units.ts'
import { FakeCluster, flushOf, writeOf } from '../testing/fake-cluster.ts'

async function withFile() {
  const cluster = new FakeCluster(3)
  const client = await cluster.connect()
  const file = await cluster.create(client)
  const { clock } = cluster
  await clock.wait(writeOf(file, 0, Buffer.from('aaaa')))
  await clock.wait(flushOf(file))
  const chunk = cluster.master.chunkAt(file.inode, 0)
  const recall = (): void => {
    const lease = cluster.master.inodes.get(file.inode)?.lease ?? 0
    cluster.master.notify('intent.recall', { inode: file.inode, lease, chunks: [chunk.id] })
  }
  const callsOf = (name: string): number => cluster.master.log.filter((method) => method === name).length
  return { cluster, file, clock, recall, callsOf }
}

test('a recalled intent goes back when what was sent is answered by all, and flushed (E5, R2)', async () => {
  const { cluster, file, clock, recall, callsOf } = await withFile()
  cluster.master.server(3).isHanging = true
  let isWritten = false
  file.write(0, Buffer.from('bbbb'), () => (isWritten = true))
  await clock.advance(10)
  recall()
  await clock.advance(2000)
  assert.deepEqual([isWritten, callsOf('intent.clear')], [false, 0])
  const flushes = (): number => cluster.master.server(1).log.filter((line) => line.startsWith('flush')).length
  const before = flushes()
  cluster.unhang(3)
  await clock.until(() => callsOf('intent.clear') === 1, 1000)
  assert.equal(isWritten, true)
  assert.ok(flushes() > before, 'of what was answered last')
})

test('a member that fails meanwhile leaves, and the intent goes back (E5, E11)', async () => {
  const { cluster, file, clock, recall, callsOf } = await withFile()
  cluster.master.server(3).isHanging = true
  const written = writeOf(file, 0, Buffer.from('bbbb'))
  await clock.advance(10)
  recall()
  await clock.wait(written)
  await clock.until(() => callsOf('intent.clear') === 1, 1000)
  assert.equal(cluster.master.chunkAt(file.inode, 0).members.length, 2)
  await clock.wait(writeOf(file, 0, Buffer.from('cccc')))
})

test('allocate while the intent goes back asks for it again', async () => {
  const { file, clock, recall, callsOf } = await withFile()
  recall()
  await clock.advance(1)
  const allocated = file.allocate(0, CHUNK_SIZE_BYTES, true)
  await clock.wait(allocated)
  assert.equal(callsOf('intent.clear'), 1)
  await clock.wait(writeOf(file, 0, Buffer.from('bbbb')))
})
