/**
 * Reads whole pages and verifies them; of an overlay each page where it lies, in as few pieces as lie together. A
 * mismatch is read once more under the lock before it counts (rule P7).
 */
import { mark } from '../../base/coverage.ts'
import { CairnError } from '../../base/errors.ts'
import { PAGE_SIZE_BYTES, PAGES_PER_REGION } from '../../base/units.ts'
import type { DiskFile } from '../../platform/disk.ts'
import { fillPageChecksums } from '../../wire/checksum.ts'
import { pagePosition } from '../format/chunk-layout.ts'
import { wireCodeOfDiskError } from '../format/errors.ts'
import { PageState, type RegionRecords } from '../format/region-records.ts'
import { effectiveRecords, ownerOf } from '../replica/ancestors.ts'
import { Hold } from '../replica/operation-queue.ts'
import { asDiskError } from '../replica/region-cache.ts'
import { Operation } from './operation.ts'

/** Of the pages that are being verified: filled and compared in one turn. A read touches a page more than a region has. */
const checksums = new Uint32Array(PAGES_PER_REGION + 1)

/** Reads whole pages into one buffer and verifies those in state data. */
export abstract class VerifiedRead extends Operation {
  readonly hold: Hold = Hold.read
  protected override readonly readsThrough = 'absent pages'
  protected buffer: Buffer | null = null
  #again = false
  /** Rule R1: the disk could not read all pages together; which it can is tried one by one. */
  #singlePage = -1
  #unreadable: number[] | null = null
  /** Of an overlay: the first page behind the piece that is being read. */
  #pieceEnd = 0

  protected readPages(): void {
    const length = (this.lastPage - this.firstPage + 1) * PAGE_SIZE_BYTES
    this.buffer ??= this.store.pool.acquire(length)
    const replica = this.current
    if (replica.parent !== null) return this.#readPiece(this.firstPage)
    try {
      // Its records may be in memory although the file was closed for others meanwhile.
      if (!this.store.cache.openFile(replica)) return this.#onRead(null, 0)
    } catch (error) {
      return this.#onRead(asDiskError(error), 0)
    }
    replica.file?.read(this.buffer, pagePosition(this.firstPage), this.#onRead)
  }

  readonly #onRead = (error: CairnError | null, bytesRead: number): void => {
    const { buffer } = this
    if (buffer === null) return
    if (error !== null) {
      this.#again = false
      this.store.onReadError(this.current, error)
      if (this.current.file === null) return this.answer(wireCodeOfDiskError(error))
      this.#unreadable = []
      return this.#readSingle(this.firstPage)
    }
    buffer.fill(0, bytesRead)
    this.#onBuffer(buffer)
  }

  /** Of an overlay: the next pages with content that lie one behind the other in one file. */
  #readPiece(from: number): void {
    const { buffer } = this
    if (buffer === null) return
    let page = from
    while (page <= this.lastPage && !this.#hasContent(page)) page++
    if (page > this.lastPage) return this.#onBuffer(buffer)
    const owner = ownerOf(this.current, page)
    let end = page + 1
    while (end <= this.lastPage && this.#hasContent(end) && ownerOf(this.current, end) === owner) end++
    this.#pieceEnd = end
    const file = this.#fileOf(page)
    const at = (page - this.firstPage) * PAGE_SIZE_BYTES
    const piece = buffer.subarray(at, (end - this.firstPage) * PAGE_SIZE_BYTES)
    if (file === null) {
      this.#unreadable = []
      return this.#readSingle(this.firstPage)
    }
    file.read(piece, pagePosition(page), (error, bytesRead) => {
      piece.fill(0, error === null ? bytesRead : 0)
      if (error === null) return this.#readPiece(this.#pieceEnd)
      this.store.onReadError(this.current, error)
      this.#again = false
      this.#unreadable = []
      this.#readSingle(this.firstPage)
    })
  }

  #hasContent(page: number): boolean {
    return this.recordsOf(page).states[page % PAGES_PER_REGION] === PageState.data
  }

  /** Null: it cannot be opened. */
  #fileOf(page: number): DiskFile | null {
    const owner = this.current.parent === null ? this.current : ownerOf(this.current, page)
    if (owner !== this.current) mark('a read falls through an overlay')
    try {
      if (owner !== null && this.store.cache.openFile(owner)) return owner.file
    } catch (error) {
      this.store.onReadError(this.current, asDiskError(error))
    }
    return null
  }

  #readSingle(page: number): void {
    const { buffer } = this
    if (buffer === null) return
    if (page > this.lastPage) return this.#onBuffer(buffer)
    this.#singlePage = page
    const at = (page - this.firstPage) * PAGE_SIZE_BYTES
    const file = this.#fileOf(page)
    if (file !== null)
      file.read(buffer.subarray(at, at + PAGE_SIZE_BYTES), pagePosition(page), this.#onSingle)
    else this.#onSingle(new CairnError('DISK_IO', 'the chunk file cannot be opened'), 0)
  }

  readonly #onSingle = (error: CairnError | null, bytesRead: number): void => {
    const page = this.#singlePage
    const at = (page - this.firstPage) * PAGE_SIZE_BYTES
    this.buffer?.fill(0, at + (error === null ? bytesRead : 0), at + PAGE_SIZE_BYTES)
    if (error !== null) {
      this.store.onReadError(this.current, error)
      const state = this.recordsOf(page).states[page % PAGES_PER_REGION]
      // the others have no content
      if (state === PageState.data) this.#unreadable?.push(page)
    }
    this.#readSingle(page + 1)
  }

  #onBuffer(buffer: Buffer): void {
    const unreadable = this.#unreadable
    this.#unreadable = null
    if (unreadable !== null && unreadable.length > 0) {
      this.#again = false
      this.store.markBad(this.current, unreadable, 'page cannot be read')
      const others = this.#verify(buffer)
      if (others !== null) this.store.markBad(this.current, others, 'page does not verify')
      return this.onPages(buffer, [...unreadable, ...(others ?? [])])
    }
    const bad = this.#verify(buffer)
    if (bad !== null && !this.#again) {
      this.#again = true
      this.readPages()
      return
    }
    this.#again = false
    if (bad !== null) this.store.markBad(this.current, bad, 'page does not verify')
    this.onPages(buffer, bad)
  }

  /** Pages that do not verify, or null. */
  #verify(buffer: Buffer): number[] | null {
    if (!this.store.checksums) return null
    let bad: number[] | null = null
    fillPageChecksums(buffer, 0, checksums)
    for (let page = this.firstPage; page <= this.lastPage; page++) {
      const records = this.recordsOf(page)
      const index = page % PAGES_PER_REGION
      if (records.states[index] !== PageState.data) continue
      if (checksums[page - this.firstPage] !== records.contentChecksum(index)) (bad ??= []).push(page)
    }
    return bad
  }

  protected recordsOf(page: number): RegionRecords {
    const replica = this.current
    if (replica.parent !== null) return effectiveRecords(replica, page)
    return this.store.loadedRegion(replica, Math.floor(page / PAGES_PER_REGION))
  }

  /** `bad`: they are marked bad by now. */
  protected abstract onPages(buffer: Buffer, bad: number[] | null): void

  protected releaseBuffer(): void {
    if (this.buffer !== null) this.store.pool.release(this.buffer)
    this.buffer = null
  }
}
