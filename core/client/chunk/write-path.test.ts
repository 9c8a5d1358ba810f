/** Writes under failures: every test names the rule that it fails without. */
import assert from 'node:assert/strict'
import test from 'node:test'
import type { CairnError } from '../../base/errors.ts'
import { CHUNK_SIZE_BYTES, MIB } from '../../base/units.ts'
import { DataOp } from '../../wire/data.ts'
import { FakeCluster, flushOf, readOf, writeOf } from '../testing/fake-cluster.ts'

async function withFile(serverCount = 3, options = {}) {
  const cluster = new FakeCluster(serverCount)
  const client = await cluster.connect(options)
  const file = await cluster.create(client)
  return { cluster, client, file, clock: cluster.clock }
}

test('a member that dies in the middle of a write is taken out and the write is acknowledged (F3)', async () => {
  const { cluster, file, clock } = await withFile()
  await clock.wait(writeOf(file, 0, Buffer.from('first')))
  cluster.kill(2)
  await clock.wait(writeOf(file, 0, Buffer.from('other')))
  const chunk = cluster.master.chunkAt(file.inode, 0)
  assert.deepEqual(
    chunk.members.map((member) => member.server),
    [1, 3],
  )
  for (const id of [1, 3])
    assert.equal(cluster.master.server(id).contents(chunk.id, 0, 5).toString(), 'other')
  assert.equal((await clock.wait(readOf(file, 0, 5))).toString(), 'other')
})

test('a write is not acknowledged while one member of the epoch has not answered (F3)', async () => {
  const { cluster, file, clock } = await withFile()
  await clock.wait(writeOf(file, 0, Buffer.from('first')))
  cluster.master.server(3).isHanging = true
  let acknowledged = false
  file.write(0, Buffer.from('other'), () => (acknowledged = true))
  await clock.advance(4000)
  assert.equal(acknowledged, false)
  // The deadline of an in-sync member is 5 s; then it is reported and leaves.
  await clock.until(() => acknowledged, 5000)
  assert.equal(cluster.master.chunkAt(file.inode, 0).members.length, 2)
})

test('everything unanswered goes to all members again under the new version (F3)', async () => {
  const { cluster, file, clock } = await withFile()
  await clock.wait(writeOf(file, 0, Buffer.from('first')))
  const chunk = cluster.master.chunkAt(file.inode, 0)
  cluster.master.server(3).isHanging = true
  let count = 0
  for (let i = 0; i < 4; i++) file.write(i * 8192, Buffer.from(`w${i}`), () => count++)
  await clock.until(() => count === 4, 10_000)
  for (const id of [1, 2])
    assert.equal(cluster.master.server(id).log.filter((line) => line === `write ${chunk.id}@2`).length, 4)
})

test('two writes in flight never share a page (E9)', async () => {
  const { cluster, file, clock } = await withFile()
  await clock.wait(writeOf(file, 0, Buffer.alloc(8192)))
  const order: string[] = []
  const server = cluster.master.server(1)
  server.isHanging = true
  file.write(0, Buffer.from('aaaa'), () => order.push('a'))
  file.write(4, Buffer.from('bbbb'), () => order.push('b'))
  file.write(4096, Buffer.from('cccc'), () => order.push('c'))
  await clock.advance(1000)
  // The second one is on no server yet.
  const chunk = cluster.master.chunkAt(file.inode, 0)
  assert.equal(cluster.master.server(2).contents(chunk.id, 0, 8).toString('latin1'), 'aaaa\0\0\0\0')
  assert.equal(cluster.master.server(2).contents(chunk.id, 4096, 4100).toString(), 'cccc')
  cluster.unhang(1)
  await clock.until(() => order.length === 3)
  assert.deepEqual(
    order.filter((name) => name !== 'c'),
    ['a', 'b'],
  )
})

test('a read over bytes of an own write in flight waits for it (E10)', async () => {
  const { cluster, file, clock } = await withFile()
  await clock.wait(writeOf(file, 0, Buffer.from('oldold')))
  cluster.master.server(1).isHanging = true
  file.write(0, Buffer.from('newnew'), () => undefined)
  let seen = ''
  void readOf(file, 0, 6).then((data) => (seen = data.toString()))
  await clock.advance(500)
  assert.equal(seen, '')
  cluster.unhang(1)
  await clock.until(() => seen !== '')
  assert.equal(seen, 'newnew')
})

