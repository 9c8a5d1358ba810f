/**
 * Operations that change pages: a client's write and zero. Steps, each of which usually completes at
 * once: durable mark (rules B1, E3) → page records in memory → base of partial pages, verified (P4, P5)
 * → data into the page cache → records in memory → answer (after a sync when the request says durable).
 */
import { mark } from '../../base/coverage.ts'
import type { CairnError } from '../../base/errors.ts'
import { codeOf } from '../../base/errors.ts'
import { PAGE_SIZE_BYTES, PAGES_PER_REGION } from '../../base/units.ts'
import { crc32c } from '../../wire/checksum.ts'
import type { WireCode } from '../../wire/codes.ts'
import { DataFlag } from '../../wire/data.ts'
import { pagePosition } from '../format/chunk-layout.ts'
import { asDiskError } from '../replica/region-cache.ts'
import { wireCodeOfDiskError } from '../format/errors.ts'
import { effectiveRecords, ownerOf } from '../replica/ancestors.ts'
import { isMarked, type MarkWaiter } from '../replica/open-list.ts'
import { clearAbsentPages } from './absent-pages.ts'
import { Operation } from './operation.ts'
import { Hold } from '../replica/operation-queue.ts'
import { PageState, type RegionRecords } from '../format/region-records.ts'
import type { BaseWaiter, Replica } from '../replica/replica.ts'
import type { SyncWaiter } from '../replica/replica-sync.ts'

const zeroPageChecksum = crc32c(Buffer.alloc(PAGE_SIZE_BYTES))

/** What a joiner gets from its source for one page. */
export interface PulledBase {
  readonly state: PageState
  readonly content: Buffer | null
}

/** Common part: marks, regions, bases of the two edge pages, good marks. */
export abstract class MutateOperation extends Operation implements MarkWaiter, SyncWaiter, BaseWaiter {
  readonly hold: Hold = Hold.write
  protected head: Buffer | null = null
  protected tail: Buffer | null = null
  #basePage = -1
  /** Whose page the base is: an ancestor's in an overlay that does not have it. */
  #baseOwner: Replica | null = null
  /** See `setPage`. */
  #mustSync = false
  #isKnown: boolean | null = null
  #baseBuffer: Buffer | null = null
  #baseAgain = false
  #readBefore = false
  /** Rises with every use and every discard, so that a late pull finds nobody. */
  #turn = 0

  get lease(): number {
    return this.request.lease
  }

  protected check(): WireCode | '' {
    const code = this.checkVersion()
    if (code !== '') return code
    if (this.store.failure !== null) return 'DISK_FAILED'
    const replica = this.current
    // rule S3: overlays read through it
    if (replica.isFrozen) {
      mark('a write to what an overlay reads through is refused')
      return 'HAS_OVERLAY'
    }
    if (this.request.lease < Math.max(replica.state.lease, replica.logged.lease)) {
      mark('a write of an older lease is refused')
      return 'STALE_LEASE'
    }
    // rule B1: in sync but unverified: the quorum has not decided yet; joining and reconciling take writes
    return replica.isUnclean && replica.good === null ? 'NOT_IN_SYNC' : ''
  }

  protected run(): void {
    const replica = this.current
    if (this.request.length === 0) return this.finishOk()
    if (this.request.lease > replica.state.lease || !isMarked(replica, this.firstRegion, this.lastRegion)) {
      this.store.mark(replica, this)
      return
    }
    this.onMarked(null)
  }

  onMarked(error: CairnError | null): void {
    if (error !== null) return this.answer(wireCodeOfDiskError(error))
    try {
      this.store.cache.createFile(this.current)
    } catch (fileError) {
      const diskError = asDiskError(fileError)
      if (codeOf(diskError) === 'DISK_IO') this.store.onWriteError(this.current, diskError)
      return this.answer(wireCodeOfDiskError(diskError))
    }
    this.prepareRegions()
  }

  protected get headIsPartial(): boolean {
    const { offset, length } = this.request
    return offset % PAGE_SIZE_BYTES !== 0 || length < PAGE_SIZE_BYTES
  }

  protected get tailIsPartial(): boolean {
    const { offset, length } = this.request
    return (offset + length) % PAGE_SIZE_BYTES !== 0 && this.lastPage > this.firstPage
  }

  protected onRegionsReady(): void {
    // rule A2: refused before anything is touched
    if (this.store.isFull && this.#allocates()) {
      mark('a write finds no room before anything is touched')
      return this.answer('DISK_FULL')
    }
    if (!this.headIsPartial && !this.tailIsPartial) return this.apply()
    this.#nextBase()
  }

  #nextBase(): void {
    if (this.headIsPartial && this.head === null) this.#loadBase(this.firstPage)
    else if (this.tailIsPartial && this.tail === null) this.#loadBase(this.lastPage)
    else {
      if (this.#readBefore) this.store.counters.readModifyWrites++
      this.apply()
    }
  }

