/**
 * Chunk servers as placement sees them, and what each has running. A server counts as active here only
 * while its connection is open and its inventory has been read; between a lost connection and the verdict
 * "inactive" it is treated as silent already. A new master knows nobody yet: who was active before it is
 * awaited for a short time, and nothing is decided against it meanwhile (rules F5, L11).
 */
import type { PlacementServer } from '../../../placement/topology.ts'
import type { ServerRow } from '../../state/rows.ts'
import type { Master } from './master.ts'
import type { ServerConnection } from './server-connection.ts'

/** A disk that hangs this long gets nothing new (rule A1). */
const HUNG_IO_AGE_MS = 10_000
/** Chunk servers are with a new master within about a second. */
const EARLY_MS = 2_000
/**
 * How long a new master waits for chunk servers that were active before it. They look for it all the time and are
 * there within about a second.
 */
export const AWAIT_SERVERS_MS = 5_000
/** H: I/O error, h: checksum errors, R: read-only, T: time-outs; S, s: journal or cache gone. */
const FAILURE_FLAGS = /[HRTSs]/

export class ServersView {
  readonly #master: Master
  readonly #connections: ReadonlyMap<number, ServerConnection>
  /** Bytes promised to chunks that are being written and do not show in free space yet (rule A2). */
  readonly #promisedBytes = new Map<number, number>()
  readonly #joinCounts = new Map<number, number>()
  #joinTotal = 0
  readonly #startedMs: number
  /** Committed as active, and this master has not heard of them yet. */
  readonly #awaited = new Set<number>()

  constructor(master: Master, connections: ReadonlyMap<number, ServerConnection>) {
    this.#master = master
    this.#connections = connections
    this.#startedMs = master.clock.nowMs()
    for (const { server, state } of master.state.servers.values()) {
      if (state === 'active') this.#awaited.add(server)
    }
  }

  /** May a server that is silent still register with this new master, as if nothing had happened? */
  isAwaited(server: number): boolean {
    return this.#awaited.has(server)
  }

  /** The first moments of a master: most servers are on their way. */
  get isEarly(): boolean {
    return this.#master.clock.nowMs() - this.#startedMs < EARLY_MS
  }

  /** A copy. */
  awaited(): number[] {
    return [...this.#awaited]
  }

  /** It has come, or it is silent in earnest. False: it was not awaited. */
  awaitNoMore(server: number): boolean {
    return this.#awaited.delete(server)
  }

  readonly serverOf = (server: number): PlacementServer | undefined => {
    const row = this.#master.state.servers.get(server)
    return row === undefined ? undefined : this.#view(row, true)
  }

  /** Servers for joiners: those with too many joins already do not accept. */
  forJoins(): PlacementServer[] {
    return this.#all(true)
  }

  forNewChunks(): PlacementServer[] {
    return this.#all(false)
  }

  isReachable(server: number): boolean {
    return this.#connections.get(server)?.isReported === true
  }

  isFailing(server: number): boolean {
    return this.#connections.get(server)?.isFailing === true
  }

  get joinTotal(): number {
    return this.#joinTotal
  }

  joinCount(server: number): number {
    return this.#joinCounts.get(server) ?? 0
  }

  countJoin(server: number, difference: 1 | -1): void {
    this.#joinTotal += difference
    const count = this.joinCount(server) + difference
    if (count <= 0) this.#joinCounts.delete(server)
    else this.#joinCounts.set(server, count)
  }

  /** Not promised to anybody; without a connection nobody knows. */
  freeBytesOf(server: number): number {
    const connection = this.#connections.get(server)
    if (connection === undefined) return Number.POSITIVE_INFINITY
    return connection.freeBytes - (this.#promisedBytes.get(server) ?? 0)
  }

  promise(server: number, bytes: number): void {
    const promised = (this.#promisedBytes.get(server) ?? 0) + bytes
    if (promised <= 0) this.#promisedBytes.delete(server)
    else this.#promisedBytes.set(server, promised)
  }

  #all(forJoins: boolean): PlacementServer[] {
    const servers: PlacementServer[] = []
    for (const row of this.#master.state.servers.values()) {
      if (row.state !== 'dropped') servers.push(this.#view(row, forJoins))
    }
    return servers
  }

  #view(row: ServerRow, forJoins: boolean): PlacementServer {
    const connection = this.#connections.get(row.server)
    const isHere = connection?.isReported === true
    const isWell =
      isHere &&
      !connection.isFailing &&
      !FAILURE_FLAGS.test(connection.flags) &&
      connection.oldestIoAgeMs < HUNG_IO_AGE_MS
    const hasRoomToJoin =
      !forJoins || this.joinCount(row.server) < this.#master.parameter('mds.replication.max_per_cs')
    return {
      server: row.server,
      hostId: row.hostId,
      location: row.location,
      tier: row.tier,
      totalBytes: connection?.totalBytes ?? row.totalBytes,
      freeBytes: (connection?.freeBytes ?? 0) - (this.#promisedBytes.get(row.server) ?? 0),
      state:
        row.state === 'active' && !isHere
          ? 'inactive'
          : row.state === 'inactive' && isHere
            ? 'active'
            : row.state,
      accepts: isWell && hasRoomToJoin,
      isFailing: connection?.isFailing === true,
    }
  }
}
