/**
 * What a leader does: replicate, commit, confirm its leadership (check-quorum, lease, read rounds), hand over.
 * Appends are not sent when commands are proposed but when the driver asks for the next Ready, so that all
 * proposals of one event-loop turn travel together.
 */
import { assert, present } from '../base/assert.ts'
import { type Configuration, quorumValue } from './configuration.ts'
import { entrySizeBytes } from './log.ts'
import { leaseTicks } from './options.ts'
import { Progress } from './progress.ts'
import type { RaftState } from './state.ts'
import {
  type AppendResponseMessage,
  type Entry,
  type EntryKind,
  type HeartbeatResponseMessage,
  type MemberId,
  nobody,
} from './types.ts'

const noData = Buffer.alloc(0)

export function becomeLeader(state: RaftState): void {
  assert(state.role === 'candidate', 'only a candidate becomes leader')
  state.role = 'leader'
  state.leader = state.id
  state.votes.clear()
  state.leaveLeadership()
  state.leaseEpoch = 1
  state.leaderSinceTick = state.now
  state.uncommittedBytes = 0
  const { log } = state
  for (const entry of log.entries(state.commit + 1, log.lastIndex, Number.POSITIVE_INFINITY))
    state.uncommittedBytes += entrySizeBytes(entry)
  state.termStartIndex = log.lastIndex + 1
  state.heartbeatTick = state.now + state.options.heartbeatTicks
  followConfiguration(state)
  appendEntries(state, 'empty', [noData])
}

/** Puts new entries of this term behind the log. Returns the index of the first. */
export function appendEntries(state: RaftState, kind: EntryKind, data: readonly Buffer[]): number {
  const firstIndex = state.log.lastIndex + 1
  const entries: Entry[] = data.map((one, position) => ({
    index: firstIndex + position,
    term: state.term,
    kind,
    data: one,
  }))
  for (const entry of entries) state.uncommittedBytes += entrySizeBytes(entry)
  state.log.append(entries)
  if (kind === 'configuration') state.noteConfigurations(entries)
  return firstIndex
}

/** One progress for every other member of the configuration in force, and for nobody else. */
function followConfiguration(state: RaftState): void {
  const { voters, learners } = state.configuration
  for (const member of state.peers.keys()) {
    if (state.knowsMember(member)) continue
    // It should know that it is out. Best effort: afterwards nobody speaks to it any more.
    sendAppend(state, member, true)
    state.peers.delete(member)
    if (state.transferTarget === member) giveUpTransfer(state)
  }
  for (const member of [...voters, ...learners])
    if (member !== state.id && !state.peers.has(member))
      state.peers.set(member, new Progress(state.log.lastIndex + 1, state.now, state.options))
}

/** Sends what there is to send, as far as each member's window allows. Called before every Ready. */
export function flush(state: RaftState): void {
  if (state.reads.hasWaiting && state.isEstablishedLeader) {
    state.reads.startRound(state.commit)
    sendHeartbeats(state)
    confirmReads(state)
  }
  for (const member of state.peers.keys()) while (sendAppend(state, member, false));
}

/** True when an append with entries was sent and there may be more. `anyway`: also when there is no news. */
function sendAppend(state: RaftState, member: MemberId, anyway: boolean): boolean {
  const { log } = state
  const progress = present(state.peers.get(member), 'members have a progress')
  if (progress.isPaused && !anyway) return false
  if (state.messages.length >= state.options.outboxCountMax) return false
  const previousIndex = progress.nextIndex - 1
  const previousTerm = log.term(previousIndex)
  if (previousTerm === undefined || progress.nextIndex < log.firstIndex) {
    if (progress.state !== 'snapshot' && !anyway) {
      progress.becomeSnapshot()
      state.snapshotsNeeded.push(member)
    }
    return false
  }
  const mayCarry = !progress.isPaused && progress.nextIndex <= log.lastIndex
  const entries = mayCarry
    ? log.entries(progress.nextIndex, log.lastIndex, state.options.messageBytesMax)
    : []
  const lastIndex = previousIndex + entries.length
  const commitReach = Math.min(state.commit, lastIndex)
  // News of commits alone waits for entries that go the same way, or for the answer to those on their way.
  const isCommitNews = commitReach > progress.commitSent && progress.inflightCount === 0
  const isNews = entries.length > 0 || isCommitNews || progress.nudge
  if (!isNews && !anyway) return false
  progress.nudge = false
  progress.commitSent = Math.max(progress.commitSent, commitReach)
  let sizeBytes = 0
  for (const entry of entries) sizeBytes += entrySizeBytes(entry)
  progress.sent(lastIndex, sizeBytes)
  state.send({
    type: 'append',
    from: state.id,
    to: member,
    term: state.term,
    tick: state.now,
    leaseEpoch: state.leaseEpoch,
    previousIndex,
    previousTerm,
    entries,
    commit: state.commit,
  })
  return entries.length > 0
}

