/**
 * One member of a Raft group as a pure state machine: ticks, messages and proposals in, Ready batches out.
 * It has no clock, no sockets, no disk and no promises; the same inputs give the same outputs.
 *
 *        tick()  step(message)  propose(data)  readIndex(id)
 *           |         |              |             |
 *           v         v              v             v
 *        +---------------------------------------------+      driver: persist, send, apply
 *        |                  RaftNode                   | ---> ready(): Ready
 *        +---------------------------------------------+ <--- advance(ready), in order
 *
 * It promises election safety, log matching, leader completeness, state machine safety and, as long as clocks
 * run within clockDriftPercent, that a lease read is never stale; all this if the driver keeps the contract
 * of `Ready`. It does not move snapshots and does not forward proposals: a follower names the leader.
 *
 * Docs: docs/formats/raft.md. Source: Ongaro's thesis; the division of work follows etcd's raft library.
 */
import { assert, present } from '../base/assert.ts'
import {
  changeConfiguration,
  type Configuration,
  type ConfigurationChange,
  encodeConfiguration,
  isMemberId,
} from './configuration.ts'
import * as election from './election.ts'
import { type Accepted, raftError, type Refusal, type RefusalCode } from './errors.ts'
import * as leading from './leader.ts'
import { type LogStorage, RaftLog } from './log.ts'
import {
  checkRaftOptions,
  defaultRaftOptions,
  entryOverheadBytes,
  type RaftFaults,
  type RaftOptions,
} from './options.ts'
import { describeRaft, type RaftRandom, RaftState, type RaftStatus } from './state.ts'
import { step } from './step.ts'
import { type HardState, type MemberId, type Message, nobody, type Ready, type Snapshot } from './types.ts'

export interface RaftNodeParts {
  readonly id: MemberId
  /** What is durable of the log, from the trailing window. The node appends to it in advance(). */
  readonly storage: LogStorage
  /** As it was made durable last; `initialHardState` for a new member. */
  readonly hardState: HardState
  /** The state machine's index at start, and the configuration as of that index (empty for a new learner). */
  readonly appliedIndex: number
  readonly configuration: Configuration
  readonly random: RaftRandom
  readonly options?: Partial<RaftOptions>
  /** Tests only. */
  readonly faults?: RaftFaults
}

interface Outstanding {
  readonly ready: Ready
  readonly term: number
  readonly vote: MemberId
}

const startupEntryBytesMax = 1024 * 1024

export class RaftNode {
  readonly id: MemberId
  readonly options: RaftOptions
  readonly #state: RaftState
  readonly #log: RaftLog
  #handedHardState: HardState
  #handedCommit: number
  /** The last index that was given out to be applied. */
  #handedIndex: number
  #appliedIndex: number
  #sequence = 0
  #handedRole = ''
  /** At most readyCountMax. */
  readonly #outstanding: Outstanding[] = []

  /** Throws RAFT_HARD_STATE_LOST or RAFT_BAD_STATE when what was loaded does not fit together. */
  constructor(parts: RaftNodeParts) {
    this.id = parts.id
    this.options = { ...defaultRaftOptions, ...parts.options }
    checkRaftOptions(this.options)
    assert(isMemberId(parts.id), 'a member has an id')
    const faults = parts.faults ?? {}
    this.#log = new RaftLog(parts.storage)
    this.#state = new RaftState(parts.id, this.#log, parts.configuration, parts.random, this.options, faults)
    this.#handedHardState = parts.hardState
    this.#handedCommit = parts.appliedIndex
    this.#handedIndex = parts.appliedIndex
    this.#appliedIndex = parts.appliedIndex
    this.#load(parts.hardState, parts.appliedIndex, faults)
  }

