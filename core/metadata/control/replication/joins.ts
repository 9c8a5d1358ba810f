/**
 * Joins that run: a joiner takes all writes and pulls what it lacks from an in-sync member. Counted per
 * server and in all; any restart or epoch change starts the comparison again. Also carries the joins of a
 * reconciliation, which nobody counts. Tells what was copied (guide: "Replication started/completed").
 */
import { codeOf } from '../../../base/errors.ts'
import type { ChunkRow } from '../../state/rows.ts'
import type { EventRecorder } from '../servers/event-recorder.ts'
import type { Master } from '../servers/master.ts'
import type { ServerConnection } from '../servers/server-connection.ts'
import type { ServersView } from '../servers/servers-view.ts'

export const SOURCE_COUNT_MAX = 16

interface Join {
  readonly chunk: number
  readonly server: number
  readonly version: number
  readonly attempt: number
  readonly isRejoin: boolean
}

interface Copied {
  replicas: number
  rejoined: number
  bytes: number
  rejoinedBytes: number
}

export interface JoinFailure {
  joinFailed(chunk: number, server: number, reason: string): void
  /** It has failed so recently that it is not to be tried again yet (rule J6). */
  isBarred(chunk: number, server: number): boolean
}

export interface Source {
  readonly server: number
  readonly host: string
  readonly port: number
}

type Waiting = (reason: string) => void

function keyOf(chunk: number, server: number): string {
  return `${chunk}/${server}`
}

export class Joins {
  readonly #master: Master
  readonly #view: ServersView
  readonly #events: EventRecorder
  readonly #connectionOf: (server: number) => ServerConnection | undefined
  readonly #failure: JoinFailure
  /** By chunk, then server. */
  readonly #running = new Map<number, Map<number, Join>>()
  #count = 0
  /** No order for them is under way: there was no source, or it failed and the joiner may stay in its epoch. */
  readonly #unordered = new Set<Join>()
  readonly #rejoining = new Set<string>()
  readonly #reconciling = new Map<string, { readonly version: number; readonly done: Waiting }>()
  readonly #copied = new Map<number, Copied>()
  #isAnnounced = false

  constructor(
    master: Master,
    view: ServersView,
    events: EventRecorder,
    connectionOf: (server: number) => ServerConnection | undefined,
    failure: JoinFailure,
  ) {
    this.#master = master
    this.#view = view
    this.#events = events
    this.#connectionOf = connectionOf
    this.#failure = failure
  }

  get count(): number {
    return this.#count
  }

  /** Has the chunk a joiner at work? */
  isReplicating(chunk: number): boolean {
    return this.#running.has(chunk)
  }

  /** A copy. */
  #all(): Join[] {
    return [...this.#running.values()].flatMap((joins) => [...joins.values()])
  }

