/**
 * What tables of millions of rows are made of: numbers in pages of typed arrays, outside of the heap that the
 * collector walks. A row is a slot, the same in every column of its table. Nothing here ever copies or rehashes
 * more than a small part of a table at once, so that growing costs a moment only. Pages are not given back: a
 * table keeps the room of its largest time.
 */
import { assert } from '../../../base/assert.ts'

const PAGE_BITS = 12
const PAGE_SLOTS = 1 << PAGE_BITS
const SLOT_MASK = PAGE_SLOTS - 1

type NumberArray = Float64Array | Uint32Array | Uint16Array | Uint8Array

/** Zero where nothing was set. */
export class Column {
  readonly #newPage: () => NumberArray
  readonly #pages: (NumberArray | undefined)[] = []

  private constructor(newPage: () => NumberArray) {
    this.#newPage = newPage
  }

  /** Any number: ids, sizes, times. */
  static ofNumbers(): Column {
    return new Column(() => new Float64Array(PAGE_SLOTS))
  }

  static ofUint32(): Column {
    return new Column(() => new Uint32Array(PAGE_SLOTS))
  }

  static ofUint16(): Column {
    return new Column(() => new Uint16Array(PAGE_SLOTS))
  }

  static ofBytes(): Column {
    return new Column(() => new Uint8Array(PAGE_SLOTS))
  }

  get byteLength(): number {
    let bytes = 0
    for (const page of this.#pages) bytes += page?.byteLength ?? 0
    return bytes
  }

  get(slot: number): number {
    return this.#pages[slot >>> PAGE_BITS]?.[slot & SLOT_MASK] ?? 0
  }

  set(slot: number, value: number): void {
    const number = slot >>> PAGE_BITS
    let page = this.#pages[number]
    if (page === undefined) {
      while (this.#pages.length <= number) this.#pages.push(undefined)
      page = this.#newPage()
      this.#pages[number] = page
    }
    page[slot & SLOT_MASK] = value
  }
}

/** No slot. */
export const NO_SLOT = 0xffff_ffff

/** Which slots of a table are in use. Freed ones are used again, last freed first. */
export class Slots {
  readonly #nextFree: Column
  readonly #first: number
  #limit: number
  #freeHead = NO_SLOT
  #count = 0

  /** `nextFree` may be any column of 32 bits that a free slot does not need. */
  constructor(nextFree: Column, first = 0) {
    this.#nextFree = nextFree
    this.#first = first
    this.#limit = first
  }

  get count(): number {
    return this.#count
  }

  /** Slots below this may be in use: the range of a scan. */
  get limit(): number {
    return this.#limit
  }

  get first(): number {
    return this.#first
  }

  take(): number {
    this.#count += 1
    if (this.#freeHead === NO_SLOT) {
      assert(this.#limit < NO_SLOT, 'slots fit 32 bits')
      return this.#limit++
    }
    const slot = this.#freeHead
    this.#freeHead = this.#nextFree.get(slot)
    return slot
  }

  free(slot: number): void {
    this.#count -= 1
    this.#nextFree.set(slot, this.#freeHead)
    this.#freeHead = slot
  }
}
