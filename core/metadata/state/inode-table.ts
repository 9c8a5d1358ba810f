/**
 * The inodes. A row is a view of the columns (inode-columns.ts): change it in place, then `touch` it. Its chunks
 * are rebuilt from the rows of the chunk table, not stored.
 */
import { assert } from '../../base/assert.ts'
import { ShardedSet } from '../../base/sharded.ts'
import type { PackedRows } from '../../platform/packed-rows.ts'
import type { RowChange } from '../../platform/store.ts'
import { metadataError } from '../errors.ts'
import { NO_SLOT, Slots } from './columns/columns.ts'
import { decodeInode, encodeInode, PackedInodes } from './inode-codec.ts'
import { GONE_SLOT, InodeColumns, InodeView } from './inode-columns.ts'
import type { InodeFields, InodeRow } from './rows.ts'
import { hashOfNumbers, SlotIndex } from './columns/slot-index.ts'
import { type ChangeTracked, numberKey } from './table.ts'

export class InodeTable implements ChangeTracked {
  readonly name = 'inodes'
  /** Inodes without a name that wait for file.collect. Soft: rebuilt by loading. */
  readonly orphans = new ShardedSet()
  readonly #columns = new InodeColumns()
  readonly #slots = new Slots(this.#columns.uid, GONE_SLOT + 1)
  readonly #byInode: SlotIndex
  readonly #changed = new Set<number>()
  readonly #packed = new PackedInodes()
  #sought = 0
  #placedInode = 0
  #placedSlot = NO_SLOT

  constructor() {
    const { inode } = this.#columns
    this.#byInode = new SlotIndex({
      hashOfSlot: (slot) => hashOfNumbers(inode.get(slot)),
      isSought: (slot) => inode.get(slot) === this.#sought,
    })
  }

  get size(): number {
    return this.#slots.count
  }

  has(inode: number): boolean {
    return this.#slotOf(inode) !== NO_SLOT
  }

  get(inode: number): InodeRow | undefined {
    const slot = this.#slotOf(inode)
    return slot === NO_SLOT ? undefined : new InodeView(this.#columns, slot)
  }

  /** A new inode, without chunks. */
  add(fields: InodeFields): InodeRow {
    const slot = this.#insert(fields)
    this.#changed.add(fields.inode)
    return new InodeView(this.#columns, slot)
  }

  /** The row was changed in place. */
  touch(inode: number): void {
    this.#changed.add(inode)
  }

  /** It has no chunks any more. */
  delete(inode: number): void {
    const slot = this.#slotOf(inode)
    if (slot === NO_SLOT) return
    this.#byInode.remove(slot)
    this.#columns.clear(slot)
    this.#slots.free(slot)
    this.orphans.delete(inode)
    this.#changed.add(inode)
  }

  /** While loading: the chunk is at this index of the inode. False when there is none. */
  placeChunk(inode: number, index: number, chunk: number): boolean {
    // Chunks of one file nearly always follow each other.
    if (inode !== this.#placedInode) {
      this.#placedSlot = this.#slotOf(inode)
      this.#placedInode = inode
    }
    if (this.#placedSlot === NO_SLOT) return false
    this.#columns.chunks.set(this.#placedSlot, index, chunk)
    return true
  }

  /** In no order. Inodes made meanwhile may be missed, none is seen twice. */
  *values(): Generator<InodeRow, undefined> {
    for (let slot = this.#slots.first; slot < this.#slots.limit; slot++)
      if (this.#columns.inode.get(slot) !== 0) yield new InodeView(this.#columns, slot)
  }

  loadRow(key: string, value: string): void {
    try {
      const inode = numberKey.parseKey(key)
      const fields = decodeInode(JSON.parse(value), inode)
      const known = this.#slotOf(inode)
      // The root is there before its row.
      if (known === NO_SLOT) this.#insert(fields)
      else this.#columns.write(known, fields)
    } catch (error) {
      throw metadataError('ROW_CORRUPT', `${this.name}/${key}`, error)
    }
  }

  loadPacked(rows: PackedRows): boolean {
    let fields: InodeFields | null = null
    try {
      fields = this.#packed.read(rows)
    } catch {
      // `loadRow` says what is wrong, and where.
    }
    // The root is there before its row.
    if (fields === null || fields.inode === 0 || this.has(fields.inode)) return false
    this.#insert(fields)
    return true
  }

  get changedCount(): number {
    return this.#changed.size
  }

  collectChanges(into: RowChange[]): void {
    for (const inode of this.#changed) {
      const row = this.get(inode)
      const value = row === undefined ? null : encodeInode(row)
      into.push({ table: this.name, key: String(inode), value })
    }
    this.#changed.clear()
  }

  *rows(): Iterable<readonly [string, string]> {
    for (const row of this.values()) yield [String(row.inode), encodeInode(row)]
  }

  #slotOf(inode: number): number {
    this.#sought = inode
    return this.#byInode.find(hashOfNumbers(inode))
  }

  #insert(fields: InodeFields): number {
    const { inode, links } = fields
    assert(inode > 0 && this.#slotOf(inode) === NO_SLOT, 'an inode is made once')
    const slot = this.#slots.take()
    this.#columns.inode.set(slot, inode)
    this.#columns.write(slot, fields)
    this.#byInode.add(slot)
    if (links === 0) this.orphans.add(inode)
    return slot
  }
}
