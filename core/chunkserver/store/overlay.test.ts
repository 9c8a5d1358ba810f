/** Overlays on one store: what a page of theirs is, in every operation (rules S2 to S4). */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { CairnError } from '../../base/errors.ts'
import { CHUNK_SIZE_BYTES, MIB, PAGE_SIZE_BYTES } from '../../base/units.ts'
import { pageChecksums } from '../../wire/checksum.ts'
import { DataFlag, DataOp, PAGE_RECORD_BYTES } from '../../wire/data.ts'
import { chunkPath, pagePosition, regionSlotPosition } from '../format/chunk-layout.ts'
import { PageState } from '../format/region-records.ts'
import { Role } from '../format/replica-state.ts'
import { Repairer } from '../repair/repairer.ts'
import { Verifier } from '../repair/verifier.ts'
import { OVERLAY_DEPTH_MAX } from '../replica/ancestors.ts'
import { reportOf } from './replica-control.ts'
import { closeStore } from './store-open.ts'
import {
  ask,
  createOverlay,
  createReplica,
  dataRequest,
  flush,
  makeRig,
  openRig,
  pattern,
  read,
  type Rig,
  write,
} from '../../testing/chunk-store-rig.ts'

const noSource = (): Promise<never> => Promise.reject(new Error('no peers here'))
const page = (seed: number): Buffer => pattern(seed, PAGE_SIZE_BYTES)
const at = (index: number): number => index * PAGE_SIZE_BYTES

/** Chunk 1 with pages 0 to 9 of contents 0 to 9, and chunk 2 over it; the version of a chunk is its id. */
async function makeOverlay(seed: number): Promise<Rig> {
  const rig = await makeRig(seed)
  await createReplica(rig)
  for (let index = 0; index < 10; index++) await write(rig, at(index), page(index))
  await flush(rig)
  assert.equal(await createOverlay(rig, 2, 1), '')
  return rig
}

const child = { chunk: 2, version: 2 }

function zero(rig: Rig, offset: number, length: number): ReturnType<typeof ask> {
  return ask(rig, dataRequest(DataOp.zero, { ...child, offset, length }))
}

async function reopen(rig: Rig): Promise<Rig> {
  await rig.clock.settled(closeStore(rig.store))
  const again = await openRig(rig.disk)
  assert.equal(again.store.uncleanStop, 'none')
  return again
}

test('an overlay reads its own pages and the rest of its parent, in one request', async () => {
  const rig = await makeOverlay(1)
  assert.deepEqual(await read(rig, at(3), PAGE_SIZE_BYTES, child), page(3))
  await write(rig, at(4), page(40), child)
  await zero(rig, at(6), PAGE_SIZE_BYTES)
  const expected = Buffer.concat([2, 3, 40, 5].map(page))
  assert.deepEqual(await read(rig, at(2), expected.length, child), expected)
  assert.deepEqual(await read(rig, at(6), PAGE_SIZE_BYTES, child), Buffer.alloc(PAGE_SIZE_BYTES))
  assert.deepEqual(await read(rig, at(6), PAGE_SIZE_BYTES), page(6), 'the parent is what it was')
  assert.deepEqual(await read(rig, at(2) + 100, at(7), child), await expectedBytes(100))
  const answer = await ask(rig, dataRequest(DataOp.read, { ...child, offset: at(2) + 9, length: at(4) }))
  const table = pageChecksums(answer.payload ?? Buffer.alloc(0), at(2) + 9)
  assert.deepEqual(answer.table, Buffer.from(table.buffer))
})

async function expectedBytes(from: number): Promise<Buffer> {
  const pages = [
    page(2),
    page(3),
    page(40),
    page(5),
    Buffer.alloc(PAGE_SIZE_BYTES),
    page(7),
    page(8),
    page(9),
  ]
  return Promise.resolve(Buffer.concat(pages).subarray(from, from + at(7)))
}

