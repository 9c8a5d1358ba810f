/**
 * Any prefix of writes and syncs recovers: the simulated disk stops after its Nth operation, the process
 * or the host dies, the store opens again, and what was flushed is there.
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { Prng } from '../../base/prng.ts'
import { MIB, PAGE_SIZE_BYTES } from '../../base/units.ts'
import { DataOp } from '../../wire/data.ts'
import { chunkPath, HEADER_AREA_BYTES, regionSlotPosition, SLOT_BYTES } from '../format/chunk-layout.ts'
import { Repairer } from '../repair/repairer.ts'
import { Role } from '../format/replica-state.ts'
import { closeStore } from './store-open.ts'
import {
  type Answer,
  createReplica,
  dataRequest,
  flush,
  makeRig,
  openRig,
  pattern,
  read,
  type Rig,
  send,
  write,
} from '../../testing/chunk-store-rig.ts'

const PAGES = 24
const noSource = (): Promise<never> => Promise.reject(new Error('no peers here'))

/** What is known of a page: every content it may have after a crash. */
interface PageModel {
  flushed: Buffer
  /** Written and not known to be flushed, oldest first. */
  since: Buffer[]
}

/** Completes when the answer is there or the disk stands still. */
async function outcome(rig: Rig, promise: Promise<Answer>): Promise<string> {
  let code: string | null = null
  void promise.then((answer) => {
    code = answer.code
  })
  await rig.clock.settle()
  return code ?? 'stopped'
}

async function workload(rig: Rig, prng: Prng, model: PageModel[]): Promise<void> {
  for (let step = 0; step < 60 && !rig.disk.stopped; step++) {
    const first = prng.below(PAGES)
    const count = 1 + prng.below(Math.min(4, PAGES - first))
    if (prng.below(4) === 0) {
      const touched = model.map((page) => page.since.length)
      const request = dataRequest(DataOp.flush, { incarnation: rig.store.incarnation })
      if ((await outcome(rig, send(rig, request))) !== '') continue
      for (const [index, page] of model.entries()) {
        const covered = page.since.splice(0, touched[index] ?? 0)
        page.flushed = covered.at(-1) ?? page.flushed
      }
      continue
    }
    await change(rig, prng, model, first, count)
  }
}

/** A write or zeroing of up to four pages, in a third of the cases with ragged edges. */
async function change(rig: Rig, prng: Prng, model: PageModel[], first: number, count: number): Promise<void> {
  const zero = prng.below(6) === 0
  const isRagged = prng.below(3) === 0
  const offset = first * PAGE_SIZE_BYTES + (isRagged ? prng.below(PAGE_SIZE_BYTES) : 0)
  const end = (first + count) * PAGE_SIZE_BYTES - (isRagged ? prng.below(PAGE_SIZE_BYTES) : 0)
  if (end <= offset) return
  const content = zero ? Buffer.alloc(end - offset) : pattern(prng.uint32(), end - offset)
  for (let page = first; page * PAGE_SIZE_BYTES < end; page++) {
    const known = model[page]
    if (known === undefined) continue
    const next = Buffer.from(known.since.at(-1) ?? known.flushed)
    const pageBegin = page * PAGE_SIZE_BYTES
    const from = Math.max(offset, pageBegin)
    const to = Math.min(end, pageBegin + PAGE_SIZE_BYTES)
    content.copy(next, from - pageBegin, from - offset, to - offset)
    known.since.push(next)
  }
  const fields = { offset, length: content.length }
  if (zero) await outcome(rig, send(rig, dataRequest(DataOp.zero, fields)))
  else await outcome(rig, send(rig, dataRequest(DataOp.write, fields), content))
}

/** After a power loss: every 512-byte sector of a page is from its flushed or from a later content. */
function isSectorMix(got: Buffer, page: PageModel): boolean {
  for (let at = 0; at < PAGE_SIZE_BYTES; at += 512) {
    const sector = got.subarray(at, at + 512)
    const known = [page.flushed, ...page.since].some((content) =>
      content.subarray(at, at + 512).equals(sector),
    )
    if (!known) return false
  }
  return true
}

async function heal(rig: Rig): Promise<void> {
  const replica = rig.store.replicas.get(1)
  if (replica === undefined) return
  const version = replica.state.version + 1
  const held = await rig.clock.settled(
    rig.control.persist({ chunk: 1, version, role: Role.reconciling, lease: 11 }),
  )
  assert.equal(held.code, '')
  await rig.clock.settled(new Repairer(rig.store, noSource).heal(1, version, []))
  await rig.clock.settled(rig.control.promote(1, version))
}

