/** Timeouts in ticks and named maxima of the consensus core, with the relations between them. */
import { assert } from '../base/assert.ts'

export interface RaftOptions {
  /** A follower waits this long, and up to twice this long at random, for its leader. */
  readonly electionTicks: number
  readonly heartbeatTicks: number
  /** How far a member's clock may run from true time, either way (rule L2). */
  readonly clockDriftPercent: number
  /** Data and overhead of the entries of one append; one entry always fits. */
  readonly messageBytesMax: number
  /** Unanswered appends to one member, by number and by size. */
  readonly inflightCountMax: number
  readonly inflightBytesMax: number
  /** Proposed and not yet committed. Beyond: BUSY. */
  readonly uncommittedCountMax: number
  readonly uncommittedBytesMax: number
  readonly entryBytesMax: number
  /** Size of `committed` in one Ready; one entry always fits. */
  readonly committedBytesMax: number
  /** Reads waiting for a quorum. Beyond: BUSY. */
  readonly readCountMax: number
  /** Messages between two calls of ready(). Beyond they are dropped: Raft repeats what matters. */
  readonly outboxCountMax: number
  /** Batches handed out and not advanced. Beyond, ready() waits: a disk that hangs must not fill the memory. */
  readonly readyCountMax: number
  readonly memberCountMax: number
  /** A learner may vote when it lacks at most this many committed entries. */
  readonly promoteLagCountMax: number
}

/** For a tick of 50 ms: heartbeats every 100 ms, an election after 1 to 2 s, a lease of 0.7 s. */
export const defaultRaftOptions: RaftOptions = {
  electionTicks: 20,
  heartbeatTicks: 2,
  clockDriftPercent: 10,
  messageBytesMax: 256 * 1024,
  inflightCountMax: 64,
  inflightBytesMax: 4 * 1024 * 1024,
  uncommittedCountMax: 16_384,
  uncommittedBytesMax: 16 * 1024 * 1024,
  entryBytesMax: 768 * 1024,
  committedBytesMax: 1024 * 1024,
  readCountMax: 4096,
  outboxCountMax: 4096,
  readyCountMax: 1024,
  memberCountMax: 9,
  promoteLagCountMax: 1000,
}

/** What an entry costs beside its data, in memory and on the wire. */
export const entryOverheadBytes = 32

/**
 * How many whole ticks after sending a confirmed heartbeat the leader may still answer reads alone.
 *
 * A follower promises not to vote for electionTicks of its own clock. Counting whole ticks, that may be as
 * little as (electionTicks - 1) true ticks on a clock that runs fast; n ticks counted by a leader whose clock
 * runs slow may be as much as n + 1. Both ends are taken at their worst (rule L2).
 */
export function leaseTicks(options: RaftOptions): number {
  const shortest = (options.electionTicks - 1) * (100 - options.clockDriftPercent)
  return Math.floor(shortest / (100 + options.clockDriftPercent)) - 1
}

export function checkRaftOptions(options: RaftOptions): void {
  for (const value of Object.values(options))
    assert(Number.isSafeInteger(value) && value >= 0, 'an option of raft is a whole number')
  assert(options.heartbeatTicks > 0, 'heartbeats have a period')
  assert(options.electionTicks >= 5 * options.heartbeatTicks, 'a lost heartbeat is no reason for an election')
  assert(leaseTicks(options) > 2 * options.heartbeatTicks, 'the lease outlives a lost heartbeat')
  assert(
    options.inflightCountMax > 0 && options.inflightBytesMax >= options.messageBytesMax,
    'an append fits the window',
  )
  const { uncommittedCountMax, readCountMax, readyCountMax } = options
  assert(uncommittedCountMax > 0 && readCountMax > 0 && readyCountMax > 0, 'there is room for work')
  assert(
    options.uncommittedBytesMax >= options.entryBytesMax + entryOverheadBytes,
    'the largest entry is not always BUSY',
  )
  // One append to each member and one answer to each must fit, or nothing ever moves.
  assert(options.outboxCountMax >= 4 * options.memberCountMax, 'the outbox has room for a round')
}

/**
 * Bugs that tests plant to prove that the simulator finds them. Nothing but tests sets these.
 */
export interface RaftFaults {
  /** Grants a vote although another candidate has it. */
  readonly voteTwice?: boolean
  /** Never hands out the hard state, so a restart forgets term and vote. */
  readonly forgetHardState?: boolean
  /** Commits entries of older terms by counting replicas (figure 8 of the paper). */
  readonly skipCurrentTermRule?: boolean
  /** Answers lease reads as long as it believes itself to be leader. */
  readonly readWithoutLease?: boolean
  /** Hands out committed entries last first. */
  readonly applyOutOfOrder?: boolean
  /** Keeps the lease while leadership is transferred (first half of rule L3). */
  readonly keepLeaseInTransfer?: boolean
  /** Votes at once after a restart (second half of rule L3). */
  readonly voteAfterRestart?: boolean
  /** Acknowledges entries before they are durable. */
  readonly acknowledgeEarly?: boolean
}
