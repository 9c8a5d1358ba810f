/** What all files of one client share: session, connections, time, counters, the budget of bytes in flight. */
import type { Clock } from '../../platform/clock.ts'
import type { Logger } from '../../platform/logger.ts'
import type { Random } from '../../platform/random.ts'
import type { Counters } from './counters.ts'
import type { ServerPool } from './server-pool.ts'
import type { Session } from './session.ts'
import type { LeaseReturns } from './lease-returns.ts'

export interface BudgetWaiter {
  /** Bytes came back: try again. */
  budgetFree(): void
}

/** Bytes of data requests in flight. Held requests give theirs back (rule A3). */
export class ByteBudget {
  readonly limitBytes: number
  #usedBytes = 0
  /** In order of asking; each once. */
  #waiters = new Set<BudgetWaiter>()

  constructor(limitBytes: number) {
    this.limitBytes = limitBytes
  }

  get usedBytes(): number {
    return this.#usedBytes
  }

  /** False: `waiter` is called when bytes came back. A request larger than all of it passes alone. */
  tryTake(sizeBytes: number, waiter: BudgetWaiter): boolean {
    if (this.#usedBytes > 0 && this.#usedBytes + sizeBytes > this.limitBytes) {
      this.#waiters.add(waiter)
      return false
    }
    this.#usedBytes += sizeBytes
    return true
  }

  give(sizeBytes: number): void {
    this.#usedBytes -= sizeBytes
    if (this.#waiters.size === 0) return
    const waiters = this.#waiters
    this.#waiters = new Set()
    for (const waiter of waiters) {
      if (this.#usedBytes < this.limitBytes) waiter.budgetFree()
      else this.#waiters.add(waiter)
    }
  }
}

/** Things with deadlines; looked at every SWEEP_INTERVAL_MS. */
export interface Swept {
  sweep(nowMs: number): void
}

export interface Engine {
  readonly clock: Clock
  readonly logger: Logger
  readonly random: Random
  readonly session: Session
  readonly pool: ServerPool
  readonly budget: ByteBudget
  readonly counters: Counters
  readonly leaseReturns: LeaseReturns
  /** 0: without limit. */
  readonly holdTimeoutMs: number
  /** 0: none. */
  readonly preferredServer: number
  /** Add while something is unanswered, remove after. */
  readonly swept: Set<Swept>
  /** Read-ahead blocks of all files. */
  readonly readAhead: { blockCount: number }
  /** See FileState.era. */
  readonly eras: { last: number }
  /** Begins to give back leases that nobody uses; false: there are none, nor any on their way. */
  returnIdleLeases(): boolean
  /** Operations are numbered in the order of their issue. */
  nextSequence(): number
  /** Copies for cancelled writes (bounded); false: no room, the cancel waits. */
  takeCancelledBytes(sizeBytes: number): boolean
  giveCancelledBytes(sizeBytes: number): void
}
