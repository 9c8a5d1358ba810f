/**
 * Tells sessions what others changed. Per session a bounded set of stale inodes and names, sent at the end
 * of the turn; what does not fit becomes "all", which a client answers by dropping its whole cache. A session
 * that could not be told is told "all" later; one that resumes always is.
 */
import type { Clock, Timer } from '../../../platform/clock.ts'
import type { ClientMethods } from '../../../wire/messages/metadata.ts'
import type { ParamsOf } from '../../../wire/messages/method.ts'
import type { LogCommand } from '../../state/commands.ts'
import type { CommandResult } from '../../state/result.ts'
import { type CacheChanges, cacheChanges } from './cache-changes.ts'

export const STALE_ITEMS_MAX = 1_024
const RETRY_MS = 250

export type InvalidateParams = ParamsOf<ClientMethods, 'cache.invalidate'>

/** How the invalidator reaches sessions; session handling implements it. */
export interface SessionNotifier {
  /** Sessions with a connection. */
  connectedSessions(): Iterable<number>
  /** False: not sent (no connection, or its queue is full). */
  invalidate(session: number, params: InvalidateParams): boolean
}

interface Stale {
  all: boolean
  readonly inodes: Set<number>
  /** By parent/name. */
  readonly entries: Map<string, { parent: number; name: string }>
}

export class CacheInvalidator {
  private readonly clock: Clock
  private readonly notifier: SessionNotifier
  private readonly stale = new Map<number, Stale>()
  private isScheduled = false
  private retry: Timer | undefined

  constructor(clock: Clock, notifier: SessionNotifier) {
    this.clock = clock
    this.notifier = notifier
  }

  /** An AppliedListener for the log. */
  onApplied(entry: LogCommand, result: CommandResult): void {
    const changes = cacheChanges(entry.command, result)
    if (changes.inodes.length === 0 && changes.entries.length === 0) return
    const author = 'mutation' in entry.command ? entry.command.session : 0
    for (const session of this.notifier.connectedSessions()) {
      if (session !== author) this.add(session, changes)
    }
  }

  /** While it was away nothing was told to it. */
  sessionResumed(session: number): void {
    this.staleOf(session).all = true
    this.schedule()
  }

  sessionEnded(session: number): void {
    this.stale.delete(session)
  }

  close(): void {
    this.retry?.cancel()
    this.retry = undefined
    this.stale.clear()
  }

  private add(session: number, changes: CacheChanges): void {
    const stale = this.staleOf(session)
    if (!stale.all) {
      for (const inode of changes.inodes) stale.inodes.add(inode)
      for (const entry of changes.entries) stale.entries.set(`${entry.parent}/${entry.name}`, { ...entry })
      if (stale.inodes.size + stale.entries.size > STALE_ITEMS_MAX) becomeAll(stale)
    }
    this.schedule()
  }

  private staleOf(session: number): Stale {
    let stale = this.stale.get(session)
    if (stale === undefined) {
      stale = { all: false, inodes: new Set(), entries: new Map() }
      this.stale.set(session, stale)
    }
    return stale
  }

  private schedule(): void {
    if (this.isScheduled || this.retry !== undefined) return
    this.isScheduled = true
    this.clock.defer(() => {
      this.isScheduled = false
      this.send()
    })
  }

  private send(): void {
    const connected = new Set(this.notifier.connectedSessions())
    for (const [session, stale] of this.stale) {
      // It will resume, and be told "all" then, or end.
      if (!connected.has(session)) this.stale.delete(session)
      else if (this.notifier.invalidate(session, paramsOf(stale))) this.stale.delete(session)
      else becomeAll(stale)
    }
    if (this.stale.size === 0) return
    this.retry = this.clock.setTimer(RETRY_MS, () => {
      this.retry = undefined
      this.send()
    })
  }
}

function becomeAll(stale: Stale): void {
  stale.all = true
  stale.inodes.clear()
  stale.entries.clear()
}

function paramsOf(stale: Stale): InvalidateParams {
  return stale.all
    ? { all: true, inodes: [], entries: [] }
    : { all: false, inodes: [...stale.inodes], entries: [...stale.entries.values()] }
}
