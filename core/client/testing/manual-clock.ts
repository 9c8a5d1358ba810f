/** A clock that moves only when a test says so; timers run in order of time, then of setting. */
import type { Clock, Timer, WallTime } from '../../platform/clock.ts'

interface Entry {
  readonly atMs: number
  readonly order: number
  readonly callback: () => void
  cancelled: boolean
}

/** Promise reactions that one step may set off, one behind the other. */
const MICROTASK_ROUNDS = 24

export class ManualClock implements Clock {
  #nowMs = 1000
  /** Suspend moves only this one (rule L2). */
  #suspendedMs = 0
  #order = 0
  #timers: Entry[] = []
  #deferred: (() => void)[] = []

  /** For tests with node streams: lets the real event loop turn once. */
  turn: () => Promise<void> = () => Promise.resolve()

  nowMs(): number {
    return this.#nowMs
  }

  bootMs(): number {
    return this.#nowMs + this.#suspendedMs
  }

  wall(): WallTime {
    return { seconds: 1_700_000_000 + Math.floor(this.#nowMs / 1000), nanoseconds: 0 }
  }

  suspend(durationMs: number): void {
    this.#suspendedMs += durationMs
  }

  setTimer(delayMs: number, callback: () => void): Timer {
    const entry: Entry = {
      atMs: this.#nowMs + Math.max(0, delayMs),
      order: this.#order++,
      callback,
      cancelled: false,
    }
    let at = this.#timers.length
    while (at > 0 && (this.#timers[at - 1] as Entry).atMs > entry.atMs) at--
    this.#timers.splice(at, 0, entry)
    return {
      cancel: () => {
        entry.cancelled = true
      },
    }
  }

  defer(callback: () => void): void {
    this.#deferred.push(callback)
  }

  /** Runs everything that is due now. */
  async settle(): Promise<void> {
    for (;;) {
      await this.turn()
      for (let i = 0; i < MICROTASK_ROUNDS; i++) await Promise.resolve()
      const deferred = this.#deferred
      this.#deferred = []
      for (const callback of deferred) callback()
      const first = this.#timers[0]
      if (first !== undefined && first.atMs <= this.#nowMs) {
        this.#timers.shift()
        if (!first.cancelled) first.callback()
        continue
      }
      if (deferred.length === 0 && this.#deferred.length === 0) return
    }
  }

  async advance(durationMs: number): Promise<void> {
    await this.until(() => false, durationMs, false)
  }

  /** Moves from timer to timer until `condition` holds; throws after `maxMs` of simulated time. */
  async until(condition: () => boolean, maxMs = 60_000, mustHold = true): Promise<void> {
    const endMs = this.#nowMs + maxMs
    await this.settle()
    while (!condition()) {
      const next = this.#timers[0]
      if (next === undefined || next.atMs > endMs) {
        this.#nowMs = endMs
        await this.settle()
        if (mustHold && !condition()) throw new Error(`the condition does not hold after ${maxMs} ms`)
        return
      }
      this.#nowMs = Math.max(this.#nowMs, next.atMs)
      await this.settle()
    }
  }

  /** The value of a promise that needs time to pass. */
  async wait<T>(promise: Promise<T>, maxMs = 60_000): Promise<T> {
    let state: 'pending' | 'done' = 'pending'
    promise.then(
      () => (state = 'done'),
      () => (state = 'done'),
    )
    await this.until(() => state === 'done', maxMs)
    return await promise
  }
}
