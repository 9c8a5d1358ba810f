/** What a follower (or learner) does with the messages of its leader. Every answer waits for durability. */
import { raftError } from './errors.ts'
import type { RaftState } from './state.ts'
import type { AppendMessage, HeartbeatMessage, SnapshotMessage } from './types.ts'

/** Leaders count their epochs from 1. */
const noLeaseEpoch = 0

export type LeaderMessage = AppendMessage | HeartbeatMessage | SnapshotMessage

/** The sender is the leader of our term: follow it, and promise to vote for nobody else for a while. */
export function noteLeader(state: RaftState, message: LeaderMessage): void {
  if (state.role !== 'follower') state.becomeFollower(state.term, message.from)
  state.leader = message.from
  state.resetTimeout()
  state.promiseUntilTick = state.now + state.options.electionTicks
  if (state.promiseTerm !== state.term) {
    state.promiseTerm = state.term
    state.promiseEpoch = 0
  }
  state.promiseEpoch = Math.max(state.promiseEpoch, message.leaseEpoch)
}

export function handleHeartbeat(state: RaftState, message: HeartbeatMessage): void {
  state.commitTo(message.commit)
  const { from: to, tick, leaseEpoch, readSequence } = message
  state.sendWhenDurable({
    type: 'heartbeat-response',
    from: state.id,
    to,
    term: state.term,
    tick,
    leaseEpoch,
    readSequence,
  })
}

export function handleAppend(state: RaftState, message: AppendMessage): void {
  const { log } = state
  // Late or doubled, or the leader probes too low: what is committed is known to be equal.
  if (message.previousIndex < state.commit) {
    answer(state, message, state.commit)
    return
  }
  if (!log.matches(message.previousIndex, message.previousTerm)) {
    const hint = log.agreement(message.previousIndex, message.previousTerm)
    answer(state, message, message.previousIndex, hint)
    return
  }
  const lastIndex = message.previousIndex + message.entries.length
  const newPosition = message.entries.findIndex((entry) => !log.matches(entry.index, entry.term))
  if (newPosition >= 0) {
    const entries = message.entries.slice(newPosition)
    const firstIndex = message.previousIndex + 1 + newPosition
    if (firstIndex <= state.commit)
      throw raftError(
        'RAFT_DIVERGED',
        `member ${state.id}: leader ${message.from} of term ${message.term} would replace entry ${firstIndex}, and everything up to ${state.commit} is committed`,
        'Stop this member and compare it with the others before anything else.',
      )
    log.append(entries)
    state.noteConfigurations(entries)
  }
  // Behind lastIndex our log may still hold entries of an old leader: they are not what was committed.
  state.commitTo(Math.min(message.commit, lastIndex))
  answer(state, message, lastIndex)
}

/** The file has arrived whole. Taken only when it brings something. */
export function handleSnapshot(state: RaftState, message: SnapshotMessage): void {
  const { log } = state
  const { snapshot } = message
  if (snapshot.index > state.commit) {
    if (log.matches(snapshot.index, snapshot.term)) state.commitTo(snapshot.index)
    else {
      // Term and vote stay ours; the log goes: all of it, as it does not hold the snapshot's entry (rule L4).
      log.restore(snapshot)
      state.forgetPendingConfigurations()
      state.configuration = snapshot.configuration
      state.commit = snapshot.index
      state.snapshotToInstall = snapshot
    }
  }
  answer(state, message, state.commit)
}

/** Nothing of it is taken; the answer carries our term, and that is all it says: above all it is no promise. */
export function refuseOldLeader(state: RaftState, message: LeaderMessage): void {
  answer(state, { ...message, leaseEpoch: noLeaseEpoch }, 0, { index: 0, term: 0 })
}

function answer(
  state: RaftState,
  message: LeaderMessage,
  index: number,
  hint: { readonly index: number; readonly term: number } | null = null,
): void {
  state.sendWhenDurable({
    type: 'append-response',
    from: state.id,
    to: message.from,
    term: state.term,
    tick: message.tick,
    leaseEpoch: message.leaseEpoch,
    index,
    rejected: hint !== null,
    hintIndex: hint?.index ?? 0,
    hintTerm: hint?.term ?? 0,
  })
}
