/**
 * Who is a member, who of them votes, and the one-step changes between configurations (thesis, section 4.1):
 * the sets of voters before and after a change differ by one, so that any two majorities overlap.
 * Configurations are immutable values with sorted lists.
 */
import { raftError, type RefusalCode } from './errors.ts'
import type { MemberId } from './types.ts'

export interface Configuration {
  /** Sorted, disjoint from learners. */
  readonly voters: readonly MemberId[]
  /** They get the log and never count. */
  readonly learners: readonly MemberId[]
}

export const emptyConfiguration: Configuration = { voters: [], learners: [] }

/** A new member starts as `add-learner` and votes after `promote`. `demote` makes a voter a learner again. */
export interface ConfigurationChange {
  readonly type: 'add-learner' | 'promote' | 'demote' | 'remove'
  readonly member: MemberId
}

/** The configuration after the change, or why there is none. */
export function changeConfiguration(
  before: Configuration,
  change: ConfigurationChange,
  memberCountMax: number,
): Configuration | RefusalCode {
  const { member } = change
  const isVoter = before.voters.includes(member)
  const isLearner = before.learners.includes(member)
  if (!isMemberId(member)) return 'UNKNOWN_MEMBER'
  if (change.type === 'add-learner') {
    if (isVoter || isLearner) return 'MEMBER_EXISTS'
    if (before.voters.length + before.learners.length >= memberCountMax) return 'TOO_MANY_MEMBERS'
    return { voters: before.voters, learners: withMember(before.learners, member) }
  }
  if (!isVoter && !isLearner) return 'UNKNOWN_MEMBER'
  if (change.type === 'promote') {
    if (isVoter) return 'NOT_A_LEARNER'
    return { voters: withMember(before.voters, member), learners: without(before.learners, member) }
  }
  if (isVoter && before.voters.length === 1) return 'LAST_VOTER'
  if (change.type === 'demote') {
    if (isLearner) return 'NOT_A_VOTER'
    return { voters: without(before.voters, member), learners: withMember(before.learners, member) }
  }
  return { voters: without(before.voters, member), learners: without(before.learners, member) }
}

export function isMemberId(value: unknown): value is MemberId {
  return Number.isSafeInteger(value) && (value as number) > 0
}

export function isMember(configuration: Configuration, member: MemberId): boolean {
  return configuration.voters.includes(member) || configuration.learners.includes(member)
}

export function quorumCount(configuration: Configuration): number {
  return Math.floor(configuration.voters.length / 2) + 1
}

/**
 * The largest value that a majority of the voters has reached. Without voters nothing is reached:
 * negative infinity.
 */
export function quorumValue(configuration: Configuration, valueOf: (member: MemberId) => number): number {
  const { voters } = configuration
  const needed = quorumCount(configuration)
  // Asked for every request (the lease), and groups are small: counting beats sorting a new list.
  let best = Number.NEGATIVE_INFINITY
  for (const candidate of voters) {
    const value = valueOf(candidate)
    if (value <= best) continue
    let count = 0
    for (const voter of voters) if (valueOf(voter) >= value) count++
    if (count >= needed) best = value
  }
  return best
}

/** The data of a configuration entry: the whole configuration, so that a reader needs no history. */
export function encodeConfiguration(configuration: Configuration): Buffer {
  return Buffer.from(JSON.stringify([configuration.voters, configuration.learners]))
}

/** Throws RAFT_BAD_MESSAGE. */
export function decodeConfiguration(data: Buffer): Configuration {
  let decoded: unknown
  try {
    decoded = JSON.parse(data.toString())
  } catch (cause) {
    throw raftError('RAFT_BAD_MESSAGE', `a configuration entry is no JSON: ${String(cause)}`)
  }
  if (!Array.isArray(decoded) || decoded.length !== 2)
    throw raftError('RAFT_BAD_MESSAGE', 'a configuration entry is not a pair of lists')
  return checkedConfiguration(decoded[0], decoded[1])
}

/** Throws RAFT_BAD_MESSAGE unless both are lists of members, none named twice. */
export function checkedConfiguration(voters: unknown, learners: unknown): Configuration {
  if (!Array.isArray(voters) || !Array.isArray(learners))
    throw raftError('RAFT_BAD_MESSAGE', 'a configuration has lists of voters and learners')
  const all: unknown[] = [...voters, ...learners]
  if (!all.every(isMemberId) || new Set(all).size !== all.length)
    throw raftError('RAFT_BAD_MESSAGE', 'a configuration names each member once, by a positive integer')
  return { voters: sorted(voters as MemberId[]), learners: sorted(learners as MemberId[]) }
}

function withMember(members: readonly MemberId[], member: MemberId): MemberId[] {
  return sorted([...members, member])
}

function without(members: readonly MemberId[], member: MemberId): MemberId[] {
  return members.filter((other) => other !== member)
}

function sorted(members: readonly MemberId[]): MemberId[] {
  return [...members].sort((a, b) => a - b)
}
