/** Merging (rule S5): content, stamps and version stay; a crash at any moment leaves it right: overlay-model.test.ts. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { CairnError } from '../../base/errors.ts'
import { MIB, PAGE_SIZE_BYTES, PAGES_PER_REGION } from '../../base/units.ts'
import { DataOp } from '../../wire/data.ts'
import { chunkPath, pagePosition } from '../format/chunk-layout.ts'
import { PageState } from '../format/region-records.ts'
import { loadRegion } from '../store/load-regions.ts'
import { exclusively } from '../store/replica-control.ts'
import { OverlayMerger } from './overlay-merger.ts'
import { Repairer } from './repairer.ts'
import { Verifier } from './verifier.ts'
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
  send,
  sourceAddress,
  sourceOf,
  settleAll,
  write,
} from '../../testing/chunk-store-rig.ts'

const page = (seed: number): Buffer => pattern(seed, PAGE_SIZE_BYTES)
const at = (index: number): number => index * PAGE_SIZE_BYTES
const noSource = (): Promise<never> => Promise.reject(new Error('no peers here'))
const child = { chunk: 2, version: 2 }

interface Scene {
  readonly rig: Rig
  readonly merger: OverlayMerger
  readonly told: [number, number][]
}

function mergerOf(rig: Rig): Scene {
  const told: [number, number][] = []
  const merger = new OverlayMerger(rig.store, rig.clock, (chunk, parent) => told.push([chunk, parent]))
  rig.control.onMergeWanted = (overlay) => merger.want(overlay)
  return { rig, merger, told }
}

/** Chunk 1 with pages in three regions, chunk 2 over it. */
async function makeScene(seed: number): Promise<Scene> {
  const rig = await makeRig(seed)
  await createReplica(rig)
  for (let index = 0; index < 10; index++) await write(rig, at(index), page(index))
  await write(rig, at(PAGES_PER_REGION), page(100))
  await write(rig, 5 * MIB, page(101))
  await flush(rig)
  assert.equal(await createOverlay(rig, 2, 1), '')
  return mergerOf(rig)
}

async function digests(rig: Rig, chunk: number, version: number): Promise<number[]> {
  const found = await rig.clock.settled(new Verifier(rig.store).verify(chunk, version, 'pages'))
  assert.deepEqual(found.badPages, [])
  return found.digests
}

async function merged(scene: Scene, count = 1): Promise<void> {
  assert.ok(await scene.rig.clock.runUntil(() => scene.told.length === count, 120_000), 'merged in time')
}

test('a merge changes no content, stamp, written end or version; then the overlay is flat, durably', async () => {
  const scene = await makeScene(1)
  const { rig, merger } = scene
  await write(rig, at(4), page(40), child)
  await ask(rig, dataRequest(DataOp.zero, { ...child, offset: at(6), length: PAGE_SIZE_BYTES }))
  const before = await digests(rig, 2, 2)
  const healer = (): Repairer => new Repairer(rig.store, noSource)
  const { writtenEnd } = await rig.clock.settled(healer().heal(2, 2, []))
  assert.equal(merger.order(2, 1), '')
  await merged(scene)
  assert.deepEqual(scene.told, [[2, 0]])
  assert.deepEqual(await digests(rig, 2, 2), before)
  assert.equal((await rig.clock.settled(healer().heal(2, 2, []))).writtenEnd, writtenEnd)
  assert.equal(await rig.clock.settled(rig.control.delete(1, 9)), '')
  assert.deepEqual(await read(rig, 0, at(4), child), Buffer.concat([0, 1, 2, 3].map(page)))
  // rule S3: durable before it was told
  rig.disk.losePower(0)
  const again = await openRig(rig.disk)
  const replica = again.store.replicas.get(2)
  assert.deepEqual([replica?.state.isOverlay, replica?.state.version], [false, 2])
  const order = { chunk: 2, version: 3, role: 2 as const, lease: 11 }
  await again.clock.settled(again.control.persist(order))
  await again.clock.settled(new Repairer(again.store, noSource).heal(2, 3, []))
  await again.clock.settled(again.control.promote(2, 3))
  assert.deepEqual(await digests(again, 2, 3), before)
})

