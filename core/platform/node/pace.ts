/**
 * Whether the next operation of a disk may block the event loop: not after a slow one, again after a run
 * of quick ones. Seen by tests through `slow` only; no clock of its own.
 */

/** A system call that took longer was answered by the device, not by memory. */
const SLOW_MS = 1
/** Copying alone takes time: this much more for each MiB. */
const SLOW_MS_PER_MIB = 1
/** Quick operations in a row, through the pool, before calls are made directly again. */
const QUICK_COUNT = 8

export class Pace {
  readonly #adaptive: boolean
  #slow: boolean
  #quickCount = 0

  constructor(mode: 'adaptive' | 'synchronous' | 'asynchronous') {
    this.#adaptive = mode === 'adaptive'
    this.#slow = mode === 'asynchronous'
  }

  get slow(): boolean {
    return this.#slow
  }

  took(durationMs: number, sizeBytes: number): void {
    if (!this.#adaptive) return
    if (durationMs > SLOW_MS + (SLOW_MS_PER_MIB * sizeBytes) / (1024 * 1024)) {
      this.#slow = true
      this.#quickCount = 0
    } else if (this.#slow && ++this.#quickCount >= QUICK_COUNT) this.#slow = false
  }
}
