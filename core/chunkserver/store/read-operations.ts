/**
 * Operations that change nothing: a client's read; digest and pull for joining members. Every page that leaves was
 * verified (verified-read.ts). Of an overlay all of them see the effective pages (rule S4).
 */
import { mark } from '../../base/coverage.ts'
import { PAGE_SIZE_BYTES, PAGES_PER_REGION } from '../../base/units.ts'
import { crc32c } from '../../wire/checksum.ts'
import type { WireCode } from '../../wire/codes.ts'
import { DataFlag, PAGE_RECORD_BYTES, REGION_DIGEST_BYTES, REGION_DIGESTS } from '../../wire/data.ts'
import { effectiveRecords, effectiveWrittenEnd } from '../replica/ancestors.ts'
import { Operation } from './operation.ts'
import { Hold } from '../replica/operation-queue.ts'
import { blankDigest, PageState, type RegionRecords, unknownDigest } from '../format/region-records.ts'
import type { Replica } from '../replica/replica.ts'
import { Role, StateFlag } from '../format/replica-state.ts'
import { VerifiedRead } from './verified-read.ts'

const TABLE_COUNT_MAX = PAGES_PER_REGION + 1

export class ReadOperation extends VerifiedRead {
  readonly #table = new Uint32Array(TABLE_COUNT_MAX)

  protected check(): WireCode | '' {
    const code = this.checkVersion()
    if (code !== '') return code
    const replica = this.current
    // rule E7; rule B1: unverified contents until the quorum decides
    if (replica.state.role !== Role.inSync || replica.isUnclean) {
      mark('a replica that is not in sync refuses a read')
      return 'NOT_IN_SYNC'
    }
    // rule L2: the holder's reads are refused when the quorum may have given its lease away
    if ((this.request.flags & DataFlag.holder) !== 0 && !this.store.isInTouch()) {
      mark('a chunk server without a master refuses the reads of a holder')
      return 'NOT_IN_SYNC'
    }
    return ''
  }

  protected run(): void {
    this.prepareRegions()
  }

  protected onRegionsReady(): void {
    if (this.#refused()) return
    let holes = true
    for (let page = this.firstPage; page <= this.lastPage; page++) {
      if (this.recordsOf(page).states[page % PAGES_PER_REGION] !== PageState.hole) holes = false
    }
    if (holes) {
      this.store.counters.readOperations++
      this.store.counters.readBytes += this.request.length
      return this.answer('', DataFlag.zeros)
    }
    this.readPages()
  }

  /** A page without good content is answered with its error. */
  #refused(): boolean {
    for (let page = this.firstPage; page <= this.lastPage; page++) {
      const state = this.recordsOf(page).states[page % PAGES_PER_REGION]
      if (state !== PageState.lost && state !== PageState.bad) continue
      if (state === PageState.bad)
        this.store.reportBad(this.current, [page], 'page is known to be bad', false)
      this.answer(state === PageState.lost ? 'LOST_PAGE' : 'BAD_CHECKSUM')
      return true
    }
    return false
  }

  protected onPages(buffer: Buffer, bad: number[] | null): void {
    if (bad !== null) return this.answer('BAD_CHECKSUM')
    // rule R1: another reader may have found a page bad meanwhile; only pages in state data were verified
    if (this.#refused()) return
    const { offset, length } = this.request
    for (let page = this.firstPage; page <= this.lastPage; page++) {
      if (this.recordsOf(page).states[page % PAGES_PER_REGION] !== PageState.hole) continue
      const at = (page - this.firstPage) * PAGE_SIZE_BYTES
      buffer.fill(0, at, at + PAGE_SIZE_BYTES)
    }
    const begin = offset - this.firstPage * PAGE_SIZE_BYTES
    const payload = buffer.length === length ? buffer : buffer.subarray(begin, begin + length)
    const count = this.#fillTable(payload)
    this.buffer = null
    this.store.counters.readOperations++
    this.store.counters.readBytes += length
    const table = count === TABLE_COUNT_MAX ? this.#table : this.#table.subarray(0, count)
    this.answerWith('', 0, offset, length, table, payload)
  }

  /** A page that leaves whole was verified against its record just now: the record's checksum is that of the bytes. */
  #fillTable(payload: Buffer): number {
    const { offset, length } = this.request
    for (let page = this.firstPage; page <= this.lastPage; page++) {
      const records = this.recordsOf(page)
      const index = page % PAGES_PER_REGION
      const begin = Math.max(offset, page * PAGE_SIZE_BYTES)
      const end = Math.min(offset + length, (page + 1) * PAGE_SIZE_BYTES)
      const isVerified = this.store.checksums && records.states[index] === PageState.data
      this.#table[page - this.firstPage] =
        isVerified && end - begin === PAGE_SIZE_BYTES
          ? records.contentChecksum(index)
          : crc32c(payload.subarray(begin - offset, end - offset))
    }
    return this.lastPage - this.firstPage + 1
  }