test('what is absent is read in as few pieces as lie together', async () => {
  const rig = await makeOverlay(2)
  await write(rig, at(5), page(50), child)
  let reads = 0
  for (const chunk of [1, 2]) {
    const file = rig.store.replicas.get(chunk)?.file
    assert.ok(file)
    const readFile = file.read.bind(file)
    file.read = (...call) => {
      reads++
      readFile(...call)
    }
  }
  await read(rig, 0, at(10), child)
  assert.equal(reads, 3)
})

test('rule S2: what was zeroed stays zero, over a restart, and with whatever the parent has there', async () => {
  let rig = await makeOverlay(3)
  await zero(rig, at(1), at(2))
  await zero(rig, at(8) + 10, CHUNK_SIZE_BYTES - at(8) - 10)
  await flush(rig, child)
  rig = await reopen(rig)
  assert.deepEqual(await read(rig, at(1), at(2), child), Buffer.alloc(at(2)))
  const tail = page(8)
  tail.fill(0, 10)
  assert.deepEqual(await read(rig, at(8), PAGE_SIZE_BYTES, child), tail)
  assert.deepEqual(await read(rig, at(9), PAGE_SIZE_BYTES, child), Buffer.alloc(PAGE_SIZE_BYTES))
  assert.deepEqual(await read(rig, at(3), PAGE_SIZE_BYTES, child), page(3))
})

test('rule S2: zeros that were answered are there when the process dies, though nothing was flushed', async () => {
  const before = await makeOverlay(4)
  assert.equal((await zero(before, at(1), PAGE_SIZE_BYTES)).code, '')
  assert.equal((await write(before, at(2), Buffer.alloc(PAGE_SIZE_BYTES), child)).code, '')
  // own content first, of which no record is durable either
  await write(before, at(3), page(30), child)
  assert.equal((await write(before, at(3), Buffer.alloc(PAGE_SIZE_BYTES), child)).code, '')
  await write(before, at(4), page(40), child)
  before.disk.crashProcess()
  const rig = await openRig(before.disk)
  assert.equal(rig.store.uncleanStop, 'process')
  await healed(rig, 2, 3)
  const version = 3
  assert.deepEqual(await read(rig, at(1), at(3), { chunk: 2, version }), Buffer.alloc(at(3)))
  assert.deepEqual(await read(rig, at(4), PAGE_SIZE_BYTES, { chunk: 2, version }), page(40))
})

async function healed(rig: Rig, chunk: number, version: number): Promise<void> {
  await rig.clock.settled(rig.control.persist({ chunk, version, role: Role.reconciling, lease: 11 }))
  await rig.clock.settled(new Repairer(rig.store, noSource).heal(chunk, version, []))
  await rig.clock.settled(rig.control.promote(chunk, version))
}

test('rule P1: after a loss of power a page is the old one or the new one, never zeros beside them', async () => {
  const before = await makeOverlay(5)
  await write(before, at(9), page(90), child)
  await flush(before, child)
  await write(before, at(1), page(10), child)
  await write(before, at(2), page(20), child)
  before.disk.losePower(0)
  // one sector had reached the disk
  before.disk.overwrite(chunkPath(2), pagePosition(1), page(10).subarray(0, 512))
  let rig = await openRig(before.disk)
  assert.equal(rig.store.uncleanStop, 'host')
  for (const chunk of [1, 2]) await healed(rig, chunk, 3)
  const versions = { chunk: 2, version: 3 }
  for (const index of [1, 2]) {
    assert.deepEqual(await read(rig, at(index), PAGE_SIZE_BYTES, versions), page(index))
  }
  // what lay there is gone: a write whose record is lost is told from it
  assert.equal((await write(rig, at(1), page(11), { ...versions, lease: 11 })).code, '')
  rig.disk.crashProcess()
  rig = await openRig(rig.disk)
  await healed(rig, 2, 4)
  assert.deepEqual(await read(rig, at(1), PAGE_SIZE_BYTES, { chunk: 2, version: 4 }), page(11))
  assert.deepEqual(await read(rig, at(2), PAGE_SIZE_BYTES, { chunk: 2, version: 4 }), page(2))
})