async function crashOnce(seed: number, stopAfter: number, power: boolean): Promise<boolean> {
  const name = `seed ${seed}, stopped after ${stopAfter}, ${power ? 'power loss' : 'process crash'}`
  const prng = new Prng(seed)
  const before = await makeRig(seed)
  await createReplica(before)
  const model: PageModel[] = Array.from({ length: PAGES }, () => ({
    flushed: Buffer.alloc(PAGE_SIZE_BYTES),
    since: [],
  }))
  if (seed % 2 === 0) {
    // half of the runs begin with a chunk that is on no open list (rule B1)
    await write(before, 0, Buffer.alloc(PAGES * PAGE_SIZE_BYTES))
    assert.equal((await flush(before)).code, '')
    before.control.close([1])
    await before.clock.settle()
    assert.equal(before.store.replicas.get(1)?.state.isOpen, false)
  }
  before.disk.faults.stopAfter = stopAfter
  await workload(before, prng, model)
  const reached = before.disk.stopped
  if (power) before.disk.losePower()
  else before.disk.crashProcess()
  const rig = await openRig(before.disk)
  assert.equal(rig.store.uncleanStop, power ? 'host' : 'process', name)
  const replica = rig.store.replicas.get(1)
  assert.ok(replica !== undefined && replica.damage === '', name)
  // rule B1: nothing is served before the quorum has decided, unless nothing was ever written
  if (replica.isUnclean) assert.equal(await read(rig, 0, 10), 'NOT_IN_SYNC', name)
  await heal(rig)
  const { version } = replica.state
  for (const [index, page] of model.entries()) {
    const got = await read(rig, index * PAGE_SIZE_BYTES, PAGE_SIZE_BYTES, { version })
    assert.ok(got instanceof Buffer, `${name}: page ${index} reads ${String(got)}`)
    if (power) assert.ok(isSectorMix(got, page), `${name}: page ${index} holds something never written`)
    else {
      // promise 2: acknowledged writes survive the process; the last one may have been cut off by the stop
      const last = page.since.at(-1) ?? page.flushed
      const cut = page.since.at(-2) ?? page.flushed
      assert.ok(got.equals(last) || (reached && got.equals(cut)), `${name}: page ${index} lost a write`)
    }
  }
  assert.equal((await write(rig, 0, pattern(1, 100), { version, lease: 11 })).code, '', name)
  assert.equal((await flush(rig, { version })).code, '', name)
  return reached
}

test('after a process crash every acknowledged write is there (rules B1, B2, P1)', async () => {
  for (let stopAfter = 0; stopAfter < 40; stopAfter++) await crashOnce(100 + stopAfter, stopAfter, false)
})

test('after a power loss every flushed page is there, others are sector mixes (rules P1, P2, J9)', async () => {
  let reached = 0
  for (let stopAfter = 0; stopAfter < 80; stopAfter++) {
    if (await crashOnce(500 + stopAfter, stopAfter % 60, true)) reached++
  }
  assert.ok(reached > 50, 'the stops fell into the workload')
})

test('rule B2: an unchanged boot is a process crash, anything else a host crash that is counted', async () => {
  const rig = await makeRig(1)
  await createReplica(rig)
  await write(rig, 0, pattern(1, 100))
  rig.disk.crashProcess()
  const second = await openRig(rig.disk)
  assert.equal(second.store.uncleanStop, 'process')
  assert.equal(second.store.superblock.crashes, 0)
  assert.ok(second.store.incarnation > rig.store.incarnation)
  second.disk.losePower()
  const third = await openRig(rig.disk)
  assert.equal(third.store.uncleanStop, 'host')
  assert.equal(third.store.superblock.crashes, 1)
})

test('rule B1: a closed chunk is clean after a crash, an open one is not', async () => {
  const rig = await makeRig(2)
  await createReplica(rig, 1)
  await createReplica(rig, 2)
  for (const chunk of [1, 2]) await write(rig, 0, pattern(1, 100), { chunk })
  for (const chunk of [1, 2]) await flush(rig, { chunk })
  rig.control.close([1])
  await rig.clock.settle()
  rig.disk.losePower(0)
  const again = await openRig(rig.disk)
  assert.equal(again.store.replicas.get(1)?.isUnclean, false)
  assert.equal(again.store.replicas.get(2)?.isUnclean, true)
  assert.deepEqual(await read(again, 0, 100), pattern(1, 100))
})

test('rule P2: a torn page-record slot falls back to the older one and costs no flushed page', async () => {
  const rig = await makeRig(3)
  await createReplica(rig)
  const contents = [pattern(1, PAGE_SIZE_BYTES), pattern(2, PAGE_SIZE_BYTES)]
  await write(rig, 0, contents[0] ?? Buffer.alloc(0))
  await flush(rig)
  await write(rig, PAGE_SIZE_BYTES, contents[1] ?? Buffer.alloc(0))
  await flush(rig)
  await rig.clock.settled(closeStore(rig.store))
  // sequence 2 lies in slot 0
  rig.disk.flipBit(chunkPath(1), regionSlotPosition(0, 0) + 500, 1)
  const again = await openRig(rig.disk)
  assert.deepEqual(await read(again, 0, PAGE_SIZE_BYTES), contents[0])
  // written after the older slot: does not verify there, so it is bad and not a hole (rule P6)
  assert.equal(await read(again, PAGE_SIZE_BYTES, PAGE_SIZE_BYTES), 'BAD_CHECKSUM')
})

