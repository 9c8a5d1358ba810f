/**
 * Which chunk lies at which index of which file. Sparse files have only what exists. A chunk is one node of 16
 * bytes and 7 of index: finding one costs a look-up. What a file has, and how many lie behind some place, is told
 * by groups of 32 indexes with a bit for each chunk, 27 bytes a group: a file of a million chunks has some 30,000.
 * Groups of a file are a doubly linked list whose head lies with the inode (inode-table.ts).
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
  /** Copies; at most `limit`, of those from `first` on. */
  indexes(limit?: number, first?: number): number[]
  ids(): number[]
  /**
   * Some 32 more than `limit` at most, from a place on: 0 is the beginning. `next` is where to go on, 0 at the end. It
   * stays a place while nothing changes but at the indexes that were given out.
   */
  page(place: number, limit: number): { readonly indexes: number[]; readonly next: number }
  /**
   * Where to cut, from the end of the file towards `first`, so that at most `limit` chunks, 32 or more, lie between
   * two cuts, and between the last one and `first`. Empty when all that lie there are not more.
   */
  cuts(first: number, limit: number): number[]
}

/** Where the list of a file begins: kept by the owner, group + 1; 0 is an empty list. */
export interface ChunkHeads {
  readonly first: Column
  readonly count: Column
}

const GROUP_BITS = 5
const GROUP_MASK = (1 << GROUP_BITS) - 1

const GROUP_COUNT_FACTOR = 64

function bitCount(bits: number): number {
  const pairs = bits - ((bits >>> 1) & 0x5555_5555)
  const nibbles = (pairs & 0x3333_3333) + ((pairs >>> 2) & 0x3333_3333)
  return Math.imul((nibbles + (nibbles >>> 4)) & 0x0f0f_0f0f, 0x0101_0101) >>> 24
}

class Groups {
  readonly #heads: ChunkHeads
  /** Slot of the inode. */
  readonly #owner = Column.ofUint32()
  readonly #number = Column.ofUint32()
  readonly #bits = Column.ofUint32()
  readonly #next = Column.ofUint32()
  readonly #previous = Column.ofUint32()
  readonly #slots = new Slots(this.#next)
  readonly #byNumber: SlotIndex
  #soughtOwner = 0
  #soughtNumber = 0
  /** The last that was found: chunks of a file come and go one after the other. */
  #found = NO_SLOT

