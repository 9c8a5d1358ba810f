// Proves rule B3 on a whole cluster for a disk that goes back in time to a moment after its server's registration:
// what was written since is read from the others, whatever the disk believes of itself, and it is no authority.

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { startTestCluster, type TestCluster } from '../../testing/test-cluster.ts'
import type { ChunkServerNode } from '../../testing/simulation/simulated-cluster.ts'

const owner = { uid: 0, gid: 0 }
const PAGE = 4096

type FileSystem = TestCluster['client']['fileSystem']
type File = Awaited<ReturnType<FileSystem['open']>>

function write(file: File, value: number): Promise<void> {
  return new Promise((resolve, reject) =>
    file.write(0, Buffer.alloc(PAGE, value), (error) => (error === null ? resolve() : reject(error))),
  )
}

function flush(file: File): Promise<void> {
  return new Promise((resolve, reject) => file.flush((error) => (error === null ? resolve() : reject(error))))
}

/** One chunk on A and B, which holds 1 everywhere, flushed, given back and closed. */
async function scene(seed: number, inactive = '1s') {
  const cluster = await startTestCluster({
    ...{ seed, chunkServers: 2, replicas: { normal: 2, minimum: 1 } },
    parameters: { 'mds.wd.inactive_tout': inactive, 'mds.wd.max_offline_cs': '0' },
  })
  const { inode } = await cluster.run(
    cluster.client.fileSystem.create(1, 'file', 0o600, owner, true).then(({ file, attributes }) => {
      file.close()
      return attributes
    }),
  )
  const state = () => cluster.master()?.role?.server.state ?? assert.fail('there is a master')
  const chunk = () => cluster.master()?.role?.chunks()[0] ?? assert.fail('there is a chunk')
  const row = () => state().chunks.get(chunk().chunk) ?? assert.fail('there is a chunk')
  const [a, b] = cluster.chunkServers as [ChunkServerNode, ChunkServerNode]
  const put = async (value: number): Promise<void> => {
    const file = await cluster.run(cluster.client.fileSystem.open(inode))
    await cluster.run(write(file, value))
    await cluster.run(flush(file))
    file.close()
  }
  const givenBack = () => cluster.until(() => row().intentLease === 0)
  /** The quorum knows the marks, and nothing is on an open list any more. */
  const settled = async (): Promise<void> => {
    await givenBack()
    await cluster.until(() => state().unsettled.size === 0)
    await cluster.advance(2000)
  }
  const eventCodes = () => [...state().events.values()].map(({ code }) => code)
  await put(1)
  await settled()
  assert.equal(chunk().inSync.length, 2)
  return { cluster, inode, a, b, chunk, row, put, givenBack, settled, eventCodes }
}

/** What a client reads that never had the file in its cache. */
async function valueOf(cluster: TestCluster, inode: number, name: string): Promise<number> {
  const reader = await cluster.connect(name)
  const file = await cluster.run(reader.fileSystem.open(inode))
  const read = new Promise<Buffer>((resolve, reject) =>
    file.read(0, PAGE, (error, data) => (error === null ? resolve(Buffer.from(data)) : reject(error))),
  )
  return (await cluster.run(read))[0] ?? -1
}

test('what was written and given back since is not forgotten: its replicas join again (rule B3)', async () => {
  const { cluster, inode, a, b, chunk, put, settled, eventCodes } = await scene(51)
  const image = b.simulatedDisk.capture()
  await put(2)
  await settled()
  const { version } = chunk()
  b.goBack(image, false)
  b.restart()
  await cluster.until(() => eventCodes().includes('DISK_ROLLED_BACK'))
  await cluster.until(() => chunk().version > version && chunk().inSync.length === 2)
  // It counts from here on: a restart of the same disk is nothing special.
  b.crash()
  b.restart()
  await cluster.until(() => b.role?.isRegistered === true)
  assert.equal(eventCodes().filter((code) => code === 'DISK_ROLLED_BACK').length, 1)
  a.crash()
  assert.equal(await valueOf(cluster, inode, 'reader'), 2)
})