test('a merge with one parent leaves what is below it: the overlay reads through that one then', async () => {
  const scene = await makeScene(2)
  const { rig, merger, told } = scene
  await write(rig, at(4), page(40), child)
  await flush(rig, child)
  await createOverlay(rig, 3, 2)
  const top = { chunk: 3, version: 3 }
  await write(rig, at(5), page(50), top)
  assert.equal(merger.order(3, 2), '')
  await merged(scene)
  assert.deepEqual(told, [[3, 1]])
  const replica = rig.store.replicas.get(3)
  assert.equal(replica?.region(0)?.states[4], PageState.data)
  assert.equal(replica.region(0)?.states[3], PageState.absent)
  assert.equal(await rig.clock.settled(rig.control.delete(2, 9)), '')
  const expected = Buffer.concat([3, 40, 50, 6].map(page))
  assert.deepEqual(await read(rig, at(3), expected.length, top), expected)
  assert.equal(await rig.clock.settled(rig.control.delete(1, 9)), 'HAS_OVERLAY')
  await merged(scene, 2)
  assert.equal(await rig.clock.settled(rig.control.delete(1, 9)), '')
  assert.deepEqual(await read(rig, at(3), expected.length, top), expected)
})

test('what is asked for is done already: told what the overlay reads through', async () => {
  const scene = await makeScene(3)
  const { merger, told } = scene
  assert.equal(merger.order(2, 7), '')
  assert.equal(merger.order(1, 7), '')
  assert.equal(merger.order(9, 1), 'NO_REPLICA')
  assert.deepEqual(told, [
    [2, 1],
    [1, 0],
  ])
})

test('rule S5: a write during the merge stays, whenever it comes', async () => {
  for (let delayMs = 0; delayMs < 40; delayMs += 3) {
    const scene = await makeScene(4)
    const { rig, merger } = scene
    rig.disk.faults.delayMs = 2
    merger.want(rig.store.replicas.get(2) ?? assert.fail('is there'))
    await rig.clock.advance(delayMs)
    const answers = [3, 4].map((index) => {
      const fields = { ...child, offset: at(index) + 100, length: 200 }
      return send(rig, dataRequest(DataOp.write, fields), pattern(index + 500, 200))
    })
    for (const answer of answers) assert.equal((await rig.clock.settled(answer)).code, '')
    await merged(scene)
    for (const index of [3, 4]) {
      const expected = page(index)
      pattern(index + 500, 200).copy(expected, 100)
      assert.deepEqual(await read(rig, at(index), PAGE_SIZE_BYTES, child), expected)
    }
    assert.deepEqual(await read(rig, at(2), PAGE_SIZE_BYTES, child), page(2))
  }
})

test('rule S5: clients come first: under load a region waits, but not for ever', async () => {
  const { rig, merger } = await makeScene(5)
  const replica = rig.store.replicas.get(2)
  const copied = (): number =>
    [0, 1, 5].filter((region) => replica?.region(region)?.states.includes(PageState.data) === true).length
  rig.store.counters.queueDepth = 100
  merger.want(replica ?? assert.fail('is there'))
  await rig.clock.advance(100)
  assert.equal(copied(), 1)
  await rig.clock.advance(200)
  assert.equal(copied(), 2)
  rig.store.counters.queueDepth = 0
  await rig.clock.advance(30)
  assert.equal(copied(), 3)
})

test('rule S4: a page of the parent that does not verify is not sealed; it is repaired, then the merge ends', async () => {
  const scene = await makeScene(6)
  const source = (await makeScene(7)).rig
  const { rig, merger } = scene
  const bad: number[] = []
  rig.store.events = {
    ...rig.store.events,
    onBadPages: (chunk, _version, pages) => {
      if (chunk === 2) bad.push(...pages)
    },
  }
  rig.disk.flipBit(chunkPath(1), pagePosition(7) + 5, 1)
  merger.want(rig.store.replicas.get(2) ?? assert.fail('is there'))
  await rig.clock.advance(500)
  assert.deepEqual(bad, [7])
  assert.deepEqual(scene.told, [])
  assert.equal(await read(rig, at(7), 10, child), 'BAD_CHECKSUM')
  assert.deepEqual(await read(rig, at(8), PAGE_SIZE_BYTES, child), page(8))
  await rig.clock.advance(60_000)
  assert.deepEqual(scene.told, [], 'it waits, however often it tries')
  const repairer = new Repairer(rig.store, () => Promise.resolve(sourceOf(source, rig)))
  let isRepaired = false
  void repairer.repair({ chunk: 2, version: 2, pages: [7], sources: [sourceAddress(1)] }).then(() => {
    isRepaired = true
  })
  await settleAll([rig, source], () => isRepaired)
  await merged(scene)
  assert.deepEqual(await read(rig, at(7), PAGE_SIZE_BYTES, child), page(7))
})

