/**
 * Opens chunk files and keeps the page records of regions, both on demand and a bounded number of both.
 * How a region comes into memory: region-load.ts.
 */
import { CairnError, codeOf } from '../../base/errors.ts'
import type { BufferPool } from '../../base/buffer-pool.ts'
import type { Disk } from '../../platform/disk.ts'
import { CHUNK_FILE_BYTES, chunkDirectory, chunkPath } from '../format/chunk-layout.ts'
import type { ReplicaLog } from '../format/replica-log.ts'
import type { RegionRecords } from '../format/region-records.ts'
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
    replica.loads ??= new Map()
    const running = replica.loads.get(region)
    if (running !== undefined) {
      running.waiters.push(waiter)
      return
    }
    const load = new RegionLoad(this, replica, region)
    load.waiters.push(waiter)
    replica.loads.set(region, load)
    load.run()
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
    replica.regions = null
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

export function asDiskError(error: unknown): CairnError {
  if (error instanceof CairnError) return error
  return new CairnError('DISK_IO', error instanceof Error ? error.message : codeOf(error))
}
