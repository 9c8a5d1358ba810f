/**
 * Elections: pre-vote, votes, and the promises that keep a leader's lease true.
 *
 * A member that answered a leader ignores candidates for one election timeout of its own clock, by its own
 * memory of having answered and not by its present term: a stray message of a later term ends the term, not
 * the promise. Only a candidate that the leader itself sent may interrupt (Transfer), and only while the
 * leader has not given the transfer up.
 */
import { quorumCount } from './configuration.ts'
import { becomeLeader } from './leader.ts'
import type { RaftState } from './state.ts'
import {
  type MemberId,
  nobody,
  type TimeoutNowMessage,
  type Transfer,
  type VoteMessage,
  type VoteResponseMessage,
} from './types.ts'

/** May this member start an election now? A promise to another leader forbids it, like a vote for another. */
export function mayCampaign(state: RaftState): boolean {
  if (state.role === 'leader' || !state.isVoter || state.log.isRestoring) return false
  if (state.isOnlyVoter) return true
  return state.now >= state.promiseUntilTick && state.now >= state.silentUntilTick
}

/** Asks whether an election could be won, without disturbing anybody (thesis, section 9.6). */
export function startPreVote(state: RaftState): void {
  state.role = 'pre-candidate'
  state.leader = nobody
  state.resetTimeout()
  state.votes.clear()
  ask(state, 'pre-vote', state.term + 1, null)
  registerVote(state, state.id, true)
}

export function startElection(state: RaftState, transfer: Transfer | null): void {
  state.role = 'candidate'
  state.leader = nobody
  state.term++
  state.vote = state.id
  state.resetTimeout()
  state.votes.clear()
  // Our own vote counts when it is durable: see ownVoteIsDurable.
  ask(state, 'vote', state.term, transfer)
}

/** Called when a hard state became durable. */
export function ownVoteIsDurable(state: RaftState, term: number, vote: MemberId): void {
  if (state.role === 'candidate' && state.term === term && vote === state.id) registerVote(state, vote, true)
}

function ask(state: RaftState, type: VoteMessage['type'], term: number, transfer: Transfer | null): void {
  const { lastIndex, lastTerm } = state.log
  for (const to of state.configuration.voters) {
    if (to !== state.id)
      state.sendWhenDurable({ type, from: state.id, to, term, lastIndex, lastTerm, transfer })
  }
}

/** True when a request for a vote is to be ignored as if it had never come (rule L3). */
export function isBoundByPromise(state: RaftState, message: VoteMessage): boolean {
  if (state.now < state.silentUntilTick && state.faults.voteAfterRestart !== true) return true
  const { transfer } = message
  const isSentBy = (term: number, leaseEpoch: number): boolean =>
    transfer !== null &&
    (transfer.term > term || (transfer.term === term && transfer.leaseEpoch >= leaseEpoch))
  if (state.role === 'leader') return !isSentBy(state.term, state.leaseEpoch)
  return state.now < state.promiseUntilTick && !isSentBy(state.promiseTerm, state.promiseEpoch)
}

/** `message.term` is ours, or for a pre-vote above ours. */
export function handleVoteRequest(state: RaftState, message: VoteMessage): void {
  const isPreVote = message.type === 'pre-vote'
  const mayVote =
    state.vote === message.from ||
    (state.vote === nobody && state.leader === nobody) ||
    (isPreVote && message.term > state.term) ||
    state.faults.voteTwice === true
  const granted = mayVote && state.log.isBehindOrEqual(message.lastIndex, message.lastTerm)
  if (granted && !isPreVote) {
    state.vote = message.from
    state.resetTimeout()
  }
  answerVote(state, message, granted)
}

/** A refusal carries our term, so that an old candidate learns it. */
export function answerVote(state: RaftState, message: VoteMessage, granted: boolean): void {
  const type = message.type === 'pre-vote' ? 'pre-vote-response' : 'vote-response'
  const term = granted ? message.term : state.term
  state.sendWhenDurable({ type, from: state.id, to: message.from, term, granted })
}

export function handleVoteResponse(state: RaftState, message: VoteResponseMessage): void {
  const isExpected = message.type === 'pre-vote-response' ? 'pre-candidate' : 'candidate'
  if (state.role !== isExpected) return
  // A pre-vote is granted in the term that was asked for, and refused in the voter's own.
  const grantedTerm = message.type === 'pre-vote-response' ? state.term + 1 : state.term
  if (message.granted && message.term !== grantedTerm) return
  registerVote(state, message.from, message.granted)
}

function registerVote(state: RaftState, from: MemberId, granted: boolean): void {
  if (!state.votes.has(from) && state.configuration.voters.includes(from)) state.votes.set(from, granted)
  let grantedCount = 0
  let refusedCount = 0
  for (const voter of state.configuration.voters) {
    const vote = state.votes.get(voter)
    if (vote === true) grantedCount++
    else if (vote === false) refusedCount++
  }
  const quorum = quorumCount(state.configuration)
  if (grantedCount >= quorum) {
    if (state.role === 'pre-candidate') startElection(state, null)
    else becomeLeader(state)
  } else if (state.configuration.voters.length - refusedCount < quorum)
    state.becomeFollower(state.term, nobody)
}

/** The leader hands over to us: no pre-vote, and its own followers may vote. */
export function handleTimeoutNow(state: RaftState, message: TimeoutNowMessage): void {
  if (state.role === 'leader' || !state.isVoter || state.log.isRestoring) return
  if (state.now < state.silentUntilTick) return
  if (message.term === state.promiseTerm && message.leaseEpoch < state.promiseEpoch) return
  startElection(state, { term: message.term, leaseEpoch: message.leaseEpoch })
}
