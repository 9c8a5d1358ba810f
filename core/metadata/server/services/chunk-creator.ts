/**
 * Makes new chunks: reserves ids ahead, chooses servers, has them create empty replicas durably (rule E12),
 * tries others when one fails, then commits. With fewer than `min` usable servers the request is held while
 * silent ones may return and refused with ENOSPC afterwards (rules A2, A4). What was created in vain is
 * condemned.
 */
import { chooseServers } from '../../../placement/selection.ts'
import { domainCount } from '../../../placement/topology.ts'
import { isKeptUnknown, nextVersion } from '../../chunks/administration.ts'
import { depthOf, OVERLAY_DEPTH_MAX } from '../../chunks/sharing.ts'
import type { EventRecorder } from '../../control/servers/event-recorder.ts'
import type { Master } from '../../control/servers/master.ts'
import type { ServerOrders } from '../../control/servers/server-orders.ts'
import type { ServersView } from '../../control/servers/servers-view.ts'
import type { SpacePromises } from '../../control/servers/space-promises.ts'
import { wireError } from '../../errors.ts'
import { type EffectivePlacement, effectivePlacement } from '../../namespace/placement.ts'
import { valueOf } from '../../state/result.ts'
import type { ChunkRow, InodeRow } from '../../state/rows.ts'

const RESERVE_COUNT = 1024
const ROUND_COUNT_MAX = 3
/** The least a new chunk is expected to need. */
const CHUNK_BYTES_MIN = 64 * 1024
const CREATING_COUNT_MAX = 65_536

interface NewChunk {
  readonly chunk: number
  readonly index: number
  readonly version: number
  /** Of a child: overlays over its replicas. 0: none. */
  readonly parent: number
  readonly bytes: number
  readonly members: number[]
  /** Servers that were asked and may have created it. */
  readonly doubtful: Set<number>
  readonly excluded: Set<number>
}

export interface CreatorParts {
  readonly master: Master
  readonly view: ServersView
  readonly orders: ServerOrders
  readonly events: EventRecorder
  readonly promises: SpacePromises
  /** An older one would make an empty replica instead of an overlay. */
  readonly knowsOverlays: (server: number) => boolean
}

export class ChunkCreator {
  readonly #parts: CreatorParts
  readonly #creating = new Set<number>()
  #nextId = 0
  #endId = 0
  #reserving: Promise<void> | null = null

  constructor(parts: CreatorParts) {
    this.#parts = parts
  }

  isCreating(chunk: number): boolean {
    return this.#creating.has(chunk)
  }

