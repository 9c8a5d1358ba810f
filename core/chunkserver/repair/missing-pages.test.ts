/**
 * A page that rotted on the last member in sync, while a replica that had left has it with a write on top that
 * was never acknowledged (simulator seed 307): where it may be taken from, and where not.
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { PAGE_SIZE_BYTES } from '../../base/units.ts'
import { DataOp } from '../../wire/data.ts'
import {
  ask,
  createReplica,
  dataRequest,
  flush,
  makeRig,
  openRig,
  pattern,
  persist,
  read,
  type Rig,
  settleAll,
  sourceAddress,
  sourceOf,
  write,
} from '../../testing/chunk-store-rig.ts'
import { chunkPath, pagePosition, regionSlotPosition } from '../format/chunk-layout.ts'
import { Joiner } from './joiner.ts'
import type { PageSource, SourceAddress } from './page-source.ts'
import { Repairer, type RepairOrder } from './repairer.ts'
import { ReplicaState, Role } from '../format/replica-state.ts'
import { closeStore } from '../store/store-open.ts'

const PAGE = 2
const AT = PAGE * PAGE_SIZE_BYTES
const base = pattern(1, 4 * PAGE_SIZE_BYTES)
const unacknowledged = pattern(2, 100)

function rot(rig: Rig): void {
  rig.disk.flipBit(chunkPath(1), pagePosition(PAGE) + 2000, 1)
}

/** What the page must read as when nothing is lost: the last write was answered by the former member alone. */
function expected(): Buffer {
  const page = Buffer.from(base.subarray(AT, AT + PAGE_SIZE_BYTES))
  unacknowledged.copy(page, 50)
  return page
}

/** `last` and `former` in sync at version 1; a write reaches `former` alone, which leaves; `last` goes on at 2. */
async function scene(wasWrittenAfter: boolean): Promise<{ last: Rig; former: Rig }> {
  const last = await makeRig(81)
  const former = await makeRig(82)
  for (const rig of [last, former]) {
    await createReplica(rig)
    await write(rig, 0, base)
    await flush(rig)
  }
  if (!wasWrittenAfter) {
    rot(last)
    assert.equal((await write(last, AT + 50, unacknowledged)).code, 'BAD_CHECKSUM')
  }
  assert.equal((await write(former, AT + 50, unacknowledged)).code, '')
  await persist(last, 2, Role.inSync)
  if (wasWrittenAfter) {
    const fields = { version: 2, lease: 11 }
    assert.equal((await write(last, AT + 50, unacknowledged, fields)).code, '')
    rot(last)
    assert.equal(await read(last, AT, 10, { version: 2 }), 'BAD_CHECKSUM')
  }
  return { last, former }
}

async function repair(last: Rig, former: Rig, fields: Partial<RepairOrder>): Promise<unknown> {
  const repairer = new Repairer(last.store, () => Promise.resolve(sourceOf(former, last)))
  let outcome: unknown = null
  const order = { chunk: 1, version: 2, pages: [PAGE], sources: [], formers: [sourceAddress(1)], ...fields }
  void repairer.repair(order).then((answer) => {
    outcome = answer
  })
  await settleAll([last, former], () => outcome !== null)
  return outcome
}

async function join(
  rig: Rig,
  sources: readonly (PageSource | null)[],
  version: number,
  inSyncSince: number,
  others: readonly Rig[],
): Promise<number> {
  let lostPages = -1
  const open = ({ server }: SourceAddress): Promise<PageSource> => {
    const source = sources[server] ?? null
    return source === null ? Promise.reject(new Error('silent')) : Promise.resolve(source)
  }
  const joiner = new Joiner(rig.store, open, {
    onJoined: (_order, _bytes, lost) => {
      lostPages = lost
    },
    onJoinFailed: (_order, reason) => assert.fail(reason),
  })
  rig.control.onEpochChange = (replica) => joiner.abort(replica)
  joiner.join({
    chunk: 1,
    version,
    attempt: 1,
    sources: sources.map((_, at) => sourceAddress(at)),
    inSyncSince,
  })
  await settleAll([rig, ...others], () => lostPages >= 0)
  await rig.clock.settled(rig.control.promote(1, version))
  return lostPages
}

test('the last member in sync repairs a page from one that has left and has all of it (rules R1, J7)', async () => {
  const { last, former } = await scene(false)
  assert.deepEqual(await repair(last, former, { inSyncSince: 1 }), { repaired: 1, lost: 0 })
  assert.deepEqual(await read(last, AT, PAGE_SIZE_BYTES, { version: 2 }), expected())
})

test('also from one whose process died meanwhile, when its page is still as it was (rule J7)', async () => {
  const { last, former } = await scene(false)
  await flush(former)
  former.disk.crashProcess()
  const again = await openRig(former.disk)
  assert.deepEqual(await repair(last, again, { inSyncSince: 1 }), { repaired: 1, lost: 0 })
  assert.deepEqual(await read(last, AT, PAGE_SIZE_BYTES, { version: 2 }), expected())
})

test('not from one that lacks a write acknowledged without it, nor across a reconciliation (rules J1, J2)', async () => {
  const late = await scene(true)
  assert.deepEqual(await repair(late.last, late.former, { inSyncSince: 1 }), { repaired: 0, lost: 1 })
  const reconciled = await scene(false)
  assert.deepEqual(await repair(reconciled.last, reconciled.former, { inSyncSince: 2 }), {
    repaired: 0,
    lost: 1,
  })
})

