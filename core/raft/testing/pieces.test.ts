/** Proves the parts that traces cannot show: messages from a stranger, the log's window, changes of members. */
import { deepEqual, equal, throws } from 'node:assert/strict'
import { test } from 'node:test'
import { Prng } from '../../base/prng.ts'
import { changeConfiguration, encodeConfiguration, quorumValue } from '../configuration.ts'
import {
  decodeConfiguration,
  defaultRaftOptions,
  type Entry,
  initialHardState,
  leaseTicks,
  type Message,
  parseMessage,
  RaftNode,
  TrailingLog,
} from '../index.ts'
import { RaftLog } from '../log.ts'

const configuration = { voters: [1, 2, 3], learners: [4] }
const envelope = { from: 1, to: 2, term: 3 }
const stamp = { tick: 5, leaseEpoch: 1 }
const entry: Entry = { index: 8, term: 3, kind: 'command', data: Buffer.from('x') }
const change: Entry = { index: 9, term: 3, kind: 'configuration', data: encodeConfiguration(configuration) }

const messages: readonly Message[] = [
  { type: 'pre-vote', ...envelope, lastIndex: 0, lastTerm: 0, transfer: null },
  { type: 'vote', ...envelope, lastIndex: 7, lastTerm: 2, transfer: { term: 2, leaseEpoch: 1 } },
  { type: 'pre-vote-response', ...envelope, granted: true },
  { type: 'vote-response', ...envelope, granted: false },
  {
    type: 'append',
    ...envelope,
    ...stamp,
    previousIndex: 7,
    previousTerm: 2,
    entries: [entry, change],
    commit: 7,
  },
  { type: 'append-response', ...envelope, ...stamp, index: 7, rejected: true, hintIndex: 6, hintTerm: 2 },
  { type: 'heartbeat', ...envelope, ...stamp, commit: 7, readSequence: 4 },
  { type: 'heartbeat-response', ...envelope, ...stamp, readSequence: 4 },
  { type: 'snapshot', ...envelope, ...stamp, snapshot: { index: 7, term: 2, configuration } },
  { type: 'timeout-now', ...envelope, leaseEpoch: 1 },
]

test('every message is taken as it is, and nothing that lacks a field or has a wrong one', () => {
  for (const message of messages) {
    deepEqual(parseMessage({ ...message, unknown: 1 }), message)
    for (const name of Object.keys(message)) {
      for (const wrong of [undefined, -1, 1.5, 'x', {}, 2 ** 53])
        throws(
          () => parseMessage({ ...message, [name]: wrong }),
          { code: 'RAFT_BAD_MESSAGE' },
          `${message.type} ${name}`,
        )
    }
  }
  for (const wrong of [null, 7, 'append', []]) throws(() => parseMessage(wrong), { code: 'RAFT_BAD_MESSAGE' })
})

test('entries out of order, of a term above the message or with a broken configuration are refused', () => {
  const append = messages[4] as Message
  const broken: readonly (readonly unknown[])[] = [
    [change],
    [entry, entry],
    [{ ...entry, term: 4 }],
    [{ ...entry, term: 1 }],
    [{ ...entry, kind: 'other' }],
    [{ ...entry, data: 'x' }],
    [{ ...entry, kind: 'configuration' }],
    [{ ...entry, kind: 'configuration', data: Buffer.from('[[1,1],[]]') }],
    new Array<unknown>(100_000).fill(entry),
  ]
  for (const entries of broken)
    throws(() => parseMessage({ ...append, entries }), { code: 'RAFT_BAD_MESSAGE' })
})

test('a configuration changes by one member, and comes back from its bytes', () => {
  const result = (type: 'add-learner' | 'promote' | 'demote' | 'remove', member: number) =>
    changeConfiguration(configuration, { type, member }, 5)
  deepEqual(result('add-learner', 5), { voters: [1, 2, 3], learners: [4, 5] })
  deepEqual(result('promote', 4), { voters: [1, 2, 3, 4], learners: [] })
  deepEqual(result('demote', 2), { voters: [1, 3], learners: [2, 4] })
  deepEqual(result('remove', 4), { voters: [1, 2, 3], learners: [] })
  equal(result('add-learner', 1.5), 'UNKNOWN_MEMBER')
  equal(changeConfiguration(configuration, { type: 'add-learner', member: 5 }, 4), 'TOO_MANY_MEMBERS')
  equal(changeConfiguration({ voters: [1], learners: [] }, { type: 'remove', member: 1 }, 4), 'LAST_VOTER')
  deepEqual(decodeConfiguration(encodeConfiguration(configuration)), configuration)
})

test('a quorum is a majority of the voters', () => {
  const of = (...voters: number[]) => quorumValue({ voters, learners: [9] }, (member) => member * 10)
  deepEqual(
    [of(), of(1), of(1, 2), of(1, 2, 3), of(1, 2, 3, 4), of(1, 2, 3, 4, 5)],
    [-Infinity, 10, 10, 20, 20, 30],
  )
})

