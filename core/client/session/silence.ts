/**
 * Has the other side fallen silent? It has when nothing came for a while since something was sent that it
 * should answer. What was sent before its last answer does not count: that may wait there for good reasons.
 * Time in which this process did not run is not held against the other side.
 */
import type { Clock, Timer } from '../../platform/clock.ts'

/** A timer that comes later than this tells of ourselves; what arrived meanwhile is read first. */
const LATE_MS = 250

export class Silence {
  readonly #clock: Clock
  readonly #limitMs: () => number
  readonly #onSilent: () => void
  #sinceMs: number | null = null
  #timer: Timer | null = null

  constructor(clock: Clock, limitMs: () => number, onSilent: () => void) {
    this.#clock = clock
    this.#limitMs = limitMs
    this.#onSilent = onSilent
  }

  sent(): void {
    if (this.#sinceMs !== null) return
    this.#sinceMs = this.#clock.nowMs()
    // One that is under way looks again for itself: no timer for each request.
    if (this.#timer === null) this.#arm(this.#limitMs())
  }

  heard(): void {
    this.#sinceMs = null
  }

  stop(): void {
    this.#sinceMs = null
    this.#timer?.cancel()
    this.#timer = null
  }

  #arm(durationMs: number): void {
    const plannedMs = this.#clock.nowMs() + durationMs
    this.#timer = this.#clock.setTimer(durationMs, () => {
      this.#timer = null
      if (this.#sinceMs === null) return
      const nowMs = this.#clock.nowMs()
      const restMs = this.#sinceMs + this.#limitMs() - nowMs
      if (restMs > 0) this.#arm(restMs)
      else if (nowMs - plannedMs > LATE_MS) this.#arm(LATE_MS)
      else this.#onSilent()
    })
  }
}