test('not from one whose host lost power, unless its page has the very record of the one that is gone (J2, J3)', async () => {
  const { last, former } = await scene(false)
  await flush(former)
  former.disk.losePower(0)
  const again = await openRig(former.disk)
  assert.deepEqual(await repair(last, again, { inSyncSince: 1 }), { repaired: 0, lost: 1 })

  const equal = await makeRig(83)
  const source = await makeRig(84)
  for (const rig of [equal, source]) {
    await createReplica(rig)
    await write(rig, 0, base)
    await flush(rig)
  }
  rot(equal)
  await persist(equal, 2, Role.inSync)
  source.disk.losePower(0)
  const after = await openRig(source.disk)
  assert.deepEqual(await repair(equal, after, { inSyncSince: 0 }), { repaired: 1, lost: 0 })
})

test('a record that is not the newest one vouches for nothing: its copies elsewhere are old (rules P2, J2)', async () => {
  const last = await makeRig(86)
  const former = await makeRig(87)
  for (const rig of [last, former]) {
    await createReplica(rig)
    await write(rig, 0, base)
    await flush(rig)
  }
  await persist(last, 2, Role.inSync)
  await write(last, AT + 50, unacknowledged, { version: 2, lease: 11 })
  const request = dataRequest(DataOp.flush, { version: 2, incarnation: last.store.incarnation })
  assert.equal((await ask(last, request)).code, '')
  await last.clock.settled(closeStore(last.store))
  // the record of the write at version 2 is in slot 0; the older one tells of the page at version 1
  last.disk.flipBit(chunkPath(1), regionSlotPosition(0, 0) + 500, 1)
  const again = await openRig(last.disk)
  assert.equal(await read(again, AT, 10, { version: 2 }), 'BAD_CHECKSUM')
  assert.deepEqual(await repair(again, former, { inSyncSince: 1 }), { repaired: 0, lost: 1 })
})

test('a silent one that has left may have the page: it is not lost (rule J7)', async () => {
  const { last } = await scene(false)
  const repairer = new Repairer(last.store, () => Promise.reject(new Error('silent')))
  const order = {
    chunk: 1,
    version: 2,
    pages: [PAGE],
    sources: [],
    formers: [sourceAddress(1)],
    inSyncSince: 1,
  }
  assert.deepEqual(await last.clock.settled(repairer.repair(order)), { repaired: 0, lost: 0 })
})

test('a joiner keeps a complete page that its source has lost, and the source gets it from there (rule J7)', async () => {
  const { last, former } = await scene(false)
  await persist(last, 3, Role.inSync)
  await persist(former, 3, Role.joining)
  assert.equal(await join(former, [sourceOf(last, former)], 3, 1, [last]), 0)
  assert.deepEqual(await read(former, AT, PAGE_SIZE_BYTES, { version: 3 }), expected())
  const order = { version: 3, sources: [sourceAddress(1)], formers: [] }
  assert.deepEqual(await repair(last, former, order), { repaired: 1, lost: 0 })
  assert.deepEqual(await read(last, AT, PAGE_SIZE_BYTES, { version: 3 }), expected())
})

test('a joiner gives up a page that may be old: acknowledged without it, or before a reconciliation (J1, J2)', async () => {
  for (const wasWrittenAfter of [true, false]) {
    const { last, former } = await scene(wasWrittenAfter)
    await persist(last, 3, Role.inSync)
    await persist(former, 3, Role.joining)
    const inSyncSince = wasWrittenAfter ? 1 : 2
    assert.equal(await join(former, [sourceOf(last, former)], 3, inSyncSince, [last]), 1)
    assert.equal(await read(former, AT, PAGE_SIZE_BYTES, { version: 3 }), 'BAD_CHECKSUM')
  }
})

test('a page that its source calls lost is only missing here while another source is silent (rule J7)', async () => {
  for (const isSilent of [true, false]) {
    const { last } = await scene(false)
    assert.deepEqual(await repair(last, last, { formers: [] }), { repaired: 0, lost: 1 })
    const rig = await makeRig(85)
    await createReplica(rig, 1, Role.joining, 2)
    const sources = isSilent ? [sourceOf(last, rig), null] : [sourceOf(last, rig)]
    assert.equal(await join(rig, sources, 2, 1, [last]), 1)
    assert.equal(await read(rig, AT, 10, { version: 2 }), isSilent ? 'BAD_CHECKSUM' : 'LOST_PAGE')
  }
})

test('a page that rotted under a writer that died is not adopted: nothing has crashed here (rule P1)', async () => {
  const { last } = await scene(false)
  const repairer = new Repairer(last.store, () => Promise.reject(new Error('nobody is asked')))
  assert.equal((await last.clock.settled(repairer.heal(1, 2, []))).adoptedPages, 0)
  assert.equal(await read(last, AT, 10, { version: 2 }), 'BAD_CHECKSUM')
})

test('the version up to which a replica was in sync is kept while it joins, again and again', () => {
  const state = new ReplicaState()
  state.enter(3, Role.joining)
  assert.equal(state.inSyncVersion, 0)
  state.enter(4, Role.inSync)
  for (const version of [5, 6, 40]) {
    state.enter(version, Role.joining)
    assert.equal(state.inSyncVersion, 4)
  }
  state.enter(41, Role.reconciling)
  assert.equal(state.inSyncVersion, 4)
  // too long ago to be said
  state.enter(300, Role.joining)
  assert.equal(state.inSyncVersion, 0)
  state.enter(301, Role.inSync)
  assert.equal(state.inSyncVersion, 301)
})
