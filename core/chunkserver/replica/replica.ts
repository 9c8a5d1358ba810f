/**
 * One replica in memory: its durable state, what is loaded of its chunk file, and the order of its
 * operations. Plain data with small helpers; the other files of the room act on it.
 */
import type { CairnError } from '../../base/errors.ts'
import { PAGES_PER_CHUNK, PAGES_PER_REGION, REGIONS_PER_CHUNK } from '../../base/units.ts'
import type { DiskFile } from '../../platform/disk.ts'
import { type ChunkHeader, hasRegionBit } from '../format/chunk-layout.ts'
import { OperationQueue } from './operation-queue.ts'
import type { RegionRecords } from '../format/region-records.ts'
import { ReplicaState, Role, StateFlag } from '../format/replica-state.ts'
import type { ReplicaSync } from './replica-sync.ts'
import type { ReplicaMarks } from './open-list.ts'
import { WrittenEnds } from './written-ends.ts'
import type { RegionLoad } from './region-load.ts'

/** An operation that waits for a page to be pulled, and can be told that this will not happen. */
export interface BaseWaiter {
  /** Rule E2: the version is about to rise; answer now. */
  discard(): void
  /** A join has begun: sources are known. */
  sourcesKnown(): void
}

export class Replica {
  readonly chunk: number
  /** Durable. */
  readonly state = new ReplicaState()
  /** As last handed to the replica log; becomes `state` when that is durable. */
  readonly logged = new ReplicaState()
  readonly queue = new OperationQueue()
  /** Open on demand, with its header. An fd with unflushed writes is not closed (rule F7). */
  file: DiskFile | null = null
  header: ChunkHeader = { sequence: 0, presentLow: 0, presentHigh: 0 }
  regions: (RegionRecords | null)[] | null = null
  loads: Map<number, RegionLoad> | null = null
  /** Regions whose data must be verified before it is used (rule J9). */
  unverifiedLow = 0
  unverifiedHigh = 0
  /** Regions that are not in memory and have nothing on disk: nobody ever wrote there. Of flat replicas only. */
  #blankLow = 0
  #blankHigh = 0
  dirtyRegionCount = 0
  unflushedBytes = 0
  dirtySinceMs = 0
  sync: ReplicaSync | null = null
  marks: ReplicaMarks | null = null
  /** A write or sync failed: nothing is OK here until it joined again (rule F7). */
  failure: CairnError | null = null
  /** Not empty: the file is missing, short or not ours. Counts as void. */
  damage = ''
  /** Joining: pages that are good under this join attempt (rules P4, J4); null when in sync. */
  good: Uint32Array | null = null
  /** Of this epoch, as `good`; a completed join keeps them until the promotion. Null when in sync. */
  writtenEnds: WrittenEnds | null = null
  baseWaiters: Set<BaseWaiter> | null = null
  /** Barriers that wait or run: nothing may begin to wait for a page to be pulled. */
  barrierCount = 0
  /** Has to join (or be healed) in this process before it may be promoted. */
  joinPending = false
  /** The version at which a join was completed and reported by this process (rule F1). */
  joinedVersion = 0
  /** Joining; an earlier process may have answered writes at this version, and no mark says which (rule J4). */
  restarted = false
  /**
   * After a failed sync the page cache shows content that is on no disk and counts as clean: regions are
   * written again as they are verified (rule F7).
   */
  rewrite = false
  deleted = false
  /** Of an overlay: what it reads through, on this disk; null: flat. */
  parent: Replica | null = null
  /** Overlays that read through this one. */
  overlays: Set<Replica> | null = null
  /** Bytes of pages that were written where nothing was, since the process started (rule A2). */
  grownBytes = 0

  constructor(chunk: number) {
    this.chunk = chunk
  }

  get isWritten(): boolean {
    return (this.state.flags & StateFlag.written) !== 0
  }

  get isUnclean(): boolean {
    return (this.state.flags & StateFlag.unclean) !== 0
  }