  #loadBase(page: number): void {
    const replica = this.current
    this.#basePage = page
    if (!replica.isGood(page)) {
      this.#pullBase(page)
      return
    }
    this.#baseOwner = replica
    const records = this.recordsOf(page)
    if (records.states[page % PAGES_PER_REGION] !== PageState.absent) return this.#readBase(page, records)
    this.holdAncestors(page, page, this.#onHeld)
  }

  /** Rules S4, P5: the rest of the page is the parent's, verified under its identity. */
  readonly #onHeld = (isHeld: boolean): void => {
    if (!isHeld) return this.answer('OVERLOADED')
    const page = this.#basePage
    this.#baseOwner = ownerOf(this.current, page)
    this.#readBase(page, effectiveRecords(this.current, page))
  }

  #readBase(page: number, records: RegionRecords): void {
    const replica = this.current
    const state = records.states[page % PAGES_PER_REGION]
    if (state === PageState.hole) return this.#gotBase(this.#zeroBase())
    if (state === PageState.lost) return this.answer('LOST_PAGE')
    if (state === PageState.bad) {
      // rule P4: without sources here; the repair that the report starts brings them
      mark('a partial write finds its page bad')
      this.store.reportBad(replica, [page], 'base of a partial write is bad')
      return this.answer('BAD_CHECKSUM')
    }
    this.#readBefore = true
    this.#baseBuffer = this.store.pool.acquire(PAGE_SIZE_BYTES)
    this.#readBaseFile(this.#baseBuffer, page)
  }

  #readBaseFile(buffer: Buffer, page: number): void {
    const owner = this.#baseOwner
    try {
      // the file of an ancestor may have been closed for others meanwhile
      if (owner === null || !this.store.cache.openFile(owner)) return this.#onBaseRead(null, 0)
    } catch (error) {
      return this.#onBaseRead(asDiskError(error), 0)
    }
    owner.file?.read(buffer, pagePosition(page), this.#onBaseRead)
  }

  #zeroBase(): Buffer {
    return this.store.pool.acquire(PAGE_SIZE_BYTES).fill(0)
  }

  readonly #onBaseRead = (error: CairnError | null, bytesRead: number): void => {
    const buffer = this.#baseBuffer
    if (buffer === null) return
    const page = this.#basePage
    if (error !== null) this.store.onReadError(this.current, error)
    else buffer.fill(0, bytesRead)
    // rule P5: a base that does not verify is not merged into; one that cannot be read is such (R1)
    const expected = effectiveRecords(this.current, page).contentChecksum(page % PAGES_PER_REGION)
    if (error !== null || (this.store.checksums && crc32c(buffer) !== expected)) {
      if (!this.#baseAgain) {
        this.#baseAgain = true
        this.#readBaseFile(buffer, page)
        return
      }
      this.store.markBad(this.current, [page], 'base of a partial write does not verify')
      return this.answer('BAD_CHECKSUM')
    }
    this.#baseBuffer = null
    this.#gotBase(buffer)
  }

  #gotBase(ownedBuffer: Buffer): void {
    this.#baseAgain = false
    this.#baseOwner = null
    this.releaseAncestors()
    if (this.#basePage === this.firstPage) this.head = ownedBuffer
    else this.tail = ownedBuffer
    this.#nextBase()
  }

  /** Rule P4: a partial write to a page the joiner does not have pulls it first; later ones queue behind. */
  #pullBase(page: number): void {
    const replica = this.current
    // rule E2: the barrier waits for this operation; the sources come, if at all, behind it
    if (replica.barrierCount > 0) return this.answer('WRONG_VERSION')
    mark('a partial write pulls its page first')
    const turn = ++this.#turn
    replica.baseWaiters ??= new Set()
    replica.baseWaiters.add(this)
    this.store.pullBase(replica, page, (error, base) => {
      if (turn !== this.#turn) return
      if (error === null && base === null) return // no sources yet: `sourcesKnown` comes
      replica.baseWaiters?.delete(this)
      if (error !== null || base === null) return this.answer('NOT_IN_SYNC')
      // not this replica's fault: to take it out would keep its own good copy away for ever (rules R1, J7)
      if (base.state === PageState.bad) return this.answer('TRY_AGAIN')
      if (base.state === PageState.lost) return this.answer('LOST_PAGE')
      this.#readBefore = true
      const buffer = this.#zeroBase()
      base.content?.copy(buffer)
      this.#gotBase(buffer)
    })
  }

  sourcesKnown(): void {
    this.#pullBase(this.#basePage)
  }

  discard(): void {
    this.#turn++
    this.current.baseWaiters?.delete(this)
    this.answer('WRONG_VERSION')
  }

  #allocates(): boolean {
    for (let page = this.firstPage; page <= this.lastPage; page++) {
      const state = this.recordsOf(page).states[page % PAGES_PER_REGION]
      if (state === PageState.hole || state === PageState.absent) return true
    }
    return false
  }

  /** Bases are there: write, then `commit`. */
  protected abstract apply(): void

  /** Of a data write. */
  protected writeFailed(error: CairnError): void {
    const replica = this.current
    this.store.writeFailed(replica, error)
    const code = wireCodeOfDiskError(error)
    if (replica.parent === null || replica.failure !== null) return this.answer(code)
    // pages that are absent still may have got a part of it
    void clearAbsentPages(this.store, replica, this.firstPage, this.lastPage).then(() => this.answer(code))
  }

  protected recordsOf(page: number): RegionRecords {
    return this.store.loadedRegion(this.current, Math.floor(page / PAGES_PER_REGION))
  }

  protected setPage(page: number, state: PageState, contentChecksum: number): void {
    const records = this.recordsOf(page)
    const before = records.states[page % PAGES_PER_REGION]
    if (state === PageState.data && (before === PageState.hole || before === PageState.absent)) {
      this.store.grown.grew(this.current, PAGE_SIZE_BYTES)
    }
    // In its data area a page of zeros looks as an absent one: if the process died before the record is durable,
    // the parent's old content would be back (rule S2). What is durable now may still say *absent*.
    if (this.current.parent !== null && (state === PageState.hole || contentChecksum === zeroPageChecksum)) {
      this.#isKnown ??= this.#recordsAreDurable()
      this.#mustSync ||= before === PageState.absent || !this.#isKnown
    }
    records.set(page % PAGES_PER_REGION, state, this.request.version, contentChecksum)
    this.store.touch(this.current, records)
    this.current.markGood(page)
  }

  #recordsAreDurable(): boolean {
    mark('zeros hide what the parent has')
    if (this.current.sync?.busy === true) return false
    for (let region = this.firstRegion; region <= this.lastRegion; region++) {
      if (this.store.loadedRegion(this.current, region).dirty) return false
    }
    return true
  }

  /** The request is applied; `writtenBytes` went into the page cache. */
  protected applied(writtenBytes: number): void {
    this.store.wrote(this.current, writtenBytes)
    this.finishOk()
  }

  protected finishOk(): void {
    if ((this.request.flags & DataFlag.durable) === 0 && !this.#mustSync) this.answer('')
    else this.store.sync(this.current, this)
  }

  onSynced(error: CairnError | null): void {
    this.answer(error === null ? '' : wireCodeOfDiskError(error))
  }

  protected forget(): void {
    this.#turn++
    this.#readBefore = false
    this.#baseAgain = false
    this.#baseOwner = null
    this.#mustSync = false
    this.#isKnown = null
    if (this.head !== null) this.store.pool.release(this.head)
    if (this.tail !== null) this.store.pool.release(this.tail)
    if (this.#baseBuffer !== null) this.store.pool.release(this.#baseBuffer)
    this.head = null
    this.tail = null
    this.#baseBuffer = null
  }
}

export class WriteOperation extends MutateOperation {
  readonly #checksums = new Uint32Array(PAGES_PER_REGION + 1)
  readonly #vector: Buffer[] = []

  /** The frame's table, verified by the caller (rule P5). */
  keepChecksums(borrowedTable: Buffer): void {
    const count = Math.min(borrowedTable.length / 4, this.#checksums.length)
    for (let index = 0; index < count; index++) {
      this.#checksums[index] = borrowedTable.readUInt32LE(index * 4)
    }
  }

  protected apply(): void {
    const { payload, head, tail } = this
    if (payload === null) return this.answer('BAD_MESSAGE')
    const { offset } = this.request
    let begin = 0
    let end = payload.length
    const vector = this.#vector
    if (head !== null) {
      const at = offset % PAGE_SIZE_BYTES
      begin = Math.min(end, PAGE_SIZE_BYTES - at)
      payload.copy(head, at, 0, begin)
      this.#checksums[0] = crc32c(head)
      vector.push(head)
    }
    if (tail !== null) end -= (offset + payload.length) % PAGE_SIZE_BYTES
    if (end > begin)
      vector.push(begin === 0 && end === payload.length ? payload : payload.subarray(begin, end))
    if (tail !== null) {
      payload.copy(tail, 0, end)
      this.#checksums[this.lastPage - this.firstPage] = crc32c(tail)
      vector.push(tail)
    }
    this.current.file?.write(vector, pagePosition(this.firstPage), this.#onWritten)
  }

  readonly #onWritten = (error: CairnError | null): void => {
    this.#vector.length = 0
    if (error !== null) return this.writeFailed(error)
    const { offset, length } = this.request
    for (let page = this.firstPage; page <= this.lastPage; page++) {
      this.setPage(page, PageState.data, this.#checksums[page - this.firstPage] ?? 0)
    }
    this.store.extendWritten(this.current, offset, offset + length)
    this.store.counters.writeOperations++
    this.store.counters.writeBytes += length
    this.applied(length)
  }

  protected recycle(): void {
    this.forget()
    this.store.operations.writes.give(this)
  }
}
