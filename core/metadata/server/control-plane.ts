/**
 * Builds the parts of the master and connects them. The graph is a ring (the driver tells recovery, recovery
 * drives the driver), closed here by small callbacks; nothing runs before `start`.
 */
import type { Address } from '../../platform/network.ts'
import type { ChunkServerUpMethods } from '../../wire/messages/chunk.ts'
import type { Handlers } from '../../wire/types.ts'
import { Changes } from '../control/changes.ts'
import { ChunkCensus } from '../control/chunk-census.ts'
import { ChunkWaiters } from '../control/chunk-waiters.ts'
import { ClusterHealth } from '../control/cluster-health.ts'
import { EpochDriver } from '../control/epoch-driver.ts'
import { EventRecorder } from '../control/event-recorder.ts'
import { FileCensus } from '../control/file-census.ts'
import { Garbage } from '../control/garbage.ts'
import { Joins } from '../control/joins.ts'
import type { Master } from '../control/master.ts'
import { Promotions } from '../control/promotions.ts'
import { Reconciler } from '../control/reconciler.ts'
import { Recovery } from '../control/recovery.ts'
import { ReportProcessing } from '../control/report-processing.ts'
import type { ServerConnection } from '../control/server-connection.ts'
import { ServerOrders } from '../control/server-orders.ts'
import { ServerRegistry } from '../control/server-registry.ts'
import { ServersView } from '../control/servers-view.ts'
import { Troubles } from '../control/troubles.ts'
import type { MeasuredStore } from '../log/measured-store.ts'
import { AdminService } from './admin-service.ts'
import { CacheInvalidator } from './cache-invalidator.ts'
import { ChunkCreator } from './chunk-creator.ts'
import { type ProcessUsage, Statistics } from './cluster-statistics.ts'
import { type FileSystemHandlers, fileSystemHandlers } from './file-system-service.ts'
import { IntentService } from './intent-service.ts'
import { LeaseService } from './lease-service.ts'
import { Locations } from './locations.ts'
import { MemberReports } from './member-reports.ts'
import { OpenFiles } from './open-files.ts'
import { OrphanCollector } from './orphan-collector.ts'
import { SessionService } from './session-service.ts'

export interface ControlPlaneOptions {
  readonly master: Master
  readonly store: MeasuredStore
  readonly clusterName: string
  readonly clusterUuid: string
  readonly address: Address
  readonly hostName: string
  readonly onShutdown?: () => void
  readonly usage?: () => ProcessUsage
}

const ORPHAN_INTERVAL_MS = 250
const SPACE_INTERVAL_MS = 5000
const PROMISE_SWEEP_MS = 1000

export class ControlPlane {
  readonly events: EventRecorder
  readonly sessions: SessionService
  readonly leases: LeaseService
  readonly intents: IntentService
  readonly memberReports: MemberReports
  readonly admin: AdminService
  readonly fileSystem: FileSystemHandlers
  readonly health: ClusterHealth
  readonly census: ChunkCensus
  readonly recovery: Recovery
  readonly registry: ServerRegistry
  readonly statistics: Statistics
  readonly #master: Master
  readonly #connections = new Map<number, ServerConnection>()
  readonly #view: ServersView
  readonly #driver: EpochDriver
  readonly #joins: Joins
  readonly #promotions: Promotions
  readonly #changes: Changes
  readonly #files: FileCensus
  readonly #creator: ChunkCreator
  readonly #locations: Locations
  readonly #openFiles = new OpenFiles()

