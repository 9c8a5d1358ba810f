/** Reads: other replicas, fresh locations, read-ahead, size. Rules E4, R1. */
import assert from 'node:assert/strict'
import test from 'node:test'
import { CHUNK_SIZE_BYTES, KIB, MIB } from '../../base/units.ts'
import { FakeCluster, flushOf, readOf, writeOf } from '../testing/fake-cluster.ts'

/** A file of random bytes whose lease was given back. */
async function withData(sizeBytes: number, serverCount = 3) {
  const cluster = new FakeCluster(serverCount)
  const client = await cluster.connect()
  const file = await cluster.create(client)
  const data = cluster.random.bytes(sizeBytes)
  await cluster.clock.wait(writeOf(file, 0, data))
  await cluster.clock.until(() => cluster.master.inodes.get(file.inode)?.lease === 0, 20_000)
  return { cluster, client, file, data, clock: cluster.clock }
}

test('a page that does not verify is read elsewhere and reported as bad, the member stays (R1)', async () => {
  const { cluster, file, data, clock } = await withData(8192)
  const chunk = cluster.master.chunkAt(file.inode, 0)
  const reports: unknown[] = []
  cluster.master.intercept = (method, params) => {
    if (method === 'chunk.report') reports.push(params)
    return undefined
  }
  for (const id of [1, 2]) cluster.master.server(id).badPages.add(`${chunk.id}:0`)
  assert.deepEqual(await clock.wait(readOf(file, 0, 100)), data.subarray(0, 100))
  await clock.advance(100)
  assert.ok(reports.length >= 1)
  for (const report of reports) assert.equal((report as { kind: string }).kind, 'bad-page')
  assert.equal(chunk.members.length, 3)
})

test('a page that verifies nowhere is EIO, after every member was asked', async () => {
  const { cluster, file, clock } = await withData(8192)
  const chunk = cluster.master.chunkAt(file.inode, 0)
  for (const server of cluster.servers) server.badPages.add(`${chunk.id}:1`)
  await assert.rejects(clock.wait(readOf(file, 4096, 10)), { code: 'EIO' })
})

test('a member that does not answer costs a time-out, not the read', async () => {
  const { cluster, file, data, clock } = await withData(8192)
  for (const id of [1, 2]) cluster.master.server(id).isHanging = true
  assert.deepEqual(await clock.wait(readOf(file, 0, 8192), 10_000), data)
})

test('the preferred server is asked first wherever it is in sync, others when it fails', async () => {
  const { cluster, file, data, clock } = await withData(MIB)
  const reader = await cluster.connect({ preferredServer: 2 })
  const opened = await clock.wait(reader.fileSystem.open(file.inode))
  for (const id of [1, 3]) cluster.master.server(id).isHanging = true
  for (let at = 0; at < MIB; at += 256 * KIB) {
    const startMs = clock.nowMs()
    assert.deepEqual(await clock.wait(readOf(opened, at, 8192)), data.subarray(at, at + 8192))
    assert.ok(clock.nowMs() - startMs < 1000, 'nobody else was waited for')
  }
  for (const id of [1, 3]) cluster.master.server(id).isHanging = false
  cluster.master.server(2).badPages.add(`${cluster.master.chunkAt(file.inode, 0).id}:0`)
  assert.deepEqual(await clock.wait(readOf(opened, 0, 4096)), data.subarray(0, 4096))
})

test('wrong version: the location is fetched again, the same version is not tried elsewhere (E4)', async () => {
  const { cluster, file, data, clock } = await withData(8192)
  await clock.wait(readOf(file, 0, 10))
  const chunk = cluster.master.chunkAt(file.inode, 0)
  // Member 1 was cut off with us and still has the old version and old bytes.
  cluster.master.leave(chunk, 1)
  const stale = cluster.master.server(1).replicas.get(chunk.id)
  assert.equal(stale?.version, 1)
  cluster.master.server(1).isDown = true
  cluster.cutServer(1)
  const before = cluster.master.log.filter((method) => method === 'chunk.locate').length
  assert.deepEqual(await clock.wait(readOf(file, 0, 8192)), data)
  assert.ok(cluster.master.log.filter((method) => method === 'chunk.locate').length > before)
})

for (const others of [false, true]) {
  test(`a holder that was not told of a new version reads on, also where it writes nothing (E4; ${others ? 'other' : 'the same'} members)`, async () => {
    const { cluster, file, data, clock } = await withData(8192, 4)
    await clock.wait(writeOf(file, 0, data))
    await clock.wait(flushOf(file))
    const chunk = cluster.master.chunkAt(file.inode, 0)
    assert.notEqual(chunk.intent, 0)
    if (others) {
      const replica = cluster.master.server(1).replicas.get(chunk.id)
      assert.ok(replica)
      cluster.master.server(4).replicas.set(chunk.id, { ...replica })
      cluster.master.reconfigure(chunk, [{ server: 4, role: 'in-sync' }])
      // Nobody is left who could say "wrong version".
      for (const id of [1, 2, 3]) cluster.kill(id)
    } else {
      cluster.master.reconfigure(chunk, chunk.members)
    }
    let read: Buffer | undefined
    void readOf(file, 0, 8192).then((bytes) => (read = bytes))
    for (let second = 0; second < 20 && read === undefined; second++) {
      // Keeps the lease; what is told of this chunk says nothing of the other.
      await clock.wait(writeOf(file, CHUNK_SIZE_BYTES, Buffer.from('other')))
      await clock.advance(1000)
    }
    assert.deepEqual(read, data)
  })
}

