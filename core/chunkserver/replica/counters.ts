/** What a chunk server counts for `stat` and `top`. Plain numbers: counting allocates nothing. */
import type { Clock } from '../../platform/clock.ts'

/** Latencies are over the last 20 to 40 seconds: two halves that take turns. */
const WINDOW_MS = 20_000
const BAD_CHUNKS_COUNTED_MAX = 100_000

export class LatencyWindow {
  #count = 0
  #sumMs = 0
  #maxMs = 0
  #earlierCount = 0
  #earlierSumMs = 0
  #earlierMaxMs = 0
  #beganMs = 0

  add(elapsedMs: number, nowMs: number): void {
    if (nowMs - this.#beganMs >= WINDOW_MS) this.#turn(nowMs)
    this.#count++
    this.#sumMs += elapsedMs
    if (elapsedMs > this.#maxMs) this.#maxMs = elapsedMs
  }

  averageMs(nowMs: number): number {
    if (nowMs - this.#beganMs >= WINDOW_MS) this.#turn(nowMs)
    const count = this.#count + this.#earlierCount
    return count === 0 ? 0 : (this.#sumMs + this.#earlierSumMs) / count
  }

  maxMs(nowMs: number): number {
    if (nowMs - this.#beganMs >= WINDOW_MS) this.#turn(nowMs)
    return Math.max(this.#maxMs, this.#earlierMaxMs)
  }

  #turn(nowMs: number): void {
    const stale = nowMs - this.#beganMs >= 2 * WINDOW_MS
    this.#earlierCount = stale ? 0 : this.#count
    this.#earlierSumMs = stale ? 0 : this.#sumMs
    this.#earlierMaxMs = stale ? 0 : this.#maxMs
    this.#count = 0
    this.#sumMs = 0
    this.#maxMs = 0
    this.#beganMs = nowMs
  }
}

export class StoreCounters {
  readonly #clock: Clock
  readOperations = 0
  writeOperations = 0
  flushOperations = 0
  readBytes = 0
  writeBytes = 0
  /** Writes that had to read a page first. */
  readModifyWrites = 0
  syncs = 0
  checksumErrors = 0
  ioErrors = 0
  pulledBytes = 0
  /** Of which this disk held bad pages since the process started. */
  readonly #badChunks = new Set<number>()
  /** Data requests admitted and not answered. */
  queueDepth = 0
  readonly latency = new LatencyWindow()
  /** Time with a sync under way, for iowait. */
  #busySyncs = 0
  #busySinceMs = 0
  #busyMs = 0
  #lastBusyMs = 0
  #lastAskedMs = 0

  constructor(clock: Clock) {
    this.#clock = clock
  }

  badChunk(chunk: number): void {
    if (this.#badChunks.size < BAD_CHUNKS_COUNTED_MAX) this.#badChunks.add(chunk)
  }

  syncBegins(): void {
    if (this.#busySyncs++ === 0) this.#busySinceMs = this.#clock.nowMs()
  }

  syncEnds(): void {
    this.syncs++
    if (--this.#busySyncs === 0) this.#busyMs += this.#clock.nowMs() - this.#busySinceMs
  }

  /** Flat numbers for the heartbeat. Rates are left to the reader: all but the last ones only rise. */
  snapshot(): Record<string, number> {
    const nowMs = this.#clock.nowMs()
    return {
      readOperations: this.readOperations,
      writeOperations: this.writeOperations,
      flushOperations: this.flushOperations,
      readBytes: this.readBytes,
      writeBytes: this.writeBytes,
      readModifyWrites: this.readModifyWrites,
      syncs: this.syncs,
      checksumErrors: this.checksumErrors,
      ioErrors: this.ioErrors,
      pulledBytes: this.pulledBytes,
      badChunks: this.#badChunks.size,
      queueDepth: this.queueDepth,
      latencyAverageMs: this.latency.averageMs(nowMs),
      latencyMaxMs: this.latency.maxMs(nowMs),
      ioWaitPercent: this.#ioWaitPercent(nowMs),
    }
  }

  #ioWaitPercent(nowMs: number): number {
    const busyMs = this.#busyMs + (this.#busySyncs > 0 ? nowMs - this.#busySinceMs : 0)
    const elapsedMs = nowMs - this.#lastAskedMs
    const percent = elapsedMs <= 0 ? 0 : Math.min(100, ((busyMs - this.#lastBusyMs) / elapsedMs) * 100)
    this.#lastBusyMs = busyMs
    this.#lastAskedMs = nowMs
    return percent
  }
}