test('after a broken connection nothing is sent at the same version before the drain is answered (E5)', async () => {
  const { cluster, file, clock } = await withFile()
  await clock.wait(writeOf(file, 0, Buffer.from('aaaa')))
  const chunk = cluster.master.chunkAt(file.inode, 0)
  cluster.ghostDelayMs = 300
  const written = writeOf(file, 0, Buffer.from('bbbb'))
  await clock.settle()
  // The request is on its way; the connection breaks; it arrives much later from the old queue.
  cluster.cutServer(2)
  await clock.wait(written)
  await clock.wait(writeOf(file, 0, Buffer.from('cccc')))
  await clock.advance(2000)
  assert.deepEqual(cluster.drains, ['asked 2', 'answered 2'])
  assert.equal(chunk.version, 1)
  for (const server of cluster.servers) assert.equal(server.contents(chunk.id, 0, 4).toString(), 'cccc')
})

test('a cancelled write is answered at once and still ends on all members (E11)', async () => {
  const { cluster, file, clock } = await withFile()
  await clock.wait(writeOf(file, 0, Buffer.from('aaaa')))
  const chunk = cluster.master.chunkAt(file.inode, 0)
  cluster.master.server(3).isHanging = true
  const data = Buffer.from('bbbb')
  let code = ''
  const operation = file.write(0, data, (error) => (code = error?.code ?? 'ok'))
  await clock.advance(100)
  operation.cancel()
  assert.equal(code, 'EINTR')
  data.fill(0) // the caller has its buffer back
  cluster.unhang(3)
  await clock.advance(100)
  for (const server of cluster.servers) assert.equal(server.contents(chunk.id, 0, 4).toString(), 'bbbb')
})

test('a chunk below min is held without error, and other chunks go on (A3, A4)', async () => {
  const { cluster, file, clock } = await withFile(3, { inFlightBytesMax: 4 * MIB })
  cluster.master.minimum = 2
  await clock.wait(writeOf(file, 0, Buffer.from('first')))
  await clock.wait(writeOf(file, CHUNK_SIZE_BYTES, Buffer.from('second')))
  const chunk = cluster.master.chunkAt(file.inode, 0)
  cluster.master.reconfigure(chunk, [{ server: 1, role: 'in-sync' }])
  let held = 0
  for (let i = 0; i < 8; i++) file.write(i * MIB, Buffer.alloc(MIB, 1), () => held++)
  await clock.advance(10_000)
  assert.equal(held, 0)
  // More than the whole budget is held; the healthy chunk does not notice.
  await clock.wait(writeOf(file, CHUNK_SIZE_BYTES, Buffer.alloc(4 * MIB, 2)), 1000)
  cluster.master.join(chunk, 2)
  cluster.master.promote(chunk, 2)
  await clock.until(() => held === 8, 20_000)
})

test('hold_timeout ends a held write, flush or read with ETIMEDOUT', async () => {
  const { cluster, file, clock } = await withFile(3, { holdTimeoutMs: 3000 })
  cluster.master.minimum = 2
  await clock.wait(writeOf(file, 0, Buffer.from('first')))
  cluster.master.reconfigure(cluster.master.chunkAt(file.inode, 0), [{ server: 1, role: 'in-sync' }])
  let code = ''
  file.write(0, Buffer.from('x'), (error) => (code = error?.code ?? 'ok'))
  await clock.until(() => code !== '', 6000)
  assert.equal(code, 'ETIMEDOUT')
  const codes: (string | undefined)[] = []
  file.flush((error) => codes.push(error?.code))
  for (const server of cluster.servers) server.isHanging = true
  file.read(0, 5, (error) => codes.push(error?.code))
  await clock.until(() => codes.length === 2, 6000)
  assert.deepEqual(codes, ['ETIMEDOUT', 'ETIMEDOUT'])
})

test('TRY_AGAIN from the master holds, and a member that answers late is not lost (A1)', async () => {
  const { cluster, file, clock } = await withFile()
  cluster.master.minimum = 3
  await clock.wait(writeOf(file, 0, Buffer.from('aaaa')))
  cluster.master.server(2).isHanging = true
  cluster.master.intercept = (method) => {
    if (method === 'chunk.report') throw Object.assign(new Error('TRY_AGAIN'), { code: 'TRY_AGAIN' })
    return undefined
  }
  let done = false
  file.write(0, Buffer.from('bbbb'), () => (done = true))
  await clock.advance(20_000)
  assert.equal(done, false)
  cluster.unhang(2)
  await clock.until(() => done, 2000)
  assert.equal(cluster.master.chunkAt(file.inode, 0).version, 1)
})

