/**
 * Has the machine too much to do? Then sessions end and holders are slow without any fault. Seen by how late this
 * process itself is, which nothing ever happens to, and by how many others want a processor: far more than the torture
 * has. Nothing of it excuses a wrong byte.
 */
import os from 'node:os'
import { performance } from 'node:perf_hooks'

const BEAT_MS = 250
const LATE_MS_MAX = 1_000
/** The torture alone makes less than 3. */
const LOAD_PER_PROCESSOR_MAX = 8

export class MachineWatch {
  readonly #timer: NodeJS.Timeout
  #beatMs = performance.now()
  #overloadedAtMs = Number.NEGATIVE_INFINITY
  latestMs = 0
  /** Average of a minute. */
  highestLoad = 0

  constructor() {
    this.#timer = setInterval(() => this.#beat(), BEAT_MS)
  }

  stop(): void {
    clearInterval(this.#timer)
  }

  /** At some time since then? */
  wasOverloaded(sinceMs: number): boolean {
    return this.#overloadedAtMs >= sinceMs
  }

  #beat(): void {
    const nowMs = performance.now()
    const lateMs = nowMs - this.#beatMs - BEAT_MS
    const [load = 0] = os.loadavg()
    this.#beatMs = nowMs
    this.latestMs = Math.max(this.latestMs, lateMs)
    this.highestLoad = Math.max(this.highestLoad, load)
    if (lateMs > LATE_MS_MAX || load > LOAD_PER_PROCESSOR_MAX * os.availableParallelism())
      this.#overloadedAtMs = nowMs
  }
}
