// Proves the log with one member: what a caller heard survives a crash at any commit, nothing is half there,
// replay gives the state that was, order and batching hold, queues are bounded, and errors are fatal.

import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import {
  SimulatedHardState,
  SimulatedHardStateContents,
} from '../../testing/simulation/simulated-hard-state.ts'
import {
  type CommitFate,
  SimulatedStore,
  SimulatedStoreContents,
} from '../../testing/simulation/simulated-store.ts'
import { TrailingLog } from '../../raft/index.ts'
import { NamespaceBench, type ShortCommand } from '../namespace/namespace-bench.ts'
import type { Command } from '../state/commands.ts'
import { stateDigest } from '../state/state.ts'
import { decodeLogEntry, encodeLogEntry } from '../log/codec.ts'
import { ROWS_BEHIND_ENTRIES_MAX } from './applier.ts'
import { PROPOSALS_QUEUED_MAX } from './proposals.ts'
import { RaftLog } from './raft-log.ts'
import { trimThrough, type WindowLimits } from './recovery.ts'
import { stillClock, testLog, testLogOptions } from './test-log.ts'

const clock = stillClock((callback) => void setImmediate(callback))

interface Member {
  readonly bench: NamespaceBench
  readonly log: RaftLog
  readonly store: SimulatedStore
  readonly fatal: Error[]
}

const hardStates = new WeakMap<SimulatedStoreContents, SimulatedHardStateContents>()

/** What lies beside a store. */
function hardStateOf(contents: SimulatedStoreContents): SimulatedHardStateContents {
  let hardState = hardStates.get(contents)
  if (hardState === undefined) hardStates.set(contents, (hardState = new SimulatedHardStateContents()))
  return hardState
}

function copyOf(contents: SimulatedStoreContents): SimulatedStoreContents {
  const copy = contents.copy()
  hardStateOf(copy).state = hardStateOf(contents).state
  return copy
}

async function startMember(
  contents: SimulatedStoreContents,
  fateOf?: (number: number) => CommitFate,
  window?: WindowLimits,
  commitTurns = 1,
): Promise<Member> {
  const afterTurns = (count: number, callback: () => void): void =>
    void setImmediate(() => (count > 1 ? afterTurns(count - 1, callback) : callback()))
  const store = new SimulatedStore(contents, {
    schedule: (callback) => afterTurns(commitTurns, callback),
    // The first commit is that of the election.
    ...(fateOf === undefined ? {} : { fateOf: (number) => (number === 1 ? 'done' : fateOf(number - 1)) }),
  })
  const bench = new NamespaceBench({ empty: true, withSessions: true })
  const fatal: Error[] = []
  const { log } = await testLog({
    store,
    hardState: new SimulatedHardState(hardStateOf(contents)),
    machine: bench.machine,
    clock,
    onFatal: (error) => fatal.push(error),
    ...(window === undefined ? {} : { window }),
  })
  return { bench, log, store, fatal }
}

const openSession: Command = { type: 'session.open', name: 'n', host: 'h', kind: 'k', secret: 's' }

function create(name: string, sequence: number, acknowledgedBelow = 0): Command {
  const what = { parent: 1, name, mode: 0o644, uid: 0, gid: 0, exclusive: true, lease: false }
  const short: ShortCommand = { type: 'fs.create', ...what }
  return { ...short, session: 1, mutation: { sequence, acknowledgedBelow } } as Command
}

const turn = () => new Promise<void>((resolve) => void setImmediate(resolve))

/** Until the process has "crashed" or all is answered. */
async function settle(member: Member, isDone: () => boolean): Promise<void> {
  for (let turns = 0; turns < 1_000; turns++) {
    if (member.store.isCrashed || isDone()) return
    await turn()
  }
  assert.fail('the log neither answered nor crashed')
}

