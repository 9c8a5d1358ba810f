/**
 * A chunk server: one store, a data port, a link to the metadata servers. Everything it touches comes
 * through the constructor, so that the simulator runs the same code.
 *
 * When the store cannot be opened (disk not attached, flag R) the server keeps trying and says why.
 */
import { BufferPool } from '../base/buffer-pool.ts'
import { mark } from '../base/coverage.ts'
import { codeOf } from '../base/errors.ts'
import { MIB } from '../base/units.ts'
import { asMetadataServers, type MetadataServers } from '../discovery/metadata-servers.ts'
import type { Clock, Timer } from '../platform/clock.ts'
import type { Disk } from '../platform/disk.ts'
import type { Logger } from '../platform/logger.ts'
import type { Address, Network } from '../platform/network.ts'
import type { Random } from '../platform/random.ts'
import type { ChunkServerUpMethods } from '../wire/messages/chunk.ts'
import type { ParamsOf } from '../wire/messages/method.ts'
import { WireServer } from '../wire/server.ts'
import type { Authenticator, Identity } from '../wire/types.ts'
import type { ChunkStore } from './store/chunk-store.ts'
import { BadPageWatch } from './repair/bad-page-watch.ts'
import { DataPort } from './data-port.ts'
import { Joiner } from './repair/joiner.ts'
import { MetadataLink } from './metadata-link.ts'
import { serveOrders } from './orders.ts'
import { ReplicaControl, reportOf } from './store/replica-control.ts'
import { OverlayMerger, type TellMerged } from './repair/overlay-merger.ts'
import { Repairer } from './repair/repairer.ts'
import { SourcePool } from './repair/source-pool.ts'
import { VerifiedKeeper } from './repair/verified-keeper.ts'
import { Verifier } from './repair/verifier.ts'
import { closeStore, distrustReplicas, openStore, recordRegistration } from './store/store-open.ts'

const OPEN_RETRY_MS = 5000
const SHUTDOWN_DELAY_MS = 100
const SESSION_TIMEOUT_MS = 5000
/** The same bad page is not reported more often. */
const REPORT_AGAIN_MS = 5000
const REPORTED_COUNT_MAX = 10_000
/** As long as the master takes them one after the other within a heartbeat. */
const DUE_COUNT_MAX = 64
const POOL_RETAINED_BYTES = 8 * MIB

export interface ChunkServerOptions {
  readonly disk: Disk
  readonly clock: Clock
  readonly random: Random
  readonly network: Network
  readonly logger: Logger
  readonly clusterName: string
  /** Base addresses of the metadata servers. */
  readonly metadataAddresses: readonly Address[] | MetadataServers
  /** Port 0 takes a free one. */
  readonly listen: Address
  /** What others dial; default: the address it listens on. */
  readonly advertisedHost?: string
  readonly hostId: string
  readonly hostName: string
  /** `room.row.rack`. */
  readonly location: string
  readonly sessionTimeoutMs?: number
  readonly decorators?: readonly string[]
  /** An administrator shuts the cluster down: this server is to be closed. */
  readonly onShutdown?: () => void
  /** Default: one of its own. */
  readonly pool?: BufferPool
  /** Without it nobody has to prove anything (simulation, tests). */
  readonly authenticator?: Authenticator
}

export type ChunkServerState = 'starting' | 'invalid' | 'running' | 'closed'

export class ChunkServer {
  readonly #options: ChunkServerOptions
  readonly #pool: BufferPool
  #state: ChunkServerState = 'starting'
  #detail = ''
  #store: ChunkStore | null = null
  #server: WireServer | null = null
  #link: MetadataLink | null = null
  #sources: SourcePool | null = null
  #retry: Timer | null = null
  #joiner: Joiner | null = null
  #merger: OverlayMerger | null = null
  #badPages: BadPageWatch | null = null
  #verified: VerifiedKeeper | null = null
  readonly #reportedMs = new Map<string, number>()

  constructor(options: ChunkServerOptions) {
    this.#options = options
    this.#pool = options.pool ?? new BufferPool({ retainedBytesMax: POOL_RETAINED_BYTES })
  }

