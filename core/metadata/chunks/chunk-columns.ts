/**
 * The columns behind the chunk table: typed arrays, 83 bytes a chunk with up to three members, growable,
 * with a free list. Members are also threaded into one doubly linked list per server, so that "which
 * chunks are on CS n" costs what it returns. Fourth and later members of a chunk live in a side map.
 * It knows numbers only; meaning, change tracking and rare parts (pending, former) are in chunk-table.ts.
 */
import { assert, present } from '../../base/assert.ts'
import type { ChunkMember } from '../state/rows.ts'
import { IdIndex } from './id-index.ts'

const INLINE_MEMBER_COUNT = 3
const NONE = 0xffffffff
const CAPACITY_MIN = 256
const VERSION_MAX = 0xfffffffe

export const ChunkFlag = { writable: 1, dirtyDead: 2 } as const
/** Bits 4..6 of the flags: inline member k is joining. */
const JOINING_SHIFT = 4

export interface ChunkScalars {
  chunk: number
  inode: number
  index: number
  version: number
  intentLease: number
  flags: number
}

function grown<T extends Float64Array | Uint32Array | Uint8Array>(
  make: (length: number) => T,
  old: T,
  length: number,
): T {
  const larger = make(length)
  larger.set(old)
  return larger
}

export class ChunkColumns {
  readonly #ids: IdIndex
  #capacity = CAPACITY_MIN
  #slotLimit = 0
  #freeHead = NONE
  #chunk = new Float64Array(CAPACITY_MIN)
  #inode = new Float64Array(CAPACITY_MIN)
  /** Of a free slot: the next free slot. */
  #index = new Uint32Array(CAPACITY_MIN)
  #version = new Uint32Array(CAPACITY_MIN)
  #intentLease = new Float64Array(CAPACITY_MIN)
  #flags = new Uint8Array(CAPACITY_MIN)
  #memberCount = new Uint8Array(CAPACITY_MIN)
  #memberServer = new Uint32Array(CAPACITY_MIN * INLINE_MEMBER_COUNT)
  /** `since` of an in-sync member, `attempt` of a joining one. */
  #memberMark = new Uint32Array(CAPACITY_MIN * INLINE_MEMBER_COUNT)
  #next = new Uint32Array(CAPACITY_MIN * INLINE_MEMBER_COUNT)
  #previous = new Uint32Array(CAPACITY_MIN * INLINE_MEMBER_COUNT)
  readonly #heads = new Map<number, number>()
  readonly #replicaCounts = new Map<number, number>()
  readonly #overflow = new Map<number, ChunkMember[]>()
  readonly #overflowSlots = new Map<number, Set<number>>()

  constructor() {
    this.#ids = new IdIndex((slot) => this.#chunk[slot] ?? 0)
  }

  get count(): number {
    return this.#ids.count
  }

  get capacity(): number {
    return this.#capacity
  }

  /** Slots below this may be in use: the range of a scan. */
  get slotLimit(): number {
    return this.#slotLimit
  }

  /** What the columns take, for tests of the memory goal. */
  get byteLength(): number {
    const perServer = this.#memberServer.byteLength * 4
    const perChunk = this.#chunk.byteLength * 3 + this.#index.byteLength * 2 + this.#flags.byteLength * 2
    return perServer + perChunk + this.#ids.byteLength
  }

  find(chunk: number): number {
    return this.#ids.find(chunk)
  }

  chunkAt(slot: number): number {
    return this.#chunk[slot] ?? 0
  }

