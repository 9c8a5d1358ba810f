/**
 * A join that is ordered again at the same version, after another registration or by another master, while the
 * source is slow: what the joiner has answered stays (rules P3, P4, J4, E6).
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { PAGE_SIZE_BYTES } from '../../base/units.ts'
import {
  createReplica,
  dataRequest,
  flush,
  makeRig,
  openRig,
  pattern,
  persist,
  read,
  type Rig,
  send,
  sourceOf,
  write,
} from '../../testing/chunk-store-rig.ts'
import { DataOp } from '../../wire/data.ts'
import { Role } from '../format/replica-state.ts'
import { reportOf } from '../store/replica-control.ts'
import { closeStore } from '../store/store-open.ts'
import { Joiner } from './joiner.ts'
import type { PageSource } from './page-source.ts'

const order = { chunk: 1, version: 2, attempt: 2, sources: [{ server: 1, host: 'test', port: 1 }] }
const atTwo = { version: 2, lease: 11 }
const LENGTH = 3 * PAGE_SIZE_BYTES

interface Scene {
  readonly source: Rig
  readonly rig: Rig
  readonly joiner: Joiner
  /** One entry for each report. */
  readonly told: string[]
}

async function scene(seed: number, page?: (source: Rig, rig: Rig) => PageSource): Promise<Scene> {
  const source = await makeRig(seed)
  const rig = await makeRig(seed + 1)
  for (const each of [source, rig]) {
    await createReplica(each)
    await write(each, 0, pattern(1, LENGTH))
    await flush(each)
  }
  await persist(source, 2, Role.inSync)
  await persist(rig, 2, Role.joining)
  const told: string[] = []
  const pages = page?.(source, rig) ?? sourceOf(source, rig)
  const joiner = new Joiner(rig.store, () => Promise.resolve(pages), {
    onJoined: ({ version, attempt }) => void told.push(`joined ${version} ${attempt}`),
    onJoinFailed: (_order, reason) => void told.push(reason),
  })
  rig.control.onEpochChange = (replica) => joiner.abort(replica)
  return { source, rig, joiner, told }
}

async function settle({ source, rig, told }: Scene, reports: number): Promise<void> {
  for (let round = 0; round < 2000 && told.length < reports; round++)
    for (const each of [source, rig]) await each.clock.advance(1)
  assert.deepEqual(told, new Array<string>(reports).fill('joined 2 2'))
}

/** A whole page and a part of another: the joiner answers, the source is to get it later. */
async function writeEarly(rig: Rig): Promise<void> {
  assert.equal((await write(rig, 0, pattern(2, PAGE_SIZE_BYTES), atTwo)).code, '')
  assert.equal((await write(rig, PAGE_SIZE_BYTES + 100, pattern(3, 200), atTwo)).code, '')
}

async function assertEqualAfterPromotion({ source, rig }: Scene): Promise<void> {
  await writeEarly(source)
  await rig.clock.settled(rig.control.promote(1, 2))
  const expected = pattern(1, LENGTH)
  pattern(2, PAGE_SIZE_BYTES).copy(expected, 0)
  pattern(3, 200).copy(expected, PAGE_SIZE_BYTES + 100)
  for (const each of [source, rig]) assert.deepEqual(await read(each, 0, LENGTH, atTwo), expected)
}

test('rules P4, E6: a completed join that is ordered again takes back no write', async () => {
  const all = await scene(101)
  all.joiner.join(order)
  await settle(all, 1)
  await writeEarly(all.rig)
  all.joiner.join(order)
  await settle(all, 2)
  await assertEqualAfterPromotion(all)
})

test('rules P4, J10: a join that is ordered again while it runs takes back no write', async () => {
  let isHeld = true
  const all = await scene(103, (source, rig) => {
    const plain = sourceOf(source, rig)
    return {
      ...plain,
      pull: plain.pull.bind(plain),
      digest: plain.digest.bind(plain),
      regionDigests: (...chunk) => (isHeld ? new Promise(() => undefined) : plain.regionDigests(...chunk)),
    }
  })
  all.joiner.join(order)
  await writeEarly(all.rig)
  isHeld = false
  all.joiner.join(order)
  await settle(all, 1)
  await assertEqualAfterPromotion(all)
})

test('rule J4: in the next epoch a completed join compares everything again', async () => {
  const all = await scene(105)
  all.joiner.join(order)
  await settle(all, 1)
  // of a writer that died: only the joiner got it
  await writeEarly(all.rig)
  await persist(all.source, 3, Role.inSync)
  await persist(all.rig, 3, Role.joining)
  await assert.rejects(all.rig.clock.settled(all.rig.control.promote(1, 3)), { code: 'REFUSED' })
  all.joiner.join({ ...order, version: 3, attempt: 3 })
  for (let round = 0; round < 2000 && all.told.length < 2; round++)
    for (const each of [all.source, all.rig]) await each.clock.advance(1)
  assert.deepEqual(all.told, ['joined 2 2', 'joined 3 3'])
  await all.rig.clock.settled(all.rig.control.promote(1, 3))
  assert.deepEqual(await read(all.rig, 0, LENGTH, { version: 3, lease: 11 }), pattern(1, LENGTH))
})

test('rule F7: a completed join says nothing after a write error, also at the same version', async () => {
  const all = await scene(107)
  all.joiner.join(order)
  await settle(all, 1)
  all.rig.disk.faults.failWrites = 1
  void send(
    all.rig,
    dataRequest(DataOp.write, { ...atTwo, length: PAGE_SIZE_BYTES }),
    pattern(2, PAGE_SIZE_BYTES),
  )
  await all.rig.clock.advance(100)
  all.rig.disk.faults.failWrites = 0
  assert.throws(() => all.joiner.join(order), { code: 'DISK_FAILED' })
  await persist(all.rig, 2, Role.joining)
  await assert.rejects(all.rig.clock.settled(all.rig.control.promote(1, 2)), { code: 'REFUSED' })
})

test('rule J4: a joiner that restarted says so: what it had answered is not to be compared at that version', async () => {
  for (const isClean of [true, false]) {
    const all = await scene(109)
    all.joiner.join(order)
    await settle(all, 1)
    await writeEarly(all.rig)
    const reportOfOne = (rig: Rig) => [...rig.store.replicas.values()].map(reportOf)[0]
    assert.equal(reportOfOne(all.rig)?.restarted, false)
    if (isClean) await all.rig.clock.settled(closeStore(all.rig.store))
    else all.rig.disk.losePower(0)
    const again = await openRig(all.rig.disk)
    const report = reportOfOne(again)
    assert.deepEqual([report?.restarted, report?.unclean], [true, !isClean])
    await persist(again, 3, Role.joining)
    assert.equal(reportOfOne(again)?.restarted, false)
  }
})