test('rules S4, P5: a partial write takes the rest of the page from the parent, verified', async () => {
  const rig = await makeOverlay(6)
  const merged = page(3)
  pattern(99, 100).copy(merged, 200)
  assert.equal((await write(rig, at(3) + 200, pattern(99, 100), child)).code, '')
  assert.deepEqual(await read(rig, at(3), PAGE_SIZE_BYTES, child), merged)
  assert.deepEqual(await read(rig, at(3), PAGE_SIZE_BYTES), page(3))
  // both edges at once
  const long = pattern(98, at(2))
  await write(rig, at(5) + 10, long, child)
  const bytes = Buffer.concat([page(5), page(6), page(7)])
  long.copy(bytes, 10)
  assert.deepEqual(await read(rig, at(5), bytes.length, child), bytes)
  // beyond what the parent has
  await write(rig, at(20) + 5, pattern(97, 10), child)
  const alone = Buffer.alloc(PAGE_SIZE_BYTES)
  pattern(97, 10).copy(alone, 5)
  assert.deepEqual(await read(rig, at(20), PAGE_SIZE_BYTES, child), alone)
})

test("rule S2: a page that does not verify is damage, never absence; the parent's costs the child's", async () => {
  const rig = await makeOverlay(7)
  const bad: [number, number[]][] = []
  rig.store.events = { ...rig.store.events, onBadPages: (chunk, _version, pages) => bad.push([chunk, pages]) }
  await write(rig, at(3), page(30), child)
  rig.disk.flipBit(chunkPath(2), pagePosition(3) + 5, 1)
  assert.equal(await read(rig, at(3), 10, child), 'BAD_CHECKSUM')
  rig.disk.flipBit(chunkPath(1), pagePosition(4) + 5, 1)
  assert.equal(await read(rig, at(4), 10, child), 'BAD_CHECKSUM')
  assert.deepEqual(bad, [
    [2, [3]],
    [1, [4]],
    [2, [4]],
  ])
  // merged into nothing that does not verify; a full write heals it
  assert.equal((await write(rig, at(4) + 1, pattern(1, 10), child)).code, 'BAD_CHECKSUM')
  assert.equal((await write(rig, at(4), page(44), child)).code, '')
  assert.deepEqual(await read(rig, at(4), PAGE_SIZE_BYTES, child), page(44))
  assert.equal(await read(rig, at(4), 10), 'BAD_CHECKSUM')
})

test('rules S2, P6: lost page records of an overlay are damage, and are not adopted as zeros', async () => {
  let rig = await makeOverlay(8)
  await write(rig, at(3), page(30), child)
  await flush(rig, child)
  rig.disk.overwrite(chunkPath(2), regionSlotPosition(0, 0), Buffer.alloc(8192))
  rig.disk.crashProcess()
  rig = await openRig(rig.disk)
  await healed(rig, 2, 3)
  assert.equal(await read(rig, at(4), 10, { chunk: 2, version: 3 }), 'BAD_CHECKSUM')
  assert.deepEqual(await read(rig, at(3), PAGE_SIZE_BYTES, { chunk: 2, version: 3 }), page(30))
  assert.deepEqual(await read(rig, MIB, 10, { chunk: 2, version: 3 }), Buffer.alloc(10))
})

test('rules S2, P2: the older slot of an overlay does not bring back what was zeroed', async () => {
  let rig = await makeOverlay(9)
  await write(rig, at(3), page(30), child)
  await flush(rig, child)
  await zero(rig, at(4), PAGE_SIZE_BYTES)
  await flush(rig, child)
  rig.control.close([2])
  await rig.clock.settled(closeStore(rig.store))
  // sequence 2 lies in slot 0
  rig.disk.flipBit(chunkPath(2), regionSlotPosition(0, 0) + 500, 1)
  rig = await openRig(rig.disk)
  assert.equal(await read(rig, at(4), 10, child), 'BAD_CHECKSUM')
  assert.deepEqual(await read(rig, at(3), PAGE_SIZE_BYTES, child), page(30))
})

