/**
 * Opens chunk files and loads the page records of regions, on demand; keeps a bounded number of both.
 * A region that was open when the server stopped uncleanly is verified against its data before anybody
 * sees its records (rule J9); so is one whose newer slot could not be read (rule P2).
 */
import { CairnError, codeOf } from '../../base/errors.ts'
import { PAGE_SIZE_BYTES, PAGES_PER_REGION, REGION_SIZE_BYTES } from '../../base/units.ts'
import type { BufferPool } from '../../base/buffer-pool.ts'
import type { Disk } from '../../platform/disk.ts'
import {
  CHUNK_FILE_BYTES,
  chunkDirectory,
  chunkPath,
  DATA_POSITION,
  decodeHeaders,
  hasRegionBit,
  regionSlotPosition,
  SLOT_BYTES,
} from '../format/chunk-layout.ts'
import { loadSlots, PageState, RegionRecords } from '../format/region-records.ts'
import { endOfHoles, isZero, judgePage } from './page-verdict.ts'
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
  /** Verification changed records: they have to be written. */
  onChanged(replica: Replica, records: RegionRecords): void
  onReadError(replica: Replica, error: CairnError): void
  onWriteError(replica: Replica, error: CairnError): void
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

/** One region on its way into memory. */
export class RegionLoad {
  readonly waiters: RegionWaiter[] = []
  readonly #cache: RegionCache
  readonly #replica: Replica
  readonly #region: number
  #records: RegionRecords | null
  #data: Buffer | null = null
  #verify: boolean
  /** The newer slot could not be read: what is known of a page that does not verify is too old. */
  #fellBack = false

  constructor(cache: RegionCache, replica: Replica, region: number) {
    this.#cache = cache
    this.#replica = replica
    this.#region = region
    this.#records = replica.region(region)
    this.#verify = replica.needsVerification(region)
  }