test('rule P6: lost page records are damage, not holes', async () => {
  const rig = await makeRig(4)
  await createReplica(rig)
  await write(rig, 0, pattern(1, MIB))
  await flush(rig)
  await rig.clock.settled(closeStore(rig.store))
  rig.disk.overwrite(chunkPath(1), regionSlotPosition(0, 0), Buffer.alloc(8192))
  const again = await openRig(rig.disk)
  assert.equal(await read(again, 0, 10), 'BAD_CHECKSUM')
  assert.deepEqual(await read(again, MIB, 10), Buffer.alloc(10))
})

test('rule P6: records that a crash left without their bit in the header count, and get it with the next sync', async () => {
  const rig = await makeRig(4)
  await createReplica(rig)
  await write(rig, 0, pattern(1, PAGE_SIZE_BYTES))
  await flush(rig)
  const header = Buffer.from(rig.disk.contents(chunkPath(1)).subarray(0, HEADER_AREA_BYTES))
  await write(rig, MIB, pattern(2, PAGE_SIZE_BYTES))
  await flush(rig)
  await rig.clock.settled(closeStore(rig.store))
  rig.disk.overwrite(chunkPath(1), 0, header)
  const again = await openRig(rig.disk)
  assert.deepEqual(await read(again, MIB, PAGE_SIZE_BYTES), pattern(2, PAGE_SIZE_BYTES))
  await write(again, MIB + PAGE_SIZE_BYTES, pattern(3, PAGE_SIZE_BYTES))
  await flush(again)
  await again.clock.settled(closeStore(again.store))
  rig.disk.overwrite(chunkPath(1), regionSlotPosition(1, 0), Buffer.alloc(2 * SLOT_BYTES))
  const last = await openRig(rig.disk)
  assert.equal(await read(last, MIB, 10), 'BAD_CHECKSUM', 'lost records are damage again')
})

test('rule E12: a missing or short file of a written replica is damage', async () => {
  for (const how of ['missing', 'short'] as const) {
    const rig = await makeRig(5)
    await createReplica(rig)
    await write(rig, 0, pattern(1, 100))
    await flush(rig)
    await rig.clock.settled(closeStore(rig.store))
    if (how === 'missing') rig.disk.remove(chunkPath(1))
    else rig.disk.resize(chunkPath(1), 10 * MIB)
    const again = await openRig(rig.disk)
    assert.equal(await read(again, 0, 10), 'DISK_FAILED', how)
    assert.notEqual(again.store.replicas.get(1)?.damage, '', how)
    const order = { chunk: 1, version: 2, role: Role.inSync, lease: 11 }
    assert.equal((await again.clock.settled(again.control.persist(order))).code, 'DISK_FAILED', 'rule F7')
  }
})

test('a write that the disk lost or misdirected does not verify', async () => {
  for (const fault of ['loseWrites', 'misdirectWrites'] as const) {
    const rig = await makeRig(6)
    await createReplica(rig)
    await write(rig, 0, pattern(1, 4 * PAGE_SIZE_BYTES))
    rig.disk.faults[fault] = 1
    await write(rig, PAGE_SIZE_BYTES, pattern(2, PAGE_SIZE_BYTES))
    assert.equal(await read(rig, PAGE_SIZE_BYTES, PAGE_SIZE_BYTES), 'BAD_CHECKSUM', fault)
    const neighbour = await read(rig, 2 * PAGE_SIZE_BYTES, PAGE_SIZE_BYTES)
    if (fault === 'misdirectWrites') assert.equal(neighbour, 'BAD_CHECKSUM')
  }
})

test('a damaged replica log makes every replica unclean; a lost one reports the files as damaged', async () => {
  const rig = await makeRig(7)
  for (let chunk = 1; chunk <= 5; chunk++) {
    await createReplica(rig, chunk)
    await write(rig, 0, pattern(1, 100), { chunk })
    await flush(rig, { chunk })
  }
  rig.control.close([1, 2, 3, 4, 5])
  await rig.clock.settle()
  const log = rig.disk.contents('replicas.a').length > 0 ? 'replicas.a' : 'replicas.b'
  rig.disk.crashProcess()
  rig.disk.flipBit(log, 64 * 4 + 30, 2)
  const again = await openRig(rig.disk)
  assert.ok([...again.store.replicas.values()].every((replica) => replica.isUnclean || replica.damage !== ''))
  await rig.clock.settled(closeStore(again.store))
  for (const name of ['replicas.a', 'replicas.b']) rig.disk.resize(name, 0)
  const lost = await openRig(rig.disk)
  assert.equal(lost.store.replicas.size, 5)
  assert.ok([...lost.store.replicas.values()].every((replica) => replica.damage !== ''))
})
