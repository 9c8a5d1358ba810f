/**
 * Opens chunk files and keeps the page records of regions, both on demand and a bounded number of both.
 * How a region comes into memory: region-load.ts.
 */
import { CairnError, codeOf } from '../../base/errors.ts'
import type { BufferPool } from '../../base/buffer-pool.ts'
import type { Disk } from '../../platform/disk.ts'
import {
  CHUNK_FILE_BYTES,
  chunkDirectory,
  chunkPath,
  hasRegionBit,
  regionSlotPosition,
  SLOT_BYTES,
} from '../format/chunk-layout.ts'
import type { ReplicaLog } from '../format/replica-log.ts'
import { type RegionRecords, zeroSlots } from '../format/region-records.ts'
import { RegionLoad } from './region-load.ts'
import type { Replica } from './replica.ts'

/** 2.3 KiB each. */
const REGION_COUNT_MAX = 8192
export const FILE_COUNT_MAX = 512

export interface RegionWaiter {
  onRegion(error: CairnError | null): void
}

export interface RegionCacheEvents {
  reportBad(replica: Replica, pages: number[], reason: string): void
  /** Missing, short or foreign file (rule E12). */
  onDamage(replica: Replica, reason: string): void
  /** `records` changed: they belong into the next sync. */
  touch(replica: Replica, records: RegionRecords): void
  onReadError(replica: Replica, error: CairnError): void
  onWriteError(replica: Replica, error: CairnError): void
  readonly log: ReplicaLog
  /** The disk is given up for writing. */
  readonly failure: CairnError | null
  /** Too many files are open and none can be closed. */
  onFilesFull(): void
}

export class RegionCache {
  readonly disk: Disk
  readonly pool: BufferPool
  readonly events: RegionCacheEvents
  readonly #loaded: { replica: Replica; records: RegionRecords }[] = []
  readonly #files: Replica[] = []
  #regionHand = 0
  #fileHand = 0
  readonly #knownDirectories = new Set<string>()

  constructor(disk: Disk, pool: BufferPool, events: RegionCacheEvents) {
    this.disk = disk
    this.pool = pool
    this.events = events
  }

  get fileCount(): number {
    return this.#files.length
  }

  /** Records that may be used now, or null: call `load`. */
  ready(replica: Replica, region: number): RegionRecords | null {
    const records = replica.regions?.[region] ?? null
    if (records === null) return null
    records.referenced = true
    return replica.needsVerification(region) ? null : records
  }

  load(replica: Replica, region: number, waiter: RegionWaiter): void {
    const running = replica.loads?.get(region)
    if (running !== undefined) {
      running.waiters.push(waiter)
      return
    }
    const load = this.#loadOf(replica, region)
    load.waiters.push(waiter)
    load.run()
  }

  /** In memory, or known to be blank: enough for who compares whole regions. */
  isKnown(replica: Replica, region: number): boolean {
    return this.ready(replica, region) !== null || replica.isBlank(region)
  }

