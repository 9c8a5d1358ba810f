/** Joins, repairs and reconciliations from and to overlays: all of it is of effective pages (rules S3, S4, F1, R1). */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { PAGE_SIZE_BYTES } from '../../base/units.ts'
import { crc32c } from '../../wire/checksum.ts'
import { chunkPath, pagePosition } from '../format/chunk-layout.ts'
import { PageState } from '../format/region-records.ts'
import { Role } from '../format/replica-state.ts'
import { reportOf } from '../store/replica-control.ts'
import { applyPages } from '../store/page-tasks.ts'
import { closeStore } from '../store/store-open.ts'
import { Joiner } from './joiner.ts'
import { OverlayMerger } from './overlay-merger.ts'
import { Repairer } from './repairer.ts'
import { Verifier } from './verifier.ts'
import {
  createOverlay,
  createReplica,
  flush,
  makeRig,
  openRig,
  pattern,
  read,
  type Rig,
  settleAll,
  sourceAddress,
  sourceOf,
  write,
} from '../../testing/chunk-store-rig.ts'

const page = (seed: number): Buffer => pattern(seed, PAGE_SIZE_BYTES)
const at = (index: number): number => index * PAGE_SIZE_BYTES
const noSource = (): Promise<never> => Promise.reject(new Error('no peers here'))

interface Outcome {
  pulledPages: number
  failed: string
}

/** Joins a chunk of `rig` from the same chunk of `from`. */
async function join(rig: Rig, from: Rig, chunk: number, version: number): Promise<Outcome> {
  let outcome: Outcome | null = null
  const joiner = new Joiner(rig.store, () => Promise.resolve(sourceOf(from, rig)), {
    onJoined: (_order, bytes) => {
      outcome = { pulledPages: bytes / PAGE_SIZE_BYTES, failed: '' }
    },
    onJoinFailed: (_order, reason) => {
      outcome = { pulledPages: 0, failed: reason }
    },
  })
  joiner.join({ chunk, version, attempt: 1, sources: [sourceAddress(1)] })
  await settleAll([rig, from], () => outcome !== null)
  return outcome ?? assert.fail('ended')
}

async function order(rig: Rig, chunk: number, version: number, role: Role): Promise<void> {
  const held = await rig.clock.settled(rig.control.persist({ chunk, version, role, lease: 11 }))
  assert.deepEqual(held, { version, code: '' })
}

/** Chunk 1 with ten pages, chunk 2 over it at version 2, with page 4 of its own. */
async function makeChain(seed: number): Promise<Rig> {
  const rig = await makeRig(seed)
  await createReplica(rig)
  for (let index = 0; index < 10; index++) await write(rig, at(index), page(index))
  await flush(rig)
  assert.equal(await createOverlay(rig, 2, 1), '')
  await write(rig, at(4), page(40), { chunk: 2, version: 2 })
  await flush(rig, { chunk: 2, version: 2 })
  return rig
}

async function digests(rig: Rig, chunk: number, version: number): Promise<number[]> {
  const found = await rig.clock.settled(new Verifier(rig.store).verify(chunk, version, 'pages'))
  assert.deepEqual(found.badPages, [])
  return found.digests
}

test('rule S4: a flat replica joins from an overlay and is equal to it, as fsck sees them', async () => {
  const source = await makeChain(1)
  const rig = await makeRig(2)
  await order(source, 2, 3, Role.inSync)
  await createReplica(rig, 2, Role.joining, 3)
  assert.deepEqual(await join(rig, source, 2, 3), { pulledPages: 10, failed: '' })
  await rig.clock.settled(rig.control.promote(2, 3))
  assert.deepEqual(await digests(rig, 2, 3), await digests(source, 2, 3))
  assert.equal(rig.store.replicas.get(2)?.parent, null)
  // and the other way round: nothing differs
  await order(rig, 2, 4, Role.inSync)
  await order(source, 2, 4, Role.joining)
  assert.deepEqual(await join(source, rig, 2, 4), { pulledPages: 0, failed: '' })
})

