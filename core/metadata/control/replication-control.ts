/**
 * Builds the parts that keep chunks replicated and connects them. The graph is a ring (the driver tells
 * recovery, recovery drives the driver), closed here by small callbacks; nothing runs before `start`.
 */
import type { ChunkServerUpMethods } from '../../wire/messages/chunk.ts'
import type { Handlers } from '../../wire/types.ts'
import type { LogCommand } from '../state/commands.ts'
import type { CommandResult } from '../state/result.ts'
import { Changes } from './replication/changes.ts'
import { ChunkCensus } from './replication/chunk-census.ts'
import { ChunkWaiters } from './replication/chunk-waiters.ts'
import { ClusterHealth } from './cluster-health.ts'
import { DamagedReplicas } from './replication/damaged-replicas.ts'
import { Merges } from './replication/merges.ts'
import { MissingPages } from './replication/missing-pages.ts'
import { DiskMarks } from './servers/disk-marks.ts'
import { EpochDriver } from './replication/epoch-driver.ts'
import { EventRecorder } from './servers/event-recorder.ts'
import { Garbage } from './replication/garbage.ts'
import { Joins } from './replication/joins.ts'
import type { Master } from './servers/master.ts'
import { Promotions } from './replication/promotions.ts'
import { Reconciler } from './replication/reconciler.ts'
import { Recovery } from './replication/recovery.ts'
import { ReportProcessing } from './report-processing.ts'
import { ReturnedReplicas } from './replication/returned-replicas.ts'
import { ChunkCheck } from './scrub/chunk-check.ts'
import { Scrub } from './scrub/scrub.ts'
import type { ServerConnection } from './servers/server-connection.ts'
import { ServerOrders } from './servers/server-orders.ts'
import { ServerRegistry } from './server-registry.ts'
import { AWAIT_SERVERS_MS, ServersView } from './servers/servers-view.ts'
import { SpacePromises } from './servers/space-promises.ts'
import { Troubles } from './servers/troubles.ts'

/** How often it is asked afterwards whether those that report are still there. */
const AWAIT_REPORT_MS = 500

/** What the requests' side wants to know, and answers. */
export interface ReplicationEvents {
  /** Its replicas are being created for a command that is not applied yet. */
  isCreating(chunk: number): boolean
  /** A new epoch, or a new in-sync member. */
  onMoved(chunk: number): void
  onLeasesEnded(): void
  onSessionEnded(session: number): void
  onIntentEnded(chunk: number): void
  /** Rule R2: the holder is to flush these chunks and to give their intents up. */
  recallIntents(lease: number, chunks: readonly number[]): void
}

export class ReplicationControl {
  readonly master: Master
  readonly events: EventRecorder
  readonly health: ClusterHealth
  readonly connections = new Map<number, ServerConnection>()
  readonly view: ServersView
  readonly promises: SpacePromises
  readonly waiters: ChunkWaiters
  readonly orders: ServerOrders
  readonly joins: Joins
  readonly recovery: Recovery
  readonly census: ChunkCensus
  readonly registry: ServerRegistry
  readonly connectionOf = (server: number): ServerConnection | undefined => this.connections.get(server)
  readonly missingPages: MissingPages
  readonly check: ChunkCheck
  readonly scrub: Scrub
  readonly troubles: Troubles
  readonly damaged = new DamagedReplicas()
  /** Overlays of chunks that these metadata do not know read through this one. */
  readonly isOverlaid: (chunk: number) => boolean
  /** While the cluster is recovered. */
  readonly returned: ReturnedReplicas | null
  readonly #driver: EpochDriver
  readonly #promotions: Promotions
  readonly #changes: Changes
  readonly #merges: Merges