  run(): void {
    const replica = this.#replica
    try {
      const exists = replica.file !== null || this.#cache.openFile(replica)
      if (!exists) return this.#finish(this.#records ?? new RegionRecords(replica.chunk, this.#region))
    } catch (error) {
      const diskError = asDiskError(error)
      return codeOf(diskError) === 'DISK_IO' ? this.#ioFail(diskError) : this.#fail(diskError)
    }
    if (this.#records !== null) return this.#maybeVerify(this.#records)
    if (replica.header.sequence === 0) return this.#readHeader()
    this.#readSlots()
  }

  #readHeader(): void {
    const area = this.#cache.pool.acquire(2 * SLOT_BYTES)
    this.#replica.file?.read(area, 0, (error) => {
      const replica = this.#replica
      const header = error === null ? decodeHeaders(area, replica.chunk) : null
      this.#cache.pool.release(area)
      if (error !== null) return this.#ioFail(error)
      if (header !== null) replica.header = header
      else if (replica.isWritten) {
        return this.#fail(this.#cache.damage(replica, 'the header of the chunk file cannot be read'))
      }
      this.#readSlots()
    })
  }

  #readSlots(): void {
    const area = this.#cache.pool.acquire(2 * SLOT_BYTES)
    this.#replica.file?.read(area, regionSlotPosition(this.#region, 0), (error, bytesRead) => {
      if (error !== null) {
        this.#cache.pool.release(area)
        return this.#ioFail(error)
      }
      area.fill(0, bytesRead)
      const { header } = this.#replica
      const records = new RegionRecords(this.#replica.chunk, this.#region)
      const present = hasRegionBit(header.presentLow, header.presentHigh, this.#region)
      const reading = loadSlots(records, area, present)
      this.#cache.pool.release(area)
      if (reading.damaged) this.#reportAll()
      if (reading.fellBack) this.#verify = true
      this.#fellBack = reading.fellBack
      if (reading.damaged)
        for (let index = 0; index < PAGES_PER_REGION; index++) this.#forgetStamp(records, index)
      this.#maybeVerify(records)
    })
  }

  /**
   * The record is not that of the last write: who compares with it must not take an old copy for an equal or
   * complete one (rules J2, J7). No stamp is higher than this one.
   */
  #forgetStamp(records: RegionRecords, index: number): void {
    const checksum = records.contentChecksum(index)
    records.set(index, PageState.bad, this.#replica.state.version, checksum)
  }

  /** Rule P2: nothing is known about any page of the region. */
  #reportAll(): void {
    if (this.#replica.isUnclean) return
    const first = this.#region * PAGES_PER_REGION
    const pages = Array.from({ length: PAGES_PER_REGION }, (_, index) => first + index)
    this.#cache.events.reportBad(this.#replica, pages, 'page records cannot be read')
  }

  #maybeVerify(records: RegionRecords): void {
    this.#records = records
    // without checksums (make-cs -S) reads are not verified, but what a crash left behind still is
    if (!this.#verify) return this.#finish(records)
    const data = this.#cache.pool.acquire(REGION_SIZE_BYTES)
    this.#data = data
    this.#replica.file?.read(data, DATA_POSITION + this.#region * REGION_SIZE_BYTES, (error, bytesRead) => {
      if (error !== null) return this.#ioFail(error)
      data.fill(0, bytesRead)
      this.#judge(records, data)
    })
  }

  #judge(records: RegionRecords, data: Buffer): void {
    const bad: number[] = []
    let changed = false
    let holesEnd = 0
    for (let index = 0; index < PAGES_PER_REGION; index++) {
      const state = records.states[index] as PageState
      if (state === PageState.hole && index >= holesEnd) {
        holesEnd = endOfHoles(records, index)
        // most pages of most regions: looked at together
        if (isZero(data, index, holesEnd)) {
          index = holesEnd - 1
          continue
        }
      }
      const verdict = judgePage(records, index, state, data)
      if (verdict === state) continue
      records.setState(index, verdict)
      changed = true
      if (verdict === PageState.bad && this.#fellBack) this.#forgetStamp(records, index)
      if (verdict === PageState.bad) bad.push(this.#region * PAGES_PER_REGION + index)
    }
    if (changed) this.#cache.events.onChanged(this.#replica, records)
    if (bad.length > 0 && !this.#replica.isUnclean) {
      this.#cache.events.reportBad(this.#replica, bad, 'pages do not verify')
    }
    if (!this.#replica.rewrite) return this.#finish(records)
    this.#cache.events.onChanged(this.#replica, records)
    this.#rewriteFrom(0, records, data)
  }

  /** Rule F7: makes every page that is not a hole dirty again, a run at a time. */
  #rewriteFrom(index: number, records: RegionRecords, data: Buffer): void {
    let begin = index
    while (begin < PAGES_PER_REGION && records.states[begin] === PageState.hole) begin++
    if (begin === PAGES_PER_REGION) return this.#finish(records)
    let end = begin + 1
    while (end < PAGES_PER_REGION && records.states[end] !== PageState.hole) end++
    const run = data.subarray(begin * PAGE_SIZE_BYTES, end * PAGE_SIZE_BYTES)
    const position = DATA_POSITION + this.#region * REGION_SIZE_BYTES + begin * PAGE_SIZE_BYTES
    this.#replica.file?.write([run], position, (error) => {
      if (error !== null) {
        this.#cache.events.onWriteError(this.#replica, error)
        return this.#fail(error)
      }
      this.#rewriteFrom(end, records, data)
    })
  }

  #finish(records: RegionRecords): void {
    if (this.#replica.region(this.#region) === null) this.#cache.loaded(this.#replica, records)
    this.#replica.verified(this.#region)
    this.#settle(null)
  }

  #ioFail(error: CairnError): void {
    this.#cache.events.onReadError(this.#replica, error)
    this.#fail(error)
  }

  #fail(error: CairnError): void {
    this.#settle(error)
  }

  #settle(error: CairnError | null): void {
    if (this.#data !== null) this.#cache.pool.release(this.#data)
    this.#data = null
    this.#replica.loads?.delete(this.#region)
    for (const waiter of this.waiters) waiter.onRegion(error)
  }
}

export function asDiskError(error: unknown): CairnError {
  if (error instanceof CairnError) return error
  return new CairnError('DISK_IO', error instanceof Error ? error.message : codeOf(error))
}
