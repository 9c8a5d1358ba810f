/**
 * The open list (rule B1): before the first write to a region is applied, a durable record says that the
 * region may be written; the same record carries the highest lease number (rule E3). Marks run ahead, so
 * that a chunk costs at most three log syncs however it is written.
 */
import type { CairnError } from '../../base/errors.ts'
import { REGIONS_PER_CHUNK } from '../../base/units.ts'
import { hasRegionBit } from '../format/chunk-layout.ts'
import type { Replica } from './replica.ts'
import type { LogWaiter, ReplicaLog } from '../format/replica-log.ts'
import { ReplicaState } from '../format/replica-state.ts'

/** First mark: regions in one block; then: */
const FIRST_BLOCK_COUNT = 8
const SECOND_BLOCK_COUNT = 32

export interface MarkWaiter {
  readonly firstRegion: number
  readonly lastRegion: number
  readonly lease: number
  onMarked(error: CairnError | null): void
}

function hasRegions(low: number, high: number, firstRegion: number, lastRegion: number): boolean {
  if (low === -1 && high === -1) return true
  for (let region = firstRegion; region <= lastRegion; region++) {
    if (!hasRegionBit(low, high, region)) return false
  }
  return true
}

/** Durably marked, and no record that takes the mark away is on its way. */
export function isMarked(replica: Replica, firstRegion: number, lastRegion: number): boolean {
  const { state, logged } = replica
  return hasRegions(state.openLow & logged.openLow, state.openHigh & logged.openHigh, firstRegion, lastRegion)
}

/** Bits to have after marking `firstRegion..lastRegion`: blocks of 8, then 32, then everything. */
export function computeMarks(state: ReplicaState, firstRegion: number, lastRegion: number): [number, number] {
  if (hasRegions(state.openLow, state.openHigh, firstRegion, lastRegion))
    return [state.openLow, state.openHigh]
  let count = 0
  for (let region = 0; region < REGIONS_PER_CHUNK; region++) {
    if (hasRegionBit(state.openLow, state.openHigh, region)) count++
  }
  const block =
    count === 0 ? FIRST_BLOCK_COUNT : count <= FIRST_BLOCK_COUNT ? SECOND_BLOCK_COUNT : REGIONS_PER_CHUNK
  const begin = Math.floor(firstRegion / block) * block
  const end = (Math.floor(lastRegion / block) + 1) * block
  let low = state.openLow
  let high = state.openHigh
  for (let region = begin; region < end; region++) {
    if (region < 32) low |= 1 << region
    else high |= 1 << (region - 32)
  }
  return [low, high]
}

/** Marks of one replica: one record under way, everybody who came meanwhile shares the next. */
export class ReplicaMarks implements LogWaiter {
  readonly #replica: Replica
  readonly #log: ReplicaLog
  readonly #written = new ReplicaState()
  #waiters: MarkWaiter[] = []
  #running = false

  constructor(replica: Replica, log: ReplicaLog) {
    this.#replica = replica
    this.#log = log
  }

  add(waiter: MarkWaiter): void {
    this.#waiters.push(waiter)
    if (!this.#running) this.#append()
  }

  #append(): void {
    const logged = this.#replica.logged
    for (const waiter of this.#waiters) {
      const [low, high] = computeMarks(logged, waiter.firstRegion, waiter.lastRegion)
      logged.openLow = low
      logged.openHigh = high
      if (waiter.lease > logged.lease) logged.lease = waiter.lease
    }
    this.#running = true
    this.#written.copyFrom(logged)
    this.#log.append(this.#replica.chunk, logged, this)
  }

  onLogged(error: CairnError | null): void {
    const { state, logged } = this.#replica
    this.#running = false
    const waiters = this.#waiters
    this.#waiters = []
    if (error !== null) {
      // never became durable: later records must not claim it
      logged.openLow = state.openLow
      logged.openHigh = state.openHigh
      logged.lease = state.lease
      for (const waiter of waiters) waiter.onMarked(error)
      return
    }
    state.openLow |= this.#written.openLow
    state.openHigh |= this.#written.openHigh
    state.lease = Math.max(state.lease, this.#written.lease)
    const late: MarkWaiter[] = []
    for (const waiter of waiters) {
      const marked =
        isMarked(this.#replica, waiter.firstRegion, waiter.lastRegion) && waiter.lease <= state.lease
      if (marked) waiter.onMarked(null)
      else late.push(waiter)
    }
    this.#waiters.push(...late)
    if (this.#waiters.length > 0 && !this.#running) this.#append()
  }
}
