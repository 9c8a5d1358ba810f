/**
 * Pauses the writer of a file, so that its chunks may be shared (rule S1): it drains, flushes on all members and
 * gives back its intents. As long as it needs new ones for that it gets them; once it has none, nobody gets one
 * until the chunks are shared. What a dead writer left is reconciled first. Who does not obey in time keeps the file.
 */
import { mark } from '../../base/coverage.ts'
import { type ChunkWaiters, WAIT_MS_MAX } from '../control/replication/chunk-waiters.ts'
import type { Master } from '../control/servers/master.ts'
import { wireError } from '../errors.ts'
import { type CommandResult, valueOf } from '../state/result.ts'
import type { LeaseRow } from '../state/rows.ts'

/** An asker that was told to come again has this long to do so; until then the pause goes on. */
const KEPT_MS = 5_000
const RETRY_MS = 20
const PAUSED_COUNT_MAX = 1_000

interface Pause {
  readonly startedMs: number
  untilMs: number
  /** It has no intents: nobody gets any. */
  isReached: boolean
  /** Not even a lease. */
  takesLease: boolean
  wake: () => void
}

export interface PauseParts {
  readonly master: Master
  readonly waiters: ChunkWaiters
  readonly lookFirst: (chunk: number) => void
  readonly askToPause: (lease: LeaseRow, deadlineMs: number) => void
}

export class Pauses {
  readonly #parts: PauseParts
  readonly #paused = new Map<number, Pause>()

  constructor(parts: PauseParts) {
    this.#parts = parts
  }

  /** No intents of this file now. */
  isHeld(inode: number): boolean {
    if (this.#parts.master.state.isFrozen(inode)) return true
    const pause = this.#paused.get(inode)
    return pause?.isReached === true && this.#parts.master.clock.nowMs() < pause.untilMs
  }

  /** No lease of this file now: who takes it back for a rollback would else do so again and again (rule T2). */
  isTaken(inode: number): boolean {
    const pause = this.#paused.get(inode)
    return pause?.takesLease === true && this.#parts.master.clock.nowMs() < pause.untilMs
  }

  /** An intent was given back, or a lease ended. */
  changed(): void {
    for (const pause of this.#paused.values()) pause.wake()
  }

  /**
   * Proposes while nobody writes the file. TRY_AGAIN: the caller asks again, soon. EBUSY: its writer did not let go.
   * `takeLease`: what takes the lease back first, for who needs the file to have none.
   */
  async whilePaused<Value>(
    inode: number,
    propose: () => Promise<CommandResult<Value>>,
    takeLease?: () => Promise<void>,
  ): Promise<Value> {
    const { master } = this.#parts
    const askedMs = master.clock.nowMs()
    const pause = this.#begin(inode, askedMs)
    if (takeLease !== undefined) pause.takesLease = true
    const limitMs = master.parameter('mds.lease.recall_tout')
    for (;;) {
      pause.untilMs = master.clock.nowMs() + KEPT_MS
      try {
        await takeLease?.()
      } catch (error) {
        this.#paused.delete(inode)
        throw error
      }
      await this.#quiet(inode, pause)
      const result = await propose()
      if (!('error' in result) || result.error !== 'TRY_AGAIN') {
        this.#paused.delete(inode)
        return valueOf(result)
      }
      const nowMs = master.clock.nowMs()
      if (nowMs - pause.startedMs >= limitMs) {
        this.#paused.delete(inode)
        throw wireError(
          'EBUSY',
          `inode ${inode} is being written, and its writer did not pause: ${result.message}`,
        )
      }
      if (nowMs - askedMs >= WAIT_MS_MAX) throw wireError('TRY_AGAIN', result.message)
      await this.#sleep(pause, RETRY_MS)
    }
  }

  #begin(inode: number, nowMs: number): Pause {
    for (const [other, { untilMs }] of this.#paused) if (untilMs < nowMs) this.#paused.delete(other)
    const known = this.#paused.get(inode)
    if (known !== undefined) return known
    if (this.#paused.size >= PAUSED_COUNT_MAX)
      throw wireError('OVERLOADED', 'too many files are being paused')
    const pause = {
      startedMs: nowMs,
      untilMs: nowMs + KEPT_MS,
      isReached: false,
      takesLease: false,
      wake: () => {},
    }
    this.#paused.set(inode, pause)
    return pause
  }

  /** Resolves when the file has no intents and nothing dirty, or after a while. */
  async #quiet(inode: number, pause: Pause): Promise<void> {
    const { master, waiters, lookFirst, askToPause } = this.#parts
    const { state } = master
    const lease = state.leases.get(state.leaseByInode.get(inode) ?? 0)
    const hasIntents = (): boolean => lease !== undefined && state.chunks.intentCount(lease.lease) > 0
    pause.isReached = !hasIntents()
    if (lease !== undefined && !pause.isReached) {
      mark('a writer is paused for a snapshot')
      askToPause(lease, master.parameter('mds.lease.recall_tout'))
      const untilMs = master.clock.nowMs() + WAIT_MS_MAX / 2
      while (hasIntents() && master.clock.nowMs() < untilMs) await this.#sleep(pause, WAIT_MS_MAX / 4)
      pause.isReached = !hasIntents()
    }
    const dirty = [...state.chunks.dirtyDeadChunks()].filter(
      (chunk) => state.inodes.get(inode)?.chunks.get(state.chunks.get(chunk)?.index ?? 0) === chunk,
    )
    if (dirty.length === 0) return
    mark('a snapshot waits for what a dead writer left')
    for (const chunk of dirty) lookFirst(chunk)
    await waiters.wait(dirty, WAIT_MS_MAX / 2)
  }

  #sleep(pause: Pause, delayMs: number): Promise<void> {
    return new Promise((resolve) => {
      const timer = this.#parts.master.after(delayMs, resolve)
      pause.wake = () => {
        timer.cancel()
        resolve()
      }
    })
  }
}
