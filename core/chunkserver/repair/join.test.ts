/** Two stores in one process: joining while writes land, healing, repair. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { Prng } from '../../base/prng.ts'
import { MIB, PAGE_SIZE_BYTES } from '../../base/units.ts'
import { DataOp } from '../../wire/data.ts'
import { chunkPath, pagePosition } from '../format/chunk-layout.ts'
import { Joiner } from './joiner.ts'
import type { PageSource, SourceAddress } from './page-source.ts'
import { Verifier } from './verifier.ts'
import { Repairer } from './repairer.ts'
import { Role } from '../format/replica-state.ts'
import {
  type Answer,
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
  send,
  settleAll,
  sourceAddress,
  sourceOf,
  write,
} from '../../testing/chunk-store-rig.ts'

interface Outcome {
  joined: { bytesPulled: number; lostPages: number } | null
  failed: string | null
}

function makeJoiner(rig: Rig, sources: Map<number, PageSource>): { joiner: Joiner; outcome: Outcome } {
  const outcome: Outcome = { joined: null, failed: null }
  const open = (source: SourceAddress): Promise<PageSource> => {
    const found = sources.get(source.server)
    return found === undefined ? Promise.reject(new Error('unreachable')) : Promise.resolve(found)
  }
  const joiner = new Joiner(rig.store, open, {
    onJoined: (_order, bytesPulled, lostPages) => {
      outcome.joined = { bytesPulled, lostPages }
    },
    onJoinFailed: (_order, reason) => {
      outcome.failed = reason
    },
  })
  rig.control.onEpochChange = (replica) => joiner.abort(replica)
  return { joiner, outcome }
}

/** What the quorum does with the last replica after a crash. */
async function revive(rig: Rig, version: number): Promise<void> {
  await persist(rig, version, Role.reconciling)
  const repairer = new Repairer(rig.store, () => Promise.reject(new Error('none')))
  await rig.clock.settled(repairer.heal(1, version, []))
  await rig.clock.settled(rig.control.promote(1, version))
}

async function join(rig: Rig, from: Rig, version: number): Promise<Outcome> {
  const { joiner, outcome } = makeJoiner(rig, new Map([[1, sourceOf(from, rig)]]))
  joiner.join({ chunk: 1, version, attempt: 1, sources: [sourceAddress(1)] })
  await settleAll([rig, from], () => outcome.joined !== null || outcome.failed !== null)
  return outcome
}

async function digests(rig: Rig, version: number): Promise<number[]> {
  const result = await rig.clock.settled(new Verifier(rig.store).verify(1, version, 'pages'))
  assert.deepEqual(result.badPages, [])
  return result.digests
}

test('an empty replica joins, is equal, survives power loss after it said so (rule F1)', async () => {
  const source = await makeRig(1)
  await createReplica(source)
  await write(source, 5000, pattern(1, 300_000))
  await write(source, 40 * MIB, pattern(2, MIB))
  await persist(source, 2, Role.inSync)
  const rig = await makeRig(2)
  await createReplica(rig, 1, Role.joining, 2)
  const outcome = await join(rig, source, 2)
  assert.equal(outcome.failed, null)
  assert.equal(outcome.joined?.bytesPulled, (74 + 256) * PAGE_SIZE_BYTES)
  rig.disk.losePower(0)
  const again = await openRig(rig.disk)
  await rig.clock.settle()
  await revive(again, 3)
  await persist(source, 3, Role.inSync)
  assert.deepEqual(await digests(again, 3), await digests(source, 3))
  assert.deepEqual(await read(again, 5000, 300_000, { version: 3 }), pattern(1, 300_000))
})

