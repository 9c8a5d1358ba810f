/**
 * When each replica was last verified and found equal to the others (rule R2), oldest first: what scrubbing does
 * next. In memory; format/verified-file.ts keeps it. Wall-clock seconds: they only order the work and show its age,
 * so a clock that jumps costs nothing but that.
 */
import type { Clock } from '../../platform/clock.ts'

/** Looking at every replica for the oldest one costs about 10 ns each: not more often than this when there are many. */
const OLDEST_AGAIN_MS = 60_000
const LOOKED_AT_ONCE_MAX = 4096

export class VerifiedTimes {
  readonly #clock: Clock
  /** In the order in which they are to be looked at; a replica that was looked at goes to the end. */
  readonly #seconds = new Map<number, number>()
  #oldestSeconds = Number.POSITIVE_INFINITY
  #oldestAtMs = Number.NEGATIVE_INFINITY
  /** Differs from what the file holds. */
  isChanged = false

  constructor(clock: Clock) {
    this.#clock = clock
  }

  get size(): number {
    return this.#seconds.size
  }

  /** A shared view; the order is that of the work. */
  entries(): Iterable<readonly [chunk: number, seconds: number]> {
    return this.#seconds
  }

  /** Once, after opening: `known` from the file. A replica without a time counts from now on. */
  load(chunks: Iterable<number>, known: ReadonlyMap<number, number>): void {
    const nowSeconds = this.#nowSeconds()
    const found: [number, number][] = []
    for (const chunk of chunks) {
      const seconds = known.get(chunk)
      if (seconds === undefined) this.isChanged = true
      found.push([chunk, Math.min(seconds ?? nowSeconds, nowSeconds)])
    }
    found.sort((a, b) => a[1] - b[1] || a[0] - b[0])
    for (const [chunk, seconds] of found) this.#seconds.set(chunk, seconds)
  }

  /** A new replica holds nothing that could have rotted yet. */
  add(chunk: number): void {
    if (this.#seconds.has(chunk)) return
    this.#seconds.set(chunk, this.#nowSeconds())
    this.isChanged = true
  }

  delete(chunk: number): void {
    if (this.#seconds.delete(chunk)) this.isChanged = true
  }

  /** Its pages were read, but it could not be compared: others first, and it stays as old as it is. */
  looked(chunk: number): void {
    const seconds = this.#seconds.get(chunk)
    if (seconds === undefined) return
    this.#seconds.delete(chunk)
    this.#seconds.set(chunk, seconds)
  }

  verified(chunk: number): void {
    if (!this.#seconds.delete(chunk)) return
    this.#seconds.set(chunk, this.#nowSeconds())
    this.isChanged = true
    this.#oldestAtMs = Math.min(this.#oldestAtMs, this.#clock.nowMs() - OLDEST_AGAIN_MS)
  }

  /** The next ones for which `isWanted`, at most `countMax`; those that are not make way. */
  due(countMax: number, isWanted: (chunk: number) => boolean): { chunk: number; ageMs: number }[] {
    const nowSeconds = this.#nowSeconds()
    const due: { chunk: number; ageMs: number }[] = []
    const others: number[] = []
    for (const [chunk, seconds] of this.#seconds) {
      if (due.length === countMax || due.length + others.length === LOOKED_AT_ONCE_MAX) break
      if (isWanted(chunk)) due.push({ chunk, ageMs: Math.max(0, nowSeconds - seconds) * 1000 })
      else others.push(chunk)
    }
    for (const chunk of others) this.looked(chunk)
    return due
  }

  /** Age of the oldest one for which `isWanted`; 0 without any. */
  oldestMs(isWanted: (chunk: number) => boolean): number {
    const nowMs = this.#clock.nowMs()
    if (this.#seconds.size <= LOOKED_AT_ONCE_MAX || nowMs - this.#oldestAtMs >= OLDEST_AGAIN_MS) {
      this.#oldestAtMs = nowMs
      this.#oldestSeconds = Number.POSITIVE_INFINITY
      for (const [chunk, seconds] of this.#seconds)
        if (seconds < this.#oldestSeconds && isWanted(chunk)) this.#oldestSeconds = seconds
    }
    // none at all: infinitely late
    return Math.max(0, this.#nowSeconds() - this.#oldestSeconds) * 1000
  }

  #nowSeconds(): number {
    return this.#clock.wall().seconds
  }
}
