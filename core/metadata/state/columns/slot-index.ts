/**
 * From a key to the slot that holds it, for millions of rows: open addressing with linear probing, 4 bytes a
 * cell, at most 3/4 full. The keys stay in the columns of the table, which compares them itself. Cells lie in
 * segments that grow one by one: what is rehashed at once is a thousandth of the whole. Deletion shifts
 * followers back, so there are no tombstones.
 */
import { NO_SLOT } from './columns.ts'

const SEGMENT_BITS = 10
const SEGMENT_COUNT = 1 << SEGMENT_BITS
const CELL_COUNT_MIN = 4

export interface SlotKeys {
  /** 32 bits, unsigned, well mixed. */
  hashOfSlot(slot: number): number
  /** Does this slot hold the key that is being looked for? */
  isSought(slot: number): boolean
}

/** Mixes an id below 2^53 and a number of 32 bits into a hash (the finish of MurmurHash3). */
export function hashOfNumbers(id: number, other = 0): number {
  let hash = (id | 0) ^ Math.imul((id / 4_294_967_296) | 0, 0x85ebca6b) ^ Math.imul(other, 0x9e3779b1)
  hash = Math.imul(hash ^ (hash >>> 16), 0x85ebca6b)
  hash = Math.imul(hash ^ (hash >>> 13), 0xc2b2ae35)
  return (hash ^ (hash >>> 16)) >>> 0
}

function newCells(count: number): Uint32Array {
  return new Uint32Array(count).fill(NO_SLOT)
}

export class SlotIndex {
  readonly #keys: SlotKeys
  readonly #segments: Uint32Array[] = Array.from({ length: SEGMENT_COUNT }, () => newCells(CELL_COUNT_MIN))
  readonly #counts = new Uint32Array(SEGMENT_COUNT)

  constructor(keys: SlotKeys) {
    this.#keys = keys
  }

  get byteLength(): number {
    let bytes = 0
    for (const cells of this.#segments) bytes += cells.byteLength
    return bytes
  }

  /** The slot that `isSought` says yes to, or NO_SLOT. `hash` is that of the key being looked for. */
  find(hash: number): number {
    const cells = this.#cellsOf(hash)
    const mask = cells.length - 1
    for (let cell = hash & mask; ; cell = (cell + 1) & mask) {
      const slot = cells[cell] ?? NO_SLOT
      if (slot === NO_SLOT || this.#keys.isSought(slot)) return slot
    }
  }

  /** Its key must not be there yet; the columns must already hold it. */
  add(slot: number): void {
    const hash = this.#keys.hashOfSlot(slot)
    const segment = hash >>> (32 - SEGMENT_BITS)
    let cells = this.#cellsOf(hash)
    const count = this.#counts[segment] ?? 0
    if ((count + 1) * 4 > cells.length * 3) {
      cells = this.#grown(cells)
      this.#segments[segment] = cells
    }
    cells[freeCell(cells, hash)] = slot
    this.#counts[segment] = count + 1
  }

  /** It must be there, and the columns must still hold its key. */
  remove(slot: number): void {
    const hash = this.#keys.hashOfSlot(slot)
    const cells = this.#cellsOf(hash)
    const mask = cells.length - 1
    let hole = hash & mask
    while (cells[hole] !== slot) {
      if (cells[hole] === NO_SLOT) return
      hole = (hole + 1) & mask
    }
    const segment = hash >>> (32 - SEGMENT_BITS)
    this.#counts[segment] = (this.#counts[segment] ?? 0) - 1
    let cell = hole
    for (;;) {
      cell = (cell + 1) & mask
      const follower = cells[cell] ?? NO_SLOT
      if (follower === NO_SLOT) break
      const home = this.#keys.hashOfSlot(follower) & mask
      // Moves back only what may not stay behind the hole.
      const isReachable = hole <= cell ? home > hole && home <= cell : home > hole || home <= cell
      if (isReachable) continue
      cells[hole] = follower
      hole = cell
    }
    cells[hole] = NO_SLOT
  }

  #cellsOf(hash: number): Uint32Array {
    return this.#segments[hash >>> (32 - SEGMENT_BITS)] as Uint32Array
  }

  #grown(old: Uint32Array): Uint32Array {
    const cells = newCells(old.length * 2)
    for (const slot of old) if (slot !== NO_SLOT) cells[freeCell(cells, this.#keys.hashOfSlot(slot))] = slot
    return cells
  }
}

function freeCell(cells: Uint32Array, hash: number): number {
  const mask = cells.length - 1
  let cell = hash & mask
  while (cells[cell] !== NO_SLOT) cell = (cell + 1) & mask
  return cell
}
