/**
 * One step of a merge (rule S5): pages that the parent has in a region and the overlay lacks become the overlay's
 * own, with the parent's stamps, verified under the old identity and sealed under the new from the same buffer
 * (rule S4). Content and version stay what they are.
 *
 * A stop at any moment leaves pages that are absent, whatever lies in their data area, or that are complete:
 *
 *   sync ─▶ mark "leftovers" ─▶ data ─▶ sync ─▶ records ─▶ sync ─▶ mark goes      all under the locks of the region
 *           (durable)           ╰── absent: cleared at the next load ──╯ own
 *
 * Without the mark what lies there would be taken for a write of which the record was lost (rule P1).
 */
import { mark } from '../../base/coverage.ts'
import { CairnError, codeOf } from '../../base/errors.ts'
import { PAGE_SIZE_BYTES, PAGES_PER_REGION, REGION_SIZE_BYTES } from '../../base/units.ts'
import { crc32c } from '../../wire/checksum.ts'
import { pagePosition } from '../format/chunk-layout.ts'
import { PageState, type RegionRecords } from '../format/region-records.ts'
import { isReliable } from '../replica/ancestors.ts'
import { markLeftovers } from '../replica/leftovers.ts'
import { Hold } from '../replica/operation-queue.ts'
import type { Replica } from '../replica/replica.ts'
import type { ChunkStore } from '../store/chunk-store.ts'
import { loadRegion } from '../store/load-regions.ts'
import { readData, syncReplica, withPages, writeData } from '../store/page-tasks.ts'

/**
 * 'incomplete': the parent has pages that are not good; they have to be repaired in the overlay. 'blank': neither has
 * anything there, and nothing was written; a write that comes before the merge ends makes it necessary again.
 */
export type MergeOutcome = 'nothing to do' | 'blank' | 'done' | 'incomplete'

/** `isReady` is asked when the region is held. */
export function mergeRegion(
  store: ChunkStore,
  overlay: Replica,
  parent: Replica,
  region: number,
  isReady: () => boolean,
): Promise<MergeOutcome> {
  const first = region * PAGES_PER_REGION
  const last = first + PAGES_PER_REGION - 1
  return withPages(overlay, Hold.write, first, last, async () =>
    isReady() ? mergeHeldRegion(store, overlay, parent, region) : 'incomplete',
  )
}

/** The caller has the region of the overlay alone. */
export async function mergeHeldRegion(
  store: ChunkStore,
  overlay: Replica,
  parent: Replica,
  region: number,
): Promise<MergeOutcome> {
  const first = region * PAGES_PER_REGION
  if (store.closing) throw new CairnError('STARTING', 'the store is being closed', { retryable: true })
  const records = await loadRegion(store, overlay, region)
  if (!parent.serves) return records.states.includes(PageState.absent) ? 'incomplete' : 'nothing to do'
  return withPages(parent, Hold.read, first, first + PAGES_PER_REGION - 1, async () => {
    const below = await loadRegion(store, parent, region)
    return new RegionMerge(store, overlay, parent, records, below).run()
  })
}

export class RegionMerge {
  readonly #store: ChunkStore
  readonly #overlay: Replica
  readonly #parent: Replica
  readonly #records: RegionRecords
  readonly below: RegionRecords
  readonly #firstPage: number
  /** Within the region, rising: what is taken over. */
  #taken: number[] = []
  #isIncomplete = false

  constructor(
    store: ChunkStore,
    overlay: Replica,
    parent: Replica,
    records: RegionRecords,
    below: RegionRecords,
  ) {
    this.#store = store
    this.#overlay = overlay
    this.#parent = parent
    this.#records = records
    this.below = below
    this.#firstPage = records.region * PAGES_PER_REGION
  }