export function sendHeartbeats(state: RaftState): void {
  state.heartbeatTick = state.now + state.options.heartbeatTicks
  for (const [to, progress] of state.peers)
    state.send({
      type: 'heartbeat',
      from: state.id,
      to,
      term: state.term,
      tick: state.now,
      leaseEpoch: state.leaseEpoch,
      commit: Math.min(state.commit, progress.matchIndex),
      readSequence: state.reads.sequence,
    })
}

export function leaderTick(state: RaftState): void {
  // Check-quorum: a leader that hears no majority stops calling itself one.
  const heardTick = quorumOf(state, (progress) => progress.contactTick, state.now)
  if (state.now - heardTick > state.options.electionTicks) {
    state.becomeFollower(state.term, nobody)
    return
  }
  if (state.transferTarget !== nobody && state.now >= state.transferUntilTick) giveUpTransfer(state)
  if (state.now >= state.heartbeatTick) sendHeartbeats(state)
}

function quorumOf(state: RaftState, valueOf: (progress: Progress) => number, own: number): number {
  return quorumValue(state.configuration, (member) =>
    member === state.id ? own : valueOf(present(state.peers.get(member), 'voters have a progress')),
  )
}

/** May reads be answered without asking anybody? Only established leaders, and never during a transfer (rule L3). */
export function hasLease(state: RaftState): boolean {
  if (!state.isEstablishedLeader) return false
  if (state.faults.readWithoutLease === true) return true
  if (state.transferTarget !== nobody && state.faults.keepLeaseInTransfer !== true) return false
  const confirmedTick = quorumOf(state, (progress) => progress.leaseTick, state.now)
  return state.now - confirmedTick <= leaseTicks(state.options)
}

/** Any answer in our term: a sign of life, and a confirmation of what it answers. */
function noteAnswer(
  state: RaftState,
  message: AppendResponseMessage | HeartbeatResponseMessage,
): Progress | undefined {
  const progress = state.peers.get(message.from)
  if (progress === undefined) return undefined
  progress.contactTick = state.now
  // Whatever a leader of this term has sent bears a tick since it leads: others are of an earlier life of it.
  const isOurs = message.tick >= state.leaderSinceTick && message.tick <= state.now
  if (isOurs && message.leaseEpoch === state.leaseEpoch)
    progress.leaseTick = Math.max(progress.leaseTick, message.tick)
  return progress
}

export function handleAppendResponse(state: RaftState, message: AppendResponseMessage): void {
  const progress = noteAnswer(state, message)
  if (progress === undefined) return
  if (message.rejected) {
    const agreeIndex =
      message.hintTerm > 0
        ? state.log.agreement(message.hintIndex, message.hintTerm).index
        : message.hintIndex
    progress.rejected(message.index, agreeIndex)
    return
  }
  // Nobody can hold more than the leader sent; such an answer is not believed.
  if (message.index > state.log.lastIndex) return
  const isNews = progress.accepted(message.index)
  const isWithinWindow = progress.matchIndex + 1 >= state.log.firstIndex
  if (progress.state === 'probe' && message.index === progress.matchIndex) progress.becomeReplicate()
  else if (progress.state === 'snapshot' && isNews && isWithinWindow) progress.becomeReplicate()
  if (isNews) maybeCommit(state)
  maybeSendTimeoutNow(state)
}

