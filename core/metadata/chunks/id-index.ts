/**
 * Map from chunk id to slot for millions of chunks: open addressing with linear probing over one typed
 * array of slots (4 bytes a cell, at most 3/4 full). The ids themselves stay in the table's column, read
 * through `idOfSlot`. Deletion shifts followers back, so there are no tombstones.
 */
const EMPTY = 0xffffffff
const CELL_COUNT_MIN = 64

/** Multiplicative hashing of both halves of an id below 2^53. */
function hashOf(id: number): number {
  const low = id | 0
  const high = (id / 4294967296) | 0
  return (Math.imul(low ^ Math.imul(high, 0x85ebca6b), 0x9e3779b1) ^ (low >>> 15)) >>> 0
}

export class IdIndex {
  readonly #idOfSlot: (slot: number) => number
  #cells = new Uint32Array(CELL_COUNT_MIN).fill(EMPTY)
  #count = 0

  constructor(idOfSlot: (slot: number) => number) {
    this.#idOfSlot = idOfSlot
  }

  get count(): number {
    return this.#count
  }

  get byteLength(): number {
    return this.#cells.byteLength
  }

  /** The slot of `id`, or -1. */
  find(id: number): number {
    const cell = this.#cellOf(id)
    const slot = this.#cells[cell] ?? EMPTY
    return slot === EMPTY ? -1 : slot
  }

  /** `id` must not be there yet; the column must already hold it at `slot`. */
  add(id: number, slot: number): void {
    if ((this.#count + 1) * 4 > this.#cells.length * 3) this.#rehash(this.#cells.length * 2)
    this.#cells[this.#cellOf(id)] = slot
    this.#count += 1
  }

  remove(id: number): void {
    const mask = this.#cells.length - 1
    let hole = this.#cellOf(id)
    if (this.#cells[hole] === EMPTY) return
    this.#count -= 1
    let cell = hole
    for (;;) {
      cell = (cell + 1) & mask
      const slot = this.#cells[cell] ?? EMPTY
      if (slot === EMPTY) break
      const home = hashOf(this.#idOfSlot(slot)) & mask
      // Moves back only what may not stay behind the hole.
      const isReachable = hole <= cell ? home > hole && home <= cell : home > hole || home <= cell
      if (isReachable) continue
      this.#cells[hole] = slot
      hole = cell
    }
    this.#cells[hole] = EMPTY
  }

  #cellOf(id: number): number {
    const mask = this.#cells.length - 1
    let cell = hashOf(id) & mask
    for (;;) {
      const slot = this.#cells[cell] ?? EMPTY
      if (slot === EMPTY || this.#idOfSlot(slot) === id) return cell
      cell = (cell + 1) & mask
    }
  }

  #rehash(cellCount: number): void {
    const old = this.#cells
    this.#cells = new Uint32Array(cellCount).fill(EMPTY)
    for (const slot of old) {
      if (slot !== EMPTY) this.#cells[this.#cellOf(this.#idOfSlot(slot))] = slot
    }
  }
}
