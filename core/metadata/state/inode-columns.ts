/**
 * The columns of the inodes, and a row of them as an object. About 100 bytes an inode; what few inodes have lies
 * in maps beside. Reading and writing the fields of a row reads and writes the columns. A row may be kept: when
 * its inode is gone it reads as an empty file without links, and can no longer be written.
 */
import { assert, present } from '../../base/assert.ts'
import type { FileType, PlacementAttributes } from '../../wire/messages/common.ts'
import { Column } from './columns/columns.ts'
import { type FileChunks, FileChunkLists } from './columns/file-chunks.ts'
import { fileTypes, placementCode, placementOfCode } from './inode-codec.ts'
import type { InodeFields, InodeRow } from './rows.ts'

/** The slot of no inode: zero in every column, for ever. */
export const GONE_SLOT = 0

export class InodeColumns {
  readonly inode = Column.ofNumbers()
  readonly type = Column.ofBytes()
  readonly mode = Column.ofUint16()
  readonly placement = Column.ofUint16()
  readonly size = Column.ofNumbers()
  readonly accessSeconds = Column.ofNumbers()
  readonly modifySeconds = Column.ofNumbers()
  readonly changeSeconds = Column.ofNumbers()
  readonly generation = Column.ofNumbers()
  readonly uid = Column.ofUint32()
  readonly gid = Column.ofUint32()
  readonly links = Column.ofUint32()
  readonly accessNanoseconds = Column.ofUint32()
  readonly modifyNanoseconds = Column.ofUint32()
  readonly changeNanoseconds = Column.ofUint32()
  /** The list of its chunks (file-chunks.ts). */
  readonly firstChunk = Column.ofUint32()
  readonly chunkCount = Column.ofUint32()
  readonly chunks = new FileChunkLists({ first: this.firstChunk, count: this.chunkCount })
  // By slot.
  readonly device = new Map<number, number>()
  readonly parent = new Map<number, number>()
  readonly zeroFrom = new Map<number, number>()
  readonly sizeLimit = new Map<number, number>()
  readonly target = new Map<number, string>()
  readonly extended = new Map<number, Record<string, string>>()

  /** Everything but the inode's number and its chunks. */
  write(slot: number, fields: InodeFields): void {
    const type = fileTypes.indexOf(fields.type)
    assert(type >= 0, 'types of inodes are known')
    this.type.set(slot, type)
    this.mode.set(slot, fields.mode)
    this.placement.set(slot, placementCode(fields.placement))
    this.size.set(slot, fields.size)
    this.accessSeconds.set(slot, fields.accessSeconds)
    this.modifySeconds.set(slot, fields.modifySeconds)
    this.changeSeconds.set(slot, fields.changeSeconds)
    this.generation.set(slot, fields.generation)
    this.uid.set(slot, fields.uid)
    this.gid.set(slot, fields.gid)
    this.links.set(slot, fields.links)
    this.accessNanoseconds.set(slot, fields.accessNanoseconds)
    this.modifyNanoseconds.set(slot, fields.modifyNanoseconds)
    this.changeNanoseconds.set(slot, fields.changeNanoseconds)
    setRare(this.device, slot, fields.device === 0 ? undefined : fields.device)
    setRare(this.parent, slot, fields.parent === 0 ? undefined : fields.parent)
    setRare(this.zeroFrom, slot, fields.zeroFrom)
    setRare(this.sizeLimit, slot, fields.sizeLimit)
    setRare(this.target, slot, fields.target)
    setRare(this.extended, slot, fields.extended)
  }

  /** The slot may become another inode's. */
  clear(slot: number): void {
    assert(this.chunkCount.get(slot) === 0, 'an inode goes after its chunks')
    this.inode.set(slot, 0)
    for (const map of [this.device, this.parent, this.zeroFrom, this.sizeLimit, this.target, this.extended])
      map.delete(slot)
  }
}

function setRare<Value>(map: Map<number, Value>, slot: number, value: Value | undefined): void {
  if (value !== undefined) map.set(slot, value)
  else if (map.size > 0) map.delete(slot)
}

export class InodeView implements InodeRow {
  readonly inode: number
  readonly #columns: InodeColumns
  readonly #slot: number

  constructor(columns: InodeColumns, slot: number) {
    this.#columns = columns
    this.#slot = slot
    this.inode = columns.inode.get(slot)
  }