test('nor what was given back a moment ago, of which nobody knows the marks yet (rule B3)', async () => {
  const { cluster, inode, a, b, chunk, put, givenBack, eventCodes } = await scene(52, '60s')
  const image = b.simulatedDisk.capture()
  cluster.network.partition(b.host, cluster.metadataServer.host)
  await put(2)
  await givenBack()
  const { version } = chunk()
  b.goBack(image, false)
  cluster.network.heal(b.host, cluster.metadataServer.host)
  b.restart()
  await cluster.until(() => chunk().version > version && chunk().inSync.length === 2)
  assert.ok(!eventCodes().includes('DISK_ROLLED_BACK'))
  a.crash()
  assert.equal(await valueOf(cluster, inode, 'reader'), 2)
})

test('nor what is being written, when everything loses power with it: it is no authority (rules B3, J3)', async () => {
  const { cluster, inode, a, b, put } = await scene(53)
  // The one with the lowest number would be chosen.
  const [first, second] = [a, b].toSorted((one, other) => one.server - other.server) as [
    ChunkServerNode,
    ChunkServerNode,
  ]
  const image = first.simulatedDisk.capture()
  await put(2)
  second.losePower()
  first.goBack(image, false)
  first.restart()
  second.restart()
  await cluster.until(() => cluster.isHealthy())
  assert.equal(await valueOf(cluster, inode, 'reader'), 2)
})

test('a replica that went back in time waits for another one, or for an administrator (rules B3, G2)', async () => {
  const { cluster, inode, a, b, chunk, put, settled, eventCodes } = await scene(54)
  const image = b.simulatedDisk.capture()
  await put(2)
  await settled()
  a.crash()
  await cluster.advance(3000)
  b.goBack(image, false)
  b.restart()
  await cluster.until(() => eventCodes().includes('DISK_ROLLED_BACK'))
  // Also when its process ends: it is written down what its replicas are worth.
  b.crash()
  b.restart()
  await cluster.until(() => b.role?.isRegistered === true)
  await cluster.advance(400_000)
  assert.equal(chunk().version, 1, 'nobody does it by himself')
  const promotion = cluster.master()?.role?.server.control.promotion ?? assert.fail('there is a master')
  const { chunks } = await cluster.run(promotion.stranded({ chunk: 0 }))
  assert.deepEqual(
    chunks.map(({ stale }) => stale.map(({ server, obstacle }) => [server, obstacle])),
    [[[b.server, '']]],
  )
  const { chunk: id, version } = chunk()
  await cluster.run(promotion.promote({ chunk: id, version, server: b.server }))
  await cluster.until(() => chunk().inSync.includes(b.server) && chunk().version > version)
  assert.equal(await valueOf(cluster, inode, 'reader'), 1, 'that is what was given up')
})

test('a reconciliation among crashed replicas is told as a possible loss, one with an uncrashed replica is not (rule F5)', async () => {
  const { cluster, inode, a, b, row } = await scene(56)
  const file = await cluster.run(cluster.client.fileSystem.open(inode))
  // It is gone when the client has given its intent back.
  let lossVersion = 0
  const restartAll = async (): Promise<void> => {
    const { version } = row()
    a.restart()
    b.restart()
    await cluster.until(() => {
      lossVersion = Math.max(lossVersion, row().lossVersion ?? 0)
      return row().version > version && cluster.isHealthy()
    })
  }
  await cluster.run(write(file, 2))
  a.losePower()
  b.crash()
  await restartAll()
  assert.equal(lossVersion, 0)
  await cluster.run(flush(file))
  await cluster.run(write(file, 3))
  a.losePower()
  b.losePower()
  await restartAll()
  assert.ok(lossVersion > 1)
  await assert.rejects(cluster.run(flush(file)), { code: 'EIO' })
  await cluster.run(write(file, 4))
  await cluster.run(flush(file))
})

test('a rollback over page writes of an open region is known by its ticks (rule B3)', async () => {
  const { cluster, inode, a, b, put, eventCodes } = await scene(55)
  const [first, second] = [a, b].toSorted((one, other) => one.server - other.server) as [
    ChunkServerNode,
    ChunkServerNode,
  ]
  const file = await cluster.run(cluster.client.fileSystem.open(inode))
  await put(2)
  const image = first.simulatedDisk.capture()
  for (const value of [3, 4, 5]) {
    await cluster.run(write(file, value))
    await cluster.run(flush(file))
    await cluster.advance(1500)
  }
  second.losePower()
  first.goBack(image, false)
  first.restart()
  second.restart()
  await cluster.until(() => cluster.isHealthy())
  assert.ok(eventCodes().includes('DISK_ROLLED_BACK'))
  assert.equal(await valueOf(cluster, inode, 'reader'), 5)
})