describe('crash at every commit', () => {
  const total = 60
  for (const fate of ['crash-before', 'crash-after'] as const) {
    for (let crashAt = 1; crashAt <= 12; crashAt++) {
      test(`${fate} of commit ${crashAt}`, async () => {
        const contents = new SimulatedStoreContents()
        const first = await startMember(contents, (number) => (number === crashAt ? fate : 'done'))
        const heard: string[] = []
        let answered = 0
        void first.log.propose(openSession)
        await turn()
        for (let sequence = 1; sequence <= total; sequence++) {
          void first.log.propose(create(`f${sequence}`, sequence)).then((result) => {
            if ('ok' in result) heard.push(`f${sequence}`)
            answered += 1
          })
          if (sequence % 3 === 0) await turn()
        }
        await settle(first, () => answered === total)
        assert.ok(first.store.isCrashed, 'the crash must have happened')

        const second = await startMember(contents)
        const names = second.bench.state.entries
        for (const name of heard) assert.ok(names.entry(1, name), `${name} was acknowledged and is lost`)
        // A prefix: whatever is there, nothing before it is missing.
        const count = names.entryCount(1)
        for (let sequence = 1; sequence <= count; sequence++) assert.ok(names.entry(1, `f${sequence}`))
        // Repeating everything gives each name once.
        await second.log.propose(openSession)
        for (let sequence = 1; sequence <= total; sequence++) {
          assert.ok('ok' in (await second.log.propose(create(`f${sequence}`, sequence))))
        }
        assert.equal(names.entryCount(1), total)
        assert.equal(second.bench.state.inodes.size, total + 1)

        // A clean end and a start without one give the same state.
        const digest = stateDigest(second.bench.state)
        const third = await startMember(copyOf(contents))
        assert.equal(stateDigest(third.bench.state), digest)
        await second.log.close()
        const fourth = await startMember(contents)
        assert.equal(stateDigest(fourth.bench.state), digest)
        // Its own election is one entry more.
        assert.equal(fourth.log.appliedIndex, second.log.appliedIndex + 1)
      })
    }
  }
})

describe('batches and order', () => {
  test('proposals of one turn are one commit, applied in order', async () => {
    const member = await startMember(new SimulatedStoreContents())
    const seen: number[] = []
    member.log.onApplied((_entry, _result, index) => seen.push(index))
    const { commitCount } = member.store
    await Promise.all([
      member.log.propose(openSession),
      ...Array.from({ length: 99 }, (_, count) => member.log.propose(create(`f${count}`, count + 1))),
    ])
    assert.equal(member.store.commitCount, commitCount + 1)
    assert.deepEqual(
      seen,
      Array.from({ length: 100 }, (_, count) => count + 2),
    )
    assert.equal(member.log.appliedIndex, 101)
  })

  test('what is proposed while the disk works goes into the log after it, together', async () => {
    const member = await startMember(new SimulatedStoreContents(), undefined, undefined, 10)
    await member.log.propose(openSession)
    const { lastIndex } = member.log.status
    const first = member.log.propose(create('first', 1))
    await turn()
    const others = [2, 3, 4].map((sequence) => member.log.propose(create(`f${sequence}`, sequence)))
    await turn()
    const { commitCount } = member.store
    assert.equal(member.log.status.lastIndex, lastIndex + 1, 'nothing was put behind what was being written')
    await first
    await Promise.all(others)
    assert.equal(member.store.commitCount, commitCount + 1)
  })

  test('rows lag the log by a bounded number of entries, and not at all after an end in order', async () => {
    const contents = new SimulatedStoreContents()
    const member = await startMember(contents)
    await member.log.propose(openSession)
    for (let sequence = 1; sequence < ROWS_BEHIND_ENTRIES_MAX - 10; sequence++)
      await member.log.propose(create(`f${sequence}`, sequence, sequence))
    assert.equal(contents.rows.get('entries')?.size ?? 0, 0)
    const total = ROWS_BEHIND_ENTRIES_MAX + 10
    for (let sequence = ROWS_BEHIND_ENTRIES_MAX - 10; sequence <= total; sequence++)
      await member.log.propose(create(`f${sequence}`, sequence, sequence))
    assert.ok((contents.rows.get('entries')?.size ?? 0) >= ROWS_BEHIND_ENTRIES_MAX - 10)
    assert.ok((contents.rows.get('replies')?.size ?? 0) <= 2, 'acknowledged answers never become rows')
    await member.log.close()
    const again = await startMember(copyOf(contents))
    assert.equal(stateDigest(again.bench.state), stateDigest(member.bench.state))
  })

  test('a caller hears only after its state can be read', async () => {
    const member = await startMember(new SimulatedStoreContents())
    await member.log.propose(openSession)
    const proposed = member.log.propose(create('a', 1))
    assert.equal(member.bench.state.entries.entryCount(1), 0, 'nothing is applied before it is durable')
    await proposed
    assert.equal(member.bench.state.entries.entryCount(1), 1)
  })

  test('too many proposals are refused without being tried', async () => {
    const member = await startMember(new SimulatedStoreContents())
    const results = await Promise.all(
      Array.from({ length: PROPOSALS_QUEUED_MAX + 10 }, () => member.log.propose(openSession)),
    )
    const refusals = results.filter((result) => 'error' in result && result.error === 'OVERLOADED')
    assert.equal(refusals.length, 10)
  })

  test('before the start and after the end nothing is taken', async () => {
    const bench = new NamespaceBench({ empty: true, withSessions: true })
    let onMaster = (): void => {}
    const isMaster = new Promise<void>((resolve) => (onMaster = resolve))
    const log = new RaftLog(
      testLogOptions({
        store: new SimulatedStore(new SimulatedStoreContents()),
        hardState: new SimulatedHardState(new SimulatedHardStateContents()),
        machine: bench.machine,
        clock,
        onFatal: assert.fail,
        onMaster,
      }),
    )
    const before = await log.propose(openSession)
    assert.ok('error' in before && before.error === 'STARTING')
    await log.start()
    const early = await log.propose(openSession)
    assert.ok('error' in early && early.error === 'NOT_MASTER')
    await isMaster
    const last = log.propose(openSession)
    await log.close()
    assert.ok('ok' in (await last), 'what was taken before the end is carried out')
    const after = await log.propose(openSession)
    assert.ok('error' in after && after.error === 'NOT_MASTER')
  })

  test('a text that the log would change is refused', async () => {
    const member = await startMember(new SimulatedStoreContents())
    const result = await member.log.propose({ ...openSession, name: 'half \ud800' } as typeof openSession)
    assert.ok('error' in result && result.error === 'BAD_MESSAGE')
  })

  test('an error of the store is fatal, once, and nobody gets an answer', async () => {
    const member = await startMember(new SimulatedStoreContents(), () => 'fail')
    let isAnswered = false
    void member.log.propose(openSession).then(() => {
      isAnswered = true
    })
    await settle(member, () => member.fatal.length > 0)
    await turn()
    assert.equal(member.fatal.length, 1)
    assert.equal(isAnswered, false)
    assert.equal(member.log.isReady, false)
    assert.equal(member.log.appliedIndex, 1)
  })
})