test('an overlay that was away takes what differs into itself and stays one', async () => {
  const rig = await makeChain(3)
  const source = await makeChain(4)
  await order(source, 2, 3, Role.inSync)
  await write(source, at(5), page(50), { chunk: 2, version: 3, lease: 11 })
  await order(rig, 2, 3, Role.joining)
  assert.deepEqual(await join(rig, source, 2, 3), { pulledPages: 1, failed: '' })
  await rig.clock.settled(rig.control.promote(2, 3))
  assert.deepEqual(await digests(rig, 2, 3), await digests(source, 2, 3))
  assert.deepEqual(await read(rig, at(5), PAGE_SIZE_BYTES), page(5), 'the parent is what it was')
  assert.equal(rig.store.replicas.get(2)?.parent?.chunk, 1)
})

test('rule F1: a join is synced with what it reads through', async () => {
  const rig = await makeChain(5)
  const source = await makeChain(6)
  // a page of the parent that was repaired and not synced
  const parent = rig.store.replicas.get(1)
  assert.ok(parent !== undefined)
  rig.store.markBad(parent, [7], 'test')
  const image = { page: 7, stamp: 1, checksum: crc32c(page(7)), state: PageState.data, content: page(7) }
  rig.disk.flipBit(chunkPath(1), pagePosition(7), 1)
  await rig.clock.settled(applyPages(rig.store, parent, [image], () => true))
  await order(source, 2, 3, Role.inSync)
  await order(rig, 2, 3, Role.joining)
  assert.deepEqual(await join(rig, source, 2, 3), { pulledPages: 0, failed: '' })
  rig.disk.losePower(0)
  const again = await openRig(rig.disk)
  await order(again, 2, 4, Role.reconciling)
  await again.clock.settled(new Repairer(again.store, noSource).heal(2, 4, []))
  await again.clock.settled(again.control.promote(2, 4))
  assert.deepEqual(await read(again, at(7), PAGE_SIZE_BYTES, { chunk: 2, version: 4 }), page(7))
})

test('an overlay that lost its parent is reported, joins all that it read through, and can be merged', async () => {
  const source = await makeChain(7)
  const before = await makeChain(8)
  await before.clock.settled(closeStore(before.store))
  before.disk.remove(chunkPath(1))
  const rig = await openRig(before.disk)
  const replica = rig.store.replicas.get(2)
  assert.ok(replica !== undefined && reportOf(replica).damaged)
  await order(source, 2, 3, Role.inSync)
  await order(rig, 2, 3, Role.joining)
  assert.deepEqual(await join(rig, source, 2, 3), { pulledPages: 9, failed: '' })
  await rig.clock.settled(rig.control.promote(2, 3))
  assert.deepEqual(await digests(rig, 2, 3), await digests(source, 2, 3))
  const merger = new OverlayMerger(rig.store, rig.clock, () => undefined)
  merger.start()
  assert.ok(await rig.clock.runUntil(() => replica.parent === null, 10_000))
  assert.equal(reportOf(replica).damaged, false)
  assert.deepEqual(await digests(rig, 2, 3), await digests(source, 2, 3))
})

test('rule S3: a parent that begins anew from nothing has no pages for its overlays until it has pulled them', async () => {
  const source = await makeChain(9)
  const before = await makeChain(10)
  await before.clock.settled(closeStore(before.store))
  before.disk.remove(chunkPath(1))
  const rig = await openRig(before.disk)
  assert.equal(await read(rig, at(3), 10, { chunk: 2, version: 2 }), 'BAD_CHECKSUM')
  await order(source, 1, 2, Role.inSync)
  await order(rig, 1, 2, Role.joining)
  // its pages are holes by now, which are nobody's
  assert.equal(await read(rig, at(3), 10, { chunk: 2, version: 2 }), 'BAD_CHECKSUM')
  assert.deepEqual(await join(rig, source, 1, 2), { pulledPages: 10, failed: '' })
  assert.deepEqual(await read(rig, at(3), PAGE_SIZE_BYTES, { chunk: 2, version: 2 }), page(3))
})