test('a join that is complete is not run once more, and promoted; after an unclean stop it is not (rule F1)', async () => {
  const source = await makeRig(1)
  await createReplica(source)
  await write(source, 0, pattern(1, 300_000))
  await persist(source, 2, Role.inSync)
  const rig = await makeRig(2)
  await createReplica(rig, 1, Role.joining, 2)
  assert.equal((await join(rig, source, 2)).failed, null)
  // The master lost the connection for a moment and orders the join again, while its completion is committed.
  const never = (): Promise<never> => new Promise(() => undefined)
  const silent = new Map([[1, { digest: never, regionDigests: never, pull: never }]])
  const { joiner, outcome } = makeJoiner(rig, silent)
  joiner.join({ chunk: 1, version: 2, attempt: 2, sources: [sourceAddress(1)] })
  await rig.clock.settled(rig.control.promote(1, 2))
  assert.deepEqual([joiner.joinCount, outcome.joined], [0, { bytesPulled: 0, lostPages: 0 }])
  assert.deepEqual(await read(rig, 0, 300_000, { version: 2 }), pattern(1, 300_000))
  const other = await makeRig(3)
  await createReplica(other, 1, Role.joining, 2)
  assert.equal((await join(other, source, 2)).failed, null)
  other.disk.losePower(0)
  const again = await openRig(other.disk)
  await assert.rejects(again.clock.settled(again.control.promote(1, 2)), { code: 'REFUSED' })
})

test('a stale replica copies only what differs', async () => {
  const source = await makeRig(3)
  const rig = await makeRig(4)
  for (const each of [source, rig]) {
    await createReplica(each)
    await write(each, 0, pattern(1, MIB))
    await flush(each)
  }
  await persist(source, 2, Role.inSync)
  await write(source, 10 * PAGE_SIZE_BYTES + 7, pattern(2, 100), { version: 2, lease: 11 })
  await ask(
    source,
    dataRequest(DataOp.zero, {
      version: 2,
      lease: 11,
      offset: 20 * PAGE_SIZE_BYTES,
      length: PAGE_SIZE_BYTES,
    }),
  )
  await persist(source, 3, Role.inSync)
  await persist(rig, 3, Role.joining)
  const outcome = await join(rig, source, 3)
  assert.deepEqual(outcome.joined, { bytesPulled: PAGE_SIZE_BYTES, lostPages: 0 })
  await rig.clock.settled(rig.control.promote(1, 3))
  assert.deepEqual(await digests(rig, 3), await digests(source, 3))
})

test('rule P3: a page with the same checksum and an older stamp is not the same page', async () => {
  const source = await makeRig(3)
  const rig = await makeRig(4)
  for (const each of [source, rig]) {
    await createReplica(each)
    await write(each, 0, pattern(1, 3 * PAGE_SIZE_BYTES))
    await flush(each)
  }
  await persist(source, 2, Role.inSync)
  const same = pattern(1, 3 * PAGE_SIZE_BYTES).subarray(PAGE_SIZE_BYTES, 2 * PAGE_SIZE_BYTES)
  await write(source, PAGE_SIZE_BYTES, same, { version: 2, lease: 11 })
  await persist(source, 3, Role.inSync)
  await persist(rig, 3, Role.joining)
  const outcome = await join(rig, source, 3)
  assert.deepEqual(outcome.joined, { bytesPulled: PAGE_SIZE_BYTES, lostPages: 0 })
  await rig.clock.settled(rig.control.promote(1, 3))
  assert.deepEqual(await digests(rig, 3), await digests(source, 3), 'the stamp came with it')
})

test('writes of any size land on both while the join runs; both end equal (rules P3, P4, E2)', async () => {
  for (let seed = 1; seed <= 6; seed++) await joinUnderWrites(seed)
})

