/**
 * Shows chunks whose replicas in sync are all unreachable or lost, with what stale replicas there are, and promotes
 * one of those when an administrator says so (rule G2, chunks/promotion.ts). It asks the chunk servers what they
 * hold; an answer is of that moment, and `apply` checks again that the chunk has not changed since.
 */
import type { ChunkServerOrderMethods } from '../../../wire/messages/chunk.ts'
import type { ParamsOf, ResultOf } from '../../../wire/messages/method.ts'
import type { promotionMethods, StaleReplica, StrandedChunk } from '../../../wire/messages/promotion.ts'
import { committedVersion } from '../../chunks/condemning.ts'
import type { DamagedReplicas } from '../../control/replication/damaged-replicas.ts'
import type { EventRecorder } from '../../control/servers/event-recorder.ts'
import type { Master } from '../../control/servers/master.ts'
import type { ServerConnection } from '../../control/servers/server-connection.ts'
import type { ServersView } from '../../control/servers/servers-view.ts'
import type { Troubles } from '../../control/servers/troubles.ts'
import { wireError } from '../../errors.ts'
import { valueOf } from '../../state/result.ts'
import type { ChunkRow } from '../../state/rows.ts'

type Methods = typeof promotionMethods
type Description = ResultOf<ChunkServerOrderMethods, 'replica.describe'>

const SHOWN_COUNT_MAX = 100
const DESCRIBE_TIMEOUT_MS = 5_000

export interface PromotionServiceParts {
  readonly master: Master
  readonly view: ServersView
  readonly troubles: Troubles
  readonly damaged: DamagedReplicas
  readonly events: EventRecorder
  readonly connectionOf: (server: number) => ServerConnection | undefined
}

export class PromotionService {
  readonly #parts: PromotionServiceParts

  constructor(parts: PromotionServiceParts) {
    this.#parts = parts
  }

  async stranded({
    chunk,
  }: ParamsOf<Methods, 'admin.stranded'>): Promise<ResultOf<Methods, 'admin.stranded'>> {
    const { chunks } = this.#parts.master.state
    const rows: ChunkRow[] = []
    let total = 0
    for (const id of chunk === 0 ? this.#candidates() : [chunk]) {
      const row = chunks.get(id)
      if (row === undefined || !this.#isStranded(row)) continue
      total += 1
      if (rows.length < SHOWN_COUNT_MAX) rows.push(row)
    }
    return { chunks: await Promise.all(rows.map((row) => this.#describe(row))), total }
  }

  /** Chunks with a replica that left, and those with one whose disk went back in time. */
  #candidates(): ReadonlySet<number> {
    const { master, troubles } = this.#parts
    return new Set([...master.state.chunks.formerChunks(), ...troubles.rolledBackChunks()])
  }

  async promote({
    chunk,
    version,
    server,
  }: ParamsOf<Methods, 'admin.promote'>): Promise<Record<string, never>> {
    const { master, events } = this.#parts
    const row = master.state.chunks.get(chunk)
    if (row === undefined) throw wireError('NOT_FOUND', `there is no chunk ${chunk}`)
    this.#refuseUsable(row)
    const rolledBack = this.#isRolledBack(chunk, server)
    if (!this.#staleServers(row).includes(server))
      throw wireError('REFUSED', `CS#${server} has no stale replica of chunk ${chunk}`)
    const { obstacle, inSyncVersion } = await this.#stale(row, server)
    if (obstacle !== '') throw wireError('REFUSED', `CS#${server}: ${obstacle}`)
    const now = master.state.chunks.get(chunk)
    if (now !== undefined) this.#refuseUsable(now)
    valueOf(await master.log.propose({ type: 'replica.promote', chunk, from: version, server, rolledBack }))
    const what = `the stale replica of chunk ${chunk} of inode ${row.inode} on CS#${server}`
    const lost = `what was written after version ${inSyncVersion} (of ${version}) is lost`
    events.record('MDS', 'err', 'REPLICA_PROMOTED', `An administrator promoted ${what}: ${lost}`)
    return {}
  }

  #isStranded(row: ChunkRow): boolean {
    return this.#staleServers(row).length > 0 && this.#usable(row).length === 0
  }

  #refuseUsable(row: ChunkRow): void {
    const [usable] = this.#usable(row)
    if (usable !== undefined)
      throw wireError('REFUSED', `CS#${usable} has a replica of chunk ${row.chunk} in sync, and answers`)
  }

  /** Members in sync that answer and have their replica. */
  #usable({ chunk, members }: ChunkRow): number[] {
    const { view, troubles, damaged } = this.#parts
    const failed = troubles.failedOf(chunk)
    return members
      .filter(
        ({ role, server }) => role === 'in-sync' && (view.isReachable(server) || view.isAwaited(server)),
      )
      .map(({ server }) => server)
      .filter((server) => failed.get(server) !== 'lost' && !damaged.has(chunk, server))
      .filter((server) => !this.#isRolledBack(chunk, server))
  }

  /** Rule B3: a member that is never chosen by itself. */
  #isRolledBack(chunk: number, server: number): boolean {
    return this.#parts.troubles.uncleanOf(chunk).get(server) === 'rolled-back'
  }

  #staleServers({ chunk, members, former }: ChunkRow): number[] {
    const rolledBack = members.filter(({ server }) => this.#isRolledBack(chunk, server))
    return [...former, ...rolledBack].map(({ server }) => server)
  }

  async #describe(row: ChunkRow): Promise<StrandedChunk> {
    const { chunk, inode, index, members } = row
    const inSync = members
      .filter(({ role }) => role === 'in-sync')
      .map(({ server }) => ({ server, state: this.#stateOf(server) }))
    const stale = await Promise.all(this.#staleServers(row).map((server) => this.#stale(row, server)))
    return { chunk, inode, index, version: committedVersion(row), inSync, stale }
  }

  #stateOf(server: number): string {
    return this.#parts.master.state.servers.get(server)?.state ?? 'dropped'
  }

  async #stale(row: ChunkRow, server: number): Promise<StaleReplica> {
    const known = { server, state: this.#stateOf(server), inSyncVersion: 0, crashed: false }
    const connection = this.#parts.connectionOf(server)
    if (connection === undefined || !this.#parts.view.isReachable(server))
      return { ...known, obstacle: 'its server does not answer' }
    try {
      const order = { chunk: row.chunk }
      const options = { timeoutMs: DESCRIBE_TIMEOUT_MS }
      const found = await connection.orders.call('replica.describe', order, options)
      const { inSyncVersion, crashed } = found
      return { ...known, inSyncVersion, crashed, obstacle: obstacleOf(found, committedVersion(row)) }
    } catch (error) {
      return {
        ...known,
        obstacle: error instanceof Error ? error.message.slice(0, 200) : 'it cannot be asked',
      }
    }
  }
}

/** One that was never in sync has holes: they would read as zeros. */
function obstacleOf({ version, damaged, inSyncVersion }: Description, committed: number): string {
  if (damaged) return 'its file is gone or its state cannot be read'
  if (version > committed) return 'it is newer than these metadata: see the event METADATA_BEHIND'
  return inSyncVersion === 0 ? 'it was never in sync, so that pages are missing' : ''
}
