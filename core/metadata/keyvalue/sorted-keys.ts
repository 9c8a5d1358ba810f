/**
 * A sorted set of texts, by UTF-16 code units: blocks of bounded length in an array, so that an insertion
 * moves little even among a million keys, and a listing begins by binary search.
 */

const BLOCK_LENGTH_MAX = 512

export class SortedKeys {
  /** None is empty. */
  readonly #blocks: string[][] = []

  /** The key must not be in it. */
  add(key: string): void {
    const at = this.#blockOf(key)
    const block = this.#blocks[at]
    if (block === undefined) {
      this.#blocks.push([key])
      return
    }
    block.splice(lowerBound(block, key), 0, key)
    if (block.length <= BLOCK_LENGTH_MAX) return
    // Keys of a loading come in order: full blocks stay full.
    const isLast = at === this.#blocks.length - 1 && block[BLOCK_LENGTH_MAX] === key
    this.#blocks.splice(at + 1, 0, block.splice(isLast ? BLOCK_LENGTH_MAX : BLOCK_LENGTH_MAX / 2))
  }

  remove(key: string): void {
    const at = this.#blockOf(key)
    const block = this.#blocks[at]
    const position = block === undefined ? -1 : lowerBound(block, key)
    if (block?.[position] !== key) return
    block.splice(position, 1)
    if (block.length === 0) this.#blocks.splice(at, 1)
  }

  /** From `first` on, rising. Do not change the set meanwhile. */
  *from(first: string): Generator<string, void> {
    for (let at = this.#blockOf(first); at < this.#blocks.length; at++) {
      const block = this.#blocks[at] ?? []
      for (let position = lowerBound(block, first); position < block.length; position++) {
        yield block[position] ?? ''
      }
    }
  }

  /** The last block that begins at or before the key; 0 when none does. */
  #blockOf(key: string): number {
    let low = 0
    let high = this.#blocks.length
    while (low < high) {
      const middle = (low + high) >>> 1
      if ((this.#blocks[middle]?.[0] ?? '') <= key) low = middle + 1
      else high = middle
    }
    return Math.max(0, low - 1)
  }
}

/** Position of the first that is not below `key`. */
function lowerBound(sorted: readonly string[], key: string): number {
  let low = 0
  let high = sorted.length
  while (low < high) {
    const middle = (low + high) >>> 1
    if ((sorted[middle] ?? '') < key) low = middle + 1
    else high = middle
  }
  return low
}