  constructor(options: ControlPlaneOptions) {
    const { master } = options
    const connectionOf = (server: number) => this.#connections.get(server)
    this.#master = master
    this.events = new EventRecorder(master)
    this.health = new ClusterHealth(master, this.events)
    const view = new ServersView(master, this.#connections)
    const troubles = new Troubles(master.clock)
    const waiters = new ChunkWaiters(master)
    const orders = new ServerOrders(master, connectionOf)
    const reconciler: Reconciler = new Reconciler({
      master,
      driver: () => this.#driver,
      joins: (this.#joins = new Joins(master, view, this.events, connectionOf, {
        joinFailed: (chunk, server) => this.recovery.memberFailed(chunk, server, 'exists', 'later'),
      })),
      troubles,
      events: this.events,
      connectionOf,
    })
    const garbage = new Garbage({
      master,
      orders,
      view,
      events: this.events,
      isInformed: () => this.health.isInformed,
    })
    this.#driver = new EpochDriver(master, orders, {
      memberFailed: ({ chunk }, server, kind) => this.recovery.memberFailed(chunk, server, kind, 'urgent'),
      alarm: (chunk, server, held) => garbage.alarm(server, chunk, held),
      reconcile: (drive) => reconciler.add(drive),
    })
    this.recovery = new Recovery({
      master,
      view,
      troubles,
      driver: this.#driver,
      joins: this.#joins,
      events: this.events,
      isClusterFailed: () => this.health.isFailed || !this.health.isInformed,
    })
    this.#promotions = new Promotions(master, connectionOf, (chunk, server) =>
      this.recovery.memberFailed(chunk, server, 'exists', 'urgent'),
    )
    const reports = new ReportProcessing({
      master,
      recovery: this.recovery,
      troubles,
      garbage,
      events: this.events,
      isCreating: (chunk) => this.#creator.isCreating(chunk),
    })
    this.census = new ChunkCensus({
      master,
      view,
      joins: this.#joins,
      waiters,
      isVoid: (chunk) => reports.isVoid(chunk),
      look: (chunk) => void this.recovery.look(chunk, 'later'),
    })
    this.registry = new ServerRegistry({
      master,
      connections: this.#connections,
      reports,
      troubles,
      health: this.health,
      events: this.events,
      onReady: (connection) => this.#serverReady(connection),
      onLost: (server) => this.#joins.serverLost(server),
      onStateChanged: (server) => {
        this.health.maybeAnnounce()
        this.recovery.serverChanged(server)
      },
    })
    this.#view = view
    this.#files = new FileCensus(master)
    this.#locations = new Locations(master.state, view)
    this.#creator = new ChunkCreator({ master, view, orders, events: this.events })
    const invalidator: CacheInvalidator = new CacheInvalidator(master.clock, {
      connectedSessions: () => this.sessions.connectedSessions(),
      invalidate: (session, params) => this.sessions.invalidate(session, params),
    })
    this.sessions = new SessionService(master, this.#openFiles, {
      onResumed: (session) => {
        invalidator.sessionResumed(session)
        this.leases.sessionResumed(session)
      },
      onEnded: (session) => {
        invalidator.sessionEnded(session)
        this.memberReports.sessionEnded(session)
      },
    })
    const parts = { master, view, waiters, recovery: this.recovery, creator: this.#creator, connectionOf }
    this.leases = new LeaseService({
      ...parts,
      sessions: this.sessions,
      lookFirst: (chunk) => void this.recovery.look(chunk, 'first'),
    })
    this.intents = new IntentService({ ...parts, locations: this.#locations })
    this.memberReports = new MemberReports({
      ...parts,
      joins: this.#joins,
      events: this.events,
      intents: this.intents,
      locations: this.#locations,
      answers: (server) => this.registry.answers(server),
    })
    this.statistics = new Statistics({
      ...options,
      connections: this.#connections,
      view,
      health: this.health,
      census: this.census,
      files: this.#files,
      sessions: this.sessions,
      openFiles: this.#openFiles,
      usage: options.usage ?? (() => ({ cpuPct: 0, memBytes: 0 })),
    })
    this.admin = new AdminService({
      master,
      statistics: this.statistics,
      locations: this.#locations,
      reports: this.memberReports,
      onShutdown: options.onShutdown ?? (() => {}),
    })
    this.fileSystem = fileSystemHandlers({
      state: master.state,
      log: master.log,
      openFiles: this.#openFiles,
      leases: this.leases,
      space: this.statistics,
    })
    this.#changes = new Changes({
      ...parts,
      driver: this.#driver,
      joins: this.#joins,
      promotions: this.#promotions,
      orders,
      troubles,
      onMoved: (chunk) => this.#moved(chunk),
      onLeasesEnded: () => this.leases.leasesEnded(),
      onSessionEnded: (session) => this.sessions.ended(session),
      onIntentEnded: (chunk) => this.#creator.intentEnded(chunk),
      onConfigChanged: () => this.health.maybeAnnounce(),
    })
    master.log.onApplied((entry, result) => {
      this.#changes.onApplied(entry, result)
      invalidator.onApplied(entry, result)
    })
  }

  start(): void {
    const orphans = new OrphanCollector(this.#master.state, this.#master.log, this.#openFiles)
    this.#changes.takeOver()
    this.census.start()
    this.#files.start()
    this.#master.every(ORPHAN_INTERVAL_MS, () => {
      orphans.run().catch((error: unknown) => {
        this.#master.logger.error('orphans not collected', { error: String(error) })
      })
    })
    this.#master.every(SPACE_INTERVAL_MS, () => {
      const { total, free } = this.statistics.stat().space
      this.health.maybeAnnounceFill(total, free)
    })
    this.#master.every(PROMISE_SWEEP_MS, () => this.#sweepPromises())
  }

  chunkServerHandlers(): Handlers<ChunkServerUpMethods> {
    const { registry, memberReports } = this
    const nothing = {}
    return {
      'cs.register': (params, peer) => registry.register(params, peer),
      'cs.report': (params, peer) => registry.report(params, peer),
      'cs.heartbeat': (params, peer) => registry.heartbeat(params, peer),
      'cs.joined': (params, peer) => {
        const { server } = registry.connectionFor(peer)
        if (params.lostPages > 0) this.#tellLostPages(server, params.chunk, params.lostPages)
        this.#joins.joined(server, params)
        return nothing
      },
      'cs.joinFailed': (params, peer) => {
        this.#joins.joinFailed(registry.connectionFor(peer).server, params)
        return nothing
      },
      'cs.badPages': (params, peer) => {
        memberReports.badPages(registry.connectionFor(peer), params)
        return nothing
      },
      'cs.badReplica': (params, peer) => {
        memberReports.badReplica(registry.connectionFor(peer), params)
        return nothing
      },
    }
  }

  #serverReady(connection: ServerConnection): void {
    const { server } = connection
    for (const { chunk, version } of connection.unpromoted.splice(0)) {
      this.#promotions.promote(chunk, version, server)
    }
    this.#driver.serverReady(server)
    this.#joins.serverReady(server)
    this.recovery.serverChanged(server)
  }

  /** The holder sends again, under the new epoch, what is unanswered. */
  #moved(chunk: number): void {
    const { state } = this.#master
    const row = state.chunks.get(chunk)
    if (row === undefined || row.intentLease === 0) return
    const lease = state.leases.get(row.intentLease)
    if (lease === undefined) return
    const locations = [this.#locations.locationOf(row)]
    const servers = this.#locations.addressesOf([row])
    this.sessions.moved(lease.session, { inode: row.inode, locations, servers })
  }

  /** Rule J7: what no member can supply is copied as lost, and said. */
  #tellLostPages(server: number, chunk: number, count: number): void {
    const message = `${count} pages of chunk ${chunk} are lost: no replica could supply them to CS#${server}`
    this.events.record('CS', 'err', 'PAGES_LOST', message, `${chunk}`)
  }

  /** Intents that ended with their chunk or lease. */
  #sweepPromises(): void {
    for (const chunk of this.#creator.promisedChunks()) {
      const row = this.#master.state.chunks.get(chunk)
      const isEnded = row === undefined || row.intentLease === 0
      if (isEnded && !this.#creator.isCreating(chunk)) this.#creator.intentEnded(chunk)
    }
  }

  /** For tests and the simulator. */
  isReachable(server: number): boolean {
    return this.#view.isReachable(server)
  }
}