test('a joiner gets every write, and is reported sooner than an in-sync member (J6)', async () => {
  const { cluster, file, clock } = await withFile(4)
  await clock.wait(writeOf(file, 0, Buffer.from('aaaa')))
  const chunk = cluster.master.chunkAt(file.inode, 0)
  cluster.master.leave(chunk, 3)
  cluster.master.join(chunk, 4)
  await clock.wait(writeOf(file, 0, Buffer.from('bbbb')))
  assert.equal(cluster.master.server(4).contents(chunk.id, 0, 4).toString(), 'bbbb')
  cluster.master.server(4).isHanging = true
  let done = false
  file.write(0, Buffer.from('cccc'), () => (done = true))
  await clock.advance(2500)
  assert.equal(done, false)
  await clock.until(() => done, 1500)
})

test('an error of one disk takes that member out, not the write (E11)', async () => {
  const { cluster, file, clock } = await withFile()
  await clock.wait(writeOf(file, 0, Buffer.from('aaaa')))
  cluster.master.server(1).refusals.push({ op: DataOp.write, code: 'DISK_FAILED' })
  await clock.wait(writeOf(file, 0, Buffer.from('bbbb')))
  assert.deepEqual(
    cluster.master.chunkAt(file.inode, 0).members.map((member) => member.server),
    [2, 3],
  )
})

test('an overlay that is still there for a moment holds the write, and takes nobody out (S3, A1)', async () => {
  const { cluster, file, clock } = await withFile()
  await clock.wait(writeOf(file, 0, Buffer.from('aaaa')))
  const { refusals } = cluster.master.server(1)
  for (let count = 0; count < 3; count++) refusals.push({ op: DataOp.write, code: 'HAS_OVERLAY' })
  await clock.wait(writeOf(file, 0, Buffer.from('bbbb')))
  assert.equal(refusals.length, 0)
  assert.equal(cluster.master.log.includes('chunk.report'), false)
  assert.equal(cluster.master.chunkAt(file.inode, 0).version, 1)
})

test('bytes damaged on the way are sent again to that member only (P5)', async () => {
  const { cluster, file, clock } = await withFile()
  await clock.wait(writeOf(file, 0, Buffer.from('aaaa')))
  cluster.master.server(1).refusals.push({ op: DataOp.write, code: 'FRAME_CHECKSUM' })
  await clock.wait(writeOf(file, 0, Buffer.from('bbbb')))
  assert.equal(cluster.master.chunkAt(file.inode, 0).version, 1)
  assert.equal(cluster.master.server(1).log.length, 2)
})

test('wrong version: the location is fetched again, with the lease (E3, E4)', async () => {
  const { cluster, file, clock } = await withFile()
  await clock.wait(writeOf(file, 0, Buffer.from('aaaa')))
  cluster.master.leave(cluster.master.chunkAt(file.inode, 0), 3)
  await clock.wait(writeOf(file, 0, Buffer.from('bbbb')))
  assert.equal(cluster.master.log.includes('chunk.report'), false)
  assert.equal(cluster.master.log.filter((method) => method === 'intent.grant').length, 2)
})

test('no space is said at the grant, and only there (A2)', async () => {
  const { cluster, file, clock } = await withFile()
  cluster.master.noSpace = true
  await assert.rejects(clock.wait(writeOf(file, 0, Buffer.from('x'))), { code: 'ENOSPC' })
  cluster.master.noSpace = false
  await clock.wait(writeOf(file, 0, Buffer.from('x')))
  await clock.wait(flushOf(file))
})

test('a stream forward has the intent for its next chunk before it needs it', async () => {
  const { cluster, file, clock } = await withFile()
  for (let at = 0; at < 34 * MIB; at += MIB) await clock.wait(writeOf(file, at, Buffer.alloc(MIB, 3)))
  assert.equal(cluster.master.inodes.get(file.inode)?.chunks.has(1), true)
  file.close()
  // Never written: it goes when the lease is given back.
  await clock.until(() => cluster.master.inodes.get(file.inode)?.lease === 0, 10_000)
  assert.equal(cluster.master.inodes.get(file.inode)?.chunks.has(1), false)
})

test('at most 1,024 intents are held; the coldest are flushed and given back (L8)', async () => {
  const { cluster, file, clock } = await withFile()
  let done = 0
  let error: CairnError | null = null
  for (let i = 0; i < 1100; i++)
    file.write(i * CHUNK_SIZE_BYTES, Buffer.from('x'), (failed) => {
      error ??= failed
      done++
    })
  let most = 0
  await clock.until(() => {
    const chunks = [...(cluster.master.inodes.get(file.inode)?.chunks.values() ?? [])]
    most = Math.max(most, chunks.filter((chunk) => chunk.intent !== 0).length)
    return done === 1100
  })
  assert.equal(error, null)
  assert.ok(most <= 1024, `${most} intents at once`)
  assert.ok(most > 900)
})
