/**
 * How late this process itself is, which nothing ever happens to: on a machine with too much to do sessions end and
 * holders are slow without any fault. Nothing of it excuses a wrong byte.
 */
import { performance } from 'node:perf_hooks'

const BEAT_MS = 250
/** Of the delays that are remembered. */
const LATE_MS_MIN = 1_000

export class MachineWatch {
  readonly #timer: NodeJS.Timeout
  #beatMs = performance.now()
  #lateAtMs = Number.NEGATIVE_INFINITY
  longestMs = 0

  constructor() {
    this.#timer = setInterval(() => this.#beat(), BEAT_MS)
  }

  stop(): void {
    clearInterval(this.#timer)
  }

  /** Was it late at some time since then? */
  wasLate(sinceMs: number): boolean {
    return this.#lateAtMs >= sinceMs
  }

  #beat(): void {
    const nowMs = performance.now()
    const lateMs = nowMs - this.#beatMs - BEAT_MS
    this.#beatMs = nowMs
    this.longestMs = Math.max(this.longestMs, lateMs)
    if (lateMs >= LATE_MS_MIN) this.#lateAtMs = nowMs
  }
}