  /**
   * Ids of the chunks at `indexes`, which did not exist; created in the name of `lease`. `limitOf`: how much
   * room is promised to the chunk at an index (rule A2).
   */
  async create(
    file: InodeRow,
    lease: number,
    indexes: readonly number[],
    limitOf: (index: number) => number,
    onProposed: (chunks: readonly number[]) => void,
  ): Promise<number[]> {
    const { master } = this.#parts
    if (this.#creating.size + indexes.length > CREATING_COUNT_MAX) {
      throw wireError('OVERLOADED', 'too many chunks are being created')
    }
    const placement = effectivePlacement(file)
    this.#checkAwaited(placement)
    await this.#reserve(indexes.length)
    const wanted = indexes.map((index) => this.#newChunk(index, limitOf(index)))
    return await this.#making(wanted, async () => {
      await this.#place(file, placement, lease, wanted)
      const chunks = wanted.map(({ chunk, index, members }) => ({ chunk, index, members }))
      const command = { type: 'chunk.create' as const, lease, inode: file.inode, chunks }
      const proposed = master.log.propose(command)
      onProposed(chunks.map(({ chunk }) => chunk))
      const { created } = valueOf(await proposed) as { created: number[] }
      return created
    })
  }

  /**
   * Children of shared chunks, which take their places (docs/formats/snapshots.md): overlays on the members in sync
   * that answer. Fewer than may be written to are waited for; a full one is ENOSPC, said now (rule A2).
   */
  async branch(
    file: InodeRow,
    lease: number,
    parents: readonly ChunkRow[],
    limitOf: (index: number) => number,
  ): Promise<void> {
    const { master } = this.#parts
    if (this.#creating.size + parents.length > CREATING_COUNT_MAX)
      throw wireError('OVERLOADED', 'too many chunks are being created')
    if (parents.some(({ chunk }) => depthOf(master.state, chunk) >= OVERLAY_DEPTH_MAX))
      throw wireError('TRY_AGAIN', 'overlays of a chunk are being merged')
    const { replicasMinimum } = effectivePlacement(file)
    await this.#reserve(parents.length)
    const wanted = parents.map((row) => this.#newChunk(row.index, limitOf(row.index), row))
    await this.#making(wanted, async () => {
      await Promise.all(parents.flatMap((row, at) => this.#askOverlays(row, lease, wanted[at] as NewChunk)))
      for (const [at, row] of parents.entries()) {
        const { members } = wanted[at] as NewChunk
        const inSyncCount = row.members.filter(({ role }) => role === 'in-sync').length
        if (members.length === 0 || members.length < Math.min(replicasMinimum, inSyncCount))
          throw wireError('TRY_AGAIN', `not enough members of chunk ${row.chunk} can be written to`)
      }
      const chunks = wanted.map(({ chunk, parent, version, members }) => ({
        chunk,
        parent,
        version,
        members,
      }))
      const command = { type: 'chunk.branch' as const, lease, inode: file.inode, chunks }
      return valueOf(await master.log.propose(command)).branched
    })
  }

  /** `make` answers with the ids that the quorum took. */
  async #making(wanted: readonly NewChunk[], make: () => Promise<number[]>): Promise<number[]> {
    for (const { chunk } of wanted) this.#creating.add(chunk)
    try {
      const made = await make()
      this.#settle(wanted, new Set(made))
      return made
    } catch (error) {
      this.#settle(wanted, new Set())
      throw error
    } finally {
      for (const { chunk } of wanted) this.#creating.delete(chunk)
    }
  }

  /** A new master: with `min` servers it goes on soon, with fewer when nobody else can be expected any more. */
  #checkAwaited({ failureDomain, replicasNormal, replicasMinimum }: EffectivePlacement): void {
    const { view } = this.#parts
    if (view.awaited().length === 0) return
    const present = view.forNewChunks().filter((server) => server.state === 'active')
    const wanted = view.isEarly ? replicasNormal : replicasMinimum
    if (domainCount(present, failureDomain) < wanted) {
      throw wireError('TRY_AGAIN', 'not all chunk servers have registered with the new master yet')
    }
  }

  async #reserve(count: number): Promise<void> {
    const { master } = this.#parts
    // Rule G1: reserved before the alarm; a history that these metadata do not remember may have used them.
    if (isKeptUnknown(master.state, this.#endId - 1)) this.#nextId = this.#endId
    while (this.#endId - this.#nextId < count) {
      this.#reserving ??= master.log
        .propose({ type: 'chunk.reserve', count: RESERVE_COUNT })
        .then((result) => {
          const { from } = valueOf(result)
          this.#nextId = from
          this.#endId = from + RESERVE_COUNT
        })
        .finally(() => {
          this.#reserving = null
        })
      await this.#reserving
    }
  }

  #newChunk(index: number, limitBytes: number, parent?: ChunkRow): NewChunk {
    const chunk = this.#nextId
    this.#nextId += 1
    const bytes = Math.max(CHUNK_BYTES_MIN, limitBytes)
    // Rule S4: what the child has is newer than all that its parent has.
    const version = parent === undefined ? 1 : nextVersion(this.#parts.master.state, parent.version)
    const places = { members: [], doubtful: new Set<number>(), excluded: new Set<number>() }
    return { chunk, index, version, parent: parent?.chunk ?? 0, bytes, ...places }
  }

  #askOverlays(parent: ChunkRow, lease: number, child: NewChunk): Promise<void>[] {
    const { view, promises, knowsOverlays } = this.#parts
    const servers = parent.members
      .filter(({ role, server }) => role === 'in-sync' && view.isReachable(server) && knowsOverlays(server))
      .map(({ server }) => server)
    const request = { chunk: child.chunk, servers, limitBytes: child.bytes, baseBytes: 0 }
    const full = promises.serverWithoutRoom(request)
    if (full !== null)
      throw wireError('ENOSPC', `CS#${full} has no room for a child of chunk ${parent.chunk}`)
    for (const server of servers) child.doubtful.add(server)
    promises.promise(request)
    return servers.map((server) => this.#create(server, lease, child))
  }

  #create(server: number, lease: number, chunk: NewChunk): Promise<void> {
    const { version, parent } = chunk
    const order = { chunk: chunk.chunk, version, role: 'in-sync' as const, lease }
    return new Promise((resolve) =>
      this.#parts.orders.create(
        server,
        parent === 0 ? order : { ...order, parent },
        () => this.#creating.has(chunk.chunk),
        (code) => {
          if (code === '') chunk.members.push(server)
          else chunk.excluded.add(server)
          resolve()
        },
      ),
    )
  }

  async #place(
    file: InodeRow,
    placement: EffectivePlacement,
    lease: number,
    wanted: readonly NewChunk[],
  ): Promise<void> {
    for (let round = 0; round < ROUND_COUNT_MAX; round++) {
      const asked: Promise<void>[] = []
      for (const chunk of wanted) asked.push(...this.#ask(placement, lease, chunk))
      if (asked.length === 0) break
      await Promise.all(asked)
    }
    for (const chunk of wanted) {
      if (chunk.members.length < placement.replicasMinimum) this.#refuse(file, placement, chunk)
    }
  }

  #ask(placement: EffectivePlacement, lease: number, chunk: NewChunk): Promise<void>[] {
    const { master, view } = this.#parts
    const missing = placement.replicasNormal - chunk.members.length
    if (missing <= 0) return []
    const servers = view.forNewChunks().filter(({ server }) => !chunk.excluded.has(server))
    const occupied = servers.filter(({ server }) => chunk.members.includes(server))
    const policy = {
      failureDomain: placement.failureDomain,
      tier: placement.tier,
      fillMarginPct: master.parameter('mds.alloc.fill_margin'),
      replicaBytes: chunk.bytes,
    }
    const { chosen } = chooseServers(missing, servers, occupied, policy, master.random)
    return chosen.map(({ server }) => {
      chunk.doubtful.add(server)
      const servers = [...chunk.doubtful]
      this.#parts.promises.promise({ chunk: chunk.chunk, servers, limitBytes: chunk.bytes, baseBytes: 0 })
      return this.#create(server, lease, chunk)
    })
  }

  #refuse(file: InodeRow, placement: EffectivePlacement, chunk: NewChunk): never {
    const { view, events } = this.#parts
    const all = view.forNewChunks()
    const available = all.filter((server) => server.state === 'active' && !chunk.excluded.has(server.server))
    const missing = placement.replicasNormal - chunk.members.length
    const message = `Failed to allocate ${missing} replicas for inode ${file.inode} - ${available.length} out of ${all.length} chunk servers are available`
    events.record('MDS', 'warn', 'ALLOCATION_FAILED', message, 'new')
    const mayReturn = all.filter((server) => server.state === 'inactive' || server.state === 'active')
    const domains = domainCount(mayReturn, placement.failureDomain)
    const hasSilent = mayReturn.some(
      (server) => server.state === 'inactive' || chunk.excluded.has(server.server),
    )
    // Rule A4: held while silent servers may return; without hope the caller hears it at once.
    if (hasSilent && domains >= placement.replicasMinimum) {
      throw wireError('TRY_AGAIN', 'not enough chunk servers answer; silent ones may return')
    }
    throw wireError('ENOSPC', message)
  }

  /** Chunks that were not committed end; replicas in doubt are remembered. */
  #settle(wanted: readonly NewChunk[], created: ReadonlySet<number>): void {
    const { master } = this.#parts
    const former: { chunk: number; server: number; version: number; exists: boolean }[] = []
    const condemned: { chunk: number; server: number; versionMax: number }[] = []
    for (const { chunk, version, members, doubtful } of wanted) {
      if (!created.has(chunk)) this.#parts.promises.ended(chunk, false)
      for (const server of doubtful) {
        if (!created.has(chunk)) condemned.push({ chunk, server, versionMax: version })
        else if (!members.includes(server)) former.push({ chunk, server, version, exists: true })
      }
    }
    if (former.length > 0) master.submit({ type: 'replica.former', replicas: former })
    if (condemned.length > 0) master.submit({ type: 'replica.condemn', replicas: condemned })
  }
}
