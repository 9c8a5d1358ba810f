/**
 * Two things at once that a hostile reading of the rules came up with: each test fails when the line that
 * names its rule is taken out.
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { MIB, PAGE_SIZE_BYTES } from '../../base/units.ts'
import { DataOp } from '../../wire/data.ts'
import { chunkPath, pagePosition } from '../format/chunk-layout.ts'
import { Joiner } from './joiner.ts'
import type { PageSource } from './page-source.ts'
import { Repairer } from './repairer.ts'
import { LOG_NAMES } from '../format/replica-log.ts'
import { Hold } from '../replica/operation-queue.ts'
import { withPages } from '../store/page-tasks.ts'
import { reportOf } from '../store/replica-control.ts'
import { Role } from '../format/replica-state.ts'
import { closeStore } from '../store/store-open.ts'
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
  settleAll,
  sourceAddress,
  sourceOf,
  write,
} from '../../testing/chunk-store-rig.ts'

/** A source whose pulls wait until they are let go. */
function heldSource(source: PageSource): { source: PageSource; letGo: () => void; asked: () => number } {
  const waiting: (() => void)[] = []
  let askedCount = 0
  let isOpen = false
  return {
    source: {
      digest: (...range) => source.digest(...range),
      regionDigests: (...chunk) => source.regionDigests(...chunk),
      async pull(...range) {
        askedCount++
        const pulled = await source.pull(...range)
        if (!isOpen) await new Promise<void>((resolve) => waiting.push(resolve))
        return pulled
      },
    },
    letGo: () => {
      isOpen = true
      for (const resolve of waiting.splice(0)) resolve()
    },
    asked: () => askedCount,
  }
}

test('a stop is clean only after a sync that runs in the background has ended (rule B2)', async () => {
  const rig = await makeRig(61)
  await createReplica(rig)
  await write(rig, 0, pattern(1, PAGE_SIZE_BYTES))
  rig.disk.faults.syncDelayMs = 5000
  rig.store.sync(requireReplica(rig), null)
  await rig.clock.settle()
  rig.disk.faults.syncDelayMs = 0
  let closed = false
  void closeStore(rig.store).then(() => {
    closed = true
  })
  await rig.clock.settle()
  assert.equal(closed, false, 'the sync is under way')
  rig.disk.losePower(0)
  const after = await openRig(rig.disk, rig.clock)
  assert.equal(after.store.uncleanStop, 'host')
  assert.equal(reportOf(requireReplica(after)).unclean, true)
})

function requireReplica(rig: Rig) {
  const replica = rig.store.replicas.get(1)
  assert.ok(replica !== undefined)
  return replica
}

test('a creation in the batch that calls for a snapshot of the log is in the snapshot (rule E12)', async () => {
  const rig = await makeRig(62)
  await createReplica(rig, 2)
  const replica = rig.store.replicas.get(2)
  assert.ok(replica !== undefined)
  const before = LOG_NAMES.filter((name) => rig.disk.contents(name).length > 0)
  // more than the bytes that call for a snapshot, and the creation, in one batch
  for (let count = 0; count < (2 * MIB) / 64; count++) rig.store.log.append(2, replica.logged, null)
  await createReplica(rig, 1)
  const after = LOG_NAMES.filter((name) => rig.disk.contents(name).length > 0)
  assert.notDeepEqual(after, before, 'a snapshot was written')
  await write(rig, 0, pattern(1, 100))
  rig.disk.crashProcess()
  const reopened = await openRig(rig.disk, rig.clock)
  assert.deepEqual(
    [...reopened.store.replicas.keys()].toSorted((a, b) => a - b),
    [1, 2],
  )
})

