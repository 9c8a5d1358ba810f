/**
 * The chunk table: every chunk's epoch as the quorum committed it. Rows are read as copies (`ChunkRow`) and
 * written back whole with `put`; the bulk lies in columns (chunk-columns.ts), what few chunks have (a pending
 * epoch, former replicas, a dead writer's mark, an intent) in side maps that double as indexes.
 * It checks the shape of a row, not whether a change is allowed: that is epochs.ts and intents.ts.
 */
import { assert, present } from '../../base/assert.ts'
import { ShardedMap } from '../../base/sharded.ts'
import type { PackedRows } from '../../platform/packed-rows.ts'
import type { RowChange } from '../../platform/store.ts'
import { metadataError } from '../errors.ts'
import type { ChunkRow, PendingEpoch } from '../state/rows.ts'
import type { ChunkTracked } from '../state/state.ts'
import { decodeRow, encodeRow, readPlainRow } from './chunk-codec.ts'
import { ChunkColumns, ChunkFlag } from './chunk-columns.ts'
import { ChunkSharing } from './chunk-sharing.ts'

/** norm at most 15, twice that while everything moves (ChunkLocation allows 32). */
export const CHUNK_MEMBER_COUNT_MAX = 32
export const FORMER_COUNT_MAX = 64
/** Snapshots of a file and files that were cloned from it or them, as far as they share the chunk. */
export const HOLDER_COUNT_MAX = 4_096
/** A file that is rolled back holds what its snapshot does, whatever the number. */
const ALL_HOLDER_COUNT_MAX = 2 * HOLDER_COUNT_MAX

export class ChunkTable implements ChunkTracked {
  readonly name = 'chunks'
  #columns = new ChunkColumns()
  readonly #pending = new Map<number, PendingEpoch>()
  readonly #former = new ShardedMap<{ server: number; version: number }[]>()
  readonly #dirtyDead = new Set<number>()
  /** Few, and not for long. */
  readonly #lossVersion = new Map<number, number>()
  readonly #joining = new Set<number>()
  /** By lease, and by chunk. */
  readonly #intents = new Map<number, Set<number>>()
  readonly #intentLease = new Map<number, number>()
  readonly #changed = new Set<number>()
  readonly #sharing = new ChunkSharing()

  /** Read it; `put` and `delete` write it. */
  get sharing(): Pick<ChunkSharing, 'holders' | 'overlays' | 'children' | 'hidden' | 'chunksWithOverlays'> {
    return this.#sharing
  }

  get size(): number {
    return this.#columns.count
  }

  get byteLength(): number {
    return this.#columns.byteLength
  }

  retire(): void {
    this.#columns = new ChunkColumns()
  }

  has(chunk: number): boolean {
    return this.#columns.find(chunk) >= 0
  }

  /** The lowest id above `chunk`, or 0. Looks at every chunk. */
  idAfter(chunk: number): number {
    return this.#columns.idAfter(chunk)
  }

  /** A copy; change it and `put` it back. */
  get(chunk: number): ChunkRow | undefined {
    const slot = this.#columns.find(chunk)
    return slot < 0 ? undefined : this.#read(slot)
  }

  put(row: ChunkRow): void {
    this.#write(row)
    this.#changed.add(row.chunk)
  }

  delete(chunk: number): void {
    const slot = this.#columns.find(chunk)
    if (slot < 0) return
    this.#setIntent(chunk, 0)
    this.#columns.remove(slot)
    this.#pending.delete(chunk)
    this.#former.delete(chunk)
    this.#dirtyDead.delete(chunk)
    this.#lossVersion.delete(chunk)
    this.#joining.delete(chunk)
    this.#sharing.delete(chunk)
    this.#changed.add(chunk)
  }

