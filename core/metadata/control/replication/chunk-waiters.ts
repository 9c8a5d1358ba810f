/**
 * Requests that wait until chunks are usable: active epoch, not pending, not dirty by a dead lease. Clients
 * are given active epochs only (rule E1). Bounded in number and time; who waits too long asks again.
 */
import { wireError } from '../../errors.ts'
import type { Timer } from '../../../platform/clock.ts'
import type { ChunkRow } from '../../state/rows.ts'
import type { Master } from '../servers/master.ts'

const WAITER_COUNT_MAX = 10_000
/** Shorter than the time-out of a call, so that the answer is TRY_AGAIN and not silence. */
export const WAIT_MS_MAX = 3_000

interface Waiter {
  readonly remaining: Set<number>
  readonly resolve: (isUsable: boolean) => void
  readonly timer: Timer
}

export function isSettled(row: ChunkRow): boolean {
  return row.pending === null && !row.dirtyDead
}

export class ChunkWaiters {
  readonly #master: Master
  readonly #byChunk = new Map<number, Set<Waiter>>()
  #count = 0

  constructor(master: Master) {
    this.#master = master
  }

  /** Somebody has begun to wait. */
  onAwaited: () => void = () => undefined

  /** Chunks somebody waits for: they are repaired first. */
  awaited(): Iterable<number> {
    return this.#byChunk.keys()
  }

  isAwaited(chunk: number): boolean {
    return this.#byChunk.has(chunk)
  }

  get awaitedCount(): number {
    return this.#byChunk.size
  }

  /** True when all are settled, or gone; false when the time is over. */
  wait(chunks: readonly number[], timeoutMs: number = WAIT_MS_MAX): Promise<boolean> {
    const open = chunks.filter((chunk) => !this.#isDone(chunk))
    if (open.length === 0) return Promise.resolve(true)
    if (this.#count >= WAITER_COUNT_MAX) {
      return Promise.reject(wireError('OVERLOADED', 'too many requests wait for chunks'))
    }
    this.#count += 1
    return new Promise((resolve) => {
      const waiter: Waiter = {
        remaining: new Set(open),
        resolve,
        timer: this.#master.after(timeoutMs, () => this.#end(waiter, false)),
      }
      for (const chunk of open) {
        const waiters = this.#byChunk.get(chunk)
        if (waiters === undefined) this.#byChunk.set(chunk, new Set([waiter]))
        else waiters.add(waiter)
      }
      this.onAwaited()
    })
  }

  /** Call after a chunk changed. */
  wake(chunk: number): void {
    const waiters = this.#byChunk.get(chunk)
    if (waiters === undefined || !this.#isDone(chunk)) return
    for (const waiter of [...waiters]) {
      waiter.remaining.delete(chunk)
      this.#drop(chunk, waiter)
      if (waiter.remaining.size === 0) this.#end(waiter, true)
    }
  }

  #isDone(chunk: number): boolean {
    const row = this.#master.state.chunks.get(chunk)
    return row === undefined || isSettled(row)
  }

  #drop(chunk: number, waiter: Waiter): void {
    const waiters = this.#byChunk.get(chunk)
    waiters?.delete(waiter)
    if (waiters?.size === 0) this.#byChunk.delete(chunk)
  }

  #end(waiter: Waiter, isUsable: boolean): void {
    waiter.timer.cancel()
    for (const chunk of waiter.remaining) this.#drop(chunk, waiter)
    this.#count -= 1
    waiter.resolve(isUsable)
  }
}
