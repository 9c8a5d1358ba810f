/**
 * Reads and verifies whole replicas for scrubbing and fsck (rules R1, R2), and takes part in their comparison: tells
 * digests and page records, and gives up a page that another replica was found to be right about. Who is right is
 * decided by the metadata server. Of an overlay all of this is about effective pages (rule S4). Yields to clients: while they are at work it takes a fifth of the time.
 */
import { codeOf } from '../../base/errors.ts'
import { PAGE_SIZE_BYTES, PAGES_PER_REGION, REGIONS_PER_CHUNK } from '../../base/units.ts'
import { crc32c } from '../../wire/checksum.ts'
import { PAGE_RECORD_BYTES } from '../../wire/data.ts'
import { wireError } from '../format/errors.ts'
import { PageState } from '../format/region-records.ts'
import { Role } from '../format/replica-state.ts'
import { effectiveRecords } from '../replica/ancestors.ts'
import { Hold } from '../replica/operation-queue.ts'
import type { Replica } from '../replica/replica.ts'
import type { ChunkStore } from '../store/chunk-store.ts'
import {
  effectiveState,
  openForFinding,
  readRegion,
  verifies,
  withEffectivePages,
} from '../store/page-tasks.ts'
import { loadRegion } from '../store/load-regions.ts'
import { encodeEffectiveRecords, encodePageRecords } from '../store/read-operations.ts'

const RUNNING_COUNT_MAX = 2
const WAITING_COUNT_MAX = 64
/** Rest after each region for each millisecond of work, while clients are at work; twice as much while they wait. */
const REST_FACTOR = 4
const REST_MS_MIN = 1
const REST_MS_MAX = 1000

/** Of a region where nobody ever wrote. */
const blankDigest = crc32c(Buffer.alloc(PAGES_PER_REGION * PAGE_RECORD_BYTES))

export interface Verification {
  pages: number
  badPages: number[]
  lostPages: number[]
  /** CRC32C over the page records of each region: stamp, content CRC, state. */
  digests: number[]
}

/** A page that another replica is right about. */
export interface RejectedPage {
  readonly page: number
  /** What its record here said when it was compared. */
  readonly stamp: number
  readonly checksum: number
  /** What it has to be. */
  readonly rightStamp: number
  readonly rightChecksum: number
}

export class Verifier {
  readonly #store: ChunkStore
  #runningCount = 0
  readonly #waiting: (() => void)[] = []
  #clientOperations = 0

  constructor(store: ChunkStore) {
    this.#store = store
  }

  /** `depth` records: nothing but digests, in a moment. Rejects with a WireCode. */
  async verify(chunk: number, version: number, depth: 'pages' | 'records'): Promise<Verification> {
    if (depth === 'records') return this.#verify(chunk, version, depth)
    while (this.#runningCount >= RUNNING_COUNT_MAX) {
      if (this.#waiting.length >= WAITING_COUNT_MAX) throw wireError('OVERLOADED', 'too many verifications')
      await new Promise<void>((resolve) => this.#waiting.push(resolve))
    }
    this.#runningCount++
    try {
      const verification = await this.#verify(chunk, version, depth)
      this.#store.verified.looked(chunk)
      return verification
    } finally {
      this.#runningCount--
      this.#waiting.shift()?.()
    }
  }

  /** The page records of one region, as in a digest. */
  async records(chunk: number, version: number, region: number): Promise<Buffer> {
    const replica = this.#replica(chunk, version)
    if (region >= REGIONS_PER_CHUNK) throw wireError('BAD_MESSAGE', `no region ${region}`)
    const table = Buffer.alloc(PAGES_PER_REGION * PAGE_RECORD_BYTES)
    await this.#withRegion(replica, region, async () => this.#encode(table, replica, region))
    return table
  }

  /**
   * Rule R2: the page stays a page (R1). Its record says from now on what it has to be, so that it does not verify
   * and is repaired from whoever has that; one that was written meanwhile is left alone. How many were given up.
   */
  async reject(chunk: number, version: number, pages: readonly RejectedPage[]): Promise<number> {
    const replica = this.#replica(chunk, version)
    const store = this.#store
    if (store.failure !== null || store.closing) throw wireError('DISK_FAILED', 'nothing is written here')
    const rejected: number[] = []
    for (const { page, stamp, checksum, rightStamp, rightChecksum } of pages) {
      if (page >= REGIONS_PER_CHUNK * PAGES_PER_REGION) throw wireError('BAD_MESSAGE', `no page ${page}`)
      await withEffectivePages(store, replica, Hold.write, page, page, async () => {
        const records = effectiveRecords(replica, page)
        const index = page % PAGES_PER_REGION
        const state = records.states[index]
        const isVerified = state === PageState.data || state === PageState.hole
        const found = state === PageState.hole ? 0 : records.contentChecksum(index)
        if (!isVerified || records.stamps[index] !== stamp || found !== checksum) return
        if (replica.state.version !== version || replica.deleted) return
        // in the overlay, also when it reads the page through: it is repaired there
        const own = await loadRegion(store, replica, Math.floor(page / PAGES_PER_REGION))
        await openForFinding(store, replica, page)
        store.cache.createFile(replica)
        own.set(index, PageState.bad, rightStamp, rightChecksum)
        store.touch(replica, own)
        rejected.push(page)
      })
    }
    if (rejected.length > 0) store.reportBad(replica, rejected, 'differs from the other replicas')
    return rejected.length
  }

  #replica(chunk: number, version: number): Replica {
    const replica = this.#store.replicas.get(chunk)
    if (replica === undefined) throw wireError('NO_REPLICA', `no replica of chunk ${chunk}`)
    if (replica.state.version !== version) throw wireError('WRONG_VERSION', 'the epoch has changed')
    if (!replica.serves) throw wireError('DISK_FAILED', replica.damage || 'the replica failed')
    // rule B1: what it holds is for the quorum to say first
    if (replica.state.role !== Role.inSync || replica.isUnclean)
      throw wireError('NOT_IN_SYNC', 'the replica is not in sync')
    return replica
  }

  async #verify(chunk: number, version: number, depth: 'pages' | 'records'): Promise<Verification> {
    const result: Verification = { pages: 0, badPages: [], lostPages: [], digests: [] }
    const table = Buffer.alloc(PAGES_PER_REGION * PAGE_RECORD_BYTES)
    const first = this.#replica(chunk, version)
    await new Promise<void>((resolve) =>
      this.#store.cache.readAhead(first, 0, REGIONS_PER_CHUNK - 1, resolve),
    )
    for (let region = 0; region < REGIONS_PER_CHUNK; region++) {
      // after every rest: the replica may have gone, or have another version
      const replica = this.#replica(chunk, version)
      if (isUntouched(this.#store, replica, region)) {
        result.digests.push(blankDigest)
        continue
      }
      const beganMs = this.#store.clock.nowMs()
      const hadData = await this.#withRegion(replica, region, async () => {
        const hasData = depth === 'pages' && (await this.#verifyRegion(replica, region, result))
        await this.#encode(table, replica, region)
        result.digests.push(crc32c(table))
        return hasData
      })
      if (hadData) await this.#rest(this.#store.clock.nowMs() - beganMs)
    }
    return result
  }

