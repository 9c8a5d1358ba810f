// Proves the last resort of rule G2 on a whole cluster: a stale replica becomes the one that counts only when an
// administrator says so, only when nothing better answers, and never one that has holes or that nobody asked for.

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { startTestCluster, type TestCluster } from '../../testing/test-cluster.ts'
import type { ChunkServerNode } from '../../testing/simulation/simulated-cluster.ts'

const owner = { uid: 0, gid: 0 }
const PAGE = 4096

type File = Awaited<ReturnType<TestCluster['client']['fileSystem']['open']>>

function write(file: File, page: number, value: number): Promise<void> {
  return new Promise((resolve, reject) =>
    file.write(page * PAGE, Buffer.alloc(PAGE, value), (error) =>
      error === null ? resolve() : reject(error),
    ),
  )
}

function flush(file: File): Promise<void> {
  return new Promise((resolve, reject) => file.flush((error) => (error === null ? resolve() : reject(error))))
}

/** A, B and C have the first page, A and B the second, A alone the third; then A is gone. */
async function scene() {
  const cluster = await startTestCluster({
    ...{ seed: 41, chunkServers: 3, replicas: { normal: 3, minimum: 1 } },
    parameters: { 'mds.wd.inactive_tout': '1s', 'mds.wd.offline_tout': '3s', 'mds.wd.max_offline_cs': '0' },
  })
  const { file } = await cluster.run(cluster.client.fileSystem.create(1, 'file', 0o600, owner, true))
  const chunks = () => cluster.master()?.role?.chunks() ?? []
  const put = async (page: number): Promise<void> => {
    await cluster.run(write(file, page, page + 1))
    await cluster.run(flush(file))
  }
  await put(0)
  const [a, b, c] = cluster.chunkServers as [ChunkServerNode, ChunkServerNode, ChunkServerNode]
  assert.ok(c.server > 0, 'it is known by its id')
  c.crash()
  await cluster.run(write(file, 1, 2))
  await cluster.run(flush(file))
  b.crash()
  await cluster.run(write(file, 2, 3))
  await cluster.run(flush(file))
  assert.deepEqual(chunks()[0]?.inSync, [a.server])
  return { cluster, file, a, b, c, chunk: chunks()[0]?.chunk ?? 0, chunks }
}

function promotionOf(cluster: TestCluster) {
  return cluster.master()?.role?.server.control.promotion ?? assert.fail('there is a master')
}

async function bytesOf(cluster: TestCluster, name: string, page: number): Promise<number> {
  const reader = await cluster.connect(name)
  const { inode } = await cluster.run(reader.fileSystem.lookup(1, 'file'))
  const file = await cluster.run(reader.fileSystem.open(inode))
  const bytes = await cluster.run(
    new Promise<Buffer>((resolve, reject) =>
      file.read(page * PAGE, PAGE, (error, data) =>
        error === null ? resolve(Buffer.from(data)) : reject(error),
      ),
    ),
  )
  return bytes[0] ?? -1
}

test('what the stale replica has is kept, the rest is lost, others are made from it (rule G2)', async () => {
  const { cluster, a, b, c, chunk, chunks } = await scene()
  a.crash()
  b.restart()
  await cluster.until(() => b.role?.isRegistered === true)
  await cluster.advance(10_000)
  assert.deepEqual(chunks()[0]?.inSync, [a.server], 'nobody does it by himself')
  const promotion = promotionOf(cluster)
  const { chunks: found, total } = await cluster.run(promotion.stranded({ chunk: 0 }))
  assert.equal(total, 1)
  const stranded = found[0] ?? assert.fail()
  assert.deepEqual(stranded.inSync, [{ server: a.server, state: 'offline' }])
  const stale = (server: number) => stranded.stale.find((one) => one.server === server)
  assert.equal(stale(b.server)?.obstacle, '')
  assert.equal(stale(c.server)?.obstacle, 'its server does not answer')
  const { version } = stranded
  const promote = (server: number, from = version) =>
    cluster.run(promotion.promote({ chunk, version: from, server }))
  await assert.rejects(promote(c.server), { code: 'REFUSED', message: /does not answer/ })
  await assert.rejects(promote(b.server, version - 1), { code: 'REFUSED', message: /look again/ })
  await promote(b.server)
  await cluster.until(() => chunks()[0]?.inSync.includes(b.server) === true)
  assert.equal(await bytesOf(cluster, 'reader', 1), 2)
  assert.equal(await bytesOf(cluster, 'reader2', 2), 0, 'that is what was given up')
  a.restart()
  c.restart()
  await cluster.until(() => cluster.isHealthy())
  assert.equal(await bytesOf(cluster, 'reader3', 2), 0, 'who returns takes what the promoted one has')
  const events = [...(cluster.master()?.role?.server.state.events.values() ?? [])]
  assert.match(
    events.find(({ code }) => code === 'REPLICA_PROMOTED')?.message ?? '',
    /after version \d+ \(of \d+\) is lost/,
  )
})

test('while one in sync answers nothing is promoted (rule G2)', async () => {
  const { cluster, b, chunk } = await scene()
  b.restart()
  await cluster.until(() => b.role?.isRegistered === true)
  const promotion = promotionOf(cluster)
  await assert.rejects(cluster.run(promotion.promote({ chunk, version: 1, server: b.server })), {
    code: 'REFUSED',
    message: /in sync, and answers/,
  })
})
