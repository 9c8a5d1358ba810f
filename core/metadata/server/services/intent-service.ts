/**
 * Write intents and locations. Before an intent is granted the chunk gets rid of members that are silent, so
 * that a batch never contains a replica known dead (rule L7); what is being reconfigured is waited for, a
 * little, then the client hears TRY_AGAIN and holds.
 */
import { mark } from '../../../base/coverage.ts'
import { CHUNK_SIZE_BYTES } from '../../../base/units.ts'
import type { leaseMethods } from '../../../wire/messages/metadata.ts'
import type { ParamsOf } from '../../../wire/messages/method.ts'
import { LEASE_INTENT_COUNT_MAX } from '../../chunks/leases.ts'
import { type ChunkWaiters, isSettled } from '../../control/replication/chunk-waiters.ts'
import type { Master } from '../../control/servers/master.ts'
import type { Recovery } from '../../control/replication/recovery.ts'
import type { ServersView } from '../../control/servers/servers-view.ts'
import type { SpacePromises, SpaceRequest } from '../../control/servers/space-promises.ts'
import { wireError } from '../../errors.ts'
import { isHeldBy, isShared } from '../../chunks/sharing.ts'
import { FILE_SIZE_BYTES_MAX } from '../../namespace/limits.ts'
import { valueOf } from '../../state/result.ts'
import type { ChunkRow, InodeRow } from '../../state/rows.ts'
import type { ChunkCreator } from './chunk-creator.ts'
import type { Located, Locations } from './locations.ts'

type LeaseMethods = typeof leaseMethods
type Params<N extends keyof LeaseMethods> = ParamsOf<LeaseMethods, N>

const INDEX_MAX = FILE_SIZE_BYTES_MAX / CHUNK_SIZE_BYTES
const PREPARE_ROUND_COUNT_MAX = 4
const LOCATE_ROUND_COUNT_MAX = 3

export type Granted = Located & { limits: number[] }
type LimitOf = (index: number) => number

/** Bytes of the chunk at `index` that lie below `size`. */
function endInChunk(size: number, index: number): number {
  return Math.min(CHUNK_SIZE_BYTES, Math.max(0, size - index * CHUNK_SIZE_BYTES))
}

function limitsOf({ indexes, sizeLimit, limits }: Params<'intent.grant'>): LimitOf {
  const asked = new Map(indexes.map((index, at) => [index, limits?.[at] ?? CHUNK_SIZE_BYTES]))
  // Nothing may be written behind what the quorum knows as the upper size (rule F8).
  return (index) => Math.min(asked.get(index) ?? 0, endInChunk(sizeLimit, index))
}

export interface IntentParts {
  readonly master: Master
  readonly view: ServersView
  readonly waiters: ChunkWaiters
  readonly recovery: Recovery
  readonly creator: ChunkCreator
  readonly locations: Locations
  readonly promises: SpacePromises
  /** Chunks that were given up to be compared are, or had their time (rule R2). */
  readonly compared: (chunks: readonly number[]) => Promise<void>
  /** Rule S1: nobody gets an intent of it at this moment. */
  readonly isHeld: (inode: number) => boolean
  /** Overlays that these metadata do not know read through it. */
  readonly isOverlaid: (chunk: number) => boolean
}

export class IntentService {
  readonly #parts: IntentParts
  /** `inode/index` being created: a repeated request waits for the first. */
  readonly #creating = new Map<string, Promise<unknown>>()

  constructor(parts: IntentParts) {
    this.#parts = parts
  }

  /** This member became master: what intents stand for is promised again (rule A2). */
  takeOver(): void {
    const { state } = this.#parts.master
    for (const { lease, inode } of state.leases.values()) {
      const file = state.inodes.get(inode)
      if (file === undefined) continue
      const limitOf = (index: number) => endInChunk(file.sizeLimit ?? file.size, index)
      for (const chunk of state.chunks.chunksWithIntent(lease)) this.#promise(file, chunk, limitOf)
    }
  }

