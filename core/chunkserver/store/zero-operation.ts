/** A client's zeroing (discard, truncated tail, hole punching) of any range of a chunk. */
import type { CairnError } from '../../base/errors.ts'
import { MIB, PAGE_SIZE_BYTES, PAGES_PER_REGION, REGION_SIZE_BYTES } from '../../base/units.ts'
import { crc32c } from '../../wire/checksum.ts'
import { pagePosition } from '../format/chunk-layout.ts'
import { PageState } from '../format/region-records.ts'
import { MutateOperation } from './write-operations.ts'

const zeros = Buffer.alloc(MIB)

/**
 * Zeroing. Whole pages become holes; those that held content are also overwritten with zeros, because
 * after an unclean stop a hole over old content could not be told from a write whose record was lost. A page that
 * an overlay does not have becomes a hole, too, never absent again (rule S2).
 */
export class ZeroOperation extends MutateOperation {
  readonly #vector: Buffer[] = []
  /** Next page to look at, and the run being written. */
  #page = 0
  #writtenBytes = 0

  protected apply(): void {
    const { offset, length } = this.request
    const end = offset + length
    if (this.head !== null) {
      const at = offset % PAGE_SIZE_BYTES
      this.head.fill(0, at, Math.min(PAGE_SIZE_BYTES, at + length))
    }
    this.tail?.fill(0, 0, end % PAGE_SIZE_BYTES)
    this.#page = this.firstPage
    this.#writtenBytes = 0
    this.#writeNext(null)
  }

  readonly #writeNext = (error: CairnError | null): void => {
    if (error !== null) return this.writeFailed(error)
    const vector = this.#vector
    vector.length = 0
    const page = this.#page
    if (page === this.firstPage && this.head !== null) {
      vector.push(this.head)
      this.#page++
      return this.#write(page, PAGE_SIZE_BYTES)
    }
    const lastWhole = this.tail === null ? this.lastPage : this.lastPage - 1
    let begin = page
    while (begin <= lastWhole && this.#isHole(begin)) begin++
    if (begin <= lastWhole) {
      let count = 1
      while (count < PAGES_PER_REGION && begin + count <= lastWhole && !this.#isHole(begin + count)) count++
      vector.push(zeros.subarray(0, count * PAGE_SIZE_BYTES))
      this.#page = begin + count
      return this.#write(begin, count * PAGE_SIZE_BYTES)
    }
    if (this.tail !== null && page <= this.lastPage) {
      vector.push(this.tail)
      this.#page = this.lastPage + 1
      return this.#write(this.lastPage, PAGE_SIZE_BYTES)
    }
    this.#finishAll()
  }

  #write(page: number, bytes: number): void {
    this.#writtenBytes += bytes
    this.current.file?.write(this.#vector, pagePosition(page), this.#writeNext)
  }

  /** Nothing lies there that would have to be overwritten. */
  #isHole(page: number): boolean {
    const state = this.recordsOf(page).states[page % PAGES_PER_REGION]
    return state === PageState.hole || state === PageState.absent
  }

  #finishAll(): void {
    for (let page = this.firstPage; page <= this.lastPage; page++) {
      const edge = page === this.firstPage ? this.head : page === this.lastPage ? this.tail : null
      if (edge === null) this.setPage(page, PageState.hole, 0)
      else this.setPage(page, PageState.data, crc32c(edge))
    }
    const { offset, length } = this.request
    this.#cutWritten(offset, offset + length)
    this.store.counters.writeOperations++
    this.applied(this.#writtenBytes)
  }

  /**
   * Zeroed up to the end of a region: what was written there no longer makes a size. Without this a file that
   * was truncated would grow back to its old size when its next writer dies (rule F8).
   */
  #cutWritten(begin: number, end: number): void {
    const first = Math.floor(begin / REGION_SIZE_BYTES)
    for (let region = first; (region + 1) * REGION_SIZE_BYTES <= end; region++) {
      const records = this.store.loadedRegion(this.current, region)
      const cut = Math.max(0, begin - region * REGION_SIZE_BYTES)
      records.writtenEnd = Math.min(records.writtenEnd, cut)
      // what the parent has behind it is zeroed here, too
      if (this.current.parent !== null) records.parentEndMax = Math.min(records.parentEndMax, cut)
      this.current.writtenEnds?.cut(region, cut)
    }
  }

  protected recycle(): void {
    this.#vector.length = 0
    this.forget()
    this.store.operations.zeroings.give(this)
  }
}