  #load(hardState: HardState, appliedIndex: number, faults: RaftFaults): void {
    const log = this.#log
    const state = this.#state
    if (appliedIndex > log.lastIndex || appliedIndex < log.firstIndex - 1)
      throw raftError(
        'RAFT_BAD_STATE',
        `member ${this.id}: the state is of entry ${appliedIndex}, the log holds ${log.firstIndex} to ${log.lastIndex}`,
        'Rebuild this member from its peers.',
      )
    if (log.lastTerm > hardState.term && faults.forgetHardState !== true)
      throw raftError(
        'RAFT_HARD_STATE_LOST',
        `member ${this.id}: the log reaches term ${log.lastTerm}, but term and vote are of term ${hardState.term}`,
        'Remove this member and add it again under a new id.',
      )
    state.term = Math.max(hardState.term, log.lastTerm)
    state.vote = hardState.vote
    // Entries first: a log with two open configurations proves that the first is committed.
    state.commit = appliedIndex
    for (let from = appliedIndex + 1; from <= log.lastIndex; ) {
      const entries = log.entries(from, log.lastIndex, startupEntryBytesMax)
      state.noteConfigurations(entries)
      from += entries.length
    }
    // Rule L3. A first start has promised nothing.
    if (state.term > 0) state.silentUntilTick = this.options.electionTicks
    state.resetTimeout()
    // Nobody else can be the leader, so there is nobody to wait for.
    if (state.isOnlyVoter) state.timeoutTick = 1
  }

  get role(): RaftStatus['role'] {
    return this.#state.role
  }

  get term(): number {
    return this.#state.term
  }

  /** Where to send clients; 0 when unknown. */
  get leader(): MemberId {
    return this.#state.leader
  }

  /** A received file was taken and is being installed: nothing may touch it. */
  get isRestoring(): boolean {
    return this.#log.isRestoring
  }

  get commitIndex(): number {
    return this.#state.commit
  }

  get lastIndex(): number {
    return this.#log.lastIndex
  }

  /** In force here: of the highest entry known as committed. */
  get configuration(): Configuration {
    return this.#state.configuration
  }

  /** The term of an entry within the window, e.g. to name a snapshot. */
  termOf(index: number): number | undefined {
    return this.#log.term(index)
  }

  status(): RaftStatus {
    return describeRaft(this.#state, this.#appliedIndex, leading.hasLease(this.#state))
  }

  /**
   * So many ticks of the caller's monotonic clock have passed: the clock that counts suspend (rule L2). After
   * a pause call it with all that was missed before any lease read.
   */
  tick(count = 1): void {
    assert(Number.isSafeInteger(count) && count > 0, 'time passes in whole ticks')
    const state = this.#state
    state.now += count
    if (state.role === 'leader') leading.leaderTick(state)
    else if (state.now >= state.timeoutTick) {
      if (election.mayCampaign(state)) election.startPreVote(state)
      else {
        // Nothing to be done but to stop naming a leader that is not heard.
        state.leader = nobody
        state.resetTimeout()
      }
    }
  }

  /** Campaigns now, by pre-vote, if no promise forbids it. True when it does. For tools and tests. */
  campaign(): boolean {
    const may = election.mayCampaign(this.#state)
    if (may) election.startPreVote(this.#state)
    return may
  }

  /** Accepts commands into the log, in order, all or none. What happened to them shows up in `committed`. */
  propose(data: readonly Buffer[]): Accepted | Refusal {
    const state = this.#state
    const refusal = this.#leaderRefusal()
    if (refusal !== null) return refusal
    assert(data.length > 0, 'a proposal holds commands')
    let sizeBytes = 0
    for (const one of data) {
      if (one.length > this.options.entryBytesMax)
        return this.#refuse(
          'ENTRY_TOO_LARGE',
          `A command of ${one.length} bytes; at most ${this.options.entryBytesMax}.`,
        )
      sizeBytes += one.length + entryOverheadBytes
    }
    const count = this.#log.lastIndex - state.commit + data.length
    if (
      count > this.options.uncommittedCountMax ||
      state.uncommittedBytes + sizeBytes > this.options.uncommittedBytesMax
    )
      return this.#refuse('BUSY', 'Too many commands wait for the majority.')
    return { ok: true, index: leading.appendEntries(state, 'command', data), term: state.term }
  }

  /** One change at a time, and none before the leader has committed an entry of its term. */
  proposeConfiguration(change: ConfigurationChange): Accepted | Refusal {
    const state = this.#state
    const refusal = this.#leaderRefusal()
    if (refusal !== null) return refusal
    if (!state.isEstablishedLeader)
      return this.#refuse('NOT_READY', 'The leader has not yet committed an entry of its term.')
    if (state.hasPendingConfiguration)
      return this.#refuse('CONFIGURATION_PENDING', 'Another change of the members is not yet committed.')
    const after = changeConfiguration(state.configuration, change, this.options.memberCountMax)
    if (typeof after === 'string')
      return this.#refuse(after, `Cannot ${change.type} member ${change.member}: ${after}.`)
    if (change.type === 'promote' && !leading.isCaughtUp(state, change.member))
      return this.#refuse('LEARNER_BEHIND', `Member ${change.member} lacks too much of the log to vote yet.`)
    const index = leading.appendEntries(state, 'configuration', [encodeConfiguration(after)])
    return { ok: true, index, term: state.term }
  }

  /** Hands leadership to another voter. Given up after one election timeout; see `status().transferTarget`. */
  transferLeader(to: MemberId): Accepted | Refusal {
    const state = this.#state
    const refusal = this.#leaderRefusal()
    if (refusal !== null) return refusal
    if (to === this.id || !state.configuration.voters.includes(to))
      return this.#refuse('NOT_A_VOTER', `Member ${to} is no other voter.`)
    leading.startTransfer(state, to)
    return { ok: true, index: this.#log.lastIndex, term: state.term }
  }

  /**
   * Gives leadership up, if others hold durably, and have committed, what is not yet durable here: they can go on
   * without this member's disk. True when it did.
   */
  maybeResign(): boolean {
    const state = this.#state
    if (state.role !== 'leader' || state.commit <= this.#log.stableIndex) return false
    leading.resign(state)
    return true
  }

  /**
   * Asks for a linearizable read: `id` comes back in Ready.reads with the index to wait for, or in readsLost.
   * Before the leader is established the read waits.
   */
  readIndex(id: number): { readonly ok: true } | Refusal {
    const state = this.#state
    if (state.role !== 'leader') return this.#refuse('NOT_LEADER', 'Reads are confirmed by the leader.')
    return state.reads.add(id) ? { ok: true } : this.#refuse('BUSY', 'Too many reads wait for the majority.')
  }

  /**
   * The index a read must have applied to be linearizable, without asking anybody; null without a lease: use
   * readIndex then. Holds for this very moment: tick() first, and answer before the event loop goes on.
   */
  leaseReadIndex(): number | null {
    return leading.hasLease(this.#state) ? this.#state.commit : null
  }

  /**
   * What travels with the file of `snapshot`; the receiver steps it once it holds the whole file. Null when we
   * no longer lead.
   */
  snapshotMessage(to: MemberId, snapshot: Snapshot): Message | null {
    const state = this.#state
    if (state.role !== 'leader' || !state.peers.has(to)) return null
    const { term, now: tick, leaseEpoch } = state
    return { type: 'snapshot', from: this.id, to, term, tick, leaseEpoch, snapshot }
  }

  /** Answers Ready.snapshotsNeeded: the index that `member` has received, or null when it failed. */
  reportSnapshot(member: MemberId, receivedIndex: number | null): void {
    const progress = this.#state.peers.get(member)
    if (progress === undefined || progress.state !== 'snapshot') return
    progress.becomeProbe()
    if (receivedIndex !== null) progress.nextIndex = Math.max(progress.nextIndex, receivedIndex + 1)
    // Not before the next answer: a member that is gone must not be offered file after file.
    else progress.sent(0, 0)
  }

  /** The connection broke: what is in flight may be lost. */
  reportUnreachable(member: MemberId): void {
    const progress = this.#state.peers.get(member)
    if (progress?.state === 'replicate') progress.becomeProbe()
  }

  /** Takes a message of another member (checked by `parseMessage`). Throws RAFT_DIVERGED only. */
  step(message: Message): void {
    step(this.#state, message)
  }

  /**
   * The next batch, or null when there is nothing to do. May be called again before `advance`: a driver whose
   * disk is busy gathers batches and writes them as one.
   */
  ready(): Ready | null {
    const state = this.#state
    if (this.#outstanding.length >= this.options.readyCountMax) return null
    if (state.role === 'leader') leading.flush(state)
    const { term, vote, commit } = state
    const handed = this.#handedHardState
    const isSynced = term === handed.term && vote === handed.vote
    const snapshot = state.snapshotToInstall
    if (snapshot !== null) this.#handedIndex = snapshot.index
    const hasNews =
      !isSynced ||
      commit !== this.#handedCommit ||
      snapshot !== null ||
      this.#log.hasUnhanded ||
      commit > this.#handedIndex ||
      state.messages.length + state.responses.length + state.snapshotsNeeded.length > 0 ||
      state.reads.hasOutcome ||
      this.#handedRole !== `${state.role} ${state.leader}`
    if (!hasNews) return null
    const hardState = isSynced ? null : { term, vote }
    if (hardState !== null) this.#handedHardState = hardState
    this.#handedCommit = commit
    const entries = this.#log.takeUnhanded()
    const committed = this.#log.entries(this.#handedIndex + 1, commit, this.options.committedBytesMax)
    this.#handedIndex += committed.length
    if (state.faults.applyOutOfOrder === true) committed.reverse()
    const reads = state.reads.take()
    const ready: Ready = {
      sequence: ++this.#sequence,
      role: state.role,
      term,
      leader: state.leader,
      hardState: state.faults.forgetHardState === true ? null : hardState,
      snapshot,
      entries,
      mustSync: !isSynced || entries.length > 0 || snapshot !== null,
      messages: state.messages,
      responses: state.responses,
      committed,
      snapshotsNeeded: state.snapshotsNeeded,
      reads: reads.confirmed,
      readsLost: reads.lost,
    }
    state.messages = []
    state.responses = []
    state.snapshotsNeeded = []
    state.snapshotToInstall = null
    this.#handedRole = `${state.role} ${state.leader}`
    this.#outstanding.push({ ready, term, vote })
    return ready
  }

  /** The batch is durable and its committed entries are applied. Batches come in the order of ready(). */
  advance(ready: Ready): void {
    const { ready: first, term, vote } = present(this.#outstanding.shift(), 'a batch was handed out')
    assert(first === ready, 'batches are advanced in order')
    this.#log.stabilise(ready.snapshot, ready.entries)
    const lastApplied = ready.committed.at(-1)
    if (ready.snapshot !== null) this.#appliedIndex = ready.snapshot.index
    if (lastApplied !== undefined) this.#appliedIndex = lastApplied.index
    election.ownVoteIsDurable(this.#state, term, vote)
    if (this.#state.role === 'leader') leading.maybeCommit(this.#state)
  }

  #leaderRefusal(): Refusal | null {
    const state = this.#state
    if (state.role !== 'leader')
      return this.#refuse(
        'NOT_LEADER',
        state.leader === nobody ? 'No leader is known.' : `Member ${state.leader} is the leader.`,
      )
    if (state.transferTarget !== nobody)
      return this.#refuse('TRANSFERRING', `Leadership is going to member ${state.transferTarget}.`)
    return null
  }

  #refuse(code: RefusalCode, message: string): Refusal {
    return { ok: false, code, message, leader: this.#state.leader }
  }
}
