/**
 * Chunks of which a member in sync has pages that nobody could supply yet. While that is so, replicas that left
 * are not collected: one of them may have the last good copy (rules J7, G2). Soft and bounded: the chunk server
 * says it again at least once a minute, also to a new master; what is not repeated has ended.
 */
import type { Clock } from '../../../platform/clock.ts'

const COUNT_MAX = 100_000
/** More than two of the longest pauses of a chunk server between two reports. */
const VALID_MS = 150_000

export class MissingPages {
  readonly #clock: Clock
  /** Chunk -> when it was last said, oldest first. */
  readonly #saidMs = new Map<number, number>()

  constructor(clock: Clock) {
    this.#clock = clock
  }

  add(chunk: number): void {
    const nowMs = this.#clock.nowMs()
    this.#saidMs.delete(chunk)
    for (const [oldest, saidMs] of this.#saidMs) {
      if (this.#saidMs.size < COUNT_MAX && nowMs - saidMs < VALID_MS) break
      this.#saidMs.delete(oldest)
    }
    this.#saidMs.set(chunk, nowMs)
  }

  /** Repaired, or known to be lost. */
  delete(chunk: number): void {
    this.#saidMs.delete(chunk)
  }

  has(chunk: number): boolean {
    const saidMs = this.#saidMs.get(chunk)
    return saidMs !== undefined && this.#clock.nowMs() - saidMs < VALID_MS
  }
}