test('rules S2, P2: zeros that are taken over are torn by no loss of power, nor what is absent beside them', async () => {
  for (let count = 0; ; count++) {
    const { rig, merger, told } = await makeScene(100 + count)
    await ask(rig, dataRequest(DataOp.zero, { ...child, offset: at(6), length: PAGE_SIZE_BYTES }))
    await flush(rig, child)
    await createOverlay(rig, 3, 2)
    const top = { chunk: 3, version: 3 }
    await write(rig, MIB, page(7), top)
    await flush(rig, top)
    rig.control.close([2, 3])
    assert.ok(await rig.clock.runUntil(() => rig.store.replicas.get(3)?.state.isOpen === false, 1000))
    rig.disk.faults.stopAfter = count
    // of chunk 2 only the zeros: its parent is left for later
    assert.equal(merger.order(3, 2), '')
    await rig.clock.advance(100)
    rig.disk.losePower(0.5)
    const again = await openRig(rig.disk)
    await digests(again, 3, 3)
    const expected = Buffer.concat([page(5), Buffer.alloc(PAGE_SIZE_BYTES), page(7)])
    assert.deepEqual(await read(again, at(5), expected.length, top), expected)
    if (told.length > 0) return
  }
})

test('rule S5: a merge does not end on a replica that began anew meanwhile', async () => {
  const { rig, merger, told } = await makeScene(10)
  const replica = rig.store.replicas.get(2) ?? assert.fail('is there')
  // all of a region, not synced: nothing to take over as long as it is there
  await write(rig, 5 * MIB, pattern(7, MIB), child)
  rig.disk.faults.delayMs = 1
  merger.want(replica)
  assert.ok(await rig.clock.runUntil(() => replica.parent?.loads?.has(63) === true, 10_000))
  rig.store.onSyncFailed(replica, new CairnError('DISK_IO', 'the disk says no'))
  void rig.control.persist({ chunk: 2, version: 3, role: 1, lease: 10 })
  await rig.clock.advance(200)
  assert.deepEqual(told, [])
  const { states } = await rig.clock.settled(loadRegion(rig.store, replica, 5))
  assert.notEqual(states[0], PageState.hole, 'the parent has a page there')
})

test('rules R1, J7: what the parent cannot give for a moment is not declared lost in the overlay', async () => {
  const { rig } = await makeScene(11)
  const parent = rig.store.replicas.get(1) ?? assert.fail('is there')
  const repair = { chunk: 2, version: 2, pages: [3], sources: [] }
  parent.failure = new CairnError('DISK_IO', 'the disk says no')
  const outcome = await rig.clock.settled(new Repairer(rig.store, noSource).repair(repair))
  assert.deepEqual(outcome, { repaired: 0, lost: 0 })
  parent.failure = null
  assert.deepEqual(await read(rig, at(3), PAGE_SIZE_BYTES, child), page(3))
})

test('a full disk makes a merge wait; it goes on when there is room', async () => {
  const rig = await makeRig(8, { capacityBytes: 24 * MIB })
  await createReplica(rig)
  await write(rig, 0, pattern(1, MIB))
  await flush(rig)
  await createOverlay(rig, 2, 1)
  await createReplica(rig, 9)
  for (let mib = 0; mib < 20; mib++) await write(rig, mib * MIB, pattern(mib, MIB), { chunk: 9 })
  rig.store.refreshSpace()
  assert.ok(rig.store.isFull)
  const scene = mergerOf(rig)
  scene.merger.want(rig.store.replicas.get(2) ?? assert.fail('is there'))
  await rig.clock.advance(3000)
  assert.deepEqual(scene.told, [])
  assert.deepEqual(await read(rig, 0, MIB, child), pattern(1, MIB))
  await rig.clock.settled(rig.control.delete(9, 1))
  await merged(scene)
  assert.deepEqual(await read(rig, 0, MIB, child), pattern(1, MIB))
})

test('rule E2: a barrier on the overlay waits for one region at most', async () => {
  const { rig, merger } = await makeScene(9)
  rig.disk.faults.delayMs = 5
  const replica = rig.store.replicas.get(2) ?? assert.fail('is there')
  merger.want(replica)
  await rig.clock.advance(1)
  await rig.clock.settled(exclusively(replica, () => Promise.resolve()))
  assert.equal(replica.region(5)?.states.includes(PageState.data) ?? false, false)
})