  /** False: there was nothing to read. Hold the region. */
  async #verifyRegion(replica: Replica, region: number, result: Verification): Promise<boolean> {
    if ((await loadRegion(this.#store, replica, region)).isBlank) return false
    const first = region * PAGES_PER_REGION
    const data = hasContent(replica, region) ? await this.#read(replica, region) : null
    const bad: number[] = []
    for (let index = 0; index < PAGES_PER_REGION; index++) {
      const records = effectiveRecords(replica, first + index)
      const state = records.states[index]
      if (state === PageState.lost) result.lostPages.push(first + index)
      if (state === PageState.bad) result.badPages.push(first + index)
      if (state !== PageState.data) continue
      result.pages++
      if (!this.#store.checksums) continue
      const content = data?.subarray(index * PAGE_SIZE_BYTES, (index + 1) * PAGE_SIZE_BYTES)
      if (content !== undefined && crc32c(content) === records.contentChecksum(index)) continue
      // rule P7: looked at once more; rule R1: alone, when the disk cannot read the region as a whole
      if (!(await verifies(this.#store, replica, first + index))) bad.push(first + index)
    }
    if (data !== null) this.#store.pool.release(data)
    if (bad.length > 0) {
      this.#store.markBad(replica, bad, 'page does not verify')
      result.badPages.push(...bad)
    }
    return true
  }

  async #encode(table: Buffer, replica: Replica, region: number): Promise<void> {
    const records = await loadRegion(this.#store, replica, region)
    if (replica.parent === null) encodePageRecords(table, 0, records, 0, PAGES_PER_REGION)
    else encodeEffectiveRecords(table, 0, replica, region * PAGES_PER_REGION, PAGES_PER_REGION)
  }

  #withRegion<T>(replica: Replica, region: number, work: () => Promise<T>): Promise<T> {
    const first = region * PAGES_PER_REGION
    return withEffectivePages(this.#store, replica, Hold.read, first, first + PAGES_PER_REGION - 1, work)
  }

  /** Null: the disk cannot read all of it. */
  async #read(replica: Replica, region: number): Promise<Buffer | null> {
    try {
      return await readRegion(this.#store, replica, region)
    } catch (error) {
      if (codeOf(error) !== 'DISK_IO') throw error
      return null
    }
  }

  /** Gives the event loop a turn in any case. */
  #rest(workedMs: number): Promise<void> {
    const { clock, counters } = this.#store
    const operations = counters.readOperations + counters.writeOperations + counters.flushOperations
    const isUsed = counters.queueDepth > 0 || operations !== this.#clientOperations
    this.#clientOperations = operations
    if (!isUsed) return new Promise((resolve) => clock.defer(resolve))
    const factor = REST_FACTOR * this.#runningCount * (counters.queueDepth > 0 ? 2 : 1)
    const restMs = Math.min(REST_MS_MAX, Math.max(REST_MS_MIN, workedMs * factor))
    return new Promise((resolve) => void clock.setTimer(restMs, resolve))
  }
}

/** Nobody ever wrote there. Certain without holding its pages while nothing runs or waits at the replica. */
function isUntouched(store: ChunkStore, replica: Replica, region: number): boolean {
  if (replica.parent !== null || replica.state.isOverlay || !replica.queue.idle) return false
  return replica.isBlank(region) || store.cache.ready(replica, region)?.isBlank === true
}

function hasContent(replica: Replica, region: number): boolean {
  const first = region * PAGES_PER_REGION
  for (let index = 0; index < PAGES_PER_REGION; index++) {
    if (effectiveState(replica, first + index) === PageState.data) return true
  }
  return false
}