test('rule S3: what an overlay reads through is written and deleted by nobody', async () => {
  const rig = await makeOverlay(10)
  const wanted: number[] = []
  rig.control.onMergeWanted = (overlay) => wanted.push(overlay.chunk)
  assert.equal((await write(rig, 0, page(1))).code, 'HAS_OVERLAY')
  const request = dataRequest(DataOp.zero, { offset: 0, length: 10 })
  assert.equal((await ask(rig, request)).code, 'HAS_OVERLAY')
  assert.equal(await rig.clock.settled(rig.control.delete(1, 9)), 'HAS_OVERLAY')
  assert.deepEqual(wanted, [2])
  assert.deepEqual(await read(rig, at(3), PAGE_SIZE_BYTES, child), page(3))
  assert.equal(await rig.clock.settled(rig.control.delete(2, 2)), '')
  assert.equal((await write(rig, 0, page(1))).code, '')
  assert.equal(await rig.clock.settled(rig.control.delete(1, 9)), '')
})

test('rule S3: an overlay is made over what is in sync and whole here, in bounds; again it is done', async () => {
  const rig = await makeRig(11)
  await createReplica(rig, 1, Role.inSync, 5)
  await createReplica(rig, 2, Role.joining, 5)
  assert.equal(await createOverlay(rig, 3, 9, 6), 'NO_REPLICA')
  assert.equal(await createOverlay(rig, 3, 2, 6), 'NOT_IN_SYNC')
  assert.equal(await createOverlay(rig, 3, 1, 5), 'WRONG_VERSION', 'rule S4: above the parent')
  assert.equal(await createOverlay(rig, 3, 1, 6), '')
  assert.equal(await createOverlay(rig, 3, 1, 6), '')
  assert.equal(await createOverlay(rig, 3, 0, 6), 'EEXIST')
  const wanted: number[] = []
  rig.control.onMergeWanted = (overlay) => wanted.push(overlay.chunk)
  for (let depth = 2; depth <= OVERLAY_DEPTH_MAX; depth++) {
    assert.equal(await createOverlay(rig, depth + 2, depth + 1, depth + 10), '')
  }
  assert.equal(wanted.length, OVERLAY_DEPTH_MAX - 8)
  assert.equal(await createOverlay(rig, 100, OVERLAY_DEPTH_MAX + 2, 100), 'TRY_AGAIN')
})

test('the parent is in the log: reported after a restart; without it an overlay is damage, never flat', async () => {
  let rig = await makeOverlay(12)
  rig = await reopen(rig)
  const replica = rig.store.replicas.get(2)
  assert.ok(replica !== undefined)
  assert.deepEqual([reportOf(replica).parent, reportOf(replica).damaged], [1, false])
  assert.deepEqual(await read(rig, at(3), PAGE_SIZE_BYTES, child), page(3))
  assert.equal(await createOverlay(rig, 3, 2, 3), '')
  await rig.clock.settled(closeStore(rig.store))
  rig.disk.remove(chunkPath(1))
  rig = await openRig(rig.disk)
  for (const chunk of [2, 3]) {
    const found = rig.store.replicas.get(chunk)
    assert.ok(found !== undefined && reportOf(found).damaged)
  }
  assert.equal(await read(rig, at(3), 10, child), 'BAD_CHECKSUM')
})

test('an overlay over something that is found damaged is reported with it', async () => {
  const rig = await makeOverlay(13)
  await createOverlay(rig, 3, 2, 3)
  const again = await reopen(rig)
  const bad: number[] = []
  again.store.events = { ...again.store.events, onBadReplica: (chunk) => bad.push(chunk) }
  again.disk.remove(chunkPath(1))
  assert.equal(await read(again, at(3), 10, child), 'BAD_CHECKSUM')
  assert.deepEqual(bad, [1, 2, 3])
})