  constructor(heads: ChunkHeads) {
    this.#heads = heads
    this.#byNumber = new SlotIndex({
      hashOfSlot: (group) => hashOfNumbers(this.#owner.get(group), this.#number.get(group)),
      isSought: (group) =>
        this.#number.get(group) === this.#soughtNumber && this.#owner.get(group) === this.#soughtOwner,
    })
  }

  get byteLength(): number {
    const columns = [this.#owner, this.#number, this.#bits, this.#next, this.#previous]
    return columns.reduce((bytes, column) => bytes + column.byteLength, this.#byNumber.byteLength)
  }

  /** True when it was not there. */
  add(owner: number, index: number): boolean {
    let group = this.#find(owner, index >>> GROUP_BITS)
    if (group === NO_SLOT) group = this.#make(owner, index >>> GROUP_BITS)
    const bits = this.#bits.get(group)
    const bit = 1 << (index & GROUP_MASK)
    if ((bits & bit) !== 0) return false
    this.#bits.set(group, (bits | bit) >>> 0)
    return true
  }

  remove(owner: number, index: number): void {
    const group = this.#find(owner, index >>> GROUP_BITS)
    if (group === NO_SLOT) return
    const bits = (this.#bits.get(group) & ~(1 << (index & GROUP_MASK))) >>> 0
    this.#bits.set(group, bits)
    if (bits === 0) this.#end(owner, group)
  }

  indexes(owner: number, limit: number, first: number): number[] {
    const indexes: number[] = []
    let link = this.#heads.first.get(owner)
    for (; link !== 0 && indexes.length < limit; link = this.#next.get(link - 1)) {
      const base = this.#number.get(link - 1) * (GROUP_MASK + 1)
      if (base + GROUP_MASK < first) continue
      for (let bits = this.#bits.get(link - 1); bits !== 0 && indexes.length < limit; ) {
        const bit = 31 - Math.clz32(bits)
        bits = (bits & ~(1 << bit)) >>> 0
        if (base + bit >= first) indexes.push(base + bit)
      }
    }
    return indexes
  }

  page(owner: number, place: number, limit: number): { readonly indexes: number[]; readonly next: number } {
    const indexes: number[] = []
    let link = place === 0 ? this.#heads.first.get(owner) : place
    for (; link !== 0 && indexes.length < limit; link = this.#next.get(link - 1)) {
      const base = this.#number.get(link - 1) * (GROUP_MASK + 1)
      for (let bits = this.#bits.get(link - 1); bits !== 0; ) {
        const bit = 31 - Math.clz32(bits)
        bits = (bits & ~(1 << bit)) >>> 0
        indexes.push(base + bit)
      }
    }
    return { indexes, next: link }
  }

  cuts(owner: number, first: number, limit: number): number[] {
    // Group and number of chunks in one number, to be sorted as such: files have tens of thousands of groups.
    const groups: number[] = []
    for (let link = this.#heads.first.get(owner); link !== 0; link = this.#next.get(link - 1)) {
      const number = this.#number.get(link - 1)
      if (number >= first >>> GROUP_BITS)
        groups.push(number * GROUP_COUNT_FACTOR + bitCount(this.#bits.get(link - 1)))
    }
    const cuts: number[] = []
    let count = 0
    for (const group of Float64Array.from(groups).sort().reverse()) {
      const chunkCount = group % GROUP_COUNT_FACTOR
      // What was counted lies from the group before this one on.
      if (count + chunkCount > limit) {
        cuts.push(((group - chunkCount) / GROUP_COUNT_FACTOR + 1) * (GROUP_MASK + 1))
        count = 0
      }
      count += chunkCount
    }
    return cuts
  }

  #find(owner: number, number: number): number {
    const found = this.#found
    if (found !== NO_SLOT && this.#number.get(found) === number && this.#owner.get(found) === owner)
      return found
    this.#soughtOwner = owner
    this.#soughtNumber = number
    this.#found = this.#byNumber.find(hashOfNumbers(owner, number))
    return this.#found
  }

  #make(owner: number, number: number): number {
    const { first } = this.#heads
    const group = this.#slots.take()
    const head = first.get(owner)
    this.#owner.set(group, owner)
    this.#number.set(group, number)
    this.#bits.set(group, 0)
    this.#next.set(group, head)
    this.#previous.set(group, 0)
    if (head !== 0) this.#previous.set(head - 1, group + 1)
    first.set(owner, group + 1)
    this.#byNumber.add(group)
    this.#found = group
    return group
  }

  #end(owner: number, group: number): void {
    this.#byNumber.remove(group)
    const next = this.#next.get(group)
    const previous = this.#previous.get(group)
    if (next !== 0) this.#previous.set(next - 1, previous)
    if (previous !== 0) this.#next.set(previous - 1, next)
    else this.#heads.first.set(owner, next)
    this.#slots.free(group)
    this.#found = NO_SLOT
  }
}

export class FileChunkLists {
  readonly #heads: ChunkHeads
  readonly #groups: Groups
  /** Slot of the inode. */
  readonly #owner = Column.ofUint32()
  readonly #index = Column.ofUint32()
  readonly #chunk = Column.ofNumbers()
  readonly #nodes = new Slots(this.#owner)
  readonly #byIndex: SlotIndex
  #soughtOwner = 0
  #soughtIndex = 0

  constructor(heads: ChunkHeads) {
    this.#heads = heads
    this.#groups = new Groups(heads)
    this.#byIndex = new SlotIndex({
      hashOfSlot: (node) => hashOfNumbers(this.#owner.get(node), this.#index.get(node)),
      isSought: (node) =>
        this.#index.get(node) === this.#soughtIndex && this.#owner.get(node) === this.#soughtOwner,
    })
  }

  get byteLength(): number {
    const columns = [this.#owner, this.#index, this.#chunk]
    let bytes = this.#byIndex.byteLength + this.#groups.byteLength
    for (const column of columns) bytes += column.byteLength
    return bytes
  }

  /** Undefined when there is none. */
  get(owner: number, index: number): number | undefined {
    const node = this.#find(owner, index)
    return node === NO_SLOT ? undefined : this.#chunk.get(node)
  }

  set(owner: number, index: number, chunk: number): void {
    // A look for what is not there costs more than all the rest: the group knows.
    if (!this.#groups.add(owner, index)) {
      this.#chunk.set(this.#find(owner, index), chunk)
      return
    }
    const { count } = this.#heads
    const node = this.#nodes.take()
    this.#owner.set(node, owner)
    this.#index.set(node, index)
    this.#chunk.set(node, chunk)
    count.set(owner, count.get(owner) + 1)
    this.#byIndex.add(node)
  }

  delete(owner: number, index: number): void {
    const node = this.#find(owner, index)
    if (node === NO_SLOT) return
    const { count } = this.#heads
    this.#byIndex.remove(node)
    this.#groups.remove(owner, index)
    count.set(owner, count.get(owner) - 1)
    this.#nodes.free(node)
  }

  clear(owner: number): void {
    for (const index of this.indexes(owner)) this.delete(owner, index)
  }

  indexes(owner: number, limit = Number.POSITIVE_INFINITY, first = 0): number[] {
    return this.#groups.indexes(owner, limit, first)
  }

  page(owner: number, place: number, limit: number): { readonly indexes: number[]; readonly next: number } {
    return this.#groups.page(owner, place, limit)
  }

  cuts(owner: number, first: number, limit: number): number[] {
    return this.#groups.cuts(owner, first, limit)
  }

  ids(owner: number): number[] {
    return this.indexes(owner).map((index) => this.get(owner, index) ?? 0)
  }

  #find(owner: number, index: number): number {
    this.#soughtOwner = owner
    this.#soughtIndex = index
    return this.#byIndex.find(hashOfNumbers(owner, index))
  }
}
