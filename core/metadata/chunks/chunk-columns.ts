/**
 * The columns behind the chunk table: 50 bytes a chunk with up to three members, and 7 to find it by its id.
 * Fourth and later members of a chunk live in a side map. It knows numbers only; meaning, change tracking and
 * rare parts (pending, former, intents) are in chunk-table.ts.
 */
import { assert, present } from '../../base/assert.ts'
import { Column, NO_SLOT, Slots } from '../state/columns/columns.ts'
import type { ChunkMember } from '../state/rows.ts'
import { hashOfNumbers, SlotIndex } from '../state/columns/slot-index.ts'

export const INLINE_MEMBER_COUNT = 3
const VERSION_MAX = 0xfffffffe

export const ChunkFlag = { writable: 1, dirtyDead: 2 } as const
/** Bits 4..6 of the flags: inline member k is joining. */
const JOINING_SHIFT = 4

export interface ChunkScalars {
  chunk: number
  inode: number
  index: number
  version: number
  flags: number
}

/** A chunk whose members, at most three, are all in sync. */
export interface PlainChunk extends ChunkScalars {
  memberCount: number
  /** Server and `since` of each in turn; there may be more behind. */
  readonly members: number[]
}

export class ChunkColumns {
  readonly #chunk = Column.ofNumbers()
  readonly #inode = Column.ofNumbers()
  readonly #index = Column.ofUint32()
  readonly #version = Column.ofUint32()
  readonly #flags = Column.ofBytes()
  readonly #memberCount = Column.ofBytes()
  // Three a chunk.
  readonly #memberServer = Column.ofUint32()
  /** `since` of an in-sync member, `attempt` of a joining one. */
  readonly #memberMark = Column.ofUint32()
  readonly #slots = new Slots(this.#index)
  readonly #byId: SlotIndex
  #sought = 0
  readonly #replicaCounts = new Map<number, number>()
  readonly #overflow = new Map<number, ChunkMember[]>()