  /**
   * Reads the records of many regions at once; nothing but time is lost where it does not: whoever needs a region
   * loads it (`ready`, `load`). Of regions that turn out to be blank it makes no records.
   * `done` may be called before this returns.
   */
  readAhead(replica: Replica, firstRegion: number, lastRegion: number, done: () => void): void {
    const missing: number[] = []
    for (let region = firstRegion; region <= lastRegion; region++) {
      // with a mebibyte of data each: one after the other
      if (replica.needsVerification(region) || replica.hasLeftovers(region)) continue
      if (!this.isKnown(replica, region) && replica.loads?.has(region) !== true) missing.push(region)
    }
    const [first, second] = missing
    if (first === undefined || second === undefined || !this.#isOpen(replica)) return done()
    // the first one brings the header
    if (replica.header.sequence > 0) this.#readMissing(replica, missing, done)
    else this.load(replica, first, { onRegion: () => this.#readMissing(replica, missing.slice(1), done) })
  }

  #isOpen(replica: Replica): boolean {
    try {
      return replica.file !== null || this.openFile(replica)
    } catch {
      return false
    }
  }

  #readMissing(replica: Replica, regions: readonly number[], done: () => void): void {
    const loads = new Map<number, RegionLoad>()
    for (const region of regions) {
      if (this.isKnown(replica, region) || replica.loads?.has(region) === true) continue
      loads.set(region, this.#loadOf(replica, region))
    }
    const first = Math.min(...loads.keys())
    if (loads.size === 0 || !this.#isOpen(replica)) return this.#runEach(loads, done)
    const bytes = (Math.max(...loads.keys()) - first + 1) * 2 * SLOT_BYTES
    const area = this.pool.acquire(bytes)
    replica.file?.read(area, regionSlotPosition(first, 0), (error, bytesRead) => {
      if (error === null) area.fill(0, bytesRead)
      for (const [region, load] of loads) {
        const at = (region - first) * 2 * SLOT_BYTES
        const slots = area.subarray(at, at + 2 * SLOT_BYTES)
        if (error === null && load.isUnwanted && isBlank(replica, region, slots)) {
          replica.loads?.delete(region)
          replica.foundBlank(region)
        } else load.take(error, slots)
      }
      this.pool.release(area)
      done()
    })
  }

  #runEach(loads: ReadonlyMap<number, RegionLoad>, done: () => void): void {
    for (const load of loads.values()) load.run()
    done()
  }

  #loadOf(replica: Replica, region: number): RegionLoad {
    const load = new RegionLoad(this, replica, region)
    replica.loads ??= new Map()
    replica.loads.set(region, load)
    return load
  }

  /** Opens the chunk file when it exists; throws CairnError. False: a replica that was never written. */
  openFile(replica: Replica): boolean {
    if (replica.file !== null) return true
    const path = chunkPath(replica.chunk)
    if (!this.disk.exists(path)) {
      if (replica.isWritten) throw this.damage(replica, 'the chunk file is missing')
      return false
    }
    const file = this.disk.open(path)
    if (file.sizeBytes() < CHUNK_FILE_BYTES) {
      if (replica.isWritten) {
        file.close()
        throw this.damage(replica, 'the chunk file is short')
      }
      file.truncate(CHUNK_FILE_BYTES)
    }
    replica.file = file
    this.#registerFile(replica)
    return true
  }

  /** For the first write: the file is made when the replica is still empty. Throws CairnError. */
  createFile(replica: Replica): void {
    if (replica.file !== null || this.openFile(replica)) return
    const directory = chunkDirectory(replica.chunk)
    if (!this.#knownDirectories.has(directory)) {
      if (!this.disk.exists(directory)) this.disk.makeDirectory(directory)
      this.#knownDirectories.add(directory)
    }
    const file = this.disk.open(chunkPath(replica.chunk), { create: true })
    file.truncate(CHUNK_FILE_BYTES)
    replica.file = file
    replica.header = { sequence: 0, presentLow: 0, presentHigh: 0 }
    this.#registerFile(replica)
  }

  damage(replica: Replica, reason: string): CairnError {
    if (replica.damage === '') {
      replica.damage = reason
      this.events.onDamage(replica, reason)
    }
    return new CairnError('DISK_FAILED', reason)
  }

  loaded(replica: Replica, records: RegionRecords): void {
    replica.putRegion(records)
    this.#loaded.push({ replica, records })
    if (this.#loaded.length > REGION_COUNT_MAX) this.#evictRegions()
  }

  /** Drops everything in memory about a replica (deletion, failure). */
  forget(replica: Replica): void {
    replica.file?.close()
    replica.file = null
    replica.forgetRegions()
    replica.dirtyRegionCount = 0
    replica.unflushedBytes = 0
    const at = this.#files.indexOf(replica)
    if (at >= 0) this.#files.splice(at, 1)
  }

  closeAll(): void {
    for (const replica of this.#files) {
      replica.file?.close()
      replica.file = null
    }
    this.#files.length = 0
  }

  #registerFile(replica: Replica): void {
    this.#files.push(replica)
    if (this.#files.length > FILE_COUNT_MAX) this.#evictFile()
  }

  /** Clock algorithm, a bounded number of steps: what is dirty or in use stays. */
  #evictRegions(): void {
    for (let steps = 0; steps < 64 && this.#loaded.length > REGION_COUNT_MAX; steps++) {
      if (this.#regionHand >= this.#loaded.length) this.#regionHand = 0
      const entry = this.#loaded[this.#regionHand]
      if (entry === undefined) return
      const { replica, records } = entry
      const gone = replica.regions?.[records.region] !== records
      if (!gone && (records.referenced || records.dirty || !replica.isQuiet)) {
        records.referenced = false
        this.#regionHand++
        continue
      }
      if (!gone && replica.regions !== null) replica.regions[records.region] = null
      const last = this.#loaded.pop()
      if (last !== undefined && last !== entry) this.#loaded[this.#regionHand] = last
    }
  }

  #evictFile(): void {
    for (let steps = 0; steps < 64; steps++) {
      if (this.#fileHand >= this.#files.length - 1) this.#fileHand = 0
      const replica = this.#files[this.#fileHand]
      if (replica === undefined) return
      if (!replica.isQuiet) {
        this.#fileHand++
        continue
      }
      replica.file?.close()
      replica.file = null
      const last = this.#files.pop()
      if (last !== undefined && last !== replica) this.#files[this.#fileHand] = last
      return
    }
    this.events.onFilesFull()
  }
}

function isBlank(replica: Replica, region: number, slots: Buffer): boolean {
  const { header, state, rewrite } = replica
  if (state.isOverlay || rewrite || hasRegionBit(header.presentLow, header.presentHigh, region)) return false
  return slots.equals(zeroSlots)
}

export function asDiskError(error: unknown): CairnError {
  if (error instanceof CairnError) return error
  return new CairnError('DISK_IO', error instanceof Error ? error.message : codeOf(error))
}
