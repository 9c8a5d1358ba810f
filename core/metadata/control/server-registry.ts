/**
 * Chunk servers as they come and go: registration (rule B3), full report, heartbeats, and the verdicts
 * inactive and offline. Timers are soft and start afresh with every master (rule L11); verdicts are commands.
 */
import type { ChunkServerUpMethods } from '../../wire/messages/chunk.ts'
import type { ParamsOf, ResultOf } from '../../wire/messages/method.ts'
import type { Peer } from '../../wire/types.ts'
import { wireError } from '../errors.ts'
import type { CommandOf, OutcomeOf } from '../state/apply.ts'
import { MARKS_LEVEL } from '../state/feature-levels.ts'
import { valueOf } from '../state/result.ts'
import type { ServerRow } from '../state/rows.ts'
import type { ClusterHealth } from './cluster-health.ts'
import type { EventRecorder } from './servers/event-recorder.ts'
import type { Master } from './servers/master.ts'
import type { ReportProcessing } from './report-processing.ts'
import type { DiskMarks } from './servers/disk-marks.ts'
import { ServerConnection } from './servers/server-connection.ts'
import type { SpacePromises } from './servers/space-promises.ts'
import type { Troubles } from './servers/troubles.ts'
import { AWAIT_SERVERS_MS } from './servers/servers-view.ts'

const TICK_MS = 250
const HEARTBEAT_MS = 1000
const PING_TIMEOUT_MS = 2000

type Up = ChunkServerUpMethods

export interface RegistryParts {
  readonly master: Master
  readonly connections: Map<number, ServerConnection>
  readonly reports: Pick<ReportProcessing, 'page' | 'end'>
  readonly troubles: Troubles
  readonly health: ClusterHealth
  readonly events: EventRecorder
  /** It may get orders. */
  readonly onReady: (connection: ServerConnection) => void
  readonly onLost: (server: number) => void
  readonly onStateChanged: (server: number) => void
  readonly promises: SpacePromises
  readonly marks: DiskMarks
}

export class ServerRegistry {
  readonly #parts: RegistryParts
  readonly #byPeer = new Map<Peer, ServerConnection>()
  /** Registrations under way, so that two of one store follow each other. */
  readonly #registering = new Set<string>()
  /** Since when a server has not been heard, as this master counts. */
  readonly #silentSinceMs = new Map<number, number>()
  readonly #inactiveSinceMs = new Map<number, number>()
  readonly #deciding = new Set<number>()
  readonly #startedMs: number