test('a heal that outlives its epoch does not end the join of the next one (rules E6, J4)', async () => {
  const source = await makeRig(63)
  await createReplica(source)
  await write(source, 0, pattern(1, 4 * PAGE_SIZE_BYTES))
  await flush(source)
  const rig = await makeRig(64)
  await createReplica(rig)
  await write(rig, 0, pattern(2, 4 * PAGE_SIZE_BYTES))
  await flush(rig)
  // one page that the heal asks a peer for, and does not get for long
  rig.disk.flipBit(chunkPath(1), pagePosition(3), 1)
  rig.disk.crashProcess()
  const again = await openRig(rig.disk, rig.clock)
  await persist(again, 2, Role.reconciling)
  await persist(source, 2, Role.reconciling)
  const held = heldSource(sourceOf(source, again))
  const repairer = new Repairer(again.store, () => Promise.resolve(held.source))
  const healed = repairer.heal(1, 2, [sourceAddress(1)]).then(
    () => 'healed',
    (error: { code?: string }) => error.code,
  )
  await settleAll([again, source], () => held.asked() > 0)
  // the master has given up on it: another authority, and this one joins
  await persist(again, 3, Role.joining)
  await persist(source, 3, Role.inSync)
  held.letGo()
  assert.equal(await again.clock.settled(healed), 'WRONG_VERSION')
  assert.equal(requireReplica(again).joinPending, true)
  await assert.rejects(again.clock.settled(again.control.promote(1, 3)), { code: 'REFUSED' })
  const joiner = new Joiner(again.store, () => Promise.resolve(sourceOf(source, again)), {
    onJoined: () => undefined,
    onJoinFailed: () => undefined,
  })
  joiner.join({ chunk: 1, version: 3, attempt: 3, sources: [sourceAddress(1)] })
  await settleAll([again, source], () => joiner.joinCount === 0)
  await again.clock.settled(again.control.promote(1, 3))
  const length = 4 * PAGE_SIZE_BYTES
  assert.deepEqual(await read(again, 0, length, { version: 3 }), pattern(1, length))
})

test('heal adopts nothing while a member that may have the page does not answer (rule P1)', async () => {
  const rig = await makeRig(65)
  await createReplica(rig)
  await write(rig, 0, pattern(1, PAGE_SIZE_BYTES))
  await flush(rig)
  rig.disk.flipBit(chunkPath(1), pagePosition(0), 1)
  rig.disk.crashProcess()
  const again = await openRig(rig.disk, rig.clock)
  await persist(again, 2, Role.reconciling)
  const repairer = new Repairer(again.store, () => Promise.reject(new Error('unreachable')))
  await assert.rejects(again.clock.settled(repairer.heal(1, 2, [sourceAddress(1)])), { code: 'TRY_AGAIN' })
  assert.equal(requireReplica(again).isUnclean, true)
  // asked all of them, and none has it
  const { adoptedPages } = await again.clock.settled(repairer.heal(1, 2, []))
  assert.equal(adoptedPages, 1)
})

test('a replica whose creation is under way is reported as what it becomes (rule E12)', async () => {
  const rig = await makeRig(41)
  rig.disk.faults.hanging = true
  const creating = rig.control.create({ chunk: 1, version: 1, role: Role.inSync, lease: 11 })
  for (let turn = 0; turn < 20; turn++) await rig.clock.advance(1)
  const [replica] = rig.store.replicas.values()
  assert.ok(replica !== undefined)
  const { chunk, version, role, lease } = reportOf(replica)
  assert.deepEqual({ chunk, version, role, lease }, { chunk: 1, version: 1, role: 'in-sync', lease: 11 })
  rig.disk.releaseHanging()
  assert.equal(await rig.clock.settled(creating), '')
  // what a metadata server that knows nothing of the chunk then orders
  assert.equal(await rig.clock.settled(rig.control.delete(1, version)), '')
})

test('a page fetched for a repair is dropped when the epoch has changed meanwhile (rule E6)', async () => {
  const source = await makeRig(66)
  await createReplica(source)
  await write(source, 0, pattern(1, PAGE_SIZE_BYTES))
  const rig = await makeRig(67)
  await createReplica(rig)
  await write(rig, 0, pattern(1, PAGE_SIZE_BYTES))
  rig.disk.flipBit(chunkPath(1), pagePosition(0), 1)
  const held = heldSource(sourceOf(source, rig))
  const repairer = new Repairer(rig.store, () => Promise.resolve(held.source))
  const repaired = repairer.repair({ chunk: 1, version: 1, pages: [0], sources: [sourceAddress(1)] })
  await settleAll([rig, source], () => held.asked() > 0)
  // it misses a version, in which the page was written, and joins again
  await persist(rig, 3, Role.joining)
  held.letGo()
  assert.deepEqual(await rig.clock.settled(repaired), { repaired: 0, lost: 0 })
  assert.equal(requireReplica(rig).isGood(0), false)
})

