/**
 * What a message does: its term against ours first (paper, section 5.1), then by type. Messages of older terms
 * change nothing; those of later terms end ours, but for requests that a promise or pre-vote keeps harmless.
 */
import {
  answerVote,
  handleTimeoutNow,
  handleVoteRequest,
  handleVoteResponse,
  isBoundByPromise,
} from './election.ts'
import { raftError } from './errors.ts'
import {
  handleAppend,
  handleHeartbeat,
  handleSnapshot,
  type LeaderMessage,
  noteLeader,
  refuseOldLeader,
} from './follower.ts'
import { handleAppendResponse, handleHeartbeatResponse } from './leader.ts'
import type { RaftState } from './state.ts'
import { type Message, nobody, type VoteMessage } from './types.ts'

export function step(state: RaftState, message: Message): void {
  if (message.to !== state.id || message.from === state.id) return
  if (isVoteRequest(message)) {
    stepVoteRequest(state, message)
    return
  }
  if (message.term < state.term) {
    // A leader of an old term must learn ours, or it would go on for ever: our pre-votes do not disturb it.
    if (isFromLeader(message)) refuseOldLeader(state, message)
    return
  }
  // A granted pre-vote speaks of a term that nobody is in yet.
  const isOfNoTerm = message.type === 'pre-vote-response' && message.granted
  if (message.term > state.term && !isOfNoTerm) state.becomeFollower(message.term, nobody)
  if (isFromLeader(message)) {
    stepFromLeader(state, message)
    return
  }
  switch (message.type) {
    case 'append-response':
      if (state.role === 'leader') handleAppendResponse(state, message)
      return
    case 'heartbeat-response':
      if (state.role === 'leader') handleHeartbeatResponse(state, message)
      return
    case 'timeout-now':
      handleTimeoutNow(state, message)
      return
    default:
      handleVoteResponse(state, message)
  }
}

function stepVoteRequest(state: RaftState, message: VoteMessage): void {
  if (message.term < state.term) {
    answerVote(state, message, false)
    return
  }
  if (isBoundByPromise(state, message)) return
  if (message.type === 'vote' && message.term > state.term) state.becomeFollower(message.term, nobody)
  handleVoteRequest(state, message)
}

function stepFromLeader(state: RaftState, message: LeaderMessage): void {
  if (state.role === 'leader' || (state.leader !== nobody && state.leader !== message.from))
    throw raftError(
      'RAFT_DIVERGED',
      `member ${state.id}: members ${state.leader} and ${message.from} both lead term ${state.term}`,
      'Stop the cluster: a member has come back without its term and vote.',
    )
  noteLeader(state, message)
  switch (message.type) {
    case 'append':
      handleAppend(state, message)
      return
    case 'heartbeat':
      handleHeartbeat(state, message)
      return
    default:
      handleSnapshot(state, message)
  }
}

function isVoteRequest(message: Message): message is VoteMessage {
  return message.type === 'vote' || message.type === 'pre-vote'
}

function isFromLeader(message: Message): message is LeaderMessage {
  return message.type === 'append' || message.type === 'heartbeat' || message.type === 'snapshot'
}