const make = (index: number, term: number, sizeBytes = 0): Entry => {
  return { index, term, kind: 'command', data: Buffer.alloc(sizeBytes) }
}

test('the window of the log is cut from behind, never above what is applied, and counts its bytes', () => {
  const log = new TrailingLog()
  log.append(Array.from({ length: 100 }, (_, i) => make(i + 1, 1, 68)))
  equal(log.sizeBytes, 10_000)
  equal(log.excessThrough(30, 1e9, 100), 70)
  equal(log.excessThrough(1000, 5000, 100), 50)
  equal(log.excessThrough(0, 0, 20), 20)
  for (const through of [10, 20, 60, 90]) log.trimThrough(through)
  deepEqual([log.firstIndex(), log.lastIndex(), log.sizeBytes, log.count], [91, 100, 1000, 10])
  deepEqual([log.term(89), log.term(90), log.term(101)], [undefined, 1, undefined])
  deepEqual(
    log.entries(95, 100, 250).map((one) => one.index),
    [95, 96],
  )
  deepEqual(
    log.entries(95, 100, 0).map((one) => one.index),
    [95],
  )
  log.append([make(95, 2)])
  deepEqual([log.lastIndex(), log.term(95), log.term(94)], [95, 2, 1])
})

test('what becomes durable after it was replaced does not hide its replacement', () => {
  const storage = new TrailingLog()
  const log = new RaftLog(storage)
  log.append([make(1, 1), make(2, 1), make(3, 1)])
  const first = log.takeUnhanded()
  log.append([make(2, 2)])
  const second = log.takeUnhanded()
  deepEqual(
    second.map((one) => one.index),
    [2],
  )
  log.stabilise(null, first)
  deepEqual([storage.lastIndex(), log.lastIndex, log.term(2), log.stableIndex], [3, 2, 2, 0])
  log.stabilise(null, second)
  deepEqual([storage.lastIndex(), storage.term(2), log.stableIndex], [2, 2, 2])
})

test('an entry that came, went and came again is durable when its last coming is', () => {
  const storage = new TrailingLog()
  const log = new RaftLog(storage)
  log.append([make(1, 1), make(2, 3)])
  const first = log.takeUnhanded()
  log.append([make(2, 4)])
  const second = log.takeUnhanded()
  log.append([make(2, 3), make(3, 5)])
  log.stabilise(null, first)
  const third = log.takeUnhanded()
  deepEqual(
    third.map(({ index, term }) => [index, term]),
    [
      [2, 3],
      [3, 5],
    ],
    'the disk will hold the second batch in between',
  )
  log.stabilise(null, second)
  deepEqual([storage.term(2), log.term(2), log.stableIndex < 2], [4, 3, true])
  equal(log.entries(2, 2, 0)[0]?.term, 3, 'what is applied is what the log holds')
  log.stabilise(null, third)
  deepEqual([storage.term(2), storage.term(3), log.stableIndex], [3, 5, 3])
})

test('the log reads across the border of durable and unstable entries, within the bytes', () => {
  const storage = new TrailingLog()
  storage.append([make(1, 1, 68), make(2, 1, 68)])
  const log = new RaftLog(storage)
  log.append([make(3, 2, 68), make(4, 2, 68)])
  const indexes = (from: number, to: number, max: number) =>
    log.entries(from, to, max).map((one) => one.index)
  deepEqual(indexes(1, 4, 1e9), [1, 2, 3, 4])
  deepEqual(indexes(1, 4, 300), [1, 2, 3])
  deepEqual(indexes(1, 4, 200), [1, 2])
  deepEqual(indexes(1, 4, 150), [1])
  deepEqual(indexes(3, 4, 0), [3])
  deepEqual(indexes(5, 4, 0), [])
})

test('a lease is shorter than a promise at the worst clocks', () => {
  for (const electionTicks of [10, 20, 50])
    for (const clockDriftPercent of [0, 10, 20]) {
      const options = { ...defaultRaftOptions, electionTicks, clockDriftPercent }
      const longestLease = (leaseTicks(options) + 1) / (1 - clockDriftPercent / 100)
      const shortestPromise = (electionTicks - 1) / (1 + clockDriftPercent / 100)
      equal(longestLease <= shortestPromise, true)
    }
})

test('a batch is advanced in its order, and no more are given out than fit', () => {
  const parts = {
    id: 1,
    storage: new TrailingLog(),
    hardState: initialHardState,
    appliedIndex: 0,
    random: new Prng(1),
  }
  const node = new RaftNode({
    ...parts,
    configuration: { voters: [1], learners: [] },
    options: { readyCountMax: 2 },
  })
  node.tick()
  const first = node.ready()
  if (first === null) throw new Error('it campaigns')
  node.advance(first)
  const second = node.ready()
  node.propose([Buffer.from('x')])
  const third = node.ready()
  node.propose([Buffer.from('y')])
  equal(node.ready(), null)
  if (second === null || third === null) throw new Error('it has entries')
  node.advance(second)
  throws(() => node.advance(second), { name: 'AssertionError' })
})