test('a joiner keeps its own copy of a page that has gone bad at its source (rules R1, J7)', async () => {
  const rigs = [await makeRig(68), await makeRig(69)] as const
  for (const rig of rigs) {
    await createReplica(rig)
    await write(rig, 0, pattern(1, 2 * PAGE_SIZE_BYTES))
    await flush(rig)
  }
  const [source, joining] = rigs
  source.disk.flipBit(chunkPath(1), pagePosition(1), 1)
  assert.equal(await read(source, PAGE_SIZE_BYTES, 10), 'BAD_CHECKSUM')
  await persist(source, 2, Role.inSync)
  await persist(joining, 2, Role.joining)
  let lost = -1
  const joiner = new Joiner(joining.store, () => Promise.resolve(sourceOf(source, joining)), {
    onJoined: (_order, _bytes, lostPages) => {
      lost = lostPages
    },
    onJoinFailed: () => undefined,
  })
  joiner.join({ chunk: 1, version: 2, attempt: 2, sources: [sourceAddress(1)] })
  await settleAll(rigs, () => joiner.joinCount === 0)
  assert.equal(lost, 0)
  await joining.clock.settled(joining.control.promote(1, 2))
  const length = 2 * PAGE_SIZE_BYTES
  assert.deepEqual(await read(joining, 0, length, { version: 2 }), pattern(1, length))
})

test('a new epoch also discards the write that queued behind one that waits for its base (rule E2)', async () => {
  const rig = await makeRig(70)
  await createReplica(rig, 1, Role.joining)
  const request = dataRequest(DataOp.write, { offset: 10, length: 10 })
  const waiting = [1, 2, 3].map((seed) => send(rig, request, pattern(seed, 10)))
  await rig.clock.settle()
  await persist(rig, 2, Role.joining)
  const codes = (await rig.clock.settled(Promise.all(waiting))).map((answer) => answer.code)
  assert.deepEqual(codes, ['WRONG_VERSION', 'WRONG_VERSION', 'WRONG_VERSION'])
})

test('a host crash is reported apart from the end of a process, until the join is done (rule J3)', async () => {
  const rig = await makeRig(71)
  await createReplica(rig)
  await write(rig, 0, pattern(1, PAGE_SIZE_BYTES))
  rig.disk.crashProcess()
  const restarted = await openRig(rig.disk, rig.clock)
  assert.deepEqual(pick(restarted), { unclean: true, crashed: false })
  restarted.disk.losePower(0)
  const rebooted = await openRig(rig.disk, rig.clock)
  assert.deepEqual(pick(rebooted), { unclean: true, crashed: true })
  rebooted.disk.crashProcess()
  const later = await openRig(rig.disk, rig.clock)
  assert.deepEqual(pick(later), { unclean: true, crashed: true }, 'a later end of the process hides nothing')
  await persist(later, 2, Role.reconciling)
  await later.clock.settled(new Repairer(later.store, () => Promise.reject(new Error('none'))).heal(1, 2, []))
  assert.deepEqual(pick(later), { unclean: false, crashed: false })
})

function pick(rig: Rig): { unclean: boolean; crashed: boolean | undefined } {
  const { unclean, crashed } = reportOf(requireReplica(rig))
  return { unclean, crashed }
}

