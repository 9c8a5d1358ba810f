/**
 * The codes of this room. What a caller must be ready for is a `Refusal`, a plain value, because it sits on
 * the path of every command; what must end the member is thrown as a CairnError.
 *
 * Thrown:
 *   RAFT_BAD_MESSAGE      a decoded message breaks the format: end the connection it came from
 *   RAFT_DIVERGED         a committed entry would change, or acknowledged entries are gone: end this member
 *   RAFT_HARD_STATE_LOST  the log is of a later term than term and vote: the member needs a new id (rule L4)
 *   RAFT_BAD_STATE        what was loaded does not fit together
 */
import { CairnError } from '../base/errors.ts'
import type { MemberId } from './types.ts'

export type RaftErrorCode = 'RAFT_BAD_MESSAGE' | 'RAFT_DIVERGED' | 'RAFT_HARD_STATE_LOST' | 'RAFT_BAD_STATE'

export function raftError(code: RaftErrorCode, message: string, next?: string): CairnError {
  return new CairnError(code, message, next === undefined ? {} : { next })
}

/** Retryable here: BUSY, TRANSFERRING, NOT_READY, CONFIGURATION_PENDING, LEARNER_BEHIND. NOT_LEADER: at `leader`. */
export type RefusalCode =
  | 'NOT_LEADER'
  | 'BUSY'
  | 'TRANSFERRING'
  | 'NOT_READY'
  | 'ENTRY_TOO_LARGE'
  | 'CONFIGURATION_PENDING'
  | 'UNKNOWN_MEMBER'
  | 'MEMBER_EXISTS'
  | 'NOT_A_LEARNER'
  | 'NOT_A_VOTER'
  | 'LEARNER_BEHIND'
  | 'LAST_VOTER'
  | 'TOO_MANY_MEMBERS'

/** Refused without having been tried. */
export interface Refusal {
  readonly ok: false
  readonly code: RefusalCode
  readonly message: string
  /** Where to go instead, as far as this member knows; 0 when it knows of no leader. */
  readonly leader: MemberId
}

/** The entries are in the leader's log from `index` on, in `term`. They are done when they come out as committed. */
export interface Accepted {
  readonly ok: true
  readonly index: number
  readonly term: number
}
