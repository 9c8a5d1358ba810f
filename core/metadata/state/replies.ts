/**
 * Answers to mutations, kept until the session says that it has them, so that a repeated request is applied
 * once, also after a restart. An answer that invites the caller to come again changed nothing and is not
 * kept. The mark below which everything was acknowledged lies in each row: the newest row always exists.
 */
import type { RowChange } from '../../platform/store.ts'
import { isWireCode, wireCodes } from '../../wire/codes.ts'
import type { Mutation } from '../../wire/messages/common.ts'
import { metadataError } from '../errors.ts'
import { type CommandResult, refused } from './result.ts'
import { type ChangeTracked, jsonArray } from './table.ts'

/** Mutations of one session whose answers it has not acknowledged. */
export const REPLIES_PER_SESSION_MAX = 4096

interface SessionReplies {
  acknowledgedBelow: number
  readonly bySequence: Map<number, CommandResult>
}

export class ReplyTable implements ChangeTracked {
  readonly name = 'replies'
  private readonly sessions = new Map<number, SessionReplies>()
  private readonly dirty = new Set<string>()
  /** Keys of rows in the store: most answers are acknowledged before they ever get there. */
  private readonly stored = new Set<string>()

  /** What must be answered without applying; undefined: the mutation is new. */
  earlier(session: number, mutation: Mutation): CommandResult | undefined {
    const replies = this.sessions.get(session)
    if (replies === undefined) return undefined
    const reply = replies.bySequence.get(mutation.sequence)
    if (reply !== undefined) return reply
    if (mutation.sequence < replies.acknowledgedBelow) {
      return refused('REFUSED', `mutation ${mutation.sequence} was answered and acknowledged`)
    }
    if (keptCount(replies, mutation.acknowledgedBelow) >= REPLIES_PER_SESSION_MAX) {
      return refused('OVERLOADED', 'too many mutations of this session are not acknowledged')
    }
    return undefined
  }

  store(session: number, mutation: Mutation, result: CommandResult): void {
    if ('error' in result && wireCodes[result.error].retryable) return
    const replies = this.sessionReplies(session)
    this.acknowledge(session, replies, mutation.acknowledgedBelow)
    replies.bySequence.set(mutation.sequence, result)
    this.dirty.add(`${session}/${mutation.sequence}`)
  }

  /** The session ended. */
  dropSession(session: number): void {
    const replies = this.sessions.get(session)
    if (replies === undefined) return
    for (const sequence of replies.bySequence.keys()) this.dirty.add(`${session}/${sequence}`)
    this.sessions.delete(session)
  }

  private sessionReplies(session: number): SessionReplies {
    let replies = this.sessions.get(session)
    if (replies === undefined) {
      replies = { acknowledgedBelow: 0, bySequence: new Map() }
      this.sessions.set(session, replies)
    }
    return replies
  }

  private acknowledge(session: number, replies: SessionReplies, below: number): void {
    if (below <= replies.acknowledgedBelow) return
    replies.acknowledgedBelow = below
    for (const sequence of replies.bySequence.keys()) {
      if (sequence >= below) continue
      replies.bySequence.delete(sequence)
      this.dirty.add(`${session}/${sequence}`)
    }
  }

  loadRow(key: string, value: string): void {
    const [session, sequence] = key.split('/').map(Number)
    try {
      if (!Number.isSafeInteger(session) || !Number.isSafeInteger(sequence)) throw new Error('bad key')
      const [acknowledgedBelow, result] = jsonArray(JSON.parse(value), 2) as [number, CommandResult]
      if ('error' in result && !isWireCode(result.error)) throw new Error('unknown code')
      const replies = this.sessionReplies(session as number)
      replies.acknowledgedBelow = Math.max(replies.acknowledgedBelow, acknowledgedBelow)
      replies.bySequence.set(sequence as number, result)
      this.stored.add(key)
    } catch (error) {
      throw metadataError('ROW_CORRUPT', `${this.name}/${key}`, error)
    }
  }

  get changedCount(): number {
    return this.dirty.size
  }

  collectChanges(into: RowChange[]): void {
    for (const key of this.dirty) {
      const [session = 0, sequence = 0] = key.split('/').map(Number)
      const replies = this.sessions.get(session)
      const result = replies?.bySequence.get(sequence)
      if (replies !== undefined && result !== undefined) {
        this.stored.add(key)
        into.push({ table: this.name, key, value: JSON.stringify([replies.acknowledgedBelow, result]) })
      } else if (this.stored.delete(key)) into.push({ table: this.name, key, value: null })
    }
    this.dirty.clear()
  }

  *rows(): Iterable<readonly [string, string]> {
    for (const [session, replies] of this.sessions) {
      for (const [sequence, result] of replies.bySequence) {
        yield [`${session}/${sequence}`, JSON.stringify([replies.acknowledgedBelow, result])]
      }
    }
  }
}

/** How many answers would stay if all below `below` were forgotten; counted only when it matters. */
function keptCount(replies: SessionReplies, below: number): number {
  if (replies.bySequence.size < REPLIES_PER_SESSION_MAX) return 0
  let count = 0
  for (const sequence of replies.bySequence.keys()) if (sequence >= below) count += 1
  return count
}
