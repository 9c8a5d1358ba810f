/**
 * The metadata server process: one member of the quorum on its repository. It takes part in decisions on the
 * base port; on base port + 1 it serves chunk servers and clients while it is the master, and otherwise says
 * who is. This file only connects the parts; each part says in its own header what it does.
 */
import { CairnError, codeOf } from '../../base/errors.ts'
import type { Timer } from '../../platform/clock.ts'
import type { Address } from '../../platform/network.ts'
import type { MemberId, Snapshot } from '../../raft/index.ts'
import { OBSERVER_ROLE, observerMethods } from '../../wire/messages/quorum.ts'
import { WireServer } from '../../wire/server.ts'
import type { Identity, Peer } from '../../wire/types.ts'
import { ALARM_KEY, RECOVERY_KEY, UNKNOWN_KEPT_KEY } from '../chunks/administration.ts'
import type { ChunkState } from '../chunks/handlers.ts'
import { memberRemoved } from '../errors.ts'
import { MeasuredStore } from '../log/measured-store.ts'
import { MemberAddresses, registeredIn } from '../quorum/member-addresses.ts'
import { type MemberReport, MembersView, noReport } from '../quorum/members-view.ts'
import { fatalToReceivers, SnapshotReceiver } from '../quorum/snapshot-receiver.ts'
import { SnapshotSender } from '../quorum/snapshot-sender.ts'
import { successorOf } from '../quorum/successor.ts'
import { type MemberPlace, MemberTransport } from '../quorum/transport.ts'
import { HIGHEST_LEVEL } from '../state/feature-levels.ts'
import {
  clusterIdentityOf,
  notMasterOf,
  openRepository,
  refuseForeignRepository,
  type Repository,
} from './cluster-repository.ts'
import type { ControlPlane } from './control-plane.ts'
import { Mastership } from './mastership.ts'
import { authenticatorOf, type MetadataServerOptions } from './metadata-server-options.ts'
import { observerHandlers } from './observation.ts'

const CONNECTION_COUNT_MAX = 16_384
const REPORT_MS = 2_000
/** A clean stop waits so long for another to take over. */
const HAND_OVER_MS_MAX = 1_000

export class MetadataServer {
  readonly #options: MetadataServerOptions
  readonly #store: MeasuredStore
  readonly #transport: MemberTransport
  readonly #addresses: MemberAddresses
  readonly #clients: WireServer
  readonly #startedMs: number
  readonly #reports = new Map<MemberId, MemberReport>()
  #repository: Repository | null = null
  readonly #receiver: SnapshotReceiver | null
  #sender: SnapshotSender | null = null
  #mastership: Mastership | null = null
  #roleWaiters: (() => void)[] = []
  #isUpdating = false
  #timer: Timer | null = null
  #isStarted = false
  #isClosed = false
  #failure: Error | null = null