describe('the trailing window (rule L10)', () => {
  test('keeps its entries behind the applied index', async () => {
    const contents = new SimulatedStoreContents()
    const member = await startMember(contents, undefined, { entriesMax: 20, bytesMax: 1e9, step: 5 })
    for (let count = 0; count < 200; count++) await member.log.propose(openSession)
    const indexes = [...contents.entries.keys()]
    assert.ok(indexes.length >= 20 && indexes.length <= 27, `${indexes.length} are kept`)
    assert.equal(Math.max(...indexes), 201)
    const again = await startMember(contents, undefined, { entriesMax: 20, bytesMax: 1e9, step: 5 })
    assert.equal(stateDigest(again.bench.state), stateDigest(member.bench.state))
    for (let count = 0; count < 50; count++) await again.log.propose(openSession)
    assert.ok(contents.entries.size <= 27)
  })

  test('never trims what is not applied, whatever its size', () => {
    const log = new TrailingLog()
    for (let index = 1; index <= 50; index++)
      log.append([{ index, term: 1, kind: 'command', data: Buffer.alloc(60) }])
    const limits: WindowLimits = { entriesMax: 10, bytesMax: 1_000, step: 1 }
    assert.equal(trimThrough(log, limits, 0), 0)
    assert.equal(trimThrough(log, limits, 7), 7)
    assert.equal(trimThrough(log, limits, 50), 40)
    log.trimThrough(40)
    assert.equal(trimThrough(log, limits, 50), 0)
  })
})