test('rule S4: digests and pulled pages are of the effective page', async () => {
  const rig = await makeOverlay(14)
  await write(rig, at(4), page(40), child)
  await zero(rig, at(5), PAGE_SIZE_BYTES)
  const range = { ...child, offset: 0, length: at(256) }
  const { payload } = await ask(rig, dataRequest(DataOp.digest, range))
  assert.ok(payload !== null)
  const flat = await ask(rig, dataRequest(DataOp.digest, { offset: 0, length: at(256) }))
  const record = (bytes: Buffer | null, index: number): Buffer =>
    bytes?.subarray(index * PAGE_RECORD_BYTES, index * PAGE_RECORD_BYTES + 9) ?? Buffer.alloc(0)
  assert.deepEqual(record(payload, 3), record(flat.payload, 3))
  assert.equal(payload.readUInt32LE(4 * PAGE_RECORD_BYTES), 2, 'stamps of the child are above')
  assert.equal(payload[5 * PAGE_RECORD_BYTES + 8], PageState.hole)
  const pulled = await ask(rig, dataRequest(DataOp.pull, { ...child, offset: at(3), length: at(3) }))
  assert.deepEqual(pulled.payload, Buffer.concat([page(3), page(40)]))
  assert.equal(pulled.table[2 * PAGE_RECORD_BYTES + 8], PageState.hole)
})

test('a read of zeros over holes of the whole chain carries no bytes', async () => {
  const rig = await makeOverlay(15)
  await zero(rig, at(9), PAGE_SIZE_BYTES)
  const answer = await ask(rig, dataRequest(DataOp.read, { ...child, offset: at(9), length: at(9) }))
  assert.equal(answer.flags & DataFlag.zeros, DataFlag.zeros)
})

test('fsck sees effective pages: counts, bad ones, digests', async () => {
  const rig = await makeOverlay(16)
  await write(rig, at(4), page(40), child)
  const verifier = new Verifier(rig.store)
  const sound = await rig.clock.settled(verifier.verify(2, 2, 'pages'))
  assert.deepEqual([sound.pages, sound.badPages], [10, []])
  rig.disk.flipBit(chunkPath(1), pagePosition(7) + 5, 1)
  assert.deepEqual((await rig.clock.settled(verifier.verify(2, 2, 'pages'))).badPages, [7])
})

test("rule F8: the written end counts the parent's, until a truncation cuts it", async () => {
  let rig = await makeRig(17)
  await createReplica(rig)
  await write(rig, 0, pattern(1, 3 * PAGE_SIZE_BYTES + 100))
  await write(rig, MIB, pattern(1, 10))
  await createOverlay(rig, 2, 1)
  const end = async (): Promise<number> => {
    const healer = new Repairer(rig.store, noSource)
    return (await rig.clock.settled(healer.heal(2, 2, []))).writtenEnd
  }
  assert.equal(await end(), MIB + 10)
  await zero(rig, MIB, CHUNK_SIZE_BYTES - MIB)
  assert.equal(await end(), 3 * PAGE_SIZE_BYTES + 100)
  await zero(rig, 500, CHUNK_SIZE_BYTES - 500)
  assert.equal(await end(), 500)
  await flush(rig, child)
  rig = await reopen(rig)
  assert.equal(await end(), 500)
  await write(rig, 600, pattern(1, 10), child)
  assert.equal(await end(), 610)
})

test('writes that find no room leave nothing behind that could be taken for content', async () => {
  const before = await makeRig(18, { capacityBytes: 40 * MIB })
  await createReplica(before)
  await write(before, 0, pattern(1, MIB))
  await flush(before)
  await createOverlay(before, 2, 1)
  const original = await read(before, at(1), PAGE_SIZE_BYTES)
  // the write fails in its middle
  await write(before, 0, page(5), child)
  const file = before.store.replicas.get(2)?.file
  assert.ok(file)
  const writeFile = file.write.bind(file)
  file.write = (buffers, position, callback) => {
    file.write = writeFile
    const half = buffers[0]?.subarray(0, 512) ?? Buffer.alloc(0)
    writeFile([half], position, () => callback(new CairnError('DISK_NO_SPACE', 'no room')))
  }
  assert.equal((await write(before, at(1), page(9), child)).code, 'DISK_FULL')
  before.disk.crashProcess()
  const rig = await openRig(before.disk)
  await healed(rig, 2, 3)
  assert.deepEqual(await read(rig, at(1), PAGE_SIZE_BYTES, { chunk: 2, version: 3 }), original)
  assert.deepEqual(await read(rig, 0, PAGE_SIZE_BYTES, { chunk: 2, version: 3 }), page(5))
})
