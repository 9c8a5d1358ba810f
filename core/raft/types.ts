/**
 * What goes into and comes out of the consensus core: entries, messages, hard state, Ready batches.
 * Plain data; the codec for the wire belongs to the transport. Every number is a safe integer.
 *
 * Source: Ongaro, "Consensus: Bridging Theory and Practice" (2014), and the Raft paper (extended version).
 */
import type { Configuration } from './configuration.ts'

/** A positive safe integer, never used again after the member was removed with its disk. 0 means nobody. */
export type MemberId = number

export const nobody: MemberId = 0

/** `empty` is what a new leader starts its term with; the state machine ignores it. */
export type EntryKind = 'command' | 'configuration' | 'empty'

export interface Entry {
  /** From 1 up, without gaps. */
  readonly index: number
  /** The term of the leader that made the entry; never falls along the log. */
  readonly term: number
  readonly kind: EntryKind
  /** Owned by the log once proposed or received: nobody writes into it again. */
  readonly data: Buffer
}

/**
 * What a member must never forget. Term and vote live outside of the file that is shipped as a snapshot
 * and never go backward (rule L4). The commit index is no part of it: this is written before the entries, and a
 * commit index beside a log that still holds what was to be replaced would commit the wrong entries.
 */
export interface HardState {
  readonly term: number
  /** Whom this member voted for in `term`, or nobody. */
  readonly vote: MemberId
}

export const initialHardState: HardState = { term: 0, vote: nobody }

/** What a shipped state holds: everything up to and including `index`, and the members at that index. */
export interface Snapshot {
  readonly index: number
  readonly term: number
  readonly configuration: Configuration
}

interface Envelope {
  readonly from: MemberId
  readonly to: MemberId
  /** The sender's term; for a pre-vote the term it would campaign in. */
  readonly term: number
}

/** On whose word a candidate may disturb members that have promised to follow a leader (rule L3). */
export interface Transfer {
  /** The term of the leader that sent timeout-now. */
  readonly term: number
  /** Its lease epoch then. A member that knows a later epoch of that term knows the transfer as given up. */
  readonly leaseEpoch: number
}

export interface VoteMessage extends Envelope {
  readonly type: 'pre-vote' | 'vote'
  readonly lastIndex: number
  readonly lastTerm: number
  readonly transfer: Transfer | null
}

export interface VoteResponseMessage extends Envelope {
  readonly type: 'pre-vote-response' | 'vote-response'
  readonly granted: boolean
}

/** The leader's clock and lease epoch when it sent; the answer repeats both, so the lease counts from sending. */
interface LeaseStamp {
  readonly tick: number
  readonly leaseEpoch: number
}

export interface AppendMessage extends Envelope, LeaseStamp {
  readonly type: 'append'
  readonly previousIndex: number
  readonly previousTerm: number
  /** Consecutive, from previousIndex + 1. May be none. */
  readonly entries: readonly Entry[]
  readonly commit: number
}

export interface AppendResponseMessage extends Envelope, LeaseStamp {
  readonly type: 'append-response'
  /** Accepted: the follower's log equals the leader's up to here, durably. Rejected: the previousIndex of the append. */
  readonly index: number
  readonly rejected: boolean
  /** Rejected only: the logs can agree at this index or below, where the follower's term is hintTerm. */
  readonly hintIndex: number
  readonly hintTerm: number
}

export interface HeartbeatMessage extends Envelope, LeaseStamp {
  readonly type: 'heartbeat'
  /** Never above what the receiver is known to hold. */
  readonly commit: number
  readonly readSequence: number
}

export interface HeartbeatResponseMessage extends Envelope, LeaseStamp {
  readonly type: 'heartbeat-response'
  readonly readSequence: number
}

/** The file was received whole and checked by the driver before this message is stepped. */
export interface SnapshotMessage extends Envelope, LeaseStamp {
  readonly type: 'snapshot'
  readonly snapshot: Snapshot
}

export interface TimeoutNowMessage extends Envelope {
  readonly type: 'timeout-now'
  readonly leaseEpoch: number
}

export type Message =
  | VoteMessage
  | VoteResponseMessage
  | AppendMessage
  | AppendResponseMessage
  | HeartbeatMessage
  | HeartbeatResponseMessage
  | SnapshotMessage
  | TimeoutNowMessage

export type Role = 'follower' | 'pre-candidate' | 'candidate' | 'leader'

/** A read that may be answered from the state once `index` is applied. */
export interface ReadState {
  readonly id: number
  readonly index: number
}

/**
 * One batch of work for the driver. Several may be outstanding; they are persisted and advanced in order.
 *
 *   1. `messages` may be sent at once (a leader's appends travel while its own disk still writes).
 *   2. Make durable, in this order or in one transaction: `hardState`, `snapshot` (swap the received file
 *      in, drop the log), `entries` (entries[0].index and everything behind it is replaced).
 *   3. Only then send `responses`: votes, requests for votes and acknowledgements speak of what step 2 wrote.
 *      That includes all earlier batches: responses never overtake a write.
 *   4. Apply `committed` in order. The result may become durable together with the entries, not before them.
 *   5. `advance(ready)`.
 */
export interface Ready {
  readonly sequence: number
  readonly role: Role
  readonly term: number
  readonly leader: MemberId
  /** Null when unchanged. */
  readonly hardState: HardState | null
  /** To be installed. The receiver keeps its own term and vote (rule L4). */
  readonly snapshot: Snapshot | null
  readonly entries: readonly Entry[]
  /** False when nothing but the commit index changed: that needs no sync, and may be left out altogether. */
  readonly mustSync: boolean
  readonly messages: readonly Message[]
  readonly responses: readonly Message[]
  /** May hold entries of this very batch. Configuration entries are already in force when they show up here. */
  readonly committed: readonly Entry[]
  /** Members behind the log's window. Each is owed one `reportSnapshot`, whatever happens. */
  readonly snapshotsNeeded: readonly MemberId[]
  readonly reads: readonly ReadState[]
  /** Reads whose leader lost its place before it could confirm it. */
  readonly readsLost: readonly number[]
}