  add(chunk: number): number {
    assert(chunk > 0 && this.#ids.find(chunk) < 0, 'a chunk id is added once')
    const slot = this.#takeSlot()
    this.#chunk[slot] = chunk
    this.#memberCount[slot] = 0
    this.#ids.add(chunk, slot)
    return slot
  }

  remove(slot: number): void {
    this.setMembers(slot, [])
    this.#ids.remove(this.chunkAt(slot))
    this.#chunk[slot] = 0
    this.#index[slot] = this.#freeHead
    this.#freeHead = slot
  }

  readScalars(slot: number): ChunkScalars {
    return {
      chunk: this.#chunk[slot] ?? 0,
      inode: this.#inode[slot] ?? 0,
      index: this.#index[slot] ?? 0,
      version: this.#version[slot] ?? 0,
      intentLease: this.#intentLease[slot] ?? 0,
      flags: (this.#flags[slot] ?? 0) & (ChunkFlag.writable | ChunkFlag.dirtyDead),
    }
  }

  writeScalars(slot: number, values: ChunkScalars): void {
    assert(values.version <= VERSION_MAX, 'versions fit 32 bits')
    this.#inode[slot] = values.inode
    this.#index[slot] = values.index
    this.#version[slot] = values.version
    this.#intentLease[slot] = values.intentLease
    this.#flags[slot] = ((this.#flags[slot] ?? 0) & ~0xf) | values.flags
  }

  readMembers(slot: number): ChunkMember[] {
    const members: ChunkMember[] = []
    const count = Math.min(this.#memberCount[slot] ?? 0, INLINE_MEMBER_COUNT)
    for (let k = 0; k < count; k++) {
      const node = slot * INLINE_MEMBER_COUNT + k
      const mark = this.#memberMark[node] ?? 0
      const isJoining = ((this.#flags[slot] ?? 0) & (1 << (JOINING_SHIFT + k))) !== 0
      const server = this.#memberServer[node] ?? 0
      members.push(
        isJoining
          ? { server, role: 'joining', since: 0, attempt: mark }
          : { server, role: 'in-sync', since: mark, attempt: 0 },
      )
    }
    const more = this.#overflow.get(slot)
    if (more !== undefined) for (const member of more) members.push({ ...member })
    return members
  }

  hasMember(slot: number, server: number): boolean {
    if (this.chunkAt(slot) === 0) return false
    const count = Math.min(this.#memberCount[slot] ?? 0, INLINE_MEMBER_COUNT)
    const first = slot * INLINE_MEMBER_COUNT
    for (let node = first; node < first + count; node++) if (this.#memberServer[node] === server) return true
    return this.#overflowSlots.get(server)?.has(slot) === true
  }

  setMembers(slot: number, members: readonly ChunkMember[]): void {
    const before = Math.min(this.#memberCount[slot] ?? 0, INLINE_MEMBER_COUNT)
    for (let k = 0; k < before; k++) this.#unlink(slot * INLINE_MEMBER_COUNT + k)
    for (const member of this.#overflow.get(slot) ?? []) this.#unlinkOverflow(slot, member.server)
    this.#overflow.delete(slot)
    let joiningBits = 0
    const inlineCount = Math.min(members.length, INLINE_MEMBER_COUNT)
    for (let k = 0; k < inlineCount; k++) {
      const member = present(members[k], 'member in range')
      const node = slot * INLINE_MEMBER_COUNT + k
      this.#memberServer[node] = member.server
      this.#memberMark[node] = member.role === 'joining' ? member.attempt : member.since
      if (member.role === 'joining') joiningBits |= 1 << (JOINING_SHIFT + k)
      this.#link(node, member.server)
    }
    this.#flags[slot] = ((this.#flags[slot] ?? 0) & 0xf) | joiningBits
    this.#memberCount[slot] = members.length
    if (members.length <= INLINE_MEMBER_COUNT) return
    const more = members.slice(INLINE_MEMBER_COUNT).map((member) => ({ ...member }))
    this.#overflow.set(slot, more)
    for (const member of more) this.#linkOverflow(slot, member.server)
  }

  replicaCount(server: number): number {
    return this.#replicaCounts.get(server) ?? 0
  }

  /** Chunk ids with a member on `server`. Do not change members while iterating: copy first. */
  *chunksOn(server: number): Generator<number> {
    let node = this.#heads.get(server) ?? NONE
    while (node !== NONE) {
      yield this.chunkAt(Math.floor(node / INLINE_MEMBER_COUNT))
      node = this.#next[node] ?? NONE
    }
    for (const slot of this.#overflowSlots.get(server) ?? []) yield this.chunkAt(slot)
  }

  #count(server: number, difference: number): void {
    const count = (this.#replicaCounts.get(server) ?? 0) + difference
    if (count === 0) this.#replicaCounts.delete(server)
    else this.#replicaCounts.set(server, count)
  }

  #link(node: number, server: number): void {
    const head = this.#heads.get(server) ?? NONE
    this.#next[node] = head
    this.#previous[node] = NONE
    if (head !== NONE) this.#previous[head] = node
    this.#heads.set(server, node)
    this.#count(server, 1)
  }

  #unlink(node: number): void {
    const server = this.#memberServer[node] ?? 0
    const next = this.#next[node] ?? NONE
    const previous = this.#previous[node] ?? NONE
    if (next !== NONE) this.#previous[next] = previous
    if (previous !== NONE) this.#next[previous] = next
    else if (next !== NONE) this.#heads.set(server, next)
    else this.#heads.delete(server)
    this.#count(server, -1)
  }

  #linkOverflow(slot: number, server: number): void {
    const slots = this.#overflowSlots.get(server)
    if (slots === undefined) this.#overflowSlots.set(server, new Set([slot]))
    else slots.add(slot)
    this.#count(server, 1)
  }

  #unlinkOverflow(slot: number, server: number): void {
    const slots = present(this.#overflowSlots.get(server), 'an overflow member is indexed')
    slots.delete(slot)
    if (slots.size === 0) this.#overflowSlots.delete(server)
    this.#count(server, -1)
  }

  #takeSlot(): number {
    if (this.#freeHead !== NONE) {
      const slot = this.#freeHead
      this.#freeHead = this.#index[slot] ?? NONE
      return slot
    }
    if (this.#slotLimit === this.#capacity) this.#grow()
    return this.#slotLimit++
  }

  #grow(): void {
    // A quarter more at a time: the slack stays small where it matters, at millions of chunks.
    const capacity = Math.max(this.#capacity + 1024, Math.ceil(this.#capacity * 1.25))
    const float = (length: number) => new Float64Array(length)
    const unsigned = (length: number) => new Uint32Array(length)
    const byte = (length: number) => new Uint8Array(length)
    this.#chunk = grown(float, this.#chunk, capacity)
    this.#inode = grown(float, this.#inode, capacity)
    this.#intentLease = grown(float, this.#intentLease, capacity)
    this.#index = grown(unsigned, this.#index, capacity)
    this.#version = grown(unsigned, this.#version, capacity)
    this.#flags = grown(byte, this.#flags, capacity)
    this.#memberCount = grown(byte, this.#memberCount, capacity)
    const nodes = capacity * INLINE_MEMBER_COUNT
    this.#memberServer = grown(unsigned, this.#memberServer, nodes)
    this.#memberMark = grown(unsigned, this.#memberMark, nodes)
    this.#next = grown(unsigned, this.#next, nodes)
    this.#previous = grown(unsigned, this.#previous, nodes)
    this.#capacity = capacity
  }
}