test('locations of an earlier open are dropped when the generation rose (E4)', async () => {
  const { cluster, client, file, clock } = await withData(8192)
  await clock.wait(readOf(file, 0, 10))
  const chunk = cluster.master.chunkAt(file.inode, 0)
  // Somebody else wrote under a new epoch without member 1, which is cut off with its old contents.
  cluster.master.leave(chunk, 1)
  for (const id of [2, 3])
    cluster.master.server(id).replicas.get(chunk.id)?.pages.set(0, Buffer.alloc(4096, 9))
  const again = await clock.wait(client.fileSystem.open(file.inode))
  for (let i = 0; i < 4; i++) assert.deepEqual(await clock.wait(readOf(again, 0, 10)), Buffer.alloc(10, 9))
})

test('reads end at the size; behind it there is nothing', async () => {
  const { file, data, clock } = await withData(5000)
  assert.deepEqual(await clock.wait(readOf(file, 4990, 100)), data.subarray(4990))
  assert.equal((await clock.wait(readOf(file, 5000, 100))).length, 0)
  assert.equal((await clock.wait(readOf(file, 1_000_000, 100))).length, 0)
})

test('small reads forward are served from read-ahead, with the right bytes', async () => {
  const { client, file, data, clock } = await withData(3 * MIB + 123)
  for (let at = 0; at < data.length; at += 128 * KIB)
    assert.deepEqual(
      await clock.wait(readOf(file, at, 128 * KIB)),
      data.subarray(at, Math.min(data.length, at + 128 * KIB)),
    )
  assert.ok((client.counters()['readAheadHits'] ?? 0) > 10)
})

test('a write drops what was read ahead', async () => {
  const { file, data, clock } = await withData(2 * MIB)
  for (let at = 0; at < MIB; at += 64 * KIB) await clock.wait(readOf(file, at, 64 * KIB))
  await clock.wait(writeOf(file, MIB, Buffer.from('changed')))
  const read = await clock.wait(readOf(file, MIB, 64 * KIB))
  assert.equal(read.subarray(0, 7).toString(), 'changed')
  assert.deepEqual(read.subarray(7), data.subarray(MIB + 7, MIB + 64 * KIB))
})

test('what was read ahead at the end of a file does not end it when it has grown', async () => {
  const size = 40_000
  const { cluster, file, data, clock } = await withData(2 * size)
  let isZeroed = false
  cluster.master.intercept = (method) => {
    if (method === 'lease.zeroed' && !isZeroed) throw Object.assign(new Error('later'), { code: 'TRY_AGAIN' })
    return undefined
  }
  await clock.wait(file.truncate(size))
  // waits until the tail is zeroed, with the gate closed
  const appended = writeOf(file, size, Buffer.alloc(4096, 2))
  await clock.advance(10)
  for (let offset = 0; offset < size; offset += 4096) await clock.wait(readOf(file, offset, 4096))
  isZeroed = true
  await clock.wait(appended)
  assert.deepEqual(await clock.wait(readOf(file, size, 4096)), Buffer.alloc(4096, 2))
  const across = Buffer.concat([data.subarray(size - 10, size), Buffer.alloc(10, 2)])
  assert.deepEqual(await clock.wait(readOf(file, size - 10, 20)), across)
})

test('a cancelled read is answered at once', async () => {
  const { cluster, file, clock } = await withData(8192)
  for (const server of cluster.servers) server.isHanging = true
  let code = ''
  const operation = file.read(0, 100, (error) => (code = error?.code ?? 'ok'))
  await clock.advance(100)
  operation.cancel()
  assert.equal(code, 'EINTR')
})

test('streams: gathered writes, ordered reads', async () => {
  const cluster = new FakeCluster(3)
  cluster.clock.turn = () => new Promise((resolve) => setImmediate(resolve))
  const client = await cluster.connect()
  const file = await cluster.create(client)
  const data = cluster.random.bytes(3 * MIB + 77)
  const out = file.createWriteStream({ start: 100 })
  let finished = false
  out.end(data, () => (finished = true))
  await cluster.clock.until(() => finished)
  assert.ok((client.counters()['writeOperations'] ?? 99) <= 5)
  await cluster.clock.wait(flushOf(file))
  const parts: Buffer[] = []
  let ended = false
  file
    .createReadStream({ start: 100 })
    .on('data', (part: Buffer) => parts.push(part))
    .on('end', () => (ended = true))
  await cluster.clock.until(() => ended, 200_000)
  assert.deepEqual(Buffer.concat(parts), data)
})
