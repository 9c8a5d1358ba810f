/** Data requests on one store: what is answered, what is refused, what a byte array would say. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { Prng } from '../../base/prng.ts'
import { CHUNK_SIZE_BYTES, MIB, PAGE_SIZE_BYTES } from '../../base/units.ts'
import { DataFlag, DataOp } from '../../wire/data.ts'
import { pageChecksums } from '../../wire/checksum.ts'
import { chunkPath, pagePosition } from '../format/chunk-layout.ts'
import { FILE_COUNT_MAX } from '../replica/region-cache.ts'
import { Repairer } from '../repair/repairer.ts'
import { Role } from '../format/replica-state.ts'
import { closeStore } from './store-open.ts'
import {
  ask,
  createReplica,
  dataRequest,
  flush,
  makeRig,
  openRig,
  pattern,
  read,
  send,
  write,
} from '../../testing/chunk-store-rig.ts'

test('a new replica reads as zeros and keeps what is written, any offset and length', async () => {
  const rig = await makeRig(1)
  await createReplica(rig)
  assert.deepEqual(await read(rig, 100, 5000), Buffer.alloc(5000))
  const content = pattern(5, 10_001)
  assert.equal((await write(rig, 4095, content)).code, '')
  assert.deepEqual(await read(rig, 4095, content.length), content)
  assert.deepEqual(await read(rig, 0, 4095), Buffer.alloc(4095))
  assert.equal((await flush(rig)).code, '')
})

test('what takes new room is counted once (rule A2)', async () => {
  const rig = await makeRig(1)
  const chunk = 1
  await createReplica(rig, chunk)
  await write(rig, 4095, pattern(5, 4097))
  await write(rig, 0, pattern(6, 4096))
  assert.deepEqual(rig.store.grown.take(), [{ chunk, bytes: 2 * PAGE_SIZE_BYTES }])
  assert.deepEqual(rig.store.grown.take(), [])
  await write(rig, 8192, pattern(7, 1))
  assert.deepEqual(rig.store.grown.take(), [{ chunk, bytes: 3 * PAGE_SIZE_BYTES }])
})

test('a read answer carries the checksum of every page piece', async () => {
  const rig = await makeRig(2)
  await createReplica(rig)
  await write(rig, 0, pattern(1, 3 * PAGE_SIZE_BYTES))
  const answer = await ask(rig, dataRequest(DataOp.read, { offset: 100, length: 9000 }))
  const table = pageChecksums(answer.payload ?? Buffer.alloc(0), 100)
  assert.deepEqual(answer.table, Buffer.from(table.buffer))
})

test('random reads, writes, zeros and reopenings agree with a byte array', async () => {
  for (const seed of [11, 12, 13, 14]) await compareWithModel(seed)
})

async function compareWithModel(seed: number): Promise<void> {
  const prng = new Prng(seed)
  let rig = await makeRig(seed)
  await createReplica(rig)
  const areaBytes = 3 * MIB
  const model = Buffer.alloc(areaBytes)
  for (let step = 0; step < 400; step++) {
    const offset = prng.below(areaBytes - 1)
    const longest = prng.below(8) === 0 ? MIB : 3 * PAGE_SIZE_BYTES
    const length = 1 + prng.below(Math.min(longest, areaBytes - offset))
    const kind = prng.below(10)
    if (kind < 4) {
      const content = pattern(prng.uint32(), length)
      assert.equal((await write(rig, offset, content)).code, '')
      content.copy(model, offset)
    } else if (kind < 6) {
      assert.equal((await ask(rig, dataRequest(DataOp.zero, { offset, length }))).code, '')
      model.fill(0, offset, offset + length)
    } else if (kind < 9) {
      const got = await read(rig, offset, length)
      assert.ok(
        got instanceof Buffer && got.equals(model.subarray(offset, offset + length)),
        `seed ${seed} step ${step}`,
      )
    } else if (prng.below(4) === 0) {
      await rig.clock.settled(closeStore(rig.store))
      rig = await openRig(rig.disk)
      assert.equal(rig.store.uncleanStop, 'none')
    } else {
      assert.equal((await flush(rig)).code, '')
    }
  }
  const all = await read(rig, 0, MIB)
  assert.ok(all instanceof Buffer && all.equals(model.subarray(0, MIB)))
}

test('version, lease, role and incarnation are checked on every operation', async () => {
  const rig = await makeRig(3)
  await createReplica(rig)
  const page = pattern(1, PAGE_SIZE_BYTES)
  assert.equal((await write(rig, 0, page, { version: 2 })).code, 'WRONG_VERSION')
  assert.equal((await write(rig, 0, page, { lease: 9 })).code, 'STALE_LEASE')
  assert.equal((await write(rig, 0, page, { chunk: 2 })).code, 'NO_REPLICA')
  assert.equal((await write(rig, 0, page, { lease: 20 })).code, '')
  // rule E3: the higher number was kept
  assert.equal((await write(rig, 0, page, { lease: 19 })).code, 'STALE_LEASE')
  assert.equal((await flush(rig, { incarnation: 99 })).code, 'WRONG_INCARNATION')
  await createReplica(rig, 5, Role.joining)
  assert.equal(await read(rig, 0, 10, { chunk: 5 }), 'NOT_IN_SYNC')
  rig.store.isInTouch = () => false
  assert.equal(await read(rig, 0, 10, { flags: DataFlag.holder }), 'NOT_IN_SYNC')
  assert.ok((await read(rig, 0, 10)) instanceof Buffer)
})

test('rule E3: the lease fence survives a restart', async () => {
  let rig = await makeRig(31)
  await createReplica(rig)
  await write(rig, 0, pattern(1, 100), { lease: 20 })
  await rig.clock.settled(closeStore(rig.store))
  rig = await openRig(rig.disk)
  assert.equal((await write(rig, 0, pattern(1, 100), { lease: 19 })).code, 'STALE_LEASE')
})

test('hostile requests are answered with codes', async () => {
  const rig = await makeRig(4)
  await createReplica(rig)
  const page = pattern(1, PAGE_SIZE_BYTES)
  const cases: [Parameters<typeof dataRequest>[1], Buffer | null, DataOp][] = [
    [{ offset: CHUNK_SIZE_BYTES - 100, length: PAGE_SIZE_BYTES }, page, DataOp.write],
    [{ offset: 0, length: 10 }, page, DataOp.write],
    [{ offset: 0, length: 0 }, null, DataOp.write],
    [{ offset: 0, length: MIB + 1 }, null, DataOp.read],
    [{ offset: 0xffffffff, length: 0xffffffff }, null, DataOp.read],
    [{ offset: 0, length: 0 }, null, DataOp.read],
    [{ offset: 0, length: PAGE_SIZE_BYTES }, page, DataOp.read],
    [{ offset: 1, length: PAGE_SIZE_BYTES }, null, DataOp.digest],
    [{ offset: 0, length: 2 * MIB }, null, DataOp.pull],
    [{ offset: 0, length: CHUNK_SIZE_BYTES + 1 }, null, DataOp.zero],
    [{ offset: 0, length: 0 }, page, DataOp.flush],
  ]
  for (const [fields, content, op] of cases) {
    assert.equal(
      (await ask(rig, dataRequest(op, fields), content)).code,
      'BAD_MESSAGE',
      JSON.stringify([op, fields]),
    )
  }
  const wrong = Buffer.alloc(4, 1)
  const answer = await rig.clock.settled(
    send(rig, dataRequest(DataOp.write, { offset: 0, length: page.length }), page, wrong),
  )
  assert.equal(answer.code, 'FRAME_CHECKSUM')
  assert.equal(rig.store.counters.queueDepth, 0)
})

test('random requests never break the store', async () => {
  const rig = await makeRig(41)
  await createReplica(rig)
  const prng = new Prng(77)
  const pick = (values: number[]): number => values[prng.below(values.length)] ?? 0
  for (let count = 0; count < 5000; count++) {
    const request = dataRequest((1 + prng.below(6)) as DataOp, {
      flags: prng.below(8),
      version: pick([0, 1, 2, 0xffffffff]),
      chunk: pick([0, 1, 2, Number.MAX_SAFE_INTEGER]),
      lease: pick([0, 9, 10, 11]),
      incarnation: pick([0, rig.store.incarnation]),
      offset: pick([0, 1, 4096, 5000, CHUNK_SIZE_BYTES - 1, CHUNK_SIZE_BYTES, 0xffffffff]),
      length: pick([0, 1, 4096, 8192, 70_000, MIB, 0xffffffff]),
    })
    const hasPayload = prng.below(2) === 0
    const content = hasPayload ? pattern(count, pick([1, 4096, 8192])) : null
    const answer = await ask(rig, request, content)
    assert.ok(typeof answer.code === 'string')
  }
  assert.equal(rig.store.counters.queueDepth, 0)
  assert.ok((await read(rig, 0, 4096)) instanceof Buffer)
})

test('rule P5: a base that does not verify is not merged into; a full write heals it', async () => {
  const rig = await makeRig(5)
  await createReplica(rig)
  await write(rig, 0, pattern(1, 2 * PAGE_SIZE_BYTES))
  const reported: number[][] = []
  rig.store.events = { ...rig.store.events, onBadPages: (_chunk, _version, pages) => reported.push(pages) }
  rig.disk.flipBit(chunkPath(1), pagePosition(1) + 17, 3)
  assert.equal(await read(rig, PAGE_SIZE_BYTES, 10), 'BAD_CHECKSUM')
  assert.equal((await write(rig, PAGE_SIZE_BYTES + 5, pattern(2, 10))).code, 'BAD_CHECKSUM')
  assert.ok((await read(rig, 0, PAGE_SIZE_BYTES)) instanceof Buffer)
  assert.deepEqual(reported[0], [1])
  assert.equal(rig.store.flags, 'Ch')
  const fresh = pattern(3, PAGE_SIZE_BYTES)
  assert.equal((await write(rig, PAGE_SIZE_BYTES, fresh)).code, '')
  assert.deepEqual(await read(rig, PAGE_SIZE_BYTES, PAGE_SIZE_BYTES), fresh)
})

test('two pages swapped on disk do not verify (rule S4)', async () => {
  const rig = await makeRig(6)
  await createReplica(rig)
  const content = pattern(1, 2 * PAGE_SIZE_BYTES)
  await write(rig, 0, content)
  const first = content.subarray(0, PAGE_SIZE_BYTES)
  const second = content.subarray(PAGE_SIZE_BYTES)
  rig.disk.overwrite(chunkPath(1), pagePosition(0), Buffer.concat([second, first]))
  assert.equal(await read(rig, 0, 2 * PAGE_SIZE_BYTES), 'BAD_CHECKSUM')
})

test('without checksums a flipped bit is not noticed, and flag C is gone', async () => {
  const rig = await makeRig(7, { checksums: false })
  await createReplica(rig)
  await write(rig, 0, pattern(1, PAGE_SIZE_BYTES))
  rig.disk.flipBit(chunkPath(1), pagePosition(0), 0)
  assert.ok((await read(rig, 0, PAGE_SIZE_BYTES)) instanceof Buffer)
  assert.equal(rig.store.flags, '')
})

test('rule F7: after a sync error the replica refuses, and says so, until it joined again', async () => {
  const rig = await makeRig(8)
  await createReplica(rig)
  const bad: string[] = []
  rig.store.events = { ...rig.store.events, onBadReplica: (_chunk, _version, reason) => bad.push(reason) }
  await write(rig, 0, pattern(1, PAGE_SIZE_BYTES))
  rig.disk.faults.failSyncs = 1
  assert.equal((await flush(rig)).code, 'DISK_FAILED')
  assert.equal((await flush(rig)).code, 'DISK_FAILED')
  assert.equal(await read(rig, 0, 10), 'DISK_FAILED')
  assert.equal(bad.length, 1)
  assert.ok(rig.store.flags.includes('H'))
  const held = await rig.clock.settled(
    rig.control.persist({ chunk: 1, version: 2, role: Role.inSync, lease: 11 }),
  )
  assert.equal(held.code, 'DISK_FAILED')
  const joining = await rig.clock.settled(
    rig.control.persist({ chunk: 1, version: 2, role: Role.joining, lease: 11 }),
  )
  assert.deepEqual(joining, { version: 2, code: '' })
})

test('read errors cost the pages that cannot be read, never the disk (rule R1)', async () => {
  const rig = await makeRig(9)
  await createReplica(rig)
  await write(rig, 0, pattern(1, 4 * PAGE_SIZE_BYTES))
  await flush(rig)
  const reported: number[] = []
  rig.store.events = { ...rig.store.events, onBadPages: (_chunk, _version, pages) => reported.push(...pages) }
  // one that passes is not even seen
  rig.disk.faults.failReads = 1
  assert.deepEqual(await read(rig, 0, 4 * PAGE_SIZE_BYTES), pattern(1, 4 * PAGE_SIZE_BYTES))
  // all pages together, then the first two of them
  rig.disk.faults.failReads = 3
  assert.equal(await read(rig, 0, 4 * PAGE_SIZE_BYTES), 'BAD_CHECKSUM')
  assert.deepEqual(reported, [0, 1])
  const rest = pattern(1, 4 * PAGE_SIZE_BYTES).subarray(2 * PAGE_SIZE_BYTES)
  assert.deepEqual(await read(rig, 2 * PAGE_SIZE_BYTES, 2 * PAGE_SIZE_BYTES), rest)
  rig.disk.faults.failReads = 2
  assert.equal((await write(rig, 2 * PAGE_SIZE_BYTES, pattern(2, 10))).code, 'BAD_CHECKSUM')
  assert.equal(rig.store.failure, null)
  assert.match(rig.store.flags, /H/)
  // readable again: nobody else is needed
  const repairer = new Repairer(rig.store, () => Promise.reject(new Error('nobody is asked')))
  const order = { chunk: 1, version: 1, pages: [0, 1, 2], sources: [] }
  assert.deepEqual(await rig.clock.settled(repairer.repair(order)), { repaired: 3, lost: 0 })
  assert.deepEqual(await read(rig, 0, 4 * PAGE_SIZE_BYTES), pattern(1, 4 * PAGE_SIZE_BYTES))
})

test('a page that cannot be read while it is looked for is lost only until it can be read again (rules R1, J7)', async () => {
  const rig = await makeRig(9)
  await createReplica(rig)
  await write(rig, 0, pattern(1, PAGE_SIZE_BYTES))
  await flush(rig)
  const repairer = new Repairer(rig.store, () => Promise.reject(new Error('nobody is asked')))
  const order = { chunk: 1, version: 1, pages: [0], sources: [] }
  rig.disk.faults.failReads = 1
  assert.deepEqual(await rig.clock.settled(repairer.repair(order)), { repaired: 0, lost: 1 })
  assert.equal(await read(rig, 0, 10), 'LOST_PAGE')
  assert.deepEqual(await rig.clock.settled(repairer.repair(order)), { repaired: 1, lost: 0 })
  assert.deepEqual(await read(rig, 0, PAGE_SIZE_BYTES), pattern(1, PAGE_SIZE_BYTES))
})

test('repeated write errors give the disk up for writing; what did not fail is still read and copied (rules F7, R1, G2)', async () => {
  const rig = await makeRig(9)
  for (const chunk of [1, 2, 3, 4]) {
    await createReplica(rig, chunk)
    await write(rig, 0, pattern(chunk, PAGE_SIZE_BYTES), { chunk })
    assert.equal((await flush(rig, { chunk })).code, '')
  }
  rig.disk.faults.failWrites = 3
  for (const chunk of [1, 2, 3]) {
    assert.equal((await write(rig, 0, pattern(9, PAGE_SIZE_BYTES), { chunk })).code, 'DISK_FAILED')
  }
  assert.notEqual(rig.store.failure, null)
  assert.equal(await read(rig, 0, 10, { chunk: 1 }), 'DISK_FAILED')
  // the last good copy of its chunk may be this one
  assert.deepEqual(await read(rig, 0, PAGE_SIZE_BYTES, { chunk: 4 }), pattern(4, PAGE_SIZE_BYTES))
  const pulled = await ask(rig, dataRequest(DataOp.pull, { chunk: 4, length: PAGE_SIZE_BYTES }))
  assert.equal(pulled.code, '')
  assert.equal((await write(rig, 0, pattern(9, PAGE_SIZE_BYTES), { chunk: 4 })).code, 'DISK_FAILED')
  assert.equal((await flush(rig, { chunk: 4 })).code, 'DISK_FAILED')
  // a page that rots now costs no more than itself
  rig.disk.flipBit(chunkPath(4), pagePosition(0), 1)
  assert.equal(await read(rig, 0, 10, { chunk: 4 }), 'BAD_CHECKSUM')
  await rig.clock.advance(60_000)
  assert.deepEqual(await read(rig, MIB, 10, { chunk: 4 }), Buffer.alloc(10))
})

test('a full disk refuses what needs room, overwrites, reads and deletes go on', async () => {
  const rig = await makeRig(10, { capacityBytes: 12 * MIB })
  await createReplica(rig, 1)
  await createReplica(rig, 2)
  let full = 0
  for (let offset = 0; offset < 16 * MIB; offset += MIB) {
    const { code } = await write(rig, offset, pattern(offset, MIB))
    rig.store.refreshSpace()
    if (code === '') full = offset + MIB
    else assert.equal(code, 'DISK_FULL')
  }
  assert.ok(full > 2 * MIB && full < 12 * MIB)
  assert.equal((await write(rig, 0, pattern(99, MIB))).code, '')
  assert.deepEqual(await read(rig, 0, MIB), pattern(99, MIB))
  assert.equal((await flush(rig)).code, '')
  assert.equal(rig.store.space.freeBytes, 0)
  assert.equal(await rig.clock.settled(rig.control.delete(1, 1)), '')
  assert.equal((await write(rig, 0, pattern(1, MIB), { chunk: 2 })).code, '')
  assert.ok(rig.store.space.freeBytes > MIB)
})

test('rule E2: persist waits for what was admitted before, and fences what comes after', async () => {
  const rig = await makeRig(21)
  await createReplica(rig)
  await write(rig, 0, pattern(1, PAGE_SIZE_BYTES))
  rig.disk.faults.hanging = true
  const early = send(
    rig,
    dataRequest(DataOp.write, { offset: 0, length: PAGE_SIZE_BYTES }),
    pattern(2, PAGE_SIZE_BYTES),
  )
  let persisted = false
  const persist = rig.control.persist({ chunk: 1, version: 2, role: Role.inSync, lease: 11 }).finally(() => {
    persisted = true
  })
  const late = send(
    rig,
    dataRequest(DataOp.write, { offset: 0, length: PAGE_SIZE_BYTES }),
    pattern(3, PAGE_SIZE_BYTES),
  )
  await rig.clock.settle()
  assert.equal(persisted, false)
  rig.disk.releaseHanging()
  assert.equal((await rig.clock.settled(early)).code, '')
  assert.deepEqual(await rig.clock.settled(persist), { version: 2, code: '' })
  assert.equal((await rig.clock.settled(late)).code, 'WRONG_VERSION')
  assert.deepEqual(await read(rig, 0, PAGE_SIZE_BYTES, { version: 2 }), pattern(2, PAGE_SIZE_BYTES))
})

test('rule E9: writes to one page run in order of arrival on a slow disk', async () => {
  const rig = await makeRig(22)
  await createReplica(rig)
  rig.disk.faults.delayMs = 5
  const answers = []
  for (let count = 0; count < 20; count++) {
    const content = pattern(count, 3000)
    answers.push(send(rig, dataRequest(DataOp.write, { offset: 500, length: 3000 }), content))
  }
  const answered = rig.clock.settled(Promise.all(answers))
  assert.deepEqual(new Set((await answered).map((answer) => answer.code)), new Set(['']))
  assert.deepEqual(await read(rig, 500, 3000), pattern(19, 3000))
})

test('rule E6: delete refuses a newer version; rule E12: only an order creates', async () => {
  const rig = await makeRig(23)
  await createReplica(rig)
  await rig.clock.settled(rig.control.persist({ chunk: 1, version: 3, role: Role.inSync, lease: 11 }))
  assert.equal(await rig.clock.settled(rig.control.delete(1, 2)), 'WRONG_VERSION')
  assert.equal(await rig.clock.settled(rig.control.delete(1, 3)), '')
  assert.equal((await write(rig, 0, pattern(1, 10), { version: 3, lease: 11 })).code, 'NO_REPLICA')
  const again = await openRig(rig.disk)
  assert.equal(again.store.replicas.size, 0)
})

test('rule P7: a page that does not verify is read once more before anybody hears of it', async () => {
  const rig = await makeRig(24)
  await createReplica(rig)
  await write(rig, 0, pattern(1, PAGE_SIZE_BYTES))
  const file = rig.store.replicas.get(1)?.file
  assert.ok(file !== null && file !== undefined)
  const readTruly = file.read.bind(file)
  let wrongCount = 1
  file.read = (buffer, position, callback) =>
    readTruly(buffer, position, (error, bytesRead) => {
      if (wrongCount-- > 0) buffer.writeUInt8(buffer.readUInt8(0) ^ 1, 0)
      callback(error, bytesRead)
    })
  assert.deepEqual(await read(rig, 0, PAGE_SIZE_BYTES), pattern(1, PAGE_SIZE_BYTES))
  assert.equal(rig.store.flags, 'C', 'no mismatch is told')
  wrongCount = 2
  assert.equal(await read(rig, 0, PAGE_SIZE_BYTES), 'BAD_CHECKSUM')
})

test('a late lower persist is answered with what is held', async () => {
  const rig = await makeRig(24)
  await createReplica(rig)
  await rig.clock.settled(rig.control.persist({ chunk: 1, version: 5, role: Role.inSync, lease: 11 }))
  const late = await rig.clock.settled(
    rig.control.persist({ chunk: 1, version: 4, role: Role.joining, lease: 11 }),
  )
  assert.deepEqual(late, { version: 5, code: '' })
  assert.equal(rig.store.replicas.get(1)?.state.role, Role.inSync)
})

test('flag T while the disk does not answer a sync, and the age is told', async () => {
  const rig = await makeRig(25)
  await createReplica(rig)
  await write(rig, 0, pattern(1, PAGE_SIZE_BYTES))
  rig.disk.faults.hanging = true
  const flushing = send(rig, dataRequest(DataOp.flush, { incarnation: rig.store.incarnation }))
  await rig.clock.advance(31_000)
  assert.ok(rig.store.oldestIoAgeMs >= 30_000)
  assert.equal(rig.store.flags, 'CT')
  rig.disk.releaseHanging()
  assert.equal((await rig.clock.settled(flushing)).code, '')
  assert.equal(rig.store.flags, 'C')
})

test('what nobody flushes is synced in the background; flushes of one chunk share syncs', async () => {
  const rig = await makeRig(26)
  await createReplica(rig)
  await write(rig, 0, pattern(1, MIB))
  await rig.clock.advance(30_000)
  assert.equal(rig.store.writeBack.unflushedBytes, 0)
  await write(rig, 0, pattern(2, MIB))
  rig.disk.faults.delayMs = 5
  const before = rig.store.counters.syncs
  const request = dataRequest(DataOp.flush, { incarnation: rig.store.incarnation })
  const flushes = Array.from({ length: 20 }, () => send(rig, request))
  const answers = await rig.clock.settled(Promise.all(flushes))
  assert.ok(answers.every((answer) => answer.code === ''))
  assert.ok(rig.store.counters.syncs - before <= 2)
})

test('writes wait for a disk that does not keep up, and none is lost', async () => {
  const rig = await makeRig(27)
  for (let chunk = 1; chunk <= 12; chunk++) await createReplica(rig, chunk)
  rig.disk.faults.syncDelayMs = 1
  const content = pattern(3, MIB)
  const answers: Promise<{ code: string }>[] = []
  // no sync ever ends within the loop: the clock stands still
  for (let count = 0; count < 600; count++) {
    const fields = { chunk: 1 + (count % 12), offset: 0, length: MIB }
    answers.push(send(rig, dataRequest(DataOp.write, fields), content))
  }
  const isHeldBack = rig.store.writeBack.isOverloaded && rig.store.counters.queueDepth > 50
  assert.ok(isHeldBack)
  const all = await rig.clock.settled(Promise.all(answers))
  assert.deepEqual(new Set(all.map((answer) => answer.code)), new Set(['']))
  assert.equal(rig.store.counters.queueDepth, 0)
})

test('a chunk whose file was closed for others is opened again for a read, a pull and a partial write', async () => {
  const rig = await makeRig(28)
  const count = FILE_COUNT_MAX + 40
  for (let chunk = 1; chunk <= count; chunk++) await createReplica(rig, chunk)
  for (let chunk = 1; chunk <= count; chunk++) {
    await write(rig, 100, pattern(chunk, 1000), { chunk })
    const request = dataRequest(DataOp.flush, { chunk, incarnation: rig.store.incarnation })
    assert.equal((await ask(rig, request)).code, '')
  }
  assert.ok(rig.store.cache.fileCount <= FILE_COUNT_MAX)
  for (const chunk of [1, 2, 3]) {
    const answer = await ask(rig, dataRequest(DataOp.read, { chunk, offset: 100, length: 1000 }))
    assert.equal(answer.code, '')
    assert.deepEqual(answer.payload, pattern(chunk, 1000))
  }
  assert.equal((await write(rig, 0, pattern(9, 50), { chunk: 7 })).code, '')
  const seen = await ask(rig, dataRequest(DataOp.read, { chunk: 7, offset: 100, length: 1000 }))
  assert.deepEqual(seen.payload, pattern(7, 1000))
})