  /** Resolves when the server listens, or when the store turned out to be unusable for now. */
  async start(): Promise<void> {
    const { disk, clock, logger, clusterName, decorators } = this.#options
    try {
      const pool = this.#pool
      const store = await openStore({
        disk,
        clock,
        logger: logger.child('store'),
        pool,
        clusterName,
        ...(decorators === undefined ? {} : { decorators }),
      })
      await this.#run(store)
      this.#state = 'running'
      this.#detail = ''
    } catch (error) {
      if (this.#store !== null) throw error // the port cannot be bound: nothing to wait for
      this.#state = 'invalid'
      this.#detail = error instanceof Error ? error.message : String(error)
      logger.error('the chunk store cannot be opened; trying again', {
        code: codeOf(error),
        reason: this.#detail,
      })
      this.#retry = clock.setTimer(OPEN_RETRY_MS, () => {
        this.start().catch((failure: unknown) => {
          this.#detail = failure instanceof Error ? failure.message : String(failure)
          logger.error('the chunk server cannot start', { code: codeOf(failure), reason: this.#detail })
        })
      })
    }
  }

  /** After the answer has left. */
  #shutdownOrdered(): void {
    const { clock, onShutdown, logger } = this.#options
    logger.info('an administrator shuts the cluster down')
    if (onShutdown !== undefined) clock.setTimer(SHUTDOWN_DELAY_MS, onShutdown)
  }

  get state(): ChunkServerState {
    return this.#state
  }

  /** Flags of the guide; R: the path of the repository is invalid. */
  get flags(): string {
    return this.#store === null ? 'R' : this.#store.flags
  }

  get detail(): string {
    return this.#detail === '' ? (this.#link?.detail ?? '') : this.#detail
  }

  get address(): Address | null {
    return this.#server?.address ?? null
  }

  get store(): ChunkStore | null {
    return this.#store
  }

  get isRegistered(): boolean {
    return this.#link?.isRegistered ?? false
  }

  /** Pages that are bad or lost here, as far as this process has found out. */
  get badPageCount(): number {
    return this.#badPages?.count ?? 0
  }

