/**
 * Which chunk lies at which index of which file. Sparse files have only what exists. One node of 28 bytes per
 * chunk and 7 of index, however many chunks a file has: finding one costs a look-up, listing a file what it has.
 * Nodes of a file are a doubly linked list whose head lies with the inode (inode-table.ts).
 */
import { Column, NO_SLOT, Slots } from './columns.ts'
import { hashOfNumbers, SlotIndex } from './slot-index.ts'

/** The chunks of one file, by index. A map, as far as anybody needs one. In no order. */
export interface FileChunks {
  readonly size: number
  get(index: number): number | undefined
  has(index: number): boolean
  set(index: number, chunk: number): void
  delete(index: number): void
  clear(): void
  /** Copies; at most `limit`. */
  indexes(limit?: number): number[]
  ids(): number[]
}

/** Where the list of a file begins: kept by the owner, node + 1; 0 is an empty list. */
export interface ChunkHeads {
  readonly first: Column
  readonly count: Column
}

export class FileChunkLists {
  readonly #heads: ChunkHeads
  /** Slot of the inode. */
  readonly #owner = Column.ofUint32()
  readonly #index = Column.ofUint32()
  readonly #chunk = Column.ofNumbers()
  readonly #next = Column.ofUint32()
  readonly #previous = Column.ofUint32()
  readonly #nodes = new Slots(this.#next)
  readonly #byIndex: SlotIndex
  #soughtOwner = 0
  #soughtIndex = 0

  constructor(heads: ChunkHeads) {
    this.#heads = heads
    this.#byIndex = new SlotIndex({
      hashOfSlot: (node) => hashOfNumbers(this.#owner.get(node), this.#index.get(node)),
      isSought: (node) =>
        this.#index.get(node) === this.#soughtIndex && this.#owner.get(node) === this.#soughtOwner,
    })
  }

  get byteLength(): number {
    const columns = [this.#owner, this.#index, this.#chunk, this.#next, this.#previous]
    let bytes = this.#byIndex.byteLength
    for (const column of columns) bytes += column.byteLength
    return bytes
  }

  /** Undefined when there is none. */
  get(owner: number, index: number): number | undefined {
    const node = this.#find(owner, index)
    return node === NO_SLOT ? undefined : this.#chunk.get(node)
  }

  set(owner: number, index: number, chunk: number): void {
    const found = this.#find(owner, index)
    if (found !== NO_SLOT) {
      this.#chunk.set(found, chunk)
      return
    }
    const { first, count } = this.#heads
    const node = this.#nodes.take()
    const head = first.get(owner)
    this.#owner.set(node, owner)
    this.#index.set(node, index)
    this.#chunk.set(node, chunk)
    this.#next.set(node, head)
    this.#previous.set(node, 0)
    if (head !== 0) this.#previous.set(head - 1, node + 1)
    first.set(owner, node + 1)
    count.set(owner, count.get(owner) + 1)
    this.#byIndex.add(node)
  }

  delete(owner: number, index: number): void {
    const node = this.#find(owner, index)
    if (node !== NO_SLOT) this.#remove(owner, node)
  }

  clear(owner: number): void {
    const { first } = this.#heads
    while (first.get(owner) !== 0) this.#remove(owner, first.get(owner) - 1)
  }

  indexes(owner: number, limit = Number.POSITIVE_INFINITY): number[] {
    return this.#listed(owner, this.#index, limit)
  }

  ids(owner: number): number[] {
    return this.#listed(owner, this.#chunk, Number.POSITIVE_INFINITY)
  }

  #listed(owner: number, column: Column, limit: number): number[] {
    const values: number[] = []
    let link = this.#heads.first.get(owner)
    for (; link !== 0 && values.length < limit; link = this.#next.get(link - 1))
      values.push(column.get(link - 1))
    return values
  }

  #find(owner: number, index: number): number {
    this.#soughtOwner = owner
    this.#soughtIndex = index
    return this.#byIndex.find(hashOfNumbers(owner, index))
  }

  #remove(owner: number, node: number): void {
    const { first, count } = this.#heads
    this.#byIndex.remove(node)
    const next = this.#next.get(node)
    const previous = this.#previous.get(node)
    if (next !== 0) this.#previous.set(next - 1, previous)
    if (previous !== 0) this.#next.set(previous - 1, next)
    else first.set(owner, next)
    count.set(owner, count.get(owner) - 1)
    this.#nodes.free(node)
  }
}
