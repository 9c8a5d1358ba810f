/**
 * How long one attempt to reach a metadata server may take for its next step: connection and hand-shake, then
 * the opening of the session. A server that is cut off or stopped must not hold up the search among the others.
 * Twice as long after each that was too slow: on a machine or link that is slow, all are.
 */
import type { Clock, Timer } from '../../platform/clock.ts'

const LIMIT_MS_MIN = 800
const LIMIT_MS_MAX = 6_400

export class AttemptLimit {
  readonly #clock: Clock
  readonly #onLate: () => void
  #limitMs = LIMIT_MS_MIN
  #timer: Timer | null = null

  constructor(clock: Clock, onLate: () => void) {
    this.#clock = clock
    this.#onLate = onLate
  }

  /** A step begins; the one before is over. */
  start(): void {
    this.#timer?.cancel()
    this.#timer = this.#clock.setTimer(this.#limitMs, () => {
      this.#limitMs = Math.min(LIMIT_MS_MAX, this.#limitMs * 2)
      this.#onLate()
    })
  }

  cancel(): void {
    this.#timer?.cancel()
  }

  /** It came about: the next one gets the shortest time again. */
  succeeded(): void {
    this.cancel()
    this.#limitMs = LIMIT_MS_MIN
  }
}