async function joinUnderWrites(seed: number): Promise<void> {
  const prng = new Prng(seed)
  const source = await makeRig(seed)
  const rig = await makeRig(seed + 50)
  const areaBytes = 2 * MIB
  const model = Buffer.alloc(areaBytes)
  await createReplica(source)
  await createReplica(rig)
  for (const each of [source, rig]) await write(each, 0, pattern(1, MIB))
  pattern(1, MIB).copy(model)
  await persist(source, 2, Role.inSync)
  for (let count = 0; count < 30; count++) {
    const offset = prng.below(areaBytes - 9000)
    const content = pattern(prng.uint32(), 1 + prng.below(9000))
    await write(source, offset, content, { version: 2, lease: 11 })
    content.copy(model, offset)
  }
  await persist(source, 3, Role.inSync)
  await persist(rig, 3, Role.joining)
  source.disk.faults.delayMs = 1 + prng.below(3)
  rig.disk.faults.delayMs = 1 + prng.below(3)
  const { joiner, outcome } = makeJoiner(rig, new Map([[1, sourceOf(source, rig)]]))
  const answers: Promise<Answer>[] = []
  const busy = new Set<number>()
  let joining = false
  for (let count = 0; count < 60; count++) {
    if (count === 10) {
      joiner.join({ chunk: 1, version: 3, attempt: 1, sources: [sourceAddress(1)] })
      joining = true
    }
    const offset = prng.below(areaBytes - 9000)
    const content = pattern(prng.uint32(), 1 + prng.below(9000))
    // rule E9: a client sends nothing that shares a page with an unanswered write
    const pages = new Set<number>()
    for (let at = offset; at < offset + content.length; at++) pages.add(Math.floor(at / PAGE_SIZE_BYTES))
    if ([...pages].some((page) => busy.has(page))) continue
    for (const page of pages) busy.add(page)
    const fields = { offset, length: content.length, version: 3, lease: 11 }
    const kind = prng.below(5) === 0 ? DataOp.zero : DataOp.write
    const both = [source, rig].map((each) =>
      send(each, dataRequest(kind, fields), kind === DataOp.write ? content : null),
    )
    if (kind === DataOp.write) content.copy(model, offset)
    else model.fill(0, offset, offset + content.length)
    answers.push(...both)
    void Promise.all(both).then(() => pages.forEach((page) => busy.delete(page)))
    for (const each of [source, rig]) await each.clock.advance(prng.below(4))
  }
  assert.ok(joining)
  let answered = false
  void Promise.all(answers).then(() => {
    answered = true
  })
  await settleAll([source, rig], () => answered && (outcome.joined !== null || outcome.failed !== null))
  assert.equal(outcome.failed, null, `seed ${seed}`)
  for (const answer of await Promise.all(answers)) assert.equal(answer.code, '', `seed ${seed}`)
  await rig.clock.settled(rig.control.promote(1, 3))
  assert.deepEqual(await digests(rig, 3), await digests(source, 3), `seed ${seed}`)
  for (const each of [source, rig]) {
    const got = await read(each, 0, MIB, { version: 3 })
    assert.ok(got instanceof Buffer && got.equals(model.subarray(0, MIB)), `seed ${seed}`)
  }
}

test('rule P4: a pulled page is dropped when a writer was faster', async () => {
  const source = await makeRig(18)
  await createReplica(source)
  await write(source, 0, pattern(1, 4 * PAGE_SIZE_BYTES))
  const rig = await makeRig(19)
  await createReplica(rig, 1, Role.joining)
  const fresh = pattern(2, PAGE_SIZE_BYTES)
  const fields = dataRequest(DataOp.write, { offset: PAGE_SIZE_BYTES, length: PAGE_SIZE_BYTES })
  let early: Promise<Answer> | null = null
  // after the comparison, before the source reads the page: the write reaches the joiner first
  const slow = sourceOf(source, rig, (op) => {
    if (op === DataOp.pull && early === null) early = send(rig, fields, fresh)
  })
  const { joiner, outcome } = makeJoiner(rig, new Map([[1, slow]]))
  joiner.join({ chunk: 1, version: 1, attempt: 1, sources: [sourceAddress(1)] })
  await settleAll([rig, source], () => outcome.joined !== null)
  assert.equal((await send(source, fields, fresh)).code, '')
  await rig.clock.settled(rig.control.promote(1, 1))
  assert.deepEqual(await read(rig, PAGE_SIZE_BYTES, PAGE_SIZE_BYTES), fresh)
  assert.deepEqual(await digests(rig, 1), await digests(source, 1))
})