  constructor(parts: RegistryParts) {
    this.#parts = parts
    this.#startedMs = parts.master.clock.nowMs()
    parts.master.every(TICK_MS, () => this.#tick())
  }

  connectionFor(peer: Peer): ServerConnection {
    const connection = this.#byPeer.get(peer)
    if (connection === undefined) throw wireError('REFUSED', 'register first')
    return connection
  }

  async register(params: ParamsOf<Up, 'cs.register'>, peer: Peer): Promise<ResultOf<Up, 'cs.register'>> {
    const { master } = this.#parts
    if (this.#byPeer.has(peer) || this.#registering.has(params.storeUuid)) {
      throw wireError('REFUSED', 'this store is registering already')
    }
    this.#registering.add(params.storeUuid)
    try {
      await this.#replaceEarlier(params, peer)
      const result = valueOf(await master.log.propose(this.#registration(params)))
      if (peer.state !== 'ready' || master.isStopped)
        throw wireError('DISCONNECTED', 'the connection is gone')
      const { server, registration, rolledBack } = result
      this.#connected(result, params, peer)
      const { incarnation, uncleanStop } = params
      master.logger.info('chunk server registered', { server, incarnation, uncleanStop, rolledBack })
      if (rolledBack) this.#tellRolledBack(server)
      return { server, registration, heartbeatMs: HEARTBEAT_MS, ...(rolledBack ? { rolledBack } : {}) }
    } catch (error) {
      master.logger.warn('registration refused', { server: params.server, error: String(error) })
      throw error
    } finally {
      this.#registering.delete(params.storeUuid)
    }
  }

  #registration(params: ParamsOf<Up, 'cs.register'>): CommandOf<'server.register'> {
    const { master, marks: disks } = this.#parts
    const { replicaCount: _count, overlays: _overlays, uncleanStop: _stop, space, marks, ...facts } = params
    const command = { type: 'server.register' as const, ...facts, totalBytes: space.totalBytes }
    if (marks === undefined || master.state.level.inForce < MARKS_LEVEL) return command
    return { ...command, marks, marksHeard: disks.heardOf(params.server) }
  }

  #tellRolledBack(server: number): void {
    const message =
      `CS#${server} went back in time: its disk lacks what was written on it (a snapshot or a backup was restored). ` +
      'All its replicas join again'
    this.#parts.events.record('CS', 'err', 'DISK_ROLLED_BACK', message, String(server))
  }

  async report(params: ParamsOf<Up, 'cs.report'>, peer: Peer): Promise<Record<string, never>> {
    const { master, reports } = this.#parts
    const connection = this.connectionFor(peer)
    if (connection.reported === null) throw wireError('REFUSED', 'the report has ended')
    reports.page(connection, params.replicas)
    if (!params.last) return {}
    await reports.end(connection)
    const { server } = connection
    const wasActive = master.state.servers.get(server)?.state === 'active'
    // Confirms the registration number, too (rule B3): it was stored before the report.
    const { marksLeft } = connection
    const marks = marksLeft === null ? {} : { marks: marksLeft }
    valueOf(await master.log.propose({ type: 'server.state', server, state: 'active', ...marks }))
    if (this.#parts.connections.get(server) !== connection) throw wireError('DISCONNECTED', 'superseded')
    connection.isReported = true
    this.#silentSinceMs.delete(server)
    this.#inactiveSinceMs.delete(server)
    this.#parts.onReady(connection)
    if (!wasActive) this.#parts.onStateChanged(server)
    this.#maybeInformed()
    return {}
  }

  heartbeat(params: ParamsOf<Up, 'cs.heartbeat'>, peer: Peer): Record<string, never> {
    const connection = this.connectionFor(peer)
    const { promises } = this.#parts
    // Rule B3: a counter that does not rise comes from a copy of the process.
    if (params.counter <= connection.heartbeatCounter) {
      peer.close('the heartbeat counter went back')
      throw wireError('REFUSED', 'the heartbeat counter went back')
    }
    const nowMs = this.#parts.master.clock.nowMs()
    connection.heartbeatCounter = params.counter
    if (params.marks !== undefined) this.#parts.marks.heard(connection, params.marks)
    connection.lastHeartbeatMs = nowMs
    connection.totalBytes = params.space.totalBytes
    connection.freeBytes = params.space.freeBytes
    for (const { chunk, bytes } of params.grown ?? []) promises.grew(connection.server, chunk, bytes)
    promises.heartbeat(connection.server)
    connection.oldestIoAgeMs = params.oldestIoAgeMs
    connection.samples.add(nowMs, params.counters)
    connection.due = params.due ?? []
    if (params.flags !== connection.flags) this.#flagsChanged(connection, params.flags)
    this.#judgeDisk(connection, params.counters['badChunks'] ?? 0, params.givenUp === true)
    return {}
  }

  /** One that is connected and does not know overlays. */
  outdatedServer(): number | undefined {
    for (const connection of this.#parts.connections.values())
      if (!connection.knowsOverlays) return connection.server
    return undefined
  }

  /** Rule A1: does the server answer the master itself? */
  async answers(server: number): Promise<boolean> {
    const connection = this.#parts.connections.get(server)
    if (connection === undefined) return false
    try {
      const { incarnation } = await connection.orders.call('cs.ping', {}, { timeoutMs: PING_TIMEOUT_MS })
      return incarnation === connection.incarnation
    } catch {
      // Any failure to answer is the answer.
      return false
    }
  }

  async #replaceEarlier(params: ParamsOf<Up, 'cs.register'>, peer: Peer): Promise<void> {
    const { connections, events } = this.#parts
    const earlier = connections.get(params.server)
    if (earlier === undefined || earlier.peer === peer) return
    // The same process again over a new connection, or a new process while the old one is gone.
    const isOtherProcess = earlier.incarnation !== params.incarnation
    if (isOtherProcess && (await this.answers(params.server))) {
      const message = `A second store claims to be CS#${params.server} and was refused: it is a copy`
      events.record('MDS', 'err', 'STORE_COPY', message, String(params.server))
      throw wireError('REFUSED', `CS#${params.server} is running: this store is a copy of it`)
    }
    earlier.peer.close('registered again')
    this.#disconnected(earlier)
  }

  #connected(
    { server, restarted, rolledBack }: OutcomeOf<'server.register'>,
    params: ParamsOf<Up, 'cs.register'>,
    peer: Peer,
  ): void {
    const { connections, master, troubles, marks } = this.#parts
    marks.forget(server)
    const connection = new ServerConnection(server, peer, {
      incarnation: params.incarnation,
      totalBytes: params.space.totalBytes,
      freeBytes: params.space.freeBytes,
      nowMs: master.clock.nowMs(),
      knowsOverlays: params.overlays === true,
      isRestarted: restarted && params.uncleanStop !== 'none',
      marksLeft: rolledBack ? (params.marks ?? 0) : null,
    })
    connections.set(server, connection)
    this.#byPeer.set(peer, connection)
    troubles.clearServer(server)
    peer.onClosed(() => this.#disconnected(connection))
  }

  #disconnected(connection: ServerConnection): void {
    const { connections, master } = this.#parts
    this.#byPeer.delete(connection.peer)
    if (connections.get(connection.server) !== connection) return
    connections.delete(connection.server)
    if (master.isStopped) return
    // Counted from what was heard last, not from when the loss was noticed. One that never gets as far as its report
    // (its disk may have died) has not been heard: else it would register again and again and never be silent.
    if (connection.isReported) this.#silentSinceMs.set(connection.server, connection.lastHeartbeatMs)
    this.#parts.promises.serverLost(connection.server)
    this.#parts.onLost(connection.server)
  }

  #flagsChanged(connection: ServerConnection, flags: string): void {
    const failures = Array.from(flags).filter(
      (flag) => 'HhRTSs'.includes(flag) && !connection.flags.includes(flag),
    )
    connection.flags = flags
    if (failures.length === 0) return
    const message = `CS#${connection.server} has reported hard error on its disk (flags ${flags})`
    this.#parts.events.record(
      'CS',
      'warn',
      'HARD_ERROR',
      message,
      `${connection.server} ${failures.join('')}`,
    )
  }

  /**
   * Rule R1: a bad page costs a page, many of them the disk. So do writes that fail (rule F7): also what nobody uses
   * leaves such a disk, where no page can be repaired any more.
   */
  #judgeDisk(connection: ServerConnection, badChunks: number, isGivenUp: boolean): void {
    const { master, events, onStateChanged } = this.#parts
    const maximum = master.parameter('cs.bad_chunks_max')
    const isFailing = isGivenUp || (maximum > 0 && badChunks > maximum)
    if (isFailing === connection.isFailing) return
    connection.isFailing = isFailing
    if (isFailing) {
      const what = isGivenUp
        ? 'and takes no writes any more'
        : `on pages of ${badChunks} chunks (cs.bad_chunks_max=${maximum})`
      const message =
        `CS#${connection.server} has reported hard error ${what}: ` +
        'its replicas are moved to other chunk servers. Replace the disk'
      events.record('CS', 'err', 'DISK_FAILING', message, String(connection.server))
    }
    if (connection.isReported) onStateChanged(connection.server)
  }

  #tick(): void {
    const { master, connections } = this.#parts
    const nowMs = master.clock.nowMs()
    const inactiveMs = master.parameter('mds.wd.inactive_tout')
    for (const connection of connections.values()) {
      if (nowMs - connection.lastHeartbeatMs > inactiveMs) connection.peer.close('no heartbeat')
    }
    for (const row of master.state.servers.values()) {
      if (row.state === 'active' && !connections.has(row.server)) {
        const silentSinceMs = this.#silentSinceMs.get(row.server)
        // Rules F5, J3: nobody that a new master awaits becomes inactive before the wait for it is over.
        const patienceMs = silentSinceMs === undefined ? Math.max(inactiveMs, AWAIT_SERVERS_MS) : inactiveMs
        if (nowMs - (silentSinceMs ?? this.#startedMs) > patienceMs) this.#decide(row, 'inactive', patienceMs)
      } else if (row.state === 'inactive' && connections.get(row.server)?.isReported !== true) {
        this.#maybeOffline(row, nowMs)
      }
    }
    if (!this.#parts.health.isInformed) this.#maybeInformed()
  }

  #maybeOffline(row: ServerRow, nowMs: number): void {
    const sinceMs = this.#inactiveSinceMs.get(row.server)
    if (sinceMs === undefined) {
      this.#inactiveSinceMs.set(row.server, nowMs)
      return
    }
    const offlineMs = this.#parts.master.parameter('mds.wd.offline_tout')
    if (nowMs - sinceMs >= offlineMs) this.#decide(row, 'offline', offlineMs)
  }

  #decide(row: ServerRow, state: 'inactive' | 'offline', timeoutMs: number): void {
    const { server } = row
    if (this.#deciding.has(server)) return
    this.#deciding.add(server)
    this.#parts.master.submit({ type: 'server.state', server, state }, () => {
      this.#deciding.delete(server)
      const seconds = Math.round(timeoutMs / 1000)
      const message = `CS#${server} has not registered during the last ${seconds} sec and is marked as ${state}`
      this.#parts.events.record('MDS', 'warn', `CS_${state.toUpperCase()}`, message)
      this.#parts.onStateChanged(server)
    })
  }

  /** Every server that is not offline has reported, or had the time that makes it inactive. */
  #maybeInformed(): void {
    const { master, connections, health } = this.#parts
    for (const row of master.state.servers.values()) {
      if (row.state === 'active' && connections.get(row.server)?.isReported !== true) return
    }
    health.setInformed()
  }
}