  /** As `scan`, the ids of chunks with a member on `server` only: cheap for those that have none. */
  scanServer(server: number, fromSlot: number, slotCount: number, visit: (chunk: number) => void): number {
    const end = Math.min(this.#columns.slotLimit, fromSlot + slotCount)
    for (let slot = fromSlot; slot < end; slot++) {
      if (this.#columns.hasMember(slot, server)) visit(this.#columns.chunkAt(slot))
    }
    return end >= this.#columns.slotLimit ? -1 : end
  }

  replicaCount(server: number): number {
    return this.#columns.replicaCount(server)
  }

  get pendingCount(): number {
    return this.#pending.size
  }

  pendingChunks(): IterableIterator<number> {
    return this.#pending.keys()
  }

  formerOf(chunk: number, server: number): { readonly version: number } | undefined {
    return this.#former.get(chunk)?.find((entry) => entry.server === server)
  }

  formerChunks(): Generator<number, undefined> {
    return this.#former.keys()
  }

  /** With a member, of the epoch in force, that is joining. */
  joiningChunks(): IterableIterator<number> {
    return this.#joining.keys()
  }

  dirtyDeadChunks(): IterableIterator<number> {
    return this.#dirtyDead.keys()
  }

  get dirtyDeadCount(): number {
    return this.#dirtyDead.size
  }

  isDirtyDead(chunk: number): boolean {
    return this.#dirtyDead.has(chunk)
  }

  /** Chunks with an intent of `lease`, in rising order (so that every member walks them alike). */
  chunksWithIntent(lease: number): number[] {
    return [...(this.#intents.get(lease) ?? [])].toSorted((a, b) => a - b)
  }

  intentCount(lease: number): number {
    return this.#intents.get(lease)?.size ?? 0
  }

  /**
   * Visits the rows in up to `slotCount` slots from `fromSlot` on and returns where to go on, or -1 at the
   * end. Chunks added meanwhile may be missed, none is seen twice.
   */
  scan(fromSlot: number, slotCount: number, visit: (row: ChunkRow) => void): number {
    const end = Math.min(this.#columns.slotLimit, fromSlot + slotCount)
    for (let slot = fromSlot; slot < end; slot++) {
      if (this.#columns.chunkAt(slot) !== 0) visit(this.#read(slot))
    }
    return end >= this.#columns.slotLimit ? -1 : end
  }

  scanMapped(
    fromSlot: number,
    slotCount: number,
    visit: (chunk: number, inode: number, index: number) => void,
  ): number {
    const end = Math.min(this.#columns.slotLimit, fromSlot + slotCount)
    for (let slot = fromSlot; slot < end; slot++) {
      const { chunk, inode, index } = this.#columns.readScalars(slot)
      if (chunk === 0) continue
      if (inode !== 0) visit(chunk, inode, index)
      for (const holder of this.#sharing.holders(chunk)) visit(chunk, holder, index)
    }
    return end >= this.#columns.slotLimit ? -1 : end
  }

  /** All ids; for paging by id (`admin.chunks`) and tests. */
  *ids(): Generator<number> {
    for (let slot = 0; slot < this.#columns.slotLimit; slot++) {
      const chunk = this.#columns.chunkAt(slot)
      if (chunk !== 0) yield chunk
    }
  }

  loadRow(key: string, value: string): void {
    try {
      const chunk = Number(key)
      if (!Number.isSafeInteger(chunk) || chunk <= 0 || String(chunk) !== key)
        throw new Error('the key is no chunk id')
      this.#write(decodeRow(chunk, JSON.parse(value)))
    } catch (error) {
      throw metadataError('ROW_CORRUPT', `${this.name}/${key}`, error)
    }
  }

  loadPacked(rows: PackedRows): boolean {
    const row = readPlainRow(rows)
    if (row === null) return false
    // The store has a key once, and an id has one key.
    this.#columns.addPlain(row)
    return true
  }

  get changedCount(): number {
    return this.#changed.size
  }

  collectChanges(into: RowChange[]): void {
    for (const chunk of this.#changed) {
      const row = this.get(chunk)
      into.push({
        table: this.name,
        key: String(chunk),
        value: row === undefined ? null : encodeRow(row),
      })
    }
    this.#changed.clear()
  }

  *rows(): Iterable<readonly [string, string]> {
    for (const chunk of this.ids()) {
      yield [String(chunk), encodeRow(present(this.get(chunk), 'a listed chunk exists'))]
    }
  }

  #read(slot: number): ChunkRow {
    const { flags, ...scalars } = this.#columns.readScalars(slot)
    const pending = this.#pending.get(scalars.chunk)
    const holders = this.#sharing.holders(scalars.chunk)
    const overlays = this.#sharing.overlays(scalars.chunk)
    const lossVersion = this.#lossVersion.get(scalars.chunk)
    return {
      ...scalars,
      intentLease: this.#intentLease.get(scalars.chunk) ?? 0,
      members: this.#columns.readMembers(slot),
      writable: (flags & ChunkFlag.writable) !== 0,
      dirtyDead: (flags & ChunkFlag.dirtyDead) !== 0,
      pending: pending === undefined ? null : copyPending(pending),
      former: (this.#former.get(scalars.chunk) ?? []).map((entry) => ({ ...entry })),
      ...(holders.length === 0 ? {} : { holders }),
      ...(overlays.length === 0 ? {} : { overlays }),
      ...(lossVersion === undefined ? {} : { lossVersion }),
    }
  }

  #write(row: ChunkRow): void {
    assert(row.members.length > 0, 'a chunk has members (rule G2)')
    assert(row.members.length <= CHUNK_MEMBER_COUNT_MAX, 'members are bounded')
    assert(row.former.length <= FORMER_COUNT_MAX, 'former replicas are bounded')
    assert((row.holders?.length ?? 0) <= ALL_HOLDER_COUNT_MAX, 'holders are bounded')
    const { chunk } = row
    let slot = this.#columns.find(chunk)
    if (slot < 0) slot = this.#columns.add(chunk)
    const flags = (row.writable ? ChunkFlag.writable : 0) | (row.dirtyDead ? ChunkFlag.dirtyDead : 0)
    this.#columns.writeScalars(slot, {
      chunk,
      inode: row.inode,
      index: row.index,
      version: row.version,
      flags,
    })
    this.#columns.setMembers(slot, row.members)
    this.#setIntent(chunk, row.intentLease)
    if (row.pending === null) this.#pending.delete(chunk)
    else this.#pending.set(chunk, copyPending(row.pending))
    if (row.former.length === 0) this.#former.delete(chunk)
    else {
      this.#former.set(
        chunk,
        row.former.map((entry) => ({ ...entry })),
      )
    }
    if (row.dirtyDead) this.#dirtyDead.add(chunk)
    else this.#dirtyDead.delete(chunk)
    if (row.lossVersion === undefined) this.#lossVersion.delete(chunk)
    else this.#lossVersion.set(chunk, row.lossVersion)
    if (row.members.some(({ role }) => role === 'joining')) this.#joining.add(chunk)
    else this.#joining.delete(chunk)
    this.#sharing.set(row)
  }

  #setIntent(chunk: number, after: number): void {
    const before = this.#intentLease.get(chunk) ?? 0
    if (before === after) return
    if (after === 0) this.#intentLease.delete(chunk)
    else this.#intentLease.set(chunk, after)
    const old = this.#intents.get(before)
    if (old !== undefined) {
      old.delete(chunk)
      if (old.size === 0) this.#intents.delete(before)
    }
    if (after === 0) return
    const chunks = this.#intents.get(after)
    if (chunks === undefined) this.#intents.set(after, new Set([chunk]))
    else chunks.add(chunk)
  }
}

function copyPending(pending: PendingEpoch): PendingEpoch {
  return { ...pending, members: pending.members.map((member) => ({ ...member })) }
}