describe('what lies on disk is checked', () => {
  const entry = { command: openSession, wallSeconds: 1, wallNanoseconds: 2 }

  test('an entry comes back as it was, and in its place only', () => {
    const bytes = encodeLogEntry(entry, 77)
    assert.deepEqual(decodeLogEntry(bytes, 77), entry)
    assert.throws(() => decodeLogEntry(bytes, 78), { code: 'LOG_CORRUPT' })
  })

  test('no flipped bit and no missing tail goes unseen', () => {
    const bytes = encodeLogEntry(entry, 77)
    for (let position = 0; position < bytes.length; position++) {
      const flipped = Buffer.from(bytes)
      flipped[position] = (flipped[position] ?? 0) ^ 0x10
      assert.throws(() => decodeLogEntry(flipped, 77), { code: 'LOG_CORRUPT' })
      assert.throws(() => decodeLogEntry(bytes.subarray(0, position), 77), { code: 'LOG_CORRUPT' })
    }
  })

  const damages: [string, string, (contents: SimulatedStoreContents) => void][] = [
    [
      'a damaged entry',
      'LOG_CORRUPT',
      ({ entries }) => void (entries.get(3)?.data ?? Buffer.alloc(20)).fill(0),
    ],
    ['a gap in the log', 'LOG_CORRUPT', ({ entries }) => void entries.delete(2)],
    ['a damaged row', 'ROW_CORRUPT', ({ rows }) => void rows.get('inodes')?.set('1', '[1]')],
    ['an unknown format', 'STATE_FORMAT', ({ rows }) => void rows.get('meta')?.set('format', 'x')],
    ['a newer format', 'VERSION_TOO_OLD', ({ rows }) => void rows.get('meta')?.set('format', '99')],
    ['an unknown table', 'STATE_FORMAT', ({ rows }) => void rows.set('novel', new Map([['a', '1']]))],
  ]
  for (const [what, code, damage] of damages) {
    test(`${what} ends the start`, async () => {
      const contents = new SimulatedStoreContents()
      const member = await startMember(contents)
      for (let count = 0; count < 3; count++) await member.log.propose(openSession)
      damage(contents)
      await assert.rejects(startMember(contents), { code })
    })
  }
})

test('a master that closes answers nothing any more: nobody gives its lease the time that passes', async () => {
  const contents = new SimulatedStoreContents()
  const member = await startMember(contents)
  await member.log.propose(openSession)
  assert.equal(member.log.isReady, true)
  const closing = member.log.close()
  assert.equal(member.log.isReady, false)
  await closing
  assert.equal(member.log.isReady, false)
})

describe('term and vote (rule L4)', () => {
  test('a member that lost them does not come back, and a new store without them is nobody', async () => {
    const contents = new SimulatedStoreContents()
    const member = await startMember(contents)
    await member.log.propose(openSession)
    await member.log.close()
    hardStateOf(contents).state = null
    const log = new RaftLog({
      ...testLogOptions({
        store: new SimulatedStore(contents),
        hardState: new SimulatedHardState(hardStateOf(contents)),
        machine: new NamespaceBench({ empty: true, withSessions: true }).machine,
        clock,
      }),
      isFounder: false,
    })
    await assert.rejects(log.start(), { code: 'HARD_STATE_DAMAGED' })
    const empty = new RaftLog({
      ...testLogOptions({
        store: new SimulatedStore(new SimulatedStoreContents()),
        hardState: new SimulatedHardState(new SimulatedHardStateContents()),
        machine: new NamespaceBench({ empty: true }).machine,
        clock,
      }),
      isFounder: false,
    })
    await assert.rejects(empty.start(), { code: 'HARD_STATE_DAMAGED' })
  })

  test('what was given to somebody older than the log ends the start', async () => {
    const contents = new SimulatedStoreContents()
    const hardState = hardStateOf(contents)
    const member = await startMember(contents)
    await member.log.close()
    const old = hardState.state
    const again = await startMember(contents)
    await again.log.close()
    hardState.state = old
    await assert.rejects(startMember(contents), { code: 'RAFT_HARD_STATE_LOST' })
  })

  test('nothing is written when nothing must be', async () => {
    const contents = new SimulatedStoreContents()
    const member = await startMember(contents)
    await member.log.propose(openSession)
    const { commitCount } = member.store
    const { saveCount } = hardStateOf(contents)
    for (let turns = 0; turns < 50; turns++) await turn()
    assert.equal(member.store.commitCount, commitCount)
    await member.log.propose(openSession)
    assert.equal(hardStateOf(contents).saveCount, saveCount, 'a command changes neither term nor vote')
  })
})
