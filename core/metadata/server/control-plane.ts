/** Builds the services that answer requests, on top of what keeps chunks replicated. */
import type { ChunkServerUpMethods } from '../../wire/messages/chunk.ts'
import type { Handlers } from '../../wire/types.ts'
import type { ChunkCensus } from '../control/replication/chunk-census.ts'
import type { EventRecorder } from '../control/servers/event-recorder.ts'
import { FileCensus } from '../control/file-census.ts'
import type { Master } from '../control/servers/master.ts'
import { ReplicationControl } from '../control/replication-control.ts'
import type { Formation } from '../quorum/formation.ts'
import type { MembersView } from '../quorum/members-view.ts'
import { AdminService } from './services/admin-service.ts'
import { BackupService, type BackupSource } from './services/backup-service.ts'
import { CacheInvalidator } from './services/cache-invalidator.ts'
import { ChunkCreator } from './services/chunk-creator.ts'
import { Statistics } from './services/cluster-statistics.ts'
import { type FileSystemHandlers, fileSystemHandlers } from './services/file-system-service.ts'
import { type KeyValueHandlers, keyValueHandlers } from './services/key-value-service.ts'
import { KeyValueWatchers } from './services/key-value-watchers.ts'
import { IntentService } from './services/intent-service.ts'
import { LeaseService } from './services/lease-service.ts'
import { Locations } from './services/locations.ts'
import { PromotionService } from './services/promotion-service.ts'
import { RecoveryService } from './services/recovery-service.ts'
import { MemberReports } from './services/member-reports.ts'
import { OpenFiles } from './services/open-files.ts'
import type { LeaseRow } from '../state/rows.ts'
import { ListCopier } from '../snapshots/list-copier.ts'
import { Pauses } from '../snapshots/pauses.ts'
import { SnapshotService } from '../snapshots/service.ts'
import { OrphanCollector } from './orphan-collector.ts'
import { SessionService } from './services/session-service.ts'

export interface ControlPlaneOptions {
  readonly master: Master
  readonly clusterName: string
  readonly clusterUuid: string
  readonly members: MembersView
  readonly formation: Formation
  readonly onShutdown: () => void
  readonly backups: BackupSource | null
}

const ORPHAN_INTERVAL_MS = 250
const SPACE_INTERVAL_MS = 5000
const PROMISE_SWEEP_MS = 1000

export class ControlPlane {
  readonly sessions: SessionService
  readonly leases: LeaseService
  readonly intents: IntentService
  readonly memberReports: MemberReports
  readonly snapshots: SnapshotService
  readonly admin: AdminService
  /** Of metadata that have begun anew. */
  readonly recovery: RecoveryService
  readonly backup: BackupService
  readonly promotion: PromotionService
  readonly fileSystem: FileSystemHandlers
  readonly keyValue: KeyValueHandlers
  readonly statistics: Statistics
  readonly replication: ReplicationControl
  readonly #master: Master
  readonly #files: FileCensus
  readonly #creator: ChunkCreator
  readonly #locations: Locations
  readonly #openFiles = new OpenFiles()
  readonly #pauses: Pauses
  readonly #copier: ListCopier