test('rule J6: while the disk keeps a sync waiting nothing is pulled, then the join goes on', async () => {
  const source = await makeRig(1)
  await createReplica(source)
  await write(source, 0, pattern(1, 300_000))
  await persist(source, 2, Role.inSync)
  const rig = await makeRig(2)
  await createReplica(rig, 1, Role.joining, 2)
  await createReplica(rig, 7)
  await write(rig, 0, pattern(2, PAGE_SIZE_BYTES), { chunk: 7 })
  rig.disk.faults.hanging = true
  send(rig, dataRequest(DataOp.flush, { chunk: 7, incarnation: rig.store.incarnation })).catch(
    () => undefined,
  )
  await rig.clock.advance(600)
  let pullCount = 0
  const from = sourceOf(source, rig)
  const counted: PageSource = {
    digest: (...parameters) => from.digest(...parameters),
    regionDigests: (...parameters) => from.regionDigests(...parameters),
    pull: (...parameters) => {
      pullCount++
      return from.pull(...parameters)
    },
  }
  const { joiner, outcome } = makeJoiner(rig, new Map([[1, counted]]))
  joiner.join({ chunk: 1, version: 2, attempt: 1, sources: [sourceAddress(1)] })
  for (let step = 0; step < 20; step++) {
    await source.clock.advance(100)
    await rig.clock.advance(100)
  }
  assert.equal(pullCount, 0)
  rig.disk.releaseHanging()
  await settleAll([rig, source], () => outcome.joined !== null || outcome.failed !== null)
  assert.equal(outcome.failed, null)
  assert.ok(pullCount > 0)
})

test('rule J10: the join goes on from another source; with none left it fails', async () => {
  const source = await makeRig(5)
  await createReplica(source)
  await write(source, 0, pattern(1, MIB))
  const rig = await makeRig(6)
  await createReplica(rig, 1, Role.joining)
  const { joiner, outcome } = makeJoiner(rig, new Map([[2, sourceOf(source, rig)]]))
  joiner.join({ chunk: 1, version: 1, attempt: 1, sources: [sourceAddress(1), sourceAddress(2)] })
  await settleAll([rig, source], () => outcome.joined !== null)
  const lonely = await makeRig(7)
  await createReplica(lonely, 1, Role.joining)
  const second = makeJoiner(lonely, new Map())
  second.joiner.join({ chunk: 1, version: 1, attempt: 1, sources: [sourceAddress(1)] })
  await settleAll([lonely], () => second.outcome.failed !== null)
  await assert.rejects(lonely.clock.settled(lonely.control.promote(1, 1)), { code: 'REFUSED' })
})

test('rule J7: a page nobody can supply is missing here too, lost when nobody may have it; a full write heals it', async () => {
  const source = await makeRig(8)
  await createReplica(source)
  await write(source, 0, pattern(1, 4 * PAGE_SIZE_BYTES))
  source.disk.flipBit(chunkPath(1), pagePosition(2), 1)
  const rig = await makeRig(9)
  await createReplica(rig, 1, Role.joining)
  const outcome = await join(rig, source, 1)
  assert.equal(outcome.joined?.lostPages, 1)
  await rig.clock.settled(rig.control.promote(1, 1))
  assert.equal(await read(rig, 2 * PAGE_SIZE_BYTES, 10), 'BAD_CHECKSUM')
  for (const each of [rig, source]) {
    const repairer = new Repairer(each.store, () => Promise.reject(new Error('nobody is asked')))
    assert.deepEqual(
      await each.clock.settled(repairer.repair({ chunk: 1, version: 1, pages: [2], sources: [] })),
      { repaired: 0, lost: 1 },
    )
  }
  assert.deepEqual(await digests(rig, 1), await digests(source, 1))
  assert.equal(await read(rig, 2 * PAGE_SIZE_BYTES, 10), 'LOST_PAGE')
  assert.equal((await write(rig, 2 * PAGE_SIZE_BYTES, pattern(5, 10))).code, 'LOST_PAGE')
  assert.equal((await write(rig, 2 * PAGE_SIZE_BYTES, pattern(5, PAGE_SIZE_BYTES))).code, '')
  assert.deepEqual(await read(rig, 2 * PAGE_SIZE_BYTES, PAGE_SIZE_BYTES), pattern(5, PAGE_SIZE_BYTES))
})