export function handleHeartbeatResponse(state: RaftState, message: HeartbeatResponseMessage): void {
  const progress = noteAnswer(state, message)
  if (progress === undefined) return
  progress.answeredHeartbeat()
  if (progress.matchIndex < state.log.lastIndex) progress.nudge = true
  progress.readSequence = Math.max(
    progress.readSequence,
    Math.min(message.readSequence, state.reads.sequence),
  )
  confirmReads(state)
}

function confirmReads(state: RaftState): void {
  if (!state.reads.hasRounds) return
  state.reads.confirmThrough(quorumOf(state, (progress) => progress.readSequence, state.reads.sequence))
}

/** Moves the commit index to what a majority holds, if that is of our own term (paper, section 5.4.2). */
export function maybeCommit(state: RaftState): void {
  for (;;) {
    if (state.role !== 'leader') return
    const index = quorumOf(state, (progress) => progress.matchIndex, state.log.stableIndex)
    if (index <= state.commit) return
    if (state.log.term(index) !== state.term && state.faults.skipCurrentTermRule !== true) return
    const before = state.configuration
    state.commitTo(index)
    // A new configuration counts other members: perhaps more is committed by now.
    if (state.configuration !== before) enterConfiguration(state, before)
  }
}

function enterConfiguration(state: RaftState, before: Configuration): void {
  followConfiguration(state)
  if (state.isVoter) return
  assert(before.voters.includes(state.id), 'a leader votes until its removal is committed')
  // We are out (thesis, section 4.2.2). The others hear of the commit, and the best of them takes over at once.
  for (const member of state.peers.keys()) sendAppend(state, member, true)
  resign(state)
}

/**
 * Follows from now on, and has the member that holds most take over at once. The lease ends before anybody hears
 * of it (rule L3), and a new one needs a new term.
 */
export function resign(state: RaftState): void {
  const best = bestVoter(state)
  if (best !== nobody) sendTimeoutNow(state, best)
  state.becomeFollower(state.term, nobody)
}

function bestVoter(state: RaftState): MemberId {
  let best: MemberId = nobody
  let bestIndex = 0
  for (const [member, { matchIndex }] of state.peers) {
    if (matchIndex <= bestIndex || !state.configuration.voters.includes(member)) continue
    best = member
    bestIndex = matchIndex
  }
  return best
}

/** Does a learner hold nearly all of the log? It must not hold up commits from the moment it votes. */
export function isCaughtUp(state: RaftState, member: MemberId): boolean {
  const progress = state.peers.get(member)
  if (progress === undefined || progress.state !== 'replicate') return false
  return progress.matchIndex + state.options.promoteLagCountMax >= state.commit
}

/** From now on no proposals and no lease; timeout-now goes out as soon as the target holds the whole log. */
export function startTransfer(state: RaftState, target: MemberId): void {
  state.transferTarget = target
  state.transferIsSent = false
  state.transferUntilTick = state.now + state.options.electionTicks
  maybeSendTimeoutNow(state)
}

function maybeSendTimeoutNow(state: RaftState): void {
  if (state.transferTarget === nobody || state.transferIsSent) return
  const progress = state.peers.get(state.transferTarget)
  if (progress === undefined || progress.matchIndex < state.log.lastIndex) return
  state.transferIsSent = true
  sendTimeoutNow(state, state.transferTarget)
}

function sendTimeoutNow(state: RaftState, to: MemberId): void {
  state.send({ type: 'timeout-now', from: state.id, to, term: state.term, leaseEpoch: state.leaseEpoch })
}

/**
 * The timeout-now may still be on its way. The new epoch makes members that answer us from now on deaf to it,
 * and the lease counts only their answers: it is regained by a new round of a quorum (rule L3).
 */
function giveUpTransfer(state: RaftState): void {
  state.transferTarget = nobody
  state.leaseEpoch++
  for (const progress of state.peers.values()) progress.leaseTick = Number.NEGATIVE_INFINITY
  sendHeartbeats(state)
}
