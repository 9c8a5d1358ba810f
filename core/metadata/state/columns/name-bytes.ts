/**
 * Names as UTF-8 bytes in cells of one of 32 sizes, 8 to 256 bytes, each size with its own pages and its own
 * freed cells. A cell never moves. A name is found by its cell and its length in bytes, which the owner keeps.
 */
import { assert } from '../../../base/assert.ts'
import { NAME_BYTES_MAX } from '../../../wire/messages/common.ts'

const STEP_BYTES = 8
const PAGE_BYTES = 64 * 1024
const CLASS_COUNT = 256 / STEP_BYTES

class CellPages {
  readonly #cellBytes: number
  readonly #cellsPerPage: number
  readonly #pages: Uint8Array[] = []
  #limit = 0
  #freeCells: number[] = []

  constructor(cellBytes: number) {
    this.#cellBytes = cellBytes
    this.#cellsPerPage = Math.floor(PAGE_BYTES / cellBytes)
  }

  get byteLength(): number {
    return this.#pages.length * PAGE_BYTES
  }

  take(): number {
    const free = this.#freeCells.pop()
    if (free !== undefined) return free
    if (this.#limit === this.#pages.length * this.#cellsPerPage) this.#pages.push(new Uint8Array(PAGE_BYTES))
    return this.#limit++
  }

  free(cell: number): void {
    this.#freeCells.push(cell)
  }

  page(cell: number): Uint8Array {
    const page = this.#pages[Math.floor(cell / this.#cellsPerPage)]
    assert(page !== undefined, 'a cell has a page')
    return page
  }

  offset(cell: number): number {
    return (cell % this.#cellsPerPage) * this.#cellBytes
  }
}

export class NameBytes {
  readonly #classes: readonly CellPages[] = Array.from(
    { length: CLASS_COUNT },
    (_, number) => new CellPages((number + 1) * STEP_BYTES),
  )

  get byteLength(): number {
    return this.#classes.reduce((bytes, cells) => bytes + cells.byteLength, 0)
  }

  /** Stores the first `length` bytes; returns the cell. */
  add(borrowedBytes: Uint8Array, length: number): number {
    const cells = this.#cellsFor(length)
    const cell = cells.take()
    cells.page(cell).set(borrowedBytes.subarray(0, length), cells.offset(cell))
    return cell
  }

  free(cell: number, length: number): void {
    this.#cellsFor(length).free(cell)
  }

  equals(cell: number, length: number, bytes: Uint8Array): boolean {
    const cells = this.#cellsFor(length)
    const page = cells.page(cell)
    const offset = cells.offset(cell)
    for (let position = 0; position < length; position++)
      if (page[offset + position] !== bytes[position]) return false
    return true
  }

  hash(cell: number, length: number): number {
    const cells = this.#cellsFor(length)
    const offset = cells.offset(cell)
    return hashOfBytes(cells.page(cell), offset, offset + length)
  }

  text(cell: number, length: number): string {
    const cells = this.#cellsFor(length)
    const page = cells.page(cell)
    const offset = cells.offset(cell)
    return Buffer.from(page.buffer, page.byteOffset + offset, length).toString('utf8')
  }

  #cellsFor(length: number): CellPages {
    assert(length > 0 && length <= NAME_BYTES_MAX, 'names have a bounded length')
    return this.#classes[Math.ceil(length / STEP_BYTES) - 1] as CellPages
  }
}

/** FNV-1a. */
export function hashOfBytes(bytes: Uint8Array, from: number, to: number): number {
  let hash = 0x811c9dc5
  for (let position = from; position < to; position++)
    hash = Math.imul(hash ^ (bytes[position] ?? 0), 0x01000193)
  return hash | 0
}
