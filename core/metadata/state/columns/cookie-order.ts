/**
 * The entries of one directory in the order of their cookies, in blocks of bounded size: whatever happens to a
 * directory of millions of names moves one block. Most directories have one small block.
 */
const BLOCK_SLOTS_MAX = 512
const BLOCK_SLOTS_MIN = 4

interface Block {
  slots: Uint32Array
  count: number
}

export class CookieOrder {
  readonly #cookieOf: (slot: number) => number
  readonly #blocks: Block[] = []
  #count = 0

  constructor(cookieOf: (slot: number) => number) {
    this.#cookieOf = cookieOf
  }

  get count(): number {
    return this.#count
  }

  add(slot: number): void {
    const cookie = this.#cookieOf(slot)
    this.#count += 1
    const last = this.#blocks.at(-1)
    if (last === undefined) {
      this.#blocks.push({ slots: new Uint32Array(BLOCK_SLOTS_MIN), count: 0 })
    } else if (last.count === BLOCK_SLOTS_MAX && this.#isBehind(cookie, last)) {
      // Cookies rise: nearly always the last block is full for good.
      this.#blocks.push({ slots: new Uint32Array(BLOCK_SLOTS_MAX), count: 0 })
    }
    let position = this.#blockAt(cookie)
    let block = this.#blocks[position] as Block
    if (block.count === BLOCK_SLOTS_MAX) {
      this.#split(position)
      position = this.#blockAt(cookie)
      block = this.#blocks[position] as Block
    }
    insert(block, this.#positionAfter(block, cookie), slot)
  }

  /** Its cookie must still be known. */
  remove(slot: number): void {
    const cookie = this.#cookieOf(slot)
    const at = this.#blockAt(cookie)
    const block = this.#blocks[at]
    const position = block === undefined ? 0 : this.#positionAfter(block, cookie) - 1
    if (block?.slots[position] !== slot) return
    block.slots.copyWithin(position, position + 1, block.count)
    block.count -= 1
    this.#count -= 1
    if (block.count === 0) this.#blocks.splice(at, 1)
  }

  /** The slots behind `cookie`, in order. */
  *after(cookie: number): Generator<number, undefined> {
    for (let at = this.#blockAt(cookie); at < this.#blocks.length; at++) {
      const block = this.#blocks[at] as Block
      for (let position = this.#positionAfter(block, cookie); position < block.count; position++)
        yield block.slots[position] as number
    }
  }

  #isBehind(cookie: number, block: Block): boolean {
    return cookie > this.#cookieOf(block.slots[block.count - 1] as number)
  }

  /** The last block that begins at or below `cookie`, or the first. */
  #blockAt(cookie: number): number {
    let low = 0
    let high = this.#blocks.length - 1
    while (low < high) {
      const middle = (low + high + 1) >>> 1
      const block = this.#blocks[middle] as Block
      // Only a new block at the end is empty.
      if (block.count === 0 || this.#cookieOf(block.slots[0] as number) <= cookie) low = middle
      else high = middle - 1
    }
    return low
  }

  #positionAfter(block: Block, cookie: number): number {
    let low = 0
    let high = block.count
    while (low < high) {
      const middle = (low + high) >>> 1
      if (this.#cookieOf(block.slots[middle] as number) <= cookie) low = middle + 1
      else high = middle
    }
    return low
  }

  #split(position: number): void {
    const block = this.#blocks[position] as Block
    const half = block.count >>> 1
    const slots = new Uint32Array(BLOCK_SLOTS_MAX)
    slots.set(block.slots.subarray(half, block.count))
    this.#blocks.splice(position + 1, 0, { slots, count: block.count - half })
    block.count = half
  }
}

function insert(block: Block, position: number, slot: number): void {
  if (block.count === block.slots.length) {
    const larger = new Uint32Array(block.slots.length * 2)
    larger.set(block.slots)
    block.slots = larger
  }
  block.slots.copyWithin(position + 1, position, block.count)
  block.slots[position] = slot
  block.count += 1
}