  constructor() {
    this.#byId = new SlotIndex({
      hashOfSlot: (slot) => hashOfNumbers(this.#chunk.get(slot)),
      isSought: (slot) => this.#chunk.get(slot) === this.#sought,
    })
  }

  get count(): number {
    return this.#slots.count
  }

  /** Slots below this may be in use: the range of a scan. */
  get slotLimit(): number {
    return this.#slots.limit
  }

  /** What the columns take, for tests of the memory goal. */
  get byteLength(): number {
    const columns = [
      ...[this.#chunk, this.#inode, this.#index, this.#version, this.#flags, this.#memberCount],
      ...[this.#memberServer, this.#memberMark],
    ]
    let bytes = this.#byId.byteLength
    for (const column of columns) bytes += column.byteLength
    return bytes
  }

  /** Or -1. */
  find(chunk: number): number {
    this.#sought = chunk
    const slot = this.#byId.find(hashOfNumbers(chunk))
    return slot === NO_SLOT ? -1 : slot
  }

  /** The lowest id above `chunk`, or 0. Looks at every slot. */
  idAfter(chunk: number): number {
    let found = 0
    for (let slot = 0; slot < this.slotLimit; slot++) {
      const id = this.#chunk.get(slot)
      if (id > chunk && (found === 0 || id < found)) found = id
    }
    return found
  }

  /** 0 in a free slot. */
  chunkAt(slot: number): number {
    return this.#chunk.get(slot)
  }

  add(chunk: number): number {
    assert(chunk > 0 && this.find(chunk) < 0, 'a chunk id is added once')
    return this.#insert(chunk)
  }

  #insert(chunk: number): number {
    const slot = this.#slots.take()
    this.#chunk.set(slot, chunk)
    this.#memberCount.set(slot, 0)
    this.#byId.add(slot)
    return slot
  }

  /**
   * As `add`, with all it has, for loading: the caller knows that the id is new, which costs more to find out than
   * all the rest. The members are different servers.
   */
  addPlain(row: PlainChunk): void {
    const slot = this.#insert(row.chunk)
    this.writeScalars(slot, row)
    const first = slot * INLINE_MEMBER_COUNT
    for (let k = 0; k < row.memberCount; k++) {
      const server = row.members[2 * k] ?? 0
      this.#memberServer.set(first + k, server)
      this.#memberMark.set(first + k, row.members[2 * k + 1] ?? 0)
      this.#countReplica(server, 1)
    }
    this.#flags.set(slot, row.flags)
    this.#memberCount.set(slot, row.memberCount)
  }

  remove(slot: number): void {
    this.setMembers(slot, [])
    this.#byId.remove(slot)
    this.#chunk.set(slot, 0)
    this.#slots.free(slot)
  }

  readScalars(slot: number): ChunkScalars {
    return {
      chunk: this.#chunk.get(slot),
      inode: this.#inode.get(slot),
      index: this.#index.get(slot),
      version: this.#version.get(slot),
      flags: this.#flags.get(slot) & (ChunkFlag.writable | ChunkFlag.dirtyDead),
    }
  }

  writeScalars(slot: number, values: ChunkScalars): void {
    assert(values.version <= VERSION_MAX, 'versions fit 32 bits')
    this.#inode.set(slot, values.inode)
    this.#index.set(slot, values.index)
    this.#version.set(slot, values.version)
    this.#flags.set(slot, (this.#flags.get(slot) & ~0xf) | values.flags)
  }

  readMembers(slot: number): ChunkMember[] {
    const members: ChunkMember[] = []
    const count = this.#inlineCount(slot)
    const flags = this.#flags.get(slot)
    for (let k = 0; k < count; k++) {
      const node = slot * INLINE_MEMBER_COUNT + k
      const mark = this.#memberMark.get(node)
      const server = this.#memberServer.get(node)
      members.push(
        (flags & (1 << (JOINING_SHIFT + k))) !== 0
          ? { server, role: 'joining', since: 0, attempt: mark }
          : { server, role: 'in-sync', since: mark, attempt: 0 },
      )
    }
    for (const member of this.#overflowOf(slot)) members.push({ ...member })
    return members
  }

  hasMember(slot: number, server: number): boolean {
    if (this.chunkAt(slot) === 0) return false
    const first = slot * INLINE_MEMBER_COUNT
    const end = first + this.#inlineCount(slot)
    for (let node = first; node < end; node++) if (this.#memberServer.get(node) === server) return true
    return this.#overflowOf(slot).some((member) => member.server === server)
  }

  setMembers(slot: number, members: readonly ChunkMember[]): void {
    const first = slot * INLINE_MEMBER_COUNT
    const before = this.#inlineCount(slot)
    for (let k = 0; k < before; k++) this.#countReplica(this.#memberServer.get(first + k), -1)
    for (const member of this.#overflowOf(slot)) this.#countReplica(member.server, -1)
    if (this.#memberCount.get(slot) > INLINE_MEMBER_COUNT) this.#overflow.delete(slot)
    let joiningBits = 0
    for (const [k, member] of members.entries()) {
      this.#countReplica(member.server, 1)
      if (k >= INLINE_MEMBER_COUNT) continue
      this.#memberServer.set(first + k, member.server)
      this.#memberMark.set(first + k, member.role === 'joining' ? member.attempt : member.since)
      if (member.role === 'joining') joiningBits |= 1 << (JOINING_SHIFT + k)
    }
    this.#flags.set(slot, (this.#flags.get(slot) & 0xf) | joiningBits)
    this.#memberCount.set(slot, members.length)
    if (members.length <= INLINE_MEMBER_COUNT) return
    const more = members.slice(INLINE_MEMBER_COUNT).map((member) => ({ ...member }))
    this.#overflow.set(slot, more)
  }

  replicaCount(server: number): number {
    return this.#replicaCounts.get(server) ?? 0
  }

  #inlineCount(slot: number): number {
    return Math.min(this.#memberCount.get(slot), INLINE_MEMBER_COUNT)
  }

  #overflowOf(slot: number): readonly ChunkMember[] {
    if (this.#memberCount.get(slot) <= INLINE_MEMBER_COUNT) return noMembers
    return present(this.#overflow.get(slot), 'more than three members lie beside')
  }

  #countReplica(server: number, difference: number): void {
    const count = (this.#replicaCounts.get(server) ?? 0) + difference
    if (count === 0) this.#replicaCounts.delete(server)
    else this.#replicaCounts.set(server, count)
  }
}

const noMembers: readonly ChunkMember[] = []
