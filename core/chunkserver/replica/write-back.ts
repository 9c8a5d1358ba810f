/**
 * Accounts of what is unsynced in the whole store: starts background syncs, so that a flush never has
 * gigabytes before it, and makes writes wait when the disk does not keep up.
 */
import { MIB } from '../../base/units.ts'
import type { Clock, Timer } from '../../platform/clock.ts'
import type { RegionRecords } from '../format/region-records.ts'
import type { Replica } from './replica.ts'
import type { SyncScheduler } from './replica-sync.ts'

/** Unsynced data that starts background syncs. */
const START_BYTES = 64 * MIB
const START_REGIONS = 4096
/** Beyond these, writes wait for the disk. */
const UNFLUSHED_BYTES_MAX = 512 * MIB
const DIRTY_REGIONS_MAX = 16_384
const STALLED_COUNT_MAX = 4096
const SYNCS_AT_ONCE = 4
/** What nobody flushes is synced after this: it would have to be verified after a crash. */
const AGE_MS = 15_000
const AGED_SYNCS_MAX = 64
const TICK_MS = 5000

export class WriteBack {
  readonly #clock: Clock
  readonly #syncs: SyncScheduler
  /** Replicas with something unsynced, longest first. */
  readonly #dirty = new Set<Replica>()
  #unflushedBytes = 0
  #dirtyRegions = 0
  #stalled: (() => void)[] = []
  #timer: Timer | null = null

  constructor(clock: Clock, syncs: SyncScheduler) {
    this.#clock = clock
    this.#syncs = syncs
    this.#tick()
  }

  /** `records` changed: they belong into the next sync. */
  touch(replica: Replica, records: RegionRecords): void {
    if (records.dirty) return
    records.dirty = true
    replica.dirtyRegionCount++
    this.#dirtyRegions++
    this.#note(replica)
  }

  wrote(replica: Replica, bytes: number): void {
    replica.unflushedBytes += bytes
    this.#unflushedBytes += bytes
    this.#note(replica)
    if (this.#isDue) this.start()
  }

  #note(replica: Replica): void {
    if (this.#dirty.has(replica)) return
    replica.dirtySinceMs = this.#clock.nowMs()
    this.#dirty.add(replica)
  }

  syncBegins(replica: Replica): void {
    this.#dirty.delete(replica)
  }

  /** Bytes count until their sync has ended. */
  cleaned(bytes: number, regions: number): void {
    this.#unflushedBytes -= bytes
    this.#dirtyRegions -= regions
  }

  /** What is unsynced of the replica will never be: takes it off the accounts. */
  drop(replica: Replica): void {
    this.#unflushedBytes -= replica.unflushedBytes
    this.#dirtyRegions -= replica.dirtyRegionCount
    replica.unflushedBytes = 0
    replica.dirtyRegionCount = 0
    for (const records of replica.regions ?? []) if (records !== null) records.dirty = false
    this.#dirty.delete(replica)
  }

  get #isDue(): boolean {
    return this.#unflushedBytes > START_BYTES || this.#dirtyRegions > START_REGIONS
  }

  /** Syncs the replicas that are dirty longest, a few at a time. */
  start(): void {
    if (this.#syncs.runningCount >= SYNCS_AT_ONCE) return
    for (const replica of this.#dirty) {
      this.#syncs.request(replica, null)
      if (this.#syncs.runningCount >= SYNCS_AT_ONCE) return
    }
  }

  /** `resume` is called when the disk has caught up, in order of arrival. False: too many wait. */
  stall(resume: () => void): boolean {
    if (this.#stalled.length >= STALLED_COUNT_MAX) return false
    this.#stalled.push(resume)
    return true
  }

  get hasStalled(): boolean {
    return this.#stalled.length > 0
  }

  get isOverloaded(): boolean {
    return this.#unflushedBytes > UNFLUSHED_BYTES_MAX || this.#dirtyRegions > DIRTY_REGIONS_MAX
  }

  syncDone(): void {
    if (this.#isDue) this.start()
    if (!this.isOverloaded) this.releaseStalled()
  }

  releaseStalled(): void {
    const stalled = this.#stalled
    this.#stalled = []
    for (const resume of stalled) resume()
  }

  get dirtyReplicas(): readonly Replica[] {
    return [...this.#dirty]
  }

  get unflushedBytes(): number {
    return this.#unflushedBytes
  }

  stop(): void {
    this.#timer?.cancel()
    this.#timer = null
  }

  #tick(): void {
    this.#timer = this.#clock.setTimer(TICK_MS, () => {
      const nowMs = this.#clock.nowMs()
      for (const replica of this.#dirty) {
        if (nowMs - replica.dirtySinceMs < AGE_MS || this.#syncs.runningCount >= AGED_SYNCS_MAX) break
        this.#syncs.request(replica, null)
      }
      // what they waited for was not synced but dropped
      if (!this.isOverloaded) this.releaseStalled()
      this.#tick()
    })
  }
}