  chunks(): number[] {
    return [...this.#running.keys()]
  }

  /** Reachable ones first; silent ones count too, for a page that only they may have (rule J7). */
  sourcesFor(row: ChunkRow, except: number): Source[] {
    const reachable: Source[] = []
    const silent: Source[] = []
    for (const member of row.pending?.members ?? row.members) {
      if (member.role !== 'in-sync' || member.server === except) continue
      const source = this.addressOf(member.server)
      if (source !== null) (this.#view.isReachable(member.server) ? reachable : silent).push(source)
    }
    return reachable.length === 0 ? [] : [...reachable, ...silent].slice(0, SOURCE_COUNT_MAX)
  }

  addressOf(server: number): Source | null {
    const row = this.#master.state.servers.get(server)
    return row === undefined ? null : { server, host: row.host, port: row.port }
  }

  /** Joiners that started empty, or of which a former master knew better. */
  freshOf({ chunk, members }: ChunkRow): Set<number> {
    const joiners = members.filter(({ role }) => role === 'joining').map(({ server }) => server)
    return new Set(joiners.filter((server) => !this.#rejoining.has(keyOf(chunk, server))))
  }

  /** The proposal was made: these joiners have an old replica to compare with. */
  noteRejoining(chunk: number, servers: readonly number[]): void {
    for (const server of servers) this.#rejoining.add(keyOf(chunk, server))
  }

  /** Brings the running joins in line with the row after it changed. */
  follow(chunk: number, queuedCount: number): void {
    const row = this.#master.state.chunks.get(chunk)
    const joiners = row === undefined || row.pending !== null ? [] : row.members
    const wanted = new Map<number, Join>()
    for (const { server, role, attempt } of joiners) {
      if (role !== 'joining' || row === undefined) continue
      const isRejoin = this.#rejoining.has(keyOf(chunk, server))
      wanted.set(server, { chunk, server, version: row.version, attempt, isRejoin })
    }
    for (const join of [...(this.#running.get(chunk)?.values() ?? [])]) {
      if (wanted.get(join.server)?.version !== join.version) this.#end(join, row)
    }
    for (const join of wanted.values()) {
      if (this.#runningJoin(chunk, join.server) !== undefined) continue
      this.#announce(queuedCount)
      this.#begin(join)
    }
  }

  #runningJoin(chunk: number, server: number): Join | undefined {
    return this.#running.get(chunk)?.get(server)
  }

  /** The server has registered again: it forgot its joins (rule F1). */
  serverReady(server: number): void {
    for (const join of this.#all()) if (join.server === server) this.#order(join)
  }

  serverLost(server: number): void {
    for (const [key, waiting] of this.#reconciling) {
      if (key.endsWith(`/${server}`)) {
        this.#reconciling.delete(key)
        waiting.done('DISCONNECTED')
      }
    }
  }

  joined(
    server: number,
    report: { chunk: number; version: number; attempt: number; bytesPulled: number },
  ): void {
    const key = keyOf(report.chunk, server)
    const reconciling = this.#reconciling.get(key)
    if (reconciling !== undefined && reconciling.version === report.version) {
      this.#reconciling.delete(key)
      reconciling.done('')
      return
    }
    const join = this.#runningJoin(report.chunk, server)
    // Rule E6: only the attempt that runs.
    if (join === undefined || join.version !== report.version || join.attempt !== report.attempt) return
    this.#countBytes(join, report.bytesPulled)
    const { chunk, version, attempt } = report
    this.#master.submit({ type: 'join.complete', joins: [{ chunk, version, attempt, server }] })
  }

  joinFailed(
    server: number,
    report: { chunk: number; version: number; attempt: number; reason: string },
  ): void {
    const key = keyOf(report.chunk, server)
    const reconciling = this.#reconciling.get(key)
    if (reconciling !== undefined && reconciling.version === report.version) {
      this.#reconciling.delete(key)
      reconciling.done(report.reason)
      return
    }
    const join = this.#runningJoin(report.chunk, server)
    if (join === undefined || join.version !== report.version || join.attempt !== report.attempt) return
    this.#failed(join, report.reason)
  }

  /** Normally it leaves. When nothing can be decided, as its source is silent, it stays, and is tried again. */
  #failed(join: Join, reason: string): void {
    this.#unordered.add(join)
    this.#failure.joinFailed(join.chunk, join.server, reason)
  }

  /** Nothing is queued any more. */
  maybeComplete(): void {
    if (!this.#isAnnounced || this.#count > 0) return
    this.#isAnnounced = false
    for (const [server, copied] of this.#copied) this.#tellCopied(server, copied)
    this.#copied.clear()
    this.#events.record('MDS', 'info', 'REPLICATION_COMPLETED', 'Replication completed')
  }

  /** Makes one member equal to `source` within a reconciliation; '' or why not. */
  reconcileMember(chunk: number, version: number, server: number, source: Source): Promise<string> {
    const key = keyOf(chunk, server)
    return new Promise((resolve) => {
      const done = (reason: string) => resolve(reason)
      this.#reconciling.get(key)?.done('superseded')
      this.#reconciling.set(key, { version, done })
      const connection = this.#connectionOf(server)
      const ended = (reason: string) => {
        if (this.#reconciling.get(key)?.done === done) this.#reconciling.delete(key)
        resolve(reason)
      }
      if (connection === undefined) return ended('DISCONNECTED')
      connection.orders
        .call('replica.join', { chunk, version, attempt: 0, sources: [source] })
        .catch((error: unknown) => ended(codeOf(error)))
    })
  }

  #begin(join: Join): void {
    const joins = this.#running.get(join.chunk)
    if (joins === undefined) this.#running.set(join.chunk, new Map([[join.server, join]]))
    else joins.set(join.server, join)
    this.#count += 1
    this.#view.countJoin(join.server, 1)
    this.#order(join)
  }

  #end(join: Join, row: ChunkRow | undefined): void {
    const joins = this.#running.get(join.chunk)
    if (joins?.delete(join.server) !== true) return
    if (joins.size === 0) this.#running.delete(join.chunk)
    this.#count -= 1
    this.#view.countJoin(join.server, -1)
    // In the next epoch it compares again what it has by then; elsewhere the mark means nothing.
    const isMember = (member: { server: number; role: string }) =>
      member.server === join.server && member.role === 'joining'
    if (row?.members.some(isMember) === true || row?.pending?.members.some(isMember) === true) return
    this.#rejoining.delete(keyOf(join.chunk, join.server))
  }

  #order(join: Join): void {
    const connection = this.#connectionOf(join.server)
    const row = this.#master.state.chunks.get(join.chunk)
    if (connection === undefined || !connection.isReported || row === undefined) return
    const { chunk, version, attempt, server } = join
    const sources = this.sourcesFor(row, server)
    // Without a source it waits (rule J10); the sweep orders it later.
    this.#unordered.delete(join)
    if (sources.length === 0) {
      this.#unordered.add(join)
      return
    }
    const inSyncSince = inSyncSinceOf(row)
    connection.orders
      .call('replica.join', { chunk, version, attempt, sources, inSyncSince })
      .catch((error: unknown) => {
        if (this.#master.isStopped || this.#runningJoin(chunk, server) !== join) return
        this.#failed(join, codeOf(error))
      })
  }

  orderAgainIfStuck(): void {
    for (const join of [...this.#unordered]) {
      if (this.#runningJoin(join.chunk, join.server) !== join) this.#unordered.delete(join)
      else if (!this.#failure.isBarred(join.chunk, join.server)) this.#order(join)
    }
  }

  #announce(queuedCount: number): void {
    if (this.#isAnnounced) return
    this.#isAnnounced = true
    const count = Math.max(1, queuedCount)
    this.#events.record(
      'MDS',
      'info',
      'REPLICATION_STARTED',
      `Replication started, ${count} chunks are queued`,
    )
  }

  #countBytes(join: Join, bytes: number): void {
    let copied = this.#copied.get(join.server)
    if (copied === undefined) {
      copied = { replicas: 0, rejoined: 0, bytes: 0, rejoinedBytes: 0 }
      this.#copied.set(join.server, copied)
    }
    copied.replicas += 1
    copied.bytes += bytes
    if (!join.isRejoin) return
    copied.rejoined += 1
    copied.rejoinedBytes += bytes
  }

  #tellCopied(server: number, copied: Copied): void {
    const fresh = copied.replicas - copied.rejoined
    if (copied.rejoined > 0) {
      const message = `CS#${server} re-joined ${copied.rejoined} replicas, ${copied.rejoinedBytes} bytes were copied`
      this.#events.record('MDS', 'info', 'REPLICAS_REJOINED', message)
    }
    if (fresh > 0) {
      const message = `CS#${server} received ${fresh} new replicas, ${copied.bytes - copied.rejoinedBytes} bytes were copied`
      this.#events.record('MDS', 'info', 'REPLICAS_COPIED', message)
    }
  }
}

/** A reconciliation sets it for all members: what came later than it is later than the last reconciliation. */
export function inSyncSinceOf(row: ChunkRow): number {
  const members = row.members.filter(({ role }) => role === 'in-sync')
  return row.dirtyDead || members.length === 0 ? 0 : Math.min(...members.map(({ since }) => since))
}
