/** Until when the session is certainly alive (rules L1, L2), and who waits to be told that it is again (L6). */
import type { Clock } from '../../platform/clock.ts'

export class Confirmation {
  readonly #clock: Clock
  #untilBootMs = Number.NEGATIVE_INFINITY
  #waiters: ((isAlive: boolean) => void)[] = []

  constructor(clock: Clock) {
    this.#clock = clock
  }

  /** On a clock that counts suspend. */
  get isValid(): boolean {
    return this.#clock.bootMs() < this.#untilBootMs
  }

  /** `callback(true)` when confirmed (again), `callback(false)` when the session has ended. */
  whenValid(callback: (isAlive: boolean) => void): void {
    if (this.isValid) callback(true)
    else this.#waiters.push(callback)
  }

  /** Rule L1: valid from the sending of what was answered. */
  extend(sentBootMs: number, durationMs: number): void {
    this.#untilBootMs = Math.max(this.#untilBootMs, sentBootMs + durationMs)
    if (this.isValid) this.#wake(true)
  }

  revoke(): void {
    this.#untilBootMs = Number.NEGATIVE_INFINITY
  }

  /** The session has ended, or its client is closed. */
  end(): void {
    this.#wake(false)
  }

  #wake(isAlive: boolean): void {
    const waiters = this.#waiters
    this.#waiters = []
    for (const waiter of waiters) waiter(isAlive)
  }
}
