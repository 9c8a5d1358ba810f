// Proves what a plugin's author may rely on in a test: a whole cluster in memory, on virtual time, that keeps
// flushed bytes through crashes and power cuts and becomes healthy again.
import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { File } from '../client/api.ts'
import { startTestCluster } from './test-cluster.ts'

const owner = { uid: 0, gid: 0 }

function write(file: File, offset: number, data: Buffer): Promise<void> {
  return new Promise((resolve, reject) => {
    file.write(offset, data, (error) => (error === null ? resolve() : reject(error)))
  })
}

function flush(file: File): Promise<void> {
  return new Promise((resolve, reject) => {
    file.flush((error) => (error === null ? resolve() : reject(error)))
  })
}

function read(file: File, offset: number, length: number): Promise<Buffer> {
  return new Promise((resolve, reject) => {
    file.read(offset, length, (error, borrowed) =>
      error === null ? resolve(Buffer.from(borrowed)) : reject(error),
    )
  })
}

test('a write goes on after a chunk server was killed, and the cluster becomes healthy again', async () => {
  const cluster = await startTestCluster({ chunkServers: 4, parameters: { 'mds.wd.offline_tout': '2s' } })
  const { file } = await cluster.run(cluster.client.fileSystem.create(1, 'a', 0o644, owner, true))
  const data = Buffer.alloc(100_000, 7)
  await cluster.run(write(file, 0, data))
  cluster.chunkServers[0]?.crash()
  await cluster.run(write(file, 50_000, data))
  await cluster.run(flush(file))
  assert.equal((await cluster.run(read(file, 0, 200_000))).length, 150_000)
  cluster.chunkServers[0]?.restart()
  await cluster.until(() => cluster.isHealthy())
  await cluster.stop()
})

test('flushed bytes survive a power cut of everything', async () => {
  const cluster = await startTestCluster()
  const { file } = await cluster.run(cluster.client.fileSystem.create(1, 'a', 0o644, owner, true))
  const data = Buffer.from('what was flushed stays')
  await cluster.run(write(file, 3, data))
  await cluster.run(flush(file))
  const all = [cluster.metadataServer, ...cluster.chunkServers]
  for (const node of all) node.losePower()
  for (const node of all) node.restart()
  const other = await cluster.connect('other')
  const { inode } = await cluster.run(other.fileSystem.lookup(1, 'a'))
  const again = await cluster.run(other.fileSystem.open(inode))
  assert.deepEqual(await cluster.run(read(again, 3, data.length)), data)
  await cluster.stop()
})