  async close(): Promise<void> {
    this.#state = 'closed'
    this.#retry?.cancel()
    this.#link?.close()
    this.#joiner?.abortAll()
    this.#merger?.close()
    this.#badPages?.close()
    this.#sources?.close()
    await this.#server?.close('shutting down')
    await this.#verified?.close()
    if (this.#store !== null) await closeStore(this.#store)
  }

  async #run(store: ChunkStore): Promise<void> {
    const { clock, random, network, logger, authenticator } = this.#options
    const authentication = authenticator === undefined ? {} : { authenticator }
    this.#store = store
    const identity = (): Identity => this.#identity(store)
    const pool = this.#pool
    const sources = new SourcePool({
      ...authentication,
      network,
      clock,
      random,
      logger: logger.child('sources'),
      pool,
      identity,
    })
    const control = new ReplicaControl(store)
    const repairer = new Repairer(store, sources.open)
    const verifier = new Verifier(store)
    this.#verified = new VerifiedKeeper(store)
    await this.#verified.start()
    const port = new DataPort(store, () => this.#shutdownOrdered())
    const joiner = new Joiner(store, sources.open, {
      onJoined: ({ chunk, version, attempt }, bytesPulled, lostPages) => {
        tellParent(store, chunk, tellMerged)
        link.send({ method: 'cs.joined', params: { chunk, version, attempt, bytesPulled, lostPages } })
      },
      onJoinFailed: ({ chunk, version, attempt }, reason) => {
        link.send({ method: 'cs.joinFailed', params: { chunk, version, attempt, reason } })
      },
    })
    this.#joiner = joiner
    control.onEpochChange = (replica) => joiner.abort(replica)
    const tellMerged = (chunk: number, parent: number): void => {
      link.send({ method: 'cs.merged', params: { replicas: [{ chunk, parent }] } })
    }
    const merger = new OverlayMerger(store, clock, tellMerged)
    this.#merger = merger
    control.onMergeWanted = (overlay) => merger.want(overlay)
    const link = new MetadataLink(
      {
        ...authentication,
        network,
        clock,
        random,
        logger: logger.child('link'),
        pool,
        identity,
        servers: asMetadataServers(this.#options.metadataAddresses),
      },
      {
        onPeer: (peer) => serveOrders(peer, { store, control, joiner, repairer, verifier, merger }),
        registration: () => this.#registration(store),
        onRegistered: async ({ server, registration, rolledBack }, peer) => {
          if (rolledBack === true) await distrustReplicas(store)
          await recordRegistration(store, server, registration, peer.remoteIdentity?.clusterUuid ?? '')
        },
        *inventory() {
          for (const replica of store.replicas.values()) yield reportOf(replica)
        },
        onReported: () => {
          port.serving = true
          // Not before: what it marks would hide that the disk went back in time (rule B3).
          merger.start()
          store.grown.reportAgain(store.replicas.values())
        },
        heartbeat: (counter) => {
          store.refreshSpace()
          const { space, flags, oldestIoAgeMs } = store
          const grown = store.grown.take()
          const oldestUnverifiedMs = store.verified.oldestMs(store.isVerifiable)
          const counters = { ...store.counters.snapshot(), oldestUnverifiedMs }
          const due = store.verified.due(DUE_COUNT_MAX, store.isVerifiable)
          const givenUp = store.failure !== null
          const { marks } = store.log
          return { counter, marks, space, flags, oldestIoAgeMs, givenUp, counters, grown, due }
        },
      },
    )
    this.#connectEvents(store, link)
    const sessionTimeoutMs = this.#options.sessionTimeoutMs ?? SESSION_TIMEOUT_MS
    store.isInTouch = () => link.silenceMs < sessionTimeoutMs
    const server = new WireServer({
      ...authentication,
      network,
      clock,
      logger: logger.child('port'),
      pool,
      identity,
      onPeer: port.onPeer,
    })
    await server.listen(this.#options.listen)
    this.#server = server
    this.#sources = sources
    this.#link = link
    link.start()
  }

  #connectEvents(store: ChunkStore, link: MetadataLink): void {
    const tell = (chunk: number, version: number, pages: number[], reason: string): void => {
      link.send({ method: 'cs.badPages', params: { chunk, version, pages, reason } })
    }
    const watch = new BadPageWatch(store, this.#options.clock, tell)
    this.#badPages = watch
    store.events = {
      onBadPages: (chunk, version, pages, reason) => {
        watch.note(chunk, pages)
        const fresh = pages.filter((page) => this.#shouldReport(`${chunk}/${page}`)).slice(0, 1024)
        if (fresh.length === 0) return
        tell(chunk, version, fresh, reason)
      },
      onBadReplica: (chunk, version, reason) => {
        link.send({ method: 'cs.badReplica', params: { chunk, version, reason } })
      },
      // the master re-sends what is pending by itself (rule E1); this is for people who look
      onNewerVersion: (replica) => {
        if (this.#shouldReport(`newer ${replica.chunk}`)) {
          this.#options.logger.info('a request is ahead of this replica', { chunk: replica.chunk })
        }
      },
    }
  }

  #shouldReport(key: string): boolean {
    const nowMs = this.#options.clock.nowMs()
    const lastMs = this.#reportedMs.get(key)
    if (lastMs !== undefined && nowMs - lastMs < REPORT_AGAIN_MS) return false
    if (this.#reportedMs.size >= REPORTED_COUNT_MAX) this.#reportedMs.clear()
    this.#reportedMs.set(key, nowMs)
    return true
  }

  #identity(store: ChunkStore): Identity {
    const { clusterName, clusterUuid, server } = store.superblock
    return {
      role: 'cs',
      clusterName,
      clusterUuid,
      session: 0,
      name: `cs ${server} on ${this.#options.hostName}`,
    }
  }

  #registration(store: ChunkStore): ParamsOf<ChunkServerUpMethods, 'cs.register'> {
    const { superblock } = store
    const address = this.address ?? this.#options.listen
    return {
      server: superblock.server,
      storeUuid: superblock.storeUuid,
      registration: superblock.registration,
      incarnation: superblock.incarnation,
      crashes: superblock.crashes,
      uncleanStop: store.uncleanStop,
      hostId: this.#options.hostId,
      hostName: this.#options.hostName,
      location: this.#options.location,
      tier: superblock.tier,
      host: this.#options.advertisedHost ?? address.host,
      port: address.port,
      space: store.space,
      checksums: superblock.checksums,
      replicaCount: store.replicas.size,
      overlays: true,
      marks: store.log.marks,
    }
  }
}

/** Rule S3: who has joined may have left as an overlay, and what the quorum knew of its parent ended with that. */
function tellParent(store: ChunkStore, chunk: number, tell: TellMerged): void {
  const parent = store.replicas.get(chunk)?.state.parent ?? 0
  if (parent === 0) return
  mark('an overlay that had left joins again')
  tell(chunk, parent)
}