test('rule S3: nothing that an overlay reads is changed by a join of its parent', async () => {
  const source = await makeRig(11)
  await createReplica(source)
  for (let index = 0; index < 10; index++) await write(source, at(index), page(index))
  const rig = await makeChain(12)
  await order(source, 1, 2, Role.inSync)
  await write(source, at(6), page(66), { version: 2, lease: 11 })
  await order(rig, 1, 2, Role.joining)
  assert.match((await join(rig, source, 1, 2)).failed, /^HAS_OVERLAY/)
  assert.deepEqual(await read(rig, at(6), PAGE_SIZE_BYTES, { chunk: 2, version: 2 }), page(6))
  const replica = rig.store.replicas.get(2)
  const merger = new OverlayMerger(rig.store, rig.clock, () => undefined)
  assert.equal(merger.order(2, 1), '')
  assert.ok(await rig.clock.runUntil(() => replica?.parent === null, 10_000))
  assert.deepEqual(await join(rig, source, 1, 2), { pulledPages: 1, failed: '' })
  assert.deepEqual(await read(rig, at(6), PAGE_SIZE_BYTES, { chunk: 2, version: 2 }), page(6))
})

test('rules R1, S2: a page of the parent that rots is repaired in the overlay', async () => {
  const source = await makeChain(13)
  const rig = await makeChain(14)
  rig.disk.flipBit(chunkPath(1), pagePosition(7) + 5, 1)
  assert.equal(await read(rig, at(7), 10, { chunk: 2, version: 2 }), 'BAD_CHECKSUM')
  const repairer = new Repairer(rig.store, () => Promise.resolve(sourceOf(source, rig)))
  const outcome = repairer.repair({ chunk: 2, version: 2, pages: [7], sources: [sourceAddress(1)] })
  let result: { repaired: number; lost: number } | null = null
  void outcome.then((found) => {
    result = found
  })
  await settleAll([rig, source], () => result !== null)
  assert.deepEqual(result, { repaired: 1, lost: 0 })
  assert.deepEqual(await read(rig, at(7), PAGE_SIZE_BYTES, { chunk: 2, version: 2 }), page(7))
  assert.equal(rig.store.replicas.get(2)?.region(0)?.states[7], PageState.data)
  assert.equal(await read(rig, at(7), 10), 'BAD_CHECKSUM')
})

test('a page of the parent that nobody has is lost in the overlay, until it is written', async () => {
  const rig = await makeChain(15)
  rig.disk.flipBit(chunkPath(1), pagePosition(7) + 5, 1)
  assert.equal(await read(rig, at(7), 10, { chunk: 2, version: 2 }), 'BAD_CHECKSUM')
  const repairer = new Repairer(rig.store, noSource)
  const repaired = await rig.clock.settled(repairer.repair({ chunk: 2, version: 2, pages: [7], sources: [] }))
  assert.deepEqual(repaired, { repaired: 0, lost: 1 })
  assert.equal(await read(rig, at(7), 10, { chunk: 2, version: 2 }), 'LOST_PAGE')
  assert.equal((await write(rig, at(7), page(70), { chunk: 2, version: 2 })).code, '')
  assert.deepEqual(await read(rig, at(7), PAGE_SIZE_BYTES, { chunk: 2, version: 2 }), page(70))
})

test('rule P1: nothing is adopted in what overlays read through: nobody writes there', async () => {
  const rig = await makeChain(16)
  rig.disk.losePower(0)
  const again = await openRig(rig.disk)
  again.disk.flipBit(chunkPath(1), pagePosition(7) + 5, 1)
  await order(again, 1, 2, Role.reconciling)
  const healed = await again.clock.settled(new Repairer(again.store, noSource).heal(1, 2, []))
  assert.equal(healed.adoptedPages, 0)
  await again.clock.settled(again.control.promote(1, 2))
  assert.equal(await read(again, at(7), 10, { version: 2 }), 'BAD_CHECKSUM')
})