  protected recycle(): void {
    this.releaseBuffer()
    this.store.operations.reads.give(this)
  }
}

/** Who may be compared with or pulled from (rule J2). */
function checkSource(operation: { readonly role: Role; readonly unclean: boolean }): WireCode | '' {
  if (operation.role === Role.joining) return 'NOT_IN_SYNC'
  // an unclean member that reconciles serves what it verifies (region load does that); one that the
  // quorum has not looked at yet serves nothing
  if (operation.role === Role.inSync && operation.unclean) return 'NOT_IN_SYNC'
  return ''
}

export class DigestOperation extends Operation {
  readonly hold: Hold = Hold.read
  protected override readonly readsThrough = 'all pages'

  protected override get takesBlank(): boolean {
    return this.request.incarnation === REGION_DIGESTS
  }

  protected check(): WireCode | '' {
    const code = this.checkVersion()
    if (code !== '') return code
    return checkSource({ role: this.current.state.role, unclean: this.current.isUnclean })
  }

  protected run(): void {
    this.prepareRegions()
  }

  protected onRegionsReady(): void {
    if (this.takesBlank) return this.#answerRegions()
    const count = this.lastPage - this.firstPage + 1
    const payload = this.store.pool.acquire(count * PAGE_RECORD_BYTES)
    for (let page = this.firstPage; page <= this.lastPage; ) {
      const records = this.store.loadedRegion(this.current, Math.floor(page / PAGES_PER_REGION))
      const last = Math.min(this.lastPage, page - (page % PAGES_PER_REGION) + PAGES_PER_REGION - 1)
      const at = (page - this.firstPage) * PAGE_RECORD_BYTES
      if (this.current.parent === null)
        encodePageRecords(payload, at, records, page % PAGES_PER_REGION, last - page + 1)
      else encodeEffectiveRecords(payload, at, this.current, page, last - page + 1)
      const writtenEnd = effectiveWrittenEnd(this.current, records.region)
      encodeWrittenEnd(payload, at, writtenEnd, page % PAGES_PER_REGION, last - page + 1)
      page = last + 1
    }
    const { offset } = this.request
    this.answerWith('', 0, offset, payload.length, null, payload)
  }

  #answerRegions(): void {
    const payload = this.store.pool.acquire((this.lastRegion - this.firstRegion + 1) * REGION_DIGEST_BYTES)
    for (let region = this.firstRegion; region <= this.lastRegion; region++) {
      const digest = regionDigest(this.current, region)
      digest.copy(payload, (region - this.firstRegion) * REGION_DIGEST_BYTES)
    }
    this.answerWith('', 0, this.request.offset, payload.length, null, payload)
  }

  protected recycle(): void {
    this.store.operations.digests.give(this)
  }
}

/** Of a region that is known (`RegionCache.isKnown`). Of an overlay nothing is known without its parents. */
export function regionDigest(replica: Replica, region: number): Buffer {
  if (replica.parent !== null) return unknownDigest
  return replica.region(region)?.digest ?? (replica.isBlank(region) ? blankDigest : unknownDigest)
}

/** In the record of the page where what was written ends: its bytes in use, u16 at 10 (rule F8). */
function encodeWrittenEnd(
  target: Buffer,
  at: number,
  writtenEnd: number,
  firstIndex: number,
  count: number,
): void {
  const index = Math.ceil(writtenEnd / PAGE_SIZE_BYTES) - 1
  if (index < firstIndex || index >= firstIndex + count) return
  const bytes = writtenEnd - index * PAGE_SIZE_BYTES
  target.writeUInt16LE(bytes, at + (index - firstIndex) * PAGE_RECORD_BYTES + 10)
}

