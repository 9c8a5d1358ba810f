/** A Store that counts commits and the time they take, for `stat` (%CTIME, COMMITS). Changes nothing else. */
import type { Clock } from '../../platform/clock.ts'
import type { Store, StoreBatch, StoreGlance, StoreLoadHandler } from '../../platform/store.ts'

const WINDOW_MS = 20_000

export class MeasuredStore implements Store {
  #store: Store
  readonly #clock: Clock
  #windowStartMs: number
  #busyMs = 0
  #commits = 0
  #lastBusyPct = 0
  #lastCommitsPerS = 0

  constructor(store: Store, clock: Clock) {
    this.#store = store
    this.#clock = clock
    this.#windowStartMs = clock.nowMs()
  }

  /** The store is another from now on. */
  replace(store: Store): void {
    this.#store = store
  }

  get busyPct(): number {
    this.#maybeTurn()
    return this.#lastBusyPct
  }

  get commitsPerS(): number {
    this.#maybeTurn()
    return this.#lastCommitsPerS
  }

  load(handler: StoreLoadHandler): Promise<{ readonly appliedIndex: number }> {
    return this.#store.load(handler)
  }

  async commit(batch: StoreBatch): Promise<void> {
    const startMs = this.#clock.nowMs()
    await this.#store.commit(batch)
    this.#busyMs += this.#clock.nowMs() - startMs
    this.#commits += 1
    this.#maybeTurn()
  }

  glance(table: string): Promise<StoreGlance> {
    return this.#store.glance(table)
  }

  snapshot(path: string): Promise<void> {
    return this.#store.snapshot(path)
  }

  close(): Promise<void> {
    return this.#store.close()
  }

  /** Until the first window is full the numbers are of what has passed of it. */
  #maybeTurn(): void {
    const elapsedMs = this.#clock.nowMs() - this.#windowStartMs
    const isFirst = this.#lastCommitsPerS === 0 && elapsedMs >= 1000
    if (elapsedMs < WINDOW_MS && !isFirst) return
    this.#lastBusyPct = Math.min(100, (this.#busyMs * 100) / elapsedMs)
    this.#lastCommitsPerS = (this.#commits * 1000) / elapsedMs
    if (elapsedMs < WINDOW_MS) return
    this.#windowStartMs = this.#clock.nowMs()
    this.#busyMs = 0
    this.#commits = 0
  }
}