test('rules J2, J7: a joiner keeps its good copy of what its source has lost, and the source repairs itself from it', async () => {
  for (const isLost of [false, true]) {
    const source = await makeRig(24)
    const rig = await makeRig(25)
    for (const each of [source, rig]) {
      await createReplica(each)
      await write(each, 0, pattern(1, 4 * PAGE_SIZE_BYTES))
      await flush(each)
    }
    source.disk.flipBit(chunkPath(1), pagePosition(2), 1)
    assert.equal(await read(source, 2 * PAGE_SIZE_BYTES, 10), 'BAD_CHECKSUM')
    const repairer = new Repairer(source.store, () => Promise.resolve(sourceOf(rig, source)))
    if (isLost)
      assert.equal(
        (await source.clock.settled(repairer.repair({ chunk: 1, version: 1, pages: [2], sources: [] }))).lost,
        1,
      )
    await persist(source, 2, Role.inSync)
    await persist(rig, 2, Role.joining)
    const outcome = await join(rig, source, 2)
    assert.deepEqual(outcome.joined, { bytesPulled: 0, lostPages: 0 })
    await rig.clock.settled(rig.control.promote(1, 2))
    let repaired: unknown = null
    void repairer.repair({ chunk: 1, version: 2, pages: [2], sources: [sourceAddress(1)] }).then((answer) => {
      repaired = answer
    })
    await settleAll([rig, source], () => repaired !== null)
    assert.deepEqual(repaired, { repaired: 1, lost: 0 })
    assert.deepEqual(
      await read(source, 0, 4 * PAGE_SIZE_BYTES, { version: 2 }),
      pattern(1, 4 * PAGE_SIZE_BYTES),
    )
  }
})

test('a replica whose file is gone, or that failed to sync, joins again and is equal', async () => {
  for (const how of ['file gone', 'sync failed'] as const) {
    const source = await makeRig(20)
    let rig = await makeRig(21)
    for (const each of [source, rig]) {
      await createReplica(each)
      await write(each, 0, pattern(1, 20 * PAGE_SIZE_BYTES))
      await flush(each)
    }
    if (how === 'file gone') {
      rig.disk.crashProcess()
      rig.disk.remove(chunkPath(1))
      rig = await openRig(rig.disk)
      assert.notEqual(rig.store.replicas.get(1)?.damage, '')
    } else {
      for (const each of [source, rig]) await write(each, 0, pattern(2, 100))
      rig.disk.faults.failSyncs = 1
      assert.equal((await flush(rig)).code, 'DISK_FAILED')
    }
    await persist(source, 2, Role.inSync)
    await persist(rig, 2, Role.joining)
    const outcome = await join(rig, source, 2)
    assert.equal(outcome.failed, null, how)
    await rig.clock.settled(rig.control.promote(1, 2))
    assert.deepEqual(await digests(rig, 2), await digests(source, 2), how)
    rig.disk.losePower(0)
    const again = await openRig(rig.disk)
    await revive(again, 3)
    await persist(source, 3, Role.inSync)
    assert.deepEqual(await digests(again, 3), await digests(source, 3), how)
  }
})

test('rule J2: a joining member is no source; nor is one that has not been looked at since a crash', async () => {
  const rig = await makeRig(10)
  await createReplica(rig, 1, Role.joining)
  const request = dataRequest(DataOp.digest, { offset: 0, length: MIB })
  assert.equal((await ask(rig, request)).code, 'NOT_IN_SYNC')
  const other = await makeRig(11)
  await createReplica(other)
  await write(other, 0, pattern(1, 100))
  other.disk.losePower(1)
  const again = await openRig(other.disk)
  assert.equal((await ask(again, request)).code, 'NOT_IN_SYNC')
})

