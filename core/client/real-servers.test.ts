/** The client with the real metadata server and chunk servers, in memory and on simulated time. */
import assert from 'node:assert/strict'
import test from 'node:test'
import { MIB } from '../base/units.ts'
import { startTestCluster, type TestCluster } from '../testing/test-cluster.ts'
import type { File } from './api.ts'
import { flushOf, readOf, writeOf } from './testing/fake-cluster.ts'

const owner = { uid: 0, gid: 0 }

async function create(cluster: TestCluster, name: string): Promise<File> {
  return (await cluster.run(cluster.client.fileSystem.create(1, name, 0o644, owner, true))).file
}

test('a chunk server dies under writes: no error, the same bytes, healthy again', async () => {
  const cluster = await startTestCluster({ chunkServers: 4, seed: 11, replicas: { normal: 3, minimum: 2 } })
  const file = await create(cluster, 'a')
  const data = Buffer.alloc(3 * MIB, 1)
  await cluster.run(writeOf(file, 777, data))
  cluster.chunkServers[0]?.crash()
  for (let i = 0; i < 16; i++) {
    data.fill(i, i * 9000, i * 9000 + 5000)
    await cluster.run(writeOf(file, 777 + i * 9000, Buffer.alloc(5000, i)))
  }
  await cluster.run(flushOf(file))
  assert.deepEqual(await cluster.run(readOf(file, 777, data.length)), data)
  cluster.chunkServers[0]?.restart()
  await cluster.until(() => cluster.isHealthy(), 120_000)
  assert.deepEqual(await cluster.run(readOf(file, 777, data.length)), data)
  await cluster.stop()
})

test('the metadata server restarts: calls wait, nothing is lost', async () => {
  const cluster = await startTestCluster({ seed: 12 })
  const file = await create(cluster, 'a')
  await cluster.run(writeOf(file, 0, Buffer.alloc(50_000, 1)))
  cluster.metadataServer.crash()
  const flushed = flushOf(file)
  const made = cluster.client.fileSystem.makeDirectory(1, 'd', 0o755, owner)
  await cluster.advance(2000)
  cluster.metadataServer.restart()
  await cluster.run(flushed)
  assert.equal((await cluster.run(made)).type, 'directory')
  assert.equal((await cluster.run(cluster.client.fileSystem.attributes(file.inode))).size, 50_000)
  await cluster.stop()
})

test('two clients: what one wrote the other sees at open, and the lease goes where it is wanted', async () => {
  const cluster = await startTestCluster({ seed: 13 })
  const file = await create(cluster, 'a')
  const second = await cluster.run(cluster.connect('second'))
  await cluster.run(writeOf(file, 0, Buffer.from('from the first')))
  const other = await cluster.run(second.fileSystem.open(file.inode))
  assert.equal((await cluster.run(readOf(other, 0, 100))).toString(), 'from the first')
  await cluster.run(writeOf(other, 0, Buffer.from('FROM')))
  const again = await cluster.run(cluster.client.fileSystem.open(file.inode))
  assert.equal((await cluster.run(readOf(again, 0, 100))).toString(), 'FROM the first')
  await cluster.run(second.close())
  await cluster.stop()
})

test('a pinned lease is not given to another client that asks (rule L5)', async () => {
  const cluster = await startTestCluster({ seed: 14 })
  const file = await create(cluster, 'disk')
  await cluster.run(file.truncate(8 * MIB))
  file.close()
  const device = await cluster.run(cluster.client.openBlockDevice('/disk'))
  const second = await cluster.run(cluster.connect('second'))
  const other = await cluster.run(second.fileSystem.open(file.inode))
  await assert.rejects(cluster.run(writeOf(other, 0, Buffer.from('x'))), { code: 'EBUSY' })
  await cluster.run(writeOf(device as never, 512, Buffer.alloc(512, 1)))
  await cluster.run(device.close())
  await cluster.run(writeOf(other, 0, Buffer.from('x')))
  await cluster.run(second.close())
  await cluster.stop()
})

test('a client cut off for longer than a session: its unflushed file says EIO once, then all goes on (E3)', async () => {
  const cluster = await startTestCluster({ seed: 15 })
  const file = await create(cluster, 'a')
  const clean = await create(cluster, 'b')
  await cluster.run(writeOf(clean, 0, Buffer.from('flushed')))
  await cluster.run(flushOf(clean))
  await cluster.run(writeOf(file, 0, Buffer.from('not flushed')))
  cluster.network.partition('client.host', cluster.metadataServer.host)
  await cluster.advance(6000)
  let held = ''
  file.write(0, Buffer.from('held'), (error) => (held = error?.code ?? 'ok'))
  await cluster.advance(2000)
  // Unconfirmed: no acknowledgement, no error (L6).
  assert.equal(held, '')
  await cluster.advance(20_000)
  cluster.network.heal()
  await cluster.until(() => held !== '')
  let outcome = ''
  file.flush((error) => (outcome = error?.code ?? 'ok'))
  await cluster.until(() => outcome !== '')
  assert.equal(outcome, 'EIO')
  await cluster.run(flushOf(clean))
  assert.equal((await cluster.run(readOf(clean, 0, 100))).toString(), 'flushed')
  await cluster.run(writeOf(file, 0, Buffer.from('again')))
  await cluster.run(flushOf(file))
  assert.equal((await cluster.run(readOf(file, 0, 5))).toString(), 'again')
  await cluster.stop()
})