  get #readSlot(): number {
    return this.#columns.inode.get(this.#slot) === this.inode ? this.#slot : GONE_SLOT
  }

  get #writtenSlot(): number {
    assert(this.#columns.inode.get(this.#slot) === this.inode, 'an inode that is gone is not changed')
    return this.#slot
  }

  get type(): FileType {
    return present(fileTypes[this.#columns.type.get(this.#readSlot)], 'types of inodes are known')
  }

  get placement(): PlacementAttributes | undefined {
    return placementOfCode(this.#columns.placement.get(this.#readSlot))
  }
  set placement(value: PlacementAttributes | undefined) {
    this.#columns.placement.set(this.#writtenSlot, placementCode(value))
  }

  get device(): number {
    return this.#columns.device.get(this.#readSlot) ?? 0
  }

  get parent(): number {
    return this.#columns.parent.get(this.#readSlot) ?? 0
  }
  set parent(value: number) {
    this.#columns.parent.set(this.#writtenSlot, value)
  }

  get chunks(): FileChunks {
    return new ChunksView(this.#columns, this.#readSlot)
  }

  get mode(): number {
    return this.#columns.mode.get(this.#readSlot)
  }
  set mode(value: number) {
    this.#columns.mode.set(this.#writtenSlot, value)
  }

  get size(): number {
    return this.#columns.size.get(this.#readSlot)
  }
  set size(value: number) {
    this.#columns.size.set(this.#writtenSlot, value)
  }

  get accessSeconds(): number {
    return this.#columns.accessSeconds.get(this.#readSlot)
  }
  set accessSeconds(value: number) {
    this.#columns.accessSeconds.set(this.#writtenSlot, value)
  }

  get modifySeconds(): number {
    return this.#columns.modifySeconds.get(this.#readSlot)
  }
  set modifySeconds(value: number) {
    this.#columns.modifySeconds.set(this.#writtenSlot, value)
  }

  get changeSeconds(): number {
    return this.#columns.changeSeconds.get(this.#readSlot)
  }
  set changeSeconds(value: number) {
    this.#columns.changeSeconds.set(this.#writtenSlot, value)
  }

  get generation(): number {
    return this.#columns.generation.get(this.#readSlot)
  }
  set generation(value: number) {
    this.#columns.generation.set(this.#writtenSlot, value)
  }

  get uid(): number {
    return this.#columns.uid.get(this.#readSlot)
  }
  set uid(value: number) {
    this.#columns.uid.set(this.#writtenSlot, value)
  }

  get gid(): number {
    return this.#columns.gid.get(this.#readSlot)
  }
  set gid(value: number) {
    this.#columns.gid.set(this.#writtenSlot, value)
  }

  get links(): number {
    return this.#columns.links.get(this.#readSlot)
  }
  set links(value: number) {
    this.#columns.links.set(this.#writtenSlot, value)
  }

  get accessNanoseconds(): number {
    return this.#columns.accessNanoseconds.get(this.#readSlot)
  }
  set accessNanoseconds(value: number) {
    this.#columns.accessNanoseconds.set(this.#writtenSlot, value)
  }

  get modifyNanoseconds(): number {
    return this.#columns.modifyNanoseconds.get(this.#readSlot)
  }
  set modifyNanoseconds(value: number) {
    this.#columns.modifyNanoseconds.set(this.#writtenSlot, value)
  }

  get changeNanoseconds(): number {
    return this.#columns.changeNanoseconds.get(this.#readSlot)
  }
  set changeNanoseconds(value: number) {
    this.#columns.changeNanoseconds.set(this.#writtenSlot, value)
  }

  get zeroFrom(): number | undefined {
    return this.#columns.zeroFrom.get(this.#readSlot)
  }
  set zeroFrom(value: number | undefined) {
    setRare(this.#columns.zeroFrom, this.#writtenSlot, value)
  }

  get sizeLimit(): number | undefined {
    return this.#columns.sizeLimit.get(this.#readSlot)
  }
  set sizeLimit(value: number | undefined) {
    setRare(this.#columns.sizeLimit, this.#writtenSlot, value)
  }

  get target(): string | undefined {
    return this.#columns.target.get(this.#readSlot)
  }

  get extended(): Record<string, string> | undefined {
    return this.#columns.extended.get(this.#readSlot)
  }
  set extended(value: Record<string, string> | undefined) {
    setRare(this.#columns.extended, this.#writtenSlot, value)
  }
}

/** Valid until the inode goes. */
class ChunksView implements FileChunks {
  readonly #columns: InodeColumns
  readonly #slot: number

  constructor(columns: InodeColumns, slot: number) {
    this.#columns = columns
    this.#slot = slot
  }

  get size(): number {
    return this.#columns.chunkCount.get(this.#slot)
  }

  get(index: number): number | undefined {
    return this.#columns.chunks.get(this.#slot, index)
  }

  has(index: number): boolean {
    return this.get(index) !== undefined
  }

  set(index: number, chunk: number): void {
    assert(this.#slot !== GONE_SLOT, 'an inode that is gone gets no chunks')
    this.#columns.chunks.set(this.#slot, index, chunk)
  }

  delete(index: number): void {
    this.#columns.chunks.delete(this.#slot, index)
  }

  clear(): void {
    this.#columns.chunks.clear(this.#slot)
  }

  indexes(limit?: number, first?: number): number[] {
    return this.#columns.chunks.indexes(this.#slot, limit, first)
  }

  page(place: number, limit: number): { readonly indexes: number[]; readonly next: number } {
    return this.#columns.chunks.page(this.#slot, place, limit)
  }

  cuts(first: number, limit: number): number[] {
    return this.#columns.chunks.cuts(this.#slot, first, limit)
  }

  ids(): number[] {
    return this.#columns.chunks.ids(this.#slot)
  }
}
