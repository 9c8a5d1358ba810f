/**
 * The fields of one member and the steps that every role takes: becoming a follower, moving the commit index,
 * queueing messages. election.ts, leader.ts and follower.ts are functions over it; node.ts is the face.
 * Nobody outside of this room sees it.
 */
import { assert } from '../base/assert.ts'
import type { Random } from '../platform/random.ts'
import { type Configuration, decodeConfiguration, isMember } from './configuration.ts'
import { raftError } from './errors.ts'
import { entrySizeBytes, type RaftLog } from './log.ts'
import type { RaftFaults, RaftOptions } from './options.ts'
import type { Progress, ProgressState } from './progress.ts'
import { ReadQueue } from './reads.ts'
import { type Entry, type MemberId, type Message, nobody, type Role, type Snapshot } from './types.ts'

/** All the randomness that is needed: a spread of election timeouts. */
export type RaftRandom = Pick<Random, 'below'>

export class RaftState {
  readonly id: MemberId
  readonly options: RaftOptions
  readonly faults: RaftFaults
  readonly log: RaftLog
  readonly #random: RaftRandom

  term = 0
  /** Whom we voted for in `term`. */
  vote: MemberId = nobody
  commit = 0
  role: Role = 'follower'
  leader: MemberId = nobody
  /** In force: the one of the highest committed configuration entry. */
  configuration: Configuration
  /** Configuration entries above the commit index, by rising index. */
  #pendingConfigurations: { readonly index: number; readonly configuration: Configuration }[] = []

  /** Ticks since the start of this process. */
  now = 0
  /** When a follower campaigns, and a candidate starts over. */
  timeoutTick = 0

  /** Until then no vote for anybody else than the leader we answered last (lease, check-quorum)... */
  promiseUntilTick = 0
  /** ...unless that leader itself sent the candidate: see Transfer. */
  promiseTerm = 0
  promiseEpoch = 0
  /** A restarted member has forgotten its promises, so it votes for nobody for one election timeout (rule L3). */
  silentUntilTick = 0

  /** Candidates: who has answered what. */
  readonly votes = new Map<MemberId, boolean>()

  /** Leaders only, everybody but us; empty otherwise. */
  readonly peers = new Map<MemberId, Progress>()
  /** The first index of the leader's term: until it is committed the commit index may be old. */
  termStartIndex = 0
  leaderSinceTick = 0
  heartbeatTick = 0
  /** Raised when a transfer is given up: answers to older epochs no longer count for the lease (rule L3). */
  leaseEpoch = 0
  transferTarget: MemberId = nobody
  transferUntilTick = 0
  transferIsSent = false
  uncommittedBytes = 0
  readonly reads: ReadQueue

  messages: Message[] = []
  responses: Message[] = []
  droppedMessageCount = 0
  snapshotToInstall: Snapshot | null = null
  snapshotsNeeded: MemberId[] = []

  constructor(
    id: MemberId,
    log: RaftLog,
    configuration: Configuration,
    random: RaftRandom,
    options: RaftOptions,
    faults: RaftFaults,
  ) {
    this.id = id
    this.log = log
    this.configuration = configuration
    this.#random = random
    this.options = options
    this.faults = faults
    this.reads = new ReadQueue(options.readCountMax)
  }

  get isVoter(): boolean {
    return this.configuration.voters.includes(this.id)
  }

  get isOnlyVoter(): boolean {
    return this.isVoter && this.configuration.voters.length === 1
  }

  get hasPendingConfiguration(): boolean {
    return this.#pendingConfigurations.length > 0
  }

  /** Nobody is a leader before an entry of its own term is committed: its commit index may be old until then. */
  get isEstablishedLeader(): boolean {
    return this.role === 'leader' && this.commit >= this.termStartIndex
  }

  resetTimeout(): void {
    const { electionTicks } = this.options
    // One tick later than promises end: who asks too early waits for a whole timeout.
    this.timeoutTick = this.now + electionTicks + 1 + this.#random.below(electionTicks - 1)
  }

  becomeFollower(term: number, leader: MemberId): void {
    assert(term >= this.term, 'terms never go backward')
    if (term > this.term) {
      this.term = term
      this.vote = nobody
    }
    this.role = 'follower'
    this.leader = leader
    this.votes.clear()
    this.leaveLeadership()
    this.resetTimeout()
  }

  leaveLeadership(): void {
    this.peers.clear()
    this.transferTarget = nobody
    this.snapshotsNeeded = []
    this.reads.loseAll()
  }