test('a replica that has not been looked at since a crash is not declared in sync by an order (rule B1)', async () => {
  const rig = await makeRig(72)
  await createReplica(rig)
  await write(rig, 0, pattern(1, PAGE_SIZE_BYTES))
  rig.disk.crashProcess()
  const again = await openRig(rig.disk, rig.clock)
  const order = { chunk: 1, version: 2, role: Role.inSync, lease: 11 }
  const held = await again.clock.settled(again.control.persist(order))
  assert.deepEqual(held, { version: 1, code: 'NOT_IN_SYNC' })
  assert.equal(requireReplica(again).isUnclean, true)
})

test('a comparison that queued behind a new epoch marks nothing good in it (rule J4)', async () => {
  const rigs = [await makeRig(73), await makeRig(74)] as const
  for (const rig of rigs) {
    await createReplica(rig)
    await write(rig, 0, pattern(1, 2 * PAGE_SIZE_BYTES))
    await flush(rig)
  }
  const [source, joining] = rigs
  await persist(source, 2, Role.inSync)
  await persist(joining, 2, Role.joining)
  const joiner = new Joiner(joining.store, () => Promise.resolve(sourceOf(source, joining)), {
    onJoined: () => undefined,
    onJoinFailed: () => undefined,
  })
  joining.control.onEpochChange = (replica) => joiner.abort(replica)
  // the barrier of the new epoch stands before the comparison asks for its turn
  let letGo = (): void => undefined
  const busy = (): Promise<void> =>
    new Promise((resolve) => {
      letGo = resolve
    })
  const held = withPages(requireReplica(joining), Hold.read, 0, 0, busy)
  await joining.clock.settle()
  const persisted = joining.control.persist({ chunk: 1, version: 4, role: Role.joining, lease: 11 })
  joiner.join({ chunk: 1, version: 2, attempt: 2, sources: [sourceAddress(1)] })
  for (let round = 0; round < 50; round++) for (const rig of rigs) await rig.clock.advance(1)
  letGo()
  await joining.clock.settled(Promise.all([held, persisted]))
  for (let round = 0; round < 50; round++) for (const rig of rigs) await rig.clock.advance(1)
  assert.equal(requireReplica(joining).isGood(0), false, 'version 3 was missed, the page may be old')
})

test('a member compares everything again when another one becomes the authority (rules J1, J4)', async () => {
  const rigs = [await makeRig(75), await makeRig(76), await makeRig(77)] as const
  // the writer died in the middle: three contents
  for (const [index, rig] of rigs.entries()) {
    await createReplica(rig)
    await write(rig, 0, pattern(index, PAGE_SIZE_BYTES))
    await persist(rig, 2, Role.reconciling)
  }
  const [first, second, member] = rigs
  const sources = new Map([
    [1, sourceOf(first, member)],
    [2, sourceOf(second, member)],
  ])
  const none = (): Promise<never> => Promise.reject(new Error('none'))
  const joiner = new Joiner(
    member.store,
    ({ server }) => {
      const found = sources.get(server)
      return found === undefined ? none() : Promise.resolve(found)
    },
    { onJoined: () => undefined, onJoinFailed: () => undefined },
  )
  for (const rig of [first, second]) await rig.clock.settled(new Repairer(rig.store, none).heal(1, 2, []))
  joiner.join({ chunk: 1, version: 2, attempt: 0, sources: [sourceAddress(1)] })
  await settleAll(rigs, () => joiner.joinCount === 0)
  // another master, to which the first one is not there: the old completion says nothing any more
  const silent: PageSource = {
    digest: () => new Promise(() => undefined),
    regionDigests: () => new Promise(() => undefined),
    pull: () => new Promise(() => undefined),
  }
  sources.set(3, silent)
  joiner.join({ chunk: 1, version: 2, attempt: 0, sources: [sourceAddress(3)] })
  await assert.rejects(member.clock.settled(member.control.promote(1, 2)), { code: 'REFUSED' })
  joiner.join({ chunk: 1, version: 2, attempt: 0, sources: [sourceAddress(2)] })
  await settleAll(rigs, () => joiner.joinCount === 0)
  await member.clock.settled(member.control.promote(1, 2))
  assert.deepEqual(await read(member, 0, PAGE_SIZE_BYTES, { version: 2 }), pattern(1, PAGE_SIZE_BYTES))
})
