/**
 * Which session has which inode open, counted per open. Soft state: it lives in the master only, and a
 * session that comes back declares it anew. Until all sessions have declared, nothing may be collected.
 */
import type { Mutation } from '../../../wire/messages/common.ts'

/** The same bound as `session.resume` has. */
export const OPEN_INODES_PER_SESSION_MAX = 1_000_000

interface SessionOpens {
  readonly counts: Map<number, number>
  /** Mutations whose open was counted, and for how many requests: a repeated fs.create opens once. */
  readonly openedBySequence: Map<number, number>
}

/** Takes back an open that was counted, unless the session has said anew since what it has open. */
type UndoOpen = () => void

export class OpenFiles {
  private readonly sessions = new Map<number, SessionOpens>()
  /** How many sessions have it open. */
  private readonly holders = new Map<number, number>()

  /** A new session has nothing open; one that resumes says what. Replaces what was known of it. */
  declare(session: number, openInodes: readonly number[] = []): void {
    this.endSession(session)
    const opens: SessionOpens = { counts: new Map(), openedBySequence: new Map() }
    this.sessions.set(session, opens)
    for (const inode of openInodes) this.count(opens, inode)
  }

  hasDeclared(session: number): boolean {
    return this.sessions.has(session)
  }

  /** Null: the session has too many open, or is not known. */
  open(session: number, inode: number): UndoOpen | null {
    const opens = this.sessions.get(session)
    if (opens === undefined || opens.counts.size >= OPEN_INODES_PER_SESSION_MAX) return null
    this.count(opens, inode)
    return () => {
      if (this.sessions.get(session) === opens) this.close(session, [inode])
    }
  }

  /** As `open`, once per mutation. It is taken back when all requests that asked for it failed. */
  openOnce(session: number, inode: number, mutation: Mutation): UndoOpen | null {
    const opens = this.sessions.get(session)
    if (opens === undefined) return null
    const { sequence, acknowledgedBelow } = mutation
    const opened = opens.openedBySequence
    for (const old of opened.keys()) if (old < acknowledgedBelow) opened.delete(old)
    const requestCount = opened.get(sequence) ?? 0
    if (requestCount === 0 && this.open(session, inode) === null) return null
    opened.set(sequence, requestCount + 1)
    return () => {
      const left = (opened.get(sequence) ?? 0) - 1
      if (left > 0) opened.set(sequence, left)
      else if (opened.delete(sequence) && this.sessions.get(session) === opens) this.close(session, [inode])
    }
  }

  /** What is not open is ignored. A client says it over one connection only: once more closes one too many. */
  close(session: number, inodes: readonly number[]): void {
    const opens = this.sessions.get(session)
    if (opens === undefined) return
    for (const inode of inodes) {
      const count = opens.counts.get(inode)
      if (count === undefined) continue
      if (count > 1) {
        opens.counts.set(inode, count - 1)
        continue
      }
      opens.counts.delete(inode)
      this.dropHolder(inode)
    }
  }

  endSession(session: number): void {
    const opens = this.sessions.get(session)
    if (opens === undefined) return
    for (const inode of opens.counts.keys()) this.dropHolder(inode)
    this.sessions.delete(session)
  }

  isOpen(inode: number): boolean {
    return this.holders.has(inode)
  }

  openCount(session: number): number {
    return this.sessions.get(session)?.counts.size ?? 0
  }

  private count(opens: SessionOpens, inode: number): void {
    const count = opens.counts.get(inode) ?? 0
    opens.counts.set(inode, count + 1)
    if (count === 0) this.holders.set(inode, (this.holders.get(inode) ?? 0) + 1)
  }

  private dropHolder(inode: number): void {
    const count = this.holders.get(inode) ?? 0
    if (count > 1) this.holders.set(inode, count - 1)
    else this.holders.delete(inode)
  }
}