  /** Rule S3: overlays read through it: its content stays what it is. */
  get isFrozen(): boolean {
    return this.overlays !== null && this.overlays.size > 0
  }

  /** Null: it becomes flat. */
  readThrough(parent: Replica | null): void {
    this.parent?.overlays?.delete(this)
    this.parent = parent
    if (parent !== null) (parent.overlays ??= new Set()).add(this)
  }

  /** May a client read here (rule E7)? */
  get servesReads(): boolean {
    return this.state.role === Role.inSync && this.serves
  }

  /** Its content is what the quorum believes it to be. */
  get isVerifiable(): boolean {
    return this.servesReads && !this.isUnclean
  }

  get serves(): boolean {
    return this.failure === null && this.damage === '' && !this.deleted
  }

  region(index: number): RegionRecords | null {
    return this.regions?.[index] ?? null
  }

  putRegion(records: RegionRecords): void {
    this.regions ??= new Array<RegionRecords | null>(REGIONS_PER_CHUNK).fill(null)
    this.regions[records.region] = records
    const { region } = records
    if (region < 32) this.#blankLow &= ~(1 << region)
    else this.#blankHigh &= ~(1 << (region - 32))
  }

  foundBlank(region: number): void {
    if (region < 32) this.#blankLow |= 1 << region
    else this.#blankHigh |= 1 << (region - 32)
  }

  /** Known to be so, without records in memory. */
  isBlank(region: number): boolean {
    return hasRegionBit(this.#blankLow, this.#blankHigh, region) && !this.needsVerification(region)
  }

  /** What is in memory is no longer believed. */
  forgetRegions(): void {
    this.regions = null
    this.#blankLow = 0
    this.#blankHigh = 0
  }

  needsVerification(region: number): boolean {
    return hasRegionBit(this.unverifiedLow, this.unverifiedHigh, region)
  }

  verified(region: number): void {
    if (region < 32) this.unverifiedLow &= ~(1 << region)
    else this.unverifiedHigh &= ~(1 << (region - 32))
  }

  /** Of an overlay: absent pages of the region may have something in their data area that means nothing. */
  hasLeftovers(region: number): boolean {
    const { state, logged } = this
    return hasRegionBit(
      state.leftoversLow | logged.leftoversLow,
      state.leftoversHigh | logged.leftoversHigh,
      region,
    )
  }

  /** Its data is verified before anybody uses it again. */
  mustVerify(firstRegion: number, lastRegion: number): void {
    for (let region = firstRegion; region <= lastRegion; region++) {
      if (region < 32) this.unverifiedLow |= 1 << region
      else this.unverifiedHigh |= 1 << (region - 32)
    }
  }

  /** Starts a fresh set of good marks: join, new authority and restart compare everything (rule J4). */
  resetGood(): void {
    const isInSync = this.state.role === Role.inSync
    this.good = isInSync ? null : new Uint32Array(PAGES_PER_CHUNK / 32)
    this.writtenEnds = isInSync ? null : new WrittenEnds()
  }

  isGood(page: number): boolean {
    const good = this.good
    return good === null || ((good[page >>> 5] ?? 0) & (1 << (page & 31))) !== 0
  }

  markGood(page: number): void {
    const good = this.good
    if (good !== null) good[page >>> 5] = (good[page >>> 5] ?? 0) | (1 << (page & 31))
  }

  markRegionGood(region: number): void {
    const words = PAGES_PER_REGION / 32
    this.good?.fill(-1, region * words, (region + 1) * words)
  }

  /** Everything that was applied is durable, or known to be unclean. */
  get isSynced(): boolean {
    return this.dirtyRegionCount === 0 && this.unflushedBytes === 0 && this.sync?.busy !== true
  }

  /** Nothing runs and nothing is unsynced: file and records may be dropped from memory. */
  get isQuiet(): boolean {
    return (
      this.queue.idle &&
      this.dirtyRegionCount === 0 &&
      this.unflushedBytes === 0 &&
      (this.loads === null || this.loads.size === 0) &&
      this.sync?.busy !== true
    )
  }
}