  /** To be sent at once. */
  send(message: Message): void {
    if (this.messages.length >= this.options.outboxCountMax) this.droppedMessageCount++
    else this.messages.push(message)
  }

  /** To be sent after everything that was handed out so far is durable. */
  sendWhenDurable(message: Message): void {
    if (this.faults.acknowledgeEarly === true) this.send(message)
    else if (this.responses.length >= this.options.outboxCountMax) this.droppedMessageCount++
    else this.responses.push(message)
  }

  /** Looks for configurations among entries that were just put into the log in place of what was there. */
  noteConfigurations(entries: readonly Entry[]): void {
    const fromIndex = entries[0]?.index ?? Number.POSITIVE_INFINITY
    while ((this.#pendingConfigurations.at(-1)?.index ?? 0) >= fromIndex) this.#pendingConfigurations.pop()
    for (const entry of entries) {
      if (entry.kind !== 'configuration') continue
      this.#pendingConfigurations.push({
        index: entry.index,
        configuration: decodeConfiguration(entry.data),
      })
      // A leader makes a configuration entry only after the one before it was committed, so the log itself
      // proves that. Without this a member that lost its commit index in a restart could count majorities
      // of a configuration two steps old.
      const before = this.#pendingConfigurations.at(-2)
      if (before !== undefined) this.commitTo(before.index)
    }
  }

  forgetPendingConfigurations(): void {
    this.#pendingConfigurations = []
  }

  /** Moves the commit index up; configurations on the way come into force. Never moves it down. */
  commitTo(index: number): void {
    if (index <= this.commit) return
    if (index > this.log.lastIndex)
      throw raftError(
        'RAFT_DIVERGED',
        `member ${this.id}: the cluster has committed entry ${index}, which this member had acknowledged, but its log ends at ${this.log.lastIndex}`,
        'Rebuild this member from its peers.',
      )
    if (this.role === 'leader') this.#countCommitted(this.commit + 1, index)
    this.commit = index
    for (;;) {
      const first = this.#pendingConfigurations[0]
      if (first === undefined || first.index > index) return
      this.#pendingConfigurations.shift()
      this.configuration = first.configuration
    }
  }

  #countCommitted(from: number, to: number): void {
    for (const entry of this.log.entries(from, to, Number.POSITIVE_INFINITY))
      this.uncommittedBytes -= entrySizeBytes(entry)
  }

  knowsMember(member: MemberId): boolean {
    return isMember(this.configuration, member)
  }
}

export interface MemberProgress {
  readonly member: MemberId
  readonly state: ProgressState
  readonly matchIndex: number
  readonly nextIndex: number
  readonly inflightCount: number
  /** Ticks since it last answered. */
  readonly silentTicks: number
}

/** A member as it looks from outside: for `stat`, events and tests. Copies, nothing live. */
export interface RaftStatus {
  readonly id: MemberId
  readonly role: Role
  readonly term: number
  readonly vote: MemberId
  readonly leader: MemberId
  readonly commitIndex: number
  readonly appliedIndex: number
  readonly firstIndex: number
  readonly lastIndex: number
  readonly configuration: Configuration
  readonly hasPendingConfiguration: boolean
  readonly hasLease: boolean
  /** 0 when no transfer is under way. */
  readonly transferTarget: MemberId
  /** Leaders only, sorted by member. */
  readonly members: readonly MemberProgress[]
  readonly droppedMessageCount: number
}

export function describeRaft(state: RaftState, appliedIndex: number, hasLease: boolean): RaftStatus {
  const members = [...state.peers].map(([member, progress]) => ({
    member,
    state: progress.state,
    matchIndex: progress.matchIndex,
    nextIndex: progress.nextIndex,
    inflightCount: progress.inflightCount,
    silentTicks: state.now - progress.contactTick,
  }))
  return {
    id: state.id,
    role: state.role,
    term: state.term,
    vote: state.vote,
    leader: state.leader,
    commitIndex: state.commit,
    appliedIndex,
    firstIndex: state.log.firstIndex,
    lastIndex: state.log.lastIndex,
    configuration: state.configuration,
    hasPendingConfiguration: state.hasPendingConfiguration,
    hasLease,
    transferTarget: state.transferTarget,
    members: members.sort((a, b) => a.member - b.member),
    droppedMessageCount: state.droppedMessageCount,
  }
}
