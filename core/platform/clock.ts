/** Time, as an interface: the real one is in node/, the simulated one in testing/. */

export interface Timer {
  /** Idempotent. After it returns the callback does not run. */
  cancel(): void
}

export interface Clock {
  /** Monotonic milliseconds (fractions allowed) for time-outs and measurements; stands still in suspend. */
  nowMs(): number
  /** Milliseconds on a clock that counts suspend (CLOCK_BOOTTIME): everything about leases (rule L2). */
  bootMs(): number
  /** Wall clock for display and file times only: whole seconds and nanoseconds. */
  wall(): WallTime
  setTimer(delayMs: number, callback: () => void): Timer
  /** Runs `callback` once at the end of this event-loop turn (batching of frames and commits). */
  defer(callback: () => void): void
}

export interface WallTime {
  readonly seconds: number
  readonly nanoseconds: number
}
