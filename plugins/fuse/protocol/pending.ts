/**
 * Requests that wait for the cluster: so that a signal can end the wait of the program (INTERRUPT), that
 * the mount can stop cleanly, and that their number stays bounded.
 *
 * A signal does not end a request at once: runtimes send themselves signals all the time (Go's
 * preemption, terminal resizes), and programs do not expect EINTR from files. Only a request that has
 * been held for the grace period is given up, and then only its answer (rule E11).
 */
import type { Operation } from '@cairn/core/client'

export const INTERRUPT_GRACE_MS = 1000

export class Pending {
  readonly unique: number
  /** Set once the operation has been handed to the client. */
  operation: Operation | undefined
  answered = false
  /** When a signal arrived, on performance.now(); -1: none, or given up already. */
  interruptedMs = -1

  constructor(unique: number) {
    this.unique = unique
  }
}

export class PendingTable {
  readonly #pending = new Map<number, Pending>()
  readonly #giveUp: (pending: Pending) => void
  readonly #graceMs: number
  #timer: NodeJS.Timeout | undefined

  /** `giveUp` answers EINTR to one that has been held too long after a signal. */
  constructor(giveUp: (pending: Pending) => void, graceMs = INTERRUPT_GRACE_MS) {
    this.#giveUp = giveUp
    this.#graceMs = graceMs
  }

  get size(): number {
    return this.#pending.size
  }

  add(unique: number): Pending {
    const pending = new Pending(unique)
    this.#pending.set(unique, pending)
    return pending
  }

  /** False when it has been answered already (given up): then nobody may answer again. */
  finish(pending: Pending): boolean {
    if (pending.answered) return false
    pending.answered = true
    this.#pending.delete(pending.unique)
    return true
  }

  /** False: not (or no longer) known; the kernel is told to ask again. */
  interrupt(unique: number): boolean {
    const pending = this.#pending.get(unique)
    if (pending === undefined) return false
    if (pending.interruptedMs < 0) pending.interruptedMs = performance.now()
    this.#arm()
    return true
  }

  #arm(): void {
    if (this.#timer !== undefined) return
    this.#timer = setTimeout(() => this.#sweep(), Math.max(1, Math.ceil(this.#graceMs / 4)))
    this.#timer.unref()
  }

  #sweep(): void {
    this.#timer = undefined
    const nowMs = performance.now()
    let isWaiting = false
    for (const pending of [...this.#pending.values()]) {
      if (pending.interruptedMs < 0) continue
      if (nowMs - pending.interruptedMs < this.#graceMs) {
        isWaiting = true
        continue
      }
      pending.interruptedMs = -1
      this.#giveUp(pending)
    }
    if (isWaiting) this.#arm()
  }

  stop(): void {
    clearTimeout(this.#timer)
    this.#timer = undefined
  }
}