  private constructor(options: MetadataServerOptions) {
    this.#options = options
    const { clock, random, logger, network, pool, address } = options
    this.#startedMs = clock.nowMs()
    const { moved = new Map<MemberId, Address>(), onMovesSettled = () => {} } = options
    this.#addresses = new MemberAddresses(moved, onMovesSettled, () => this.#addressesChanged())
    this.#store = new MeasuredStore(options.store, clock)
    const isInstalling = (): boolean => this.#repository?.log.isInstalling === true
    this.#receiver =
      options.snapshots === undefined ? null : new SnapshotReceiver(options.snapshots, isInstalling)
    const identity = (): Identity => ({
      ...{ role: 'mds', session: 0, name: options.hostName, level: HIGHEST_LEVEL },
      ...this.#clusterIdentity(),
      ...(this.#repository === null ? {} : { member: this.#repository.log.member }),
    })
    const authenticator = authenticatorOf(options, () => this.clusterName)
    this.#transport = new MemberTransport({
      ...{ network, clock, random, logger, pool, address, identity, ...authenticator(false) },
      onMessage: (message) => this.#repository?.log.step(message),
      onReport: (member, report, place) => this.#noteReport(member, report, place),
      register: () => registeredIn(this.#repository?.state.members.values() ?? []),
      onRegister: (members) => this.#addresses.heard(members),
      isRemoved: (member) => this.#repository?.state.members.get(member)?.state === 'removed',
      onRemoved: (member) => this.#removed(member),
      onUnreachable: (member) => this.#repository?.log.reportUnreachable(member),
      onMustEnd: (error) => this.#failed(error),
      onShutdown: () => options.onShutdown?.(),
      onSnapshotPiece: async (params, peer) => {
        await this.#receiving(this.#snapshotReceiver.piece(params, peer))
        return {}
      },
      onSnapshotEnd: async (params, peer) => {
        this.#repository?.log.step(await this.#receiving(this.#snapshotReceiver.end(params, peer)))
        return {}
      },
    })
    this.#clients = new WireServer({
      ...{ network, clock, logger, pool, identity, ...authenticator(true) },
      connectionCountMax: CONNECTION_COUNT_MAX,
      ...(options.limits === undefined ? {} : { limits: options.limits }),
      admit: ({ role }) => {
        if (this.#mastership === null && role !== OBSERVER_ROLE) throw notMasterOf(this.#repository)
      },
      onPeer: (peer) => this.#serve(peer),
    })
  }

  /**
   * Resolves when it takes part; a member alone, when it serves. Rejects when the repository cannot be read or
   * a port cannot be bound.
   */
  static async start(options: MetadataServerOptions): Promise<MetadataServer> {
    const server = new MetadataServer(options)
    await server.#start()
    return server
  }

  async #start(): Promise<void> {
    const { host, port } = this.#options.address
    const repository = await this.#openLife()
    try {
      refuseForeignRepository(clusterIdentityOf(repository.state), this.#options.cluster)
      await this.#transport.listen()
      await this.#clients.listen({ host, port: port + 1 })
    } catch (error) {
      await this.#transport.close('the metadata server does not start')
      await repository.log.close()
      throw error
    }
    this.#armReport()
    const { voters } = repository.log.configuration
    const isAlone = voters.length === 1 && voters[0] === repository.log.member
    while (isAlone && this.#mastership === null && this.#failure === null) await this.#roleChange()
    if (this.#failure !== null) {
      await this.close()
      throw this.#failure
    }
    this.#isStarted = true
  }

  /** Before the start is over it is the start that fails. */
  #failed(error: Error): void {
    this.#failure = error
    if (this.#isStarted) this.#options.onFatal(error)
    else this.#wakeRoleWaiters()
  }

  /** One life of the member: from what is on the disk until another file takes the place of it. */
  async #openLife(): Promise<Repository> {
    const { clock, logger, snapshots } = this.#options
    const repository = await openRepository({
      ...this.#options,
      store: this.#store,
      announcedLevel: (member) => this.#transport.levelOf(member),
      events: {
        send: (message) => this.#transport.send(message),
        becameMaster: () => this.#becameMaster(),
        lostMastership: () => this.#lostMastership(),
        sendSnapshot: (member) => this.#sendSnapshot(member),
        install: (snapshot) => void this.#install(snapshot),
        failed: (error) => this.#failed(error),
      },
    })
    const { log, state } = repository
    this.#repository = repository
    const changed = (): void => this.#addressesChanged()
    state.members.observe({ onSet: changed, onDelete: changed })
    state.config.observe({ onSet: () => {}, onDelete: (key) => this.#configDeleted(key) })
    this.#addresses.heard(repository.moves)
    const peerOf = (member: MemberId): Peer | null => this.#transport.peerOf(member)
    const notSent = (member: MemberId, why: string): void => this.#mastership?.copyFailed(member, why)
    const outside = { clock, logger, peerOf, notSent }
    this.#sender =
      snapshots === undefined
        ? null
        : new SnapshotSender({ store: this.#store, log, files: snapshots, ...outside })
    return repository
  }

  get #snapshotReceiver(): SnapshotReceiver {
    if (this.#receiver !== null) return this.#receiver
    throw new CairnError('REFUSED', 'this member takes no copies')
  }

  async #receiving<T>(work: Promise<T>): Promise<T> {
    try {
      return await work
    } catch (error) {
      if (fatalToReceivers.includes(codeOf(error))) this.#failed(error as Error)
      throw error
    }
  }

  #sendSnapshot(member: MemberId): void {
    this.#mastership?.fullResync(member)
    if (this.#sender === null) this.#repository?.log.reportSnapshot(member, null)
    else this.#sender.send(member)
  }

  /** The received file becomes the store, and the member starts from it as after a restart. */
  async #install(snapshot: Snapshot): Promise<void> {
    const { snapshots, logger, onFatal } = this.#options
    const before = this.#repository
    if (snapshots === undefined || before === null) return
    try {
      logger.warn('full resync: the metadata is replaced by a copy of the master', {
        from: before.log.appliedIndex,
        to: snapshot.index,
      })
      this.#sender?.close()
      await before.log.retire()
      before.state.retire()
      this.#store.replace(await snapshots.install())
      await this.#openLife()
    } catch (error) {
      onFatal(error instanceof Error ? error : new Error(String(error)))
    }
  }

  get state(): ChunkState {
    return this.#open.state
  }

  get member(): MemberId {
    return this.#open.log.member
  }

  /** Serves now, or would if its lease came back. */
  get isMaster(): boolean {
    const log = this.#repository?.log
    return this.#mastership !== null && log?.leader === log?.member
  }

  /** Of the master. */
  get control(): ControlPlane {
    if (this.#mastership === null) throw notMasterOf(this.#repository)
    return this.#mastership.control
  }

  get log(): Repository['log'] {
    return this.#open.log
  }

  get clusterName(): string {
    return this.#clusterIdentity().clusterName
  }

  get clusterUuid(): string {
    return this.#clusterIdentity().clusterUuid
  }

  /** Where chunk servers and clients dial. */
  get address(): Address {
    return this.#clients.address
  }

  /** In order: another is the master, no new requests, everything proposed is committed. */
  async close(): Promise<void> {
    if (this.#isClosed) return
    this.#timer?.cancel()
    await this.#handOver()
    this.#isClosed = true
    this.#sender?.close()
    this.#mastership?.stop()
    await this.#clients.close('the metadata server is stopping')
    await this.#repository?.log.close()
    await this.#transport.close('the metadata server is stopping')
    this.#wakeRoleWaiters()
  }

  get #open(): Repository {
    if (this.#repository === null) throw new Error('the metadata server has not started')
    return this.#repository
  }

  #clusterIdentity(): Pick<Identity, 'clusterName' | 'clusterUuid' | 'generation'> {
    const known = this.#repository && clusterIdentityOf(this.#repository.state)
    const { name, uuid, ...rest } = known ?? this.#options.cluster ?? { name: '', uuid: '' }
    return { clusterName: name, clusterUuid: uuid, ...rest }
  }

  #serve(peer: Peer): void {
    if (peer.remoteIdentity?.role === OBSERVER_ROLE) {
      const isConnected = (member: MemberId): boolean => this.#transport.isConnected(member)
      peer.serve(observerMethods, observerHandlers({ ...this.#open, isConnected }))
    } else if (this.#mastership === null) peer.close('this metadata server is not the master')
    else this.#mastership.serve(peer)
  }

  // --- roles ---

  #becameMaster(): void {
    const { state, log } = this.#open
    const { clock, random, logger, backups } = this.#options
    const onShutdown = (): void => {
      this.#transport.shutDownOthers()
      this.#options.onShutdown?.()
    }
    const reportOf = (member: MemberId): MemberReport =>
      member === log.member ? this.#ownReport() : (this.#reports.get(member) ?? noReport)
    const members = new MembersView({ log, state, clock, reportOf })
    this.#mastership = new Mastership({
      ...{ state, log, clock, random, logger, members, onShutdown },
      place: this.#place,
      ...this.#clusterIdentity(),
      backups: backups === undefined ? null : { store: this.#store, files: backups },
      ...(this.#options.authentication === undefined ? {} : { authentication: this.#options.authentication }),
      levelOf: (member) => this.#transport.levelOf(member),
    })
    this.#mastership.start()
    logger.info('this member is the master', { member: log.member, term: log.status.term })
    this.#wakeRoleWaiters()
  }

  #lostMastership(): void {
    const mastership = this.#mastership
    if (mastership === null) return
    this.#mastership = null
    mastership.stop()
    this.#options.logger.info('this member is not the master any more', { member: this.#open.log.member })
    this.#clients.closePeers('NOT_MASTER: this metadata server is not the master any more')
    this.#wakeRoleWaiters()
  }

  /** The recovery is over, or what is unknown may go: the master begins once more, with all reports. */
  #configDeleted(key: string): void {
    if (![RECOVERY_KEY, UNKNOWN_KEPT_KEY, ALARM_KEY].includes(key)) return
    this.#options.clock.defer(() => {
      if (this.#mastership === null || this.#isClosed) return
      this.#lostMastership()
      this.#becameMaster()
    })
  }

  #roleChange(): Promise<void> {
    return new Promise((resolve) => this.#roleWaiters.push(resolve))
  }

  #wakeRoleWaiters(): void {
    const waiters = this.#roleWaiters
    this.#roleWaiters = []
    for (const wake of waiters) wake()
  }

  /** Another voter takes over, so that nobody waits for an election. After a failure nothing is sent any more. */
  async #handOver(): Promise<void> {
    if (this.#mastership === null || this.#repository === null || this.#failure !== null) return
    const { log } = this.#repository
    const best = successorOf(log.status, (member) => this.#transport.isConnected(member))
    if (best === null || !log.transferLeader(best).ok) return
    const timer = this.#options.clock.setTimer(HAND_OVER_MS_MAX, () => this.#wakeRoleWaiters())
    await this.#roleChange()
    timer.cancel()
  }

  #addressesChanged(): void {
    if (this.#isUpdating) return
    this.#isUpdating = true
    this.#options.clock.defer(() => {
      this.#isUpdating = false
      if (this.#repository === null || this.#isClosed) return
      const { state, log } = this.#repository
      this.#transport.update(this.#addresses.others(state.members.values(), log.member))
    })
  }

  get #place(): MemberPlace {
    return { address: this.#options.address, name: this.#options.hostName }
  }

  #ownReport(): MemberReport {
    const { cpuPct, memBytes } = this.#options.usage?.() ?? { cpuPct: 0, memBytes: 0 }
    const { busyPct: ctimePct, commitsPerS } = this.#store
    const uptimeMs = Math.round(this.#options.clock.nowMs() - this.#startedMs)
    return { ctimePct, commitsPerS, cpuPct, memBytes, uptimeMs }
  }

  #noteReport(member: MemberId, report: MemberReport, place: MemberPlace | undefined): void {
    if (this.#repository?.state.members.has(member) !== true) return
    this.#reports.set(member, report)
    if (place !== undefined) this.#mastership?.formation.found(member, place)
  }

  /** Others say so, who have it from the log. Nothing is left to do here, and nobody to do it for. */
  #removed(member: MemberId): void {
    if (this.#repository?.log.member !== member || this.#failure !== null) return
    this.#failed(memberRemoved(member, this.clusterName))
  }

  #armReport(): void {
    this.#timer = this.#options.clock.setTimer(REPORT_MS, () => {
      const log = this.#repository?.log
      if (log !== undefined && log.leader !== 0 && log.leader !== log.member)
        this.#transport.report(log.leader, log.member, this.#ownReport(), this.#place)
      this.#armReport()
    })
  }
}
