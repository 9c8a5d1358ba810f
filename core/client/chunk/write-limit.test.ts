/** How far a writer asks to write (rule A2), against a master that counts what it is asked for. */
import assert from 'node:assert/strict'
import test from 'node:test'
import { CairnError } from '../../base/errors.ts'
import { CHUNK_SIZE_BYTES, MIB } from '../../base/units.ts'
import { FakeCluster, flushOf, readOf, writeOf } from '../testing/fake-cluster.ts'

interface Asked {
  readonly indexes: readonly number[]
  readonly limits: readonly number[]
}

/** Grants further than `room.bytes` into a chunk are refused. */
async function withFile() {
  const cluster = new FakeCluster(3)
  const client = await cluster.connect()
  const file = await cluster.create(client)
  const asked: Asked[] = []
  const room = { bytes: CHUNK_SIZE_BYTES }
  cluster.master.intercept = (method, params) => {
    if (method !== 'intent.grant') return undefined
    const { indexes, limits } = params as unknown as Asked
    asked.push({ indexes, limits })
    if (Math.max(...limits) > room.bytes) throw new CairnError('ENOSPC', 'no room')
    return undefined
  }
  return { cluster, client, file, asked, room, clock: cluster.clock }
}

test('a small file asks once, and for little', async () => {
  const { client, cluster, asked, clock } = await withFile()
  for (let i = 0; i < 20; i++) {
    const file = await cluster.create(client, `small ${i}`)
    await clock.wait(writeOf(file, 0, Buffer.alloc(4096, i)))
    file.close()
  }
  await clock.advance(5000)
  assert.equal(asked.length, 20)
  assert.ok(asked.every(({ limits }) => limits.length === 1 && limits[0] === MIB))
})

test('a stream asks for more and more, and never waits for an answer', async () => {
  const { cluster, file, asked, clock } = await withFile()
  let waits = 0
  for (let at = 0; at < 2 * CHUNK_SIZE_BYTES; at += MIB / 4) {
    let done = false
    const before = clock.nowMs()
    file.write(at, Buffer.alloc(MIB / 4, 1), () => (done = true))
    await clock.until(() => done)
    // Two exchanges instead of one: it asked and waited.
    if (clock.nowMs() - before > 2) waits++
  }
  const first = asked.filter(({ indexes }) => indexes.includes(0))
  assert.ok(first.length >= 3 && first.length <= 5, `${first.length} questions`)
  assert.deepEqual(first.at(-1)?.limits, [CHUNK_SIZE_BYTES])
  const second = asked.filter(({ indexes }) => indexes.includes(1))
  assert.deepEqual(second, [{ indexes: [1], limits: [CHUNK_SIZE_BYTES] }])
  assert.ok(waits <= 1, `${waits} waits`)
  await clock.wait(flushOf(file))
  assert.equal(cluster.master.inodes.get(file.inode)?.attributes.size, 2 * CHUNK_SIZE_BYTES)
})

test('nothing is sent behind the limit before more is granted; what fits goes on (rules A2, F8)', async () => {
  const { cluster, file, asked, clock } = await withFile()
  await clock.wait(writeOf(file, 0, Buffer.from('first')))
  cluster.master.intercept = (method) => {
    if (method === 'intent.grant') throw new CairnError('TRY_AGAIN', 'later', { retryable: true })
    return undefined
  }
  let acknowledged = false
  file.write(8 * MIB, Buffer.from('far'), () => (acknowledged = true))
  await clock.wait(writeOf(file, 4096, Buffer.from('near')))
  await clock.advance(500)
  const chunk = cluster.master.chunkAt(file.inode, 0)
  assert.equal(acknowledged, false)
  assert.equal(
    cluster.master
      .server(1)
      .contents(chunk.id, 8 * MIB, 8 * MIB + 3)
      .toString()
      .replaceAll('\0', ''),
    '',
  )
  cluster.master.intercept = () => undefined
  await clock.until(() => acknowledged, 5000)
  assert.equal((await clock.wait(readOf(file, 8 * MIB, 3))).toString(), 'far')
  assert.equal(asked.length, 1)
})

test('without room ahead what is written still fits; without room at all only that write fails (A2)', async () => {
  const { file, asked, room, clock } = await withFile()
  room.bytes = 3 * MIB
  for (let at = 0; at < 3 * MIB; at += MIB / 2) await clock.wait(writeOf(file, at, Buffer.alloc(MIB / 2, 1)))
  await assert.rejects(clock.wait(writeOf(file, 3 * MIB, Buffer.from('x'))), { code: 'ENOSPC' })
  await clock.wait(writeOf(file, 0, Buffer.from('over')))
  await clock.wait(flushOf(file))
  room.bytes = CHUNK_SIZE_BYTES
  await clock.wait(writeOf(file, 3 * MIB, Buffer.from('x')))
  assert.ok(asked.length < 24, `${asked.length} questions`)
})

test('allocate asks for all it reserves, and says ENOSPC', async () => {
  const { file, asked, room, clock } = await withFile()
  await clock.wait(file.allocate(0, CHUNK_SIZE_BYTES + 5 * MIB, true))
  assert.deepEqual(asked, [{ indexes: [0, 1], limits: [CHUNK_SIZE_BYTES, 5 * MIB] }])
  room.bytes = 20 * MIB
  await assert.rejects(clock.wait(file.allocate(CHUNK_SIZE_BYTES, 30 * MIB, true)), { code: 'ENOSPC' })
  await clock.wait(file.allocate(CHUNK_SIZE_BYTES, 20 * MIB, true))
  assert.deepEqual(asked.at(-1), { indexes: [1], limits: [20 * MIB] })
})

test('a truncate is not overtaken by a question about what it drops (rule L7)', async () => {
  const { cluster, file, clock } = await withFile()
  for (let at = 0; at < 33 * MIB; at += MIB) await clock.wait(writeOf(file, at, Buffer.alloc(MIB, 1)))
  const order: string[] = []
  cluster.master.intercept = (method) => {
    if (method === 'intent.grant' || method === 'lease.truncate') order.push(method)
    return undefined
  }
  const written = writeOf(file, 70 * MIB, Buffer.alloc(MIB, 1))
  await clock.wait(Promise.all([written, file.truncate(5)]))
  assert.equal(order.at(-1), 'lease.truncate')
  assert.deepEqual([...(cluster.master.inodes.get(file.inode)?.chunks.keys() ?? [])], [0])
})