test('rule R1: bad pages of an in-sync replica are repaired from a peer, and it stays in sync', async () => {
  const source = await makeRig(12)
  const rig = await makeRig(13)
  for (const each of [source, rig]) {
    await createReplica(each)
    await write(each, 0, pattern(1, 8 * PAGE_SIZE_BYTES))
  }
  for (const page of [1, 5]) rig.disk.flipBit(chunkPath(1), pagePosition(page) + 9, 2)
  assert.equal(await read(rig, PAGE_SIZE_BYTES, 10), 'BAD_CHECKSUM')
  const repairer = new Repairer(rig.store, () => Promise.resolve(sourceOf(source, rig)))
  const outcome = await rig.clock.settled(
    repairer.repair({ chunk: 1, version: 1, pages: [1, 3, 5], sources: [sourceAddress(1)] }),
  )
  assert.deepEqual(outcome, { repaired: 3, lost: 0 })
  assert.deepEqual(await read(rig, 0, 8 * PAGE_SIZE_BYTES), pattern(1, 8 * PAGE_SIZE_BYTES))
})

test('repair without any good copy makes the page lost, an unreachable source does not', async () => {
  const rig = await makeRig(14)
  await createReplica(rig)
  await write(rig, 0, pattern(1, PAGE_SIZE_BYTES))
  rig.disk.flipBit(chunkPath(1), pagePosition(0), 1)
  const repairer = new Repairer(rig.store, () => Promise.reject(new Error('unreachable')))
  assert.deepEqual(
    await rig.clock.settled(
      repairer.repair({ chunk: 1, version: 1, pages: [0], sources: [sourceAddress(1)] }),
    ),
    {
      repaired: 0,
      lost: 0,
    },
  )
  assert.equal(await read(rig, 0, 10), 'BAD_CHECKSUM')
  assert.deepEqual(
    await rig.clock.settled(repairer.repair({ chunk: 1, version: 1, pages: [0], sources: [] })),
    { repaired: 0, lost: 1 },
  )
  assert.equal(await read(rig, 0, 10), 'LOST_PAGE')
})

test('heal takes what does not verify from a peer that has it, adopts the rest, knows the written end', async () => {
  const rigs = [await makeRig(15), await makeRig(16)] as const
  for (const rig of rigs) {
    await createReplica(rig)
    await write(rig, 0, pattern(1, 4 * PAGE_SIZE_BYTES))
    await flush(rig)
    await write(rig, 3 * PAGE_SIZE_BYTES, pattern(2, 3 * PAGE_SIZE_BYTES - 8))
  }
  // the second one had synced in the background; both processes die
  await flush(rigs[1])
  const reopened: Rig[] = []
  for (const rig of rigs) {
    rig.disk.crashProcess()
    reopened.push(await openRig(rig.disk))
  }
  const [authority, peer] = reopened
  assert.ok(authority !== undefined && peer !== undefined)
  for (const rig of reopened) await persist(rig, 2, Role.reconciling)
  const repairer = new Repairer(authority.store, () => Promise.resolve(sourceOf(peer, authority)))
  const healed = repairer.heal(1, 2, [sourceAddress(1)])
  let done = false
  void healed.then(() => {
    done = true
  })
  await settleAll([authority, peer], () => done)
  assert.deepEqual(await healed, { writtenEnd: 6 * PAGE_SIZE_BYTES - 8, adoptedPages: 0 })
  const outcome = await join(peer, authority, 2)
  assert.deepEqual(outcome.joined, { bytesPulled: 0, lostPages: 0 })
  for (const rig of reopened) {
    await rig.clock.settled(rig.control.promote(1, 2))
    assert.deepEqual(
      await read(rig, 3 * PAGE_SIZE_BYTES, 3 * PAGE_SIZE_BYTES - 8, { version: 2 }),
      pattern(2, 3 * PAGE_SIZE_BYTES - 8),
    )
  }
})

test('rule E2: a new epoch ends the join, and discards writes that wait for a base', async () => {
  const rig = await makeRig(17)
  await createReplica(rig, 1, Role.joining)
  const waiting = send(rig, dataRequest(DataOp.write, { offset: 10, length: 10 }), pattern(1, 10))
  await rig.clock.settle()
  await persist(rig, 2, Role.joining)
  assert.equal((await rig.clock.settled(waiting)).code, 'WRONG_VERSION')
})