  async run(): Promise<MergeOutcome> {
    this.#choose()
    if (this.#taken.length > 0) mark('an overlay takes over what its parent has')
    const isBlank = this.#parent.parent === null && this.below.isBlank
    const isUntouched = this.#records.sequence === 0 && !this.#records.dirty
    // without records of its own the region stays as it is: in a flat replica they are holes
    if (isBlank && isUntouched) return 'blank'
    const hasNewEnd = this.#mergeWrittenEnd()
    const isChanged = this.#taken.length > 0 || hasNewEnd
    if (isChanged) await this.#takeOver()
    if (this.#isIncomplete) return 'incomplete'
    return isChanged ? 'done' : 'nothing to do'
  }

  #stateBelow(index: number): PageState {
    return (this.below.states[index] ?? PageState.bad) as PageState
  }

  /** Rule S5: nobody has written or zeroed it since. */
  isAbsent(index: number): boolean {
    return this.#records.states[index] === PageState.absent
  }

  /** Rule S4: under the identity of the parent, before it is sealed under that of the overlay. */
  verifies(borrowedContent: Buffer, index: number): boolean {
    return crc32c(borrowedContent) === this.below.contentChecksum(index)
  }

  /** Only what is still absent; what the parent lacks, too, is read through it already. */
  #choose(): void {
    const missing: number[] = []
    for (let index = 0; index < PAGES_PER_REGION; index++) {
      const state = this.#stateBelow(index)
      if (!this.isAbsent(index) || state === PageState.absent) continue
      const isGood = state !== PageState.bad && isReliable(this.#parent, this.#firstPage + index)
      if (isGood) this.#taken.push(index)
      else missing.push(this.#firstPage + index)
    }
    if (missing.length === 0) return
    mark('a merge waits for a page that its parent lacks')
    this.#isIncomplete = true
    this.#store.reportBad(this.#overlay, missing, 'the parent has no good copy')
  }

  /** Rule F8: what counted of the parent's is its own now. */
  #mergeWrittenEnd(): boolean {
    const { writtenEnd, parentEndMax } = this.#records
    this.#records.extendWritten(Math.min(parentEndMax, this.below.writtenEnd))
    this.#records.parentEndMax = Math.min(parentEndMax, this.below.parentEndMax)
    return writtenEnd !== this.#records.writtenEnd || parentEndMax !== this.#records.parentEndMax
  }

  /**
   * Also without data the region is marked meanwhile: where it is not open a torn image of its records would count as
   * damage, and on all servers at once, since all merge at the same time: bad would be what only the parent has.
   */
  async #takeOver(): Promise<void> {
    const store = this.#store
    const hasData = this.#dataPages.length > 0
    if (hasData && store.isFull) throw new CairnError('DISK_FULL', 'the disk is full')
    const { region } = this.#records
    const buffer = hasData ? store.pool.acquire(REGION_SIZE_BYTES) : null
    try {
      if (buffer !== null) await this.#readVerified(buffer)
      store.cache.createFile(this.#overlay)
      // what a client wrote there must not count as leftover: its records first
      await syncReplica(store, this.#overlay)
      await this.#mark(true)
      try {
        if (buffer !== null) {
          await this.#write(buffer)
          await syncReplica(store, this.#overlay)
        }
        this.#setRecords()
        store.touch(this.#overlay, this.#records)
        await syncReplica(store, this.#overlay)
        await this.#mark(false)
      } catch (error) {
        // what was written means nothing yet: it is cleared before the region is used again
        this.#overlay.mustVerify(region, region)
        throw error
      }
    } finally {
      if (buffer !== null) store.pool.release(buffer)
    }
  }

  get #dataPages(): number[] {
    return this.#taken.filter((index) => this.#stateBelow(index) === PageState.data)
  }

  /** Pages that do not verify, read once more (rule P7), are not taken. */
  async #readVerified(buffer: Buffer): Promise<void> {
    const bad: number[] = []
    for (const index of this.#dataPages) {
      if ((await this.#readPage(buffer, index)) || (await this.#readPage(buffer, index))) continue
      bad.push(index)
    }
    if (bad.length === 0) return
    this.#taken = this.#taken.filter((index) => !bad.includes(index))
    this.#isIncomplete = true
    this.#store.markBad(
      this.#overlay,
      bad.map((index) => this.#firstPage + index),
      'page of the parent does not verify',
    )
  }

  async #readPage(buffer: Buffer, index: number): Promise<boolean> {
    const content = buffer.subarray(index * PAGE_SIZE_BYTES, (index + 1) * PAGE_SIZE_BYTES)
    try {
      await readData(this.#store, this.#parent, pagePosition(this.#firstPage + index), content)
    } catch (error) {
      if (codeOf(error) !== 'DISK_IO') throw error
      return false
    }
    return this.verifies(content, index)
  }

  async #write(buffer: Buffer): Promise<void> {
    const pages = this.#dataPages
    for (let at = 0; at < pages.length; ) {
      const begin = pages[at] ?? 0
      let count = 1
      while (pages[at + count] === begin + count) count++
      const piece = buffer.subarray(begin * PAGE_SIZE_BYTES, (begin + count) * PAGE_SIZE_BYTES)
      await writeData(this.#store, this.#overlay, this.#firstPage + begin, [piece])
      at += count
    }
    this.#store.grown.grew(this.#overlay, pages.length * PAGE_SIZE_BYTES)
    this.#store.wrote(this.#overlay, pages.length * PAGE_SIZE_BYTES)
  }

  #setRecords(): void {
    for (const index of this.#taken) {
      const state = this.#stateBelow(index)
      const checksum = state === PageState.hole ? 0 : this.below.contentChecksum(index)
      this.#records.set(index, state, this.below.stamps[index] ?? 0, checksum)
    }
  }

  #mark(isMarked: boolean): Promise<void> {
    const { log } = this.#store
    return new Promise((resolve, reject) => {
      markLeftovers(log, this.#overlay, this.#records.region, isMarked, (error) => {
        if (error === null) resolve()
        else reject(error)
      })
    })
  }
}