  async grant(session: number, params: Params<'intent.grant'>): Promise<Granted> {
    const { master, locations } = this.#parts
    const { inode, lease, sizeLimit } = params
    this.#checkLease(session, lease, inode)
    const file = locations.file(inode)
    const indexes = [...new Set(params.indexes)].toSorted((a, b) => a - b)
    if (indexes.some((index) => index >= INDEX_MAX)) throw wireError('EFBIG', 'beyond the largest file')
    const limitOf = limitsOf(params)
    this.#checkHeld(inode)
    await this.#parts.compared(locations.chunksAt(file, indexes))
    await this.#prepare(locations.chunksAt(file, indexes))
    await this.#branchShared(file, lease, indexes, limitOf)
    this.#checkHeld(inode)
    this.#reserve(file, locations.chunksAt(file, indexes), limitOf)
    const propose = (chunks: number[]) =>
      master.log.propose({ type: 'intent.grant', lease, inode, chunks, sizeLimit })
    let proposed: ReturnType<typeof propose> | null = null
    await this.#createMissing(file, lease, indexes, limitOf, (created) => {
      // Right behind the creation, so that one commit carries both; it is applied to what exists then.
      proposed = propose([...locations.chunksAt(file, indexes), ...created])
    })
    const chunks = locations.chunksAt(file, indexes)
    const { granted } = valueOf(await (proposed ?? propose(chunks)))
    if (granted.length < chunks.length || chunks.length < indexes.length) {
      this.#refuseRest(lease, inode, new Set(granted), chunks)
    }
    // Again: the sweep may have taken the promise for that of an intent that has ended.
    for (const chunk of granted) this.#promise(file, chunk, limitOf)
    const located = locations.located(inode, granted)
    const { size, sizeLimit: limitKnown = 0 } = locations.file(inode)
    const limits = located.locations.map(({ chunk, index }) => {
      // What the replicas had before a truncation is behind the upper size by now (rule F8).
      const baseBytes = this.#parts.promises.baseBytesOf(chunk) ?? 0
      return Math.max(limitOf(index), Math.min(baseBytes, endInChunk(Math.max(size, limitKnown), index)))
    })
    return { ...located, limits }
  }

  /** Rule A2: the members of chunks that exist have the room, or the answer is ENOSPC. */
  #reserve(file: InodeRow, chunks: readonly number[], limitOf: LimitOf): void {
    for (const chunk of chunks) {
      const request = this.#requestOf(file, chunk, limitOf)
      const full = request === null ? null : this.#parts.promises.serverWithoutRoom(request)
      if (full !== null) throw wireError('ENOSPC', `CS#${full} has no room for more of chunk ${chunk}`)
      if (request !== null) this.#parts.promises.promise(request)
    }
  }

  #promise(file: InodeRow, chunk: number, limitOf: LimitOf): void {
    const request = this.#requestOf(file, chunk, limitOf)
    if (request !== null) this.#parts.promises.promise(request)
  }

  #requestOf(file: InodeRow, chunk: number, limitOf: LimitOf): SpaceRequest | null {
    const row = this.#parts.master.state.chunks.get(chunk)
    if (row === undefined || !isHeldBy(row, file.inode)) return null
    const servers = row.members.map((member) => member.server)
    // An overlay may have nothing of what the file has there.
    const assumedBytes = row.overlays === undefined ? endInChunk(file.size, row.index) : 0
    const baseBytes = this.#parts.promises.baseBytesOf(chunk) ?? assumedBytes
    // The bytes that the replicas have may be written again, whatever was asked for.
    return { chunk, servers, limitBytes: Math.max(limitOf(row.index), baseBytes), baseBytes }
  }

  async clear(session: number, params: Params<'intent.clear'>): Promise<Record<string, never>> {
    const { inode, lease, chunks } = params
    this.#checkLease(session, lease, inode)
    valueOf(await this.#parts.master.log.propose({ type: 'intent.clear', lease, inode, chunks }))
    return {}
  }

  /** For reading. Clients get active epochs only: what is pending or dirty is waited for (rules E1, J1). */
  async locate(params: Params<'chunk.locate'>): Promise<Located> {
    const { locations, master } = this.#parts
    const { inode, indexes } = params
    for (let round = 0; round < LOCATE_ROUND_COUNT_MAX; round++) {
      // Half of it is what it was, half what it will be.
      if (master.state.copies.get(inode)?.kind === 'rollback')
        throw wireError('TRY_AGAIN', 'the file is being rolled back')
      const chunks = locations.chunksAt(locations.file(inode), indexes)
      if (locations.areSettled(chunks)) return locations.located(inode, chunks)
      // Meanwhile others may come into the list: what is left out of the answer counts as a hole (rule E4).
      await this.awaitSettled(chunks)
    }
    throw wireError('TRY_AGAIN', 'chunks are being reconfigured')
  }

  async awaitSettled(chunks: readonly number[]): Promise<void> {
    const { waiters, recovery, master } = this.#parts
    for (const chunk of chunks) {
      const row = master.state.chunks.get(chunk)
      if (row !== undefined && !isSettled(row)) recovery.look(chunk, 'first')
    }
    if (!(await waiters.wait(chunks))) throw wireError('TRY_AGAIN', 'chunks are being reconfigured')
  }

  #checkLease(session: number, lease: number, inode: number): void {
    const row = this.#parts.master.state.leases.get(lease)
    if (row === undefined || row.session !== session || row.inode !== inode) {
      throw wireError('NO_LEASE', `lease ${lease} of inode ${inode} has ended`)
    }
  }

  /** Settled, and without silent members as far as that can be had. */
  async #prepare(chunks: readonly number[]): Promise<void> {
    const { master, recovery } = this.#parts
    for (let round = 0; round < PREPARE_ROUND_COUNT_MAX; round++) {
      await this.awaitSettled(chunks)
      const silent = chunks.filter((chunk) => {
        const row = master.state.chunks.get(chunk)
        return row !== undefined && this.#hasSilentMember(row)
      })
      if (silent.length === 0) return
      await Promise.all(silent.map((chunk) => recovery.prepareForIntent(chunk)))
    }
    throw wireError('TRY_AGAIN', 'silent members of a chunk are being removed')
  }

  #hasSilentMember(row: ChunkRow): boolean {
    const { view } = this.#parts
    const isSilent = (member: { server: number }) => !view.isReachable(member.server)
    const silent = row.members.filter(isSilent)
    if (silent.length === 0) return false
    const awaited = silent.find(({ server }) => view.isAwaited(server))
    if (awaited !== undefined) {
      throw wireError('TRY_AGAIN', `CS#${awaited.server} has not registered with the new master yet`)
    }
    // Without any reachable in-sync member nothing can be removed (rule G2): I/O is held.
    if (!row.members.some((member) => member.role === 'in-sync' && !isSilent(member))) {
      mark('the last replicas in sync are waited for')
      throw wireError('TRY_AGAIN', 'no replica of a chunk is reachable')
    }
    return true
  }

  async #createMissing(
    file: InodeRow,
    lease: number,
    indexes: readonly number[],
    limitOf: LimitOf,
    onProposed: (chunks: readonly number[]) => void,
  ): Promise<void> {
    const { master, creator } = this.#parts
    const missing = indexes.filter((index) => !file.chunks.has(index))
    if (missing.length === 0) return
    if (await this.#awaitCreation(file, missing))
      return await this.#createMissing(file, lease, indexes, limitOf, onProposed)
    if (master.state.chunks.intentCount(lease) + missing.length > LEASE_INTENT_COUNT_MAX) {
      throw wireError('OVERLOADED', 'the lease has too many intents: give some back first')
    }
    await this.#creationOf(file, missing, creator.create(file, lease, missing, limitOf, onProposed))
  }

  /** Rule S1: the first write to a shared chunk goes to a child of it. */
  async #branchShared(
    file: InodeRow,
    lease: number,
    indexes: readonly number[],
    limitOf: LimitOf,
  ): Promise<void> {
    const { master, creator, locations, isOverlaid } = this.#parts
    const shared = locations
      .chunksAt(file, indexes)
      .map((chunk) => master.state.chunks.get(chunk))
      .filter((row) => row !== undefined)
      .filter((row) => isShared(master.state, row) || isOverlaid(row.chunk))
    if (shared.length === 0) return
    const places = shared.map(({ index }) => index)
    if (await this.#awaitCreation(file, places))
      return await this.#branchShared(file, lease, indexes, limitOf)
    if (master.state.chunks.intentCount(lease) + shared.length > LEASE_INTENT_COUNT_MAX)
      throw wireError('OVERLOADED', 'the lease has too many intents: give some back first')
    await this.#creationOf(file, places, creator.branch(file, lease, shared, limitOf))
  }

  /** True: something was being created there, and is not any more. */
  async #awaitCreation(file: InodeRow, indexes: readonly number[]): Promise<boolean> {
    const running = indexes
      .map((index) => this.#creating.get(`${file.inode}/${index}`))
      .filter((entry) => entry !== undefined)
    await Promise.allSettled(running)
    return running.length > 0
  }

  async #creationOf(file: InodeRow, indexes: readonly number[], creating: Promise<unknown>): Promise<void> {
    const keys = indexes.map((index) => `${file.inode}/${index}`)
    for (const key of keys) this.#creating.set(key, creating)
    try {
      await creating
    } finally {
      for (const key of keys) this.#creating.delete(key)
    }
  }

  #checkHeld(inode: number): void {
    if (this.#parts.isHeld(inode)) throw wireError('TRY_AGAIN', 'the chunks of the file are being shared')
  }

  #refuseRest(lease: number, inode: number, granted: ReadonlySet<number>, chunks: readonly number[]): void {
    const { chunks: table } = this.#parts.master.state
    const isFull = table.intentCount(lease) >= LEASE_INTENT_COUNT_MAX
    if (isFull) throw wireError('OVERLOADED', 'the lease has too many intents: give some back first')
    const isElsewhere = chunks.some((chunk) => !granted.has(chunk) && table.get(chunk)?.inode !== inode)
    throw wireError('TRY_AGAIN', isElsewhere ? 'the file changed' : 'chunks are being reconfigured')
  }
}