  constructor(options: ControlPlaneOptions) {
    const { master } = options
    const openFiles = this.#openFiles
    this.#master = master
    const replication: ReplicationControl = new ReplicationControl(master, {
      isCreating: (chunk) => this.#creator.isCreating(chunk),
      onMoved: (chunk) => this.#moved(chunk),
      onLeasesEnded: () => {
        this.leases.leasesEnded()
        this.#pauses.changed()
      },
      onSessionEnded: (session) => this.sessions.ended(session),
      recallIntents: (lease, chunks) => this.leases.recallIntents(lease, chunks),
      onIntentEnded: (chunk) => {
        this.replication.promises.ended(chunk, true)
        this.#pauses.changed()
      },
    })
    this.replication = replication
    const { events, health, view, waiters, orders, joins, recovery, connectionOf, promises } = replication
    const invalidator: CacheInvalidator = new CacheInvalidator(master.clock, {
      connectedSessions: () => this.sessions.connectedSessions(),
      invalidate: (session, params) => this.sessions.invalidate(session, params),
    })
    const { state, log, clock } = master
    const watchers = new KeyValueWatchers(clock, log, state.keyValue)
    const sessions = new SessionService(master, openFiles, {
      onResumed: (session) => {
        invalidator.sessionResumed(session)
        this.leases.sessionResumed(session)
      },
      onEnded: (session) => {
        invalidator.sessionEnded(session)
        watchers.sessionEnded(session)
        this.memberReports.sessionEnded(session)
      },
    })
    this.sessions = sessions
    const lookFirst = (chunk: number) => void recovery.look(chunk, 'first')
    const isTaken = (inode: number) => this.#pauses.isTaken(inode)
    const leases = (this.leases = new LeaseService({ master, sessions, waiters, lookFirst, isTaken }))
    const locations = (this.#locations = new Locations(master.state, view))
    const creator = (this.#creator = new ChunkCreator({
      ...{ master, view, orders, events, promises },
      knowsOverlays: (server) => connectionOf(server)?.knowsOverlays === true,
    }))
    const askToPause = ({ session, inode, lease }: LeaseRow, deadlineMs: number) =>
      sessions.pause(session, { inode, lease, deadlineMs })
    const pauses = (this.#pauses = new Pauses({ master, waiters, lookFirst, askToPause }))
    const intents = new IntentService({
      ...{ master, view, waiters, recovery, creator, locations, promises },
      compared: (chunks) => replication.scrub.compared(chunks),
      isHeld: (inode) => pauses.isHeld(inode),
      isOverlaid: (chunk) => replication.isOverlaid(chunk),
    })
    this.#copier = new ListCopier(master)
    this.snapshots = new SnapshotService({
      ...{ master, pauses, copier: this.#copier },
      recall: (inode) => leases.recall(inode),
      outdatedServer: () => replication.registry.outdatedServer(),
    })
    this.intents = intents
    const answers = (server: number) => replication.registry.answers(server)
    const { missingPages } = replication
    const reportParts = {
      missingPages,
      master,
      recovery,
      joins,
      events,
      intents,
      locations,
      connectionOf,
      answers,
      giveUpAwaited: (server: number) => replication.giveUpAwaited(server),
    }
    this.memberReports = new MemberReports(reportParts)
    const files = (this.#files = new FileCensus(master))
    const { connections, census } = replication
    const statistics = new Statistics({
      ...options,
      ...{ connections, view, health, census, files, sessions, openFiles },
    })
    this.statistics = statistics
    const { onShutdown, formation } = options
    const { memberReports: reports } = this
    const { check } = replication
    this.admin = new AdminService({ master, statistics, locations, reports, check, formation, onShutdown })
    this.backup = new BackupService(master, options.backups)
    const { troubles, damaged } = replication
    this.promotion = new PromotionService({ master, view, troubles, damaged, events, connectionOf })
    this.recovery = new RecoveryService({ master, events, returned: replication.returned })
    this.fileSystem = fileSystemHandlers({ state, log, openFiles, leases, space: statistics })
    this.keyValue = keyValueHandlers({ state, log, watchers })
    master.onApplied((entry, result, index) => {
      replication.onApplied(entry, result)
      invalidator.onApplied(entry, result)
      watchers.onApplied(index)
    })
  }

  get events(): EventRecorder {
    return this.replication.events
  }

  get census(): ChunkCensus {
    return this.replication.census
  }

  /** This member became master. */
  start(): void {
    const orphans = new OrphanCollector(this.#master.state, this.#master.log, this.#openFiles)
    this.replication.start()
    this.intents.takeOver()
    this.#files.start()
    if (!this.#master.isInRecovery) this.#copier.kick()
    this.#master.every(ORPHAN_INTERVAL_MS, () => {
      if (this.#master.isInRecovery) return
      orphans.run().catch((error: unknown) => {
        this.#master.logger.error('orphans not collected', { error: String(error) })
      })
    })
    this.#master.every(SPACE_INTERVAL_MS, () => {
      const { total, free } = this.statistics.stat().space
      this.replication.health.maybeAnnounceFill(total, free)
    })
    this.#master.every(PROMISE_SWEEP_MS, () => this.#sweepPromises())
  }

  chunkServerHandlers(): Handlers<ChunkServerUpMethods> {
    const { memberReports } = this
    const { registry } = this.replication
    return {
      ...this.replication.handlers(),
      'cs.badPages': (params, peer) => {
        memberReports.badPages(registry.connectionFor(peer), params)
        return {}
      },
      'cs.badReplica': (params, peer) => {
        memberReports.badReplica(registry.connectionFor(peer), params)
        return {}
      },
    }
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

  /** Intents that ended with their chunk or lease. */
  #sweepPromises(): void {
    const { promises } = this.replication
    for (const chunk of promises.chunks()) {
      const row = this.#master.state.chunks.get(chunk)
      const isEnded = row === undefined || row.intentLease === 0
      if (isEnded && !this.#creator.isCreating(chunk)) promises.ended(chunk, row !== undefined)
    }
  }
}