  constructor(master: Master, outside: ReplicationEvents) {
    const { connectionOf } = this
    this.master = master
    const events = (this.events = new EventRecorder(master))
    this.health = new ClusterHealth(master, events)
    const view = (this.view = new ServersView(master, this.connections))
    const promises = (this.promises = new SpacePromises(view))
    const waiters = (this.waiters = new ChunkWaiters(master))
    const orders = (this.orders = new ServerOrders(master, connectionOf))
    const marks = new DiskMarks({ master, orders, connections: this.connections })
    const troubles = (this.troubles = new Troubles(master.clock))
    const joinFailed = (chunk: number, server: number) =>
      this.recovery.memberFailed(chunk, server, 'exists', 'later')
    const isBarred = (chunk: number, server: number) => troubles.barredOf(chunk).has(server)
    const joins = (this.joins = new Joins(master, view, events, connectionOf, { joinFailed, isBarred }))
    const isInformed = () => this.health.isInformed
    const { damaged } = this
    const missingPages = (this.missingPages = new MissingPages(master.clock))
    const garbage = new Garbage({ master, orders, view, events, damaged, missingPages, isInformed })
    const driver: EpochDriver = new EpochDriver(master, orders, {
      isUnclean: (chunk, server) => troubles.uncleanOf(chunk).has(server),
      memberUnclean: (chunk) => this.recovery.memberUnclean(chunk),
      memberFailed: ({ chunk }, server, kind, code) => {
        // It has not registered with this master yet: the driver asks it again.
        if (code === 'DISCONNECTED' && view.isAwaited(server)) return
        // A replica that a healthy disk cannot follow with.
        if (code === 'DISK_FAILED' && view.serverOf(server)?.accepts === true) damaged.add(chunk, server)
        this.recovery.memberFailed(chunk, server, kind, 'urgent')
      },
      alarm: (chunk, server, held) => garbage.alarm(server, chunk, held),
      reconcile: (drive) => reconciler.add(drive),
    })
    this.#driver = driver
    const reconciler = new Reconciler({ master, driver, joins, troubles, waiters, events, connectionOf })
    waiters.onAwaited = () => reconciler.pump()
    const mayCopy = () => this.health.mayCopy
    const recovery = new Recovery({ master, view, troubles, damaged, driver, joins, events, mayCopy })
    this.recovery = recovery
    this.#promotions = new Promotions(master, connectionOf, (chunk, server) =>
      recovery.memberFailed(chunk, server, 'exists', 'urgent'),
    )
    const merges = (this.#merges = new Merges(master, orders, view))
    const isCreating = (chunk: number) => outside.isCreating(chunk)
    const reports = new ReportProcessing({
      ...{ master, recovery, troubles, damaged, garbage, events, merges, isCreating },
    })
    this.isOverlaid = (chunk) => reports.isOverlaid(chunk)
    this.returned = master.isInRecovery ? new ReturnedReplicas(master, this.connections) : null
    this.census = new ChunkCensus({
      master,
      view,
      joins,
      waiters,
      isVoid: (row) => reports.isVoid(row),
      look: (chunk) => void recovery.look(chunk, 'later'),
    })
    this.registry = new ServerRegistry({
      master,
      connections: this.connections,
      reports: this.returned ?? reports,
      troubles,
      health: this.health,
      events,
      promises,
      marks,
      onReady: (connection) => this.#serverReady(connection),
      onLost: (server) => joins.serverLost(server),
      onStateChanged: (server) => this.#serverChanged(server),
    })
    this.check = new ChunkCheck({ master, events, connectionOf })
    this.scrub = new Scrub({
      ...{ master, check: this.check, connections: this.connections },
      recallIntents: (lease, chunks) => outside.recallIntents(lease, chunks),
    })
    this.#changes = new Changes({
      ...{ master, driver, joins, recovery, orders, troubles, waiters, promotions: this.#promotions },
      onMoved: (chunk) => outside.onMoved(chunk),
      onLeasesEnded: () => outside.onLeasesEnded(),
      onSessionEnded: (session) => outside.onSessionEnded(session),
      onIntentEnded: (chunk) => {
        outside.onIntentEnded(chunk)
        this.scrub.intentEnded(chunk)
      },
      onConfigChanged: () => this.health.maybeAnnounce(),
    })
  }

  /** This member became master. */
  start(): void {
    if (!this.master.isInRecovery) this.#changes.takeOver()
    this.census.start()
    this.master.after(AWAIT_SERVERS_MS, () => this.#giveUpSilent())
  }

  /** Who is connected is at work on its report, which is long when it has many replicas. */
  #giveUpSilent(): void {
    for (const server of this.view.awaited()) {
      if (!this.connections.has(server)) this.giveUpAwaited(server)
    }
    if (this.view.awaited().length > 0) this.master.after(AWAIT_REPORT_MS, () => this.#giveUpSilent())
  }

  /** A server that this new master has not heard of is silent in earnest: chunks go on without it. */
  giveUpAwaited(server: number): void {
    if (this.view.awaitNoMore(server)) this.recovery.serverChanged(server)
  }

  onApplied(entry: LogCommand, result: CommandResult): void {
    this.#changes.onApplied(entry, result)
  }

  /** What a chunk server may tell, apart from reports about replicas (server/services/member-reports.ts). */
  handlers(): Pick<
    Handlers<ChunkServerUpMethods>,
    'cs.register' | 'cs.report' | 'cs.heartbeat' | 'cs.joined' | 'cs.joinFailed' | 'cs.merged'
  > {
    const { registry, joins } = this
    return {
      'cs.register': (params, peer) => registry.register(params, peer),
      'cs.report': (params, peer) => registry.report(params, peer),
      'cs.heartbeat': (params, peer) => registry.heartbeat(params, peer),
      'cs.joined': (params, peer) => {
        const { server } = registry.connectionFor(peer)
        if (params.lostPages > 0) this.#tellLostPages(server, params.chunk, params.lostPages)
        joins.joined(server, params)
        return {}
      },
      'cs.merged': (params, peer) => {
        const { server } = registry.connectionFor(peer)
        this.#merges.merged(server, params.replicas)
        return {}
      },
      'cs.joinFailed': (params, peer) => {
        joins.joinFailed(registry.connectionFor(peer).server, params)
        return {}
      },
    }
  }

  #serverReady(connection: ServerConnection): void {
    if (this.master.isInRecovery) return
    const { server } = connection
    this.view.awaitNoMore(server)
    for (const { chunk, version } of connection.unpromoted.splice(0)) {
      this.#promotions.promote(chunk, version, server)
    }
    this.#driver.serverReady(server)
    this.joins.serverReady(server)
    this.recovery.serverChanged(server)
  }

  #serverChanged(server: number): void {
    this.view.awaitNoMore(server)
    this.health.serverChanged(server)
    this.recovery.serverChanged(server)
  }

  /** Rule J7: what no member can supply is copied as lost, and said. */
  #tellLostPages(server: number, chunk: number, count: number): void {
    const message = `${count} pages of chunk ${chunk} are lost: no replica could supply them to CS#${server}`
    this.events.record('CS', 'err', 'PAGES_LOST', message, `${chunk}`)
  }
}