/** Of `count` pages of one region, one behind the other. */
export function encodePageRecords(
  target: Buffer,
  at: number,
  records: RegionRecords,
  firstIndex: number,
  count: number,
): void {
  if (records.isBlank) {
    target.fill(0, at, at + count * PAGE_RECORD_BYTES)
    return
  }
  for (let done = 0; done < count; done++)
    encodePageRecord(target, at + done * PAGE_RECORD_BYTES, records, firstIndex + done)
}

/** The same of an overlay; the caller holds what it reads through. */
export function encodeEffectiveRecords(
  target: Buffer,
  at: number,
  replica: Replica,
  firstPage: number,
  count: number,
): void {
  for (let done = 0; done < count; done++) {
    const page = firstPage + done
    const records = effectiveRecords(replica, page)
    encodePageRecord(target, at + done * PAGE_RECORD_BYTES, records, page % PAGES_PER_REGION)
  }
}

/** stamp u32, content CRC u32, state u8, 3 reserved. Holes have CRC 0; bad and lost pages say what they held. */
export function encodePageRecord(target: Buffer, at: number, records: RegionRecords, index: number): void {
  const state = records.states[index] ?? PageState.bad
  const hasContent = state !== PageState.hole
  target.writeUInt32LE(records.stamps[index] ?? 0, at)
  target.writeUInt32LE(hasContent ? records.contentChecksum(index) : 0, at + 4)
  target.writeUInt32LE(state, at + 8)
}

/**
 * Whole pages with their records. The payload holds only pages in state *data*, one behind the other;
 * `offset` and `length` of the answer name the range of pages the table is about.
 */
export class PullOperation extends VerifiedRead {
  readonly #table = Buffer.alloc(PAGES_PER_REGION * PAGE_RECORD_BYTES)

  protected check(): WireCode | '' {
    if ((this.request.flags & DataFlag.former) !== 0) return this.#checkFormer()
    const code = this.checkVersion()
    if (code !== '') return code
    return checkSource({ role: this.current.state.role, unclean: this.current.isUnclean })
  }

  /** Who asks compares what it gets with the record of its own page that is gone (rules J2, J7). */
  #checkFormer(): WireCode | '' {
    const { state, failure, damage, deleted } = this.current
    if (deleted) return 'NO_REPLICA'
    if (failure !== null || damage !== '') return 'DISK_FAILED'
    const hasFailed = (state.flags & (StateFlag.crashed | StateFlag.failed)) !== 0
    if (this.request.version === 0) return ''
    return hasFailed || state.inSyncVersion < this.request.version ? 'WRONG_VERSION' : ''
  }

  protected run(): void {
    this.prepareRegions()
  }

  protected onRegionsReady(): void {
    this.readPages()
  }

  protected onPages(buffer: Buffer, _bad: number[] | null): void {
    const count = this.lastPage - this.firstPage + 1
    let used = 0
    for (let index = 0; index < count; index++) {
      const page = this.firstPage + index
      const records = this.recordsOf(page)
      encodePageRecord(this.#table, index * PAGE_RECORD_BYTES, records, page % PAGES_PER_REGION)
      if (records.states[page % PAGES_PER_REGION] !== PageState.data) continue
      const at = index * PAGE_SIZE_BYTES
      if (at !== used) buffer.copyWithin(used, at, at + PAGE_SIZE_BYTES)
      used += PAGE_SIZE_BYTES
    }
    const { offset, length } = this.request
    const table = this.#table.subarray(0, count * PAGE_RECORD_BYTES)
    if (used === 0) {
      this.releaseBuffer()
      return this.answerWith('', 0, offset, length, table, null)
    }
    this.buffer = null
    this.answerWith('', 0, offset, length, table, buffer.subarray(0, used))
  }

  protected recycle(): void {
    this.releaseBuffer()
    this.store.operations.pulls.give(this)
  }
}
