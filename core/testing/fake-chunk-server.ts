/**
 * A chunk server without chunks, for tests of the metadata server: keeps (version, role, lease) of replicas,
 * obeys orders, registers, reports and beats. Faults are set from outside. It holds no data.
 */
import { BufferPool } from '../base/buffer-pool.ts'
import { CairnError } from '../base/errors.ts'
import { PAGES_PER_REGION, REGIONS_PER_CHUNK } from '../base/units.ts'
import { silentLogger } from '../platform/logger.ts'
import type { Address } from '../platform/network.ts'
import type { Timer } from '../platform/clock.ts'
import { crc32c } from '../wire/checksum.ts'
import { PAGE_RECORD_BYTES } from '../wire/data.ts'
import { Dialer } from '../wire/dialer.ts'
import {
  type ChunkServerOrderMethods,
  chunkServerOrderMethods,
  type ChunkServerUpMethods,
  chunkServerUpMethods,
} from '../wire/messages/chunk.ts'
import type { ParamsOf, ResultOf } from '../wire/messages/method.ts'
import type { Caller, Handlers, Peer } from '../wire/types.ts'
import { describeReplica, type FakeReplica, newReplica } from './fake-replica.ts'
import type { SeededRandom } from './simulation/seeded-random.ts'
import type { ClockView, SimulatedClock } from './simulation/simulated-clock.ts'
import type { SimulatedHost, SimulatedNetwork } from './simulation/simulated-network.ts'

export interface FakeChunkServerOptions {
  readonly clock: SimulatedClock
  readonly network: SimulatedNetwork
  readonly random: SeededRandom
  /** Also the host of the data port. */
  readonly name: string
  readonly hostId?: string
  readonly metadataServer: Address
  readonly clusterName: string
  readonly totalBytes?: number
  readonly freeBytes?: number
  /** Its disk is a copy of that one's, as it is now; it begins as another process, or as the very same. */
  readonly copyOf?: FakeChunkServer
  readonly incarnation?: number
}

type Orders = ChunkServerOrderMethods
type OrderName = keyof Orders

const GIB = 2 ** 30
const JOIN_MS = 20
const blankRecords = Buffer.alloc(PAGES_PER_REGION * PAGE_RECORD_BYTES)

export class FakeChunkServer {
  readonly replicas = new Map<number, FakeReplica>()
  readonly received: { order: OrderName; params: unknown }[] = []
  /** Answers an order with this code instead of obeying. */
  readonly refuse = new Map<OrderName, string>()
  /** Joins are accepted and never end. */
  joinsHang = false
  knowsOverlays = true
  /** Merges, too. */
  mergesHang = false
  server = 0
  registration = 0
  freeBytes: number
  /** Told with every heartbeat: bytes by chunk (rule A2). */
  readonly grown = new Map<number, number>()
  /** Told with every heartbeat: replicas to be verified next. */
  due: { chunk: number; ageMs: number }[] = []
  /** What else is told with it. */
  counters: Record<string, number> = {}
  /** How long it takes to verify a replica. */
  verifyMs = 0
  isRegistered = false
  /** Nothing can be written down: neither a version nor its registration, which it begins again and again. */
  isDiskDead = false
  readonly #options: FakeChunkServerOptions
  #incarnation = 0
  #crashes = 0
  #isHostCrash = false
  #storeUuid: string
  #dialer: Dialer | null = null
  #clock: ClockView | null = null
  #host: SimulatedHost | null = null
  #up: Caller<ChunkServerUpMethods> | null = null
  #heartbeat = 0
  #timer: Timer | null = null

  constructor(options: FakeChunkServerOptions) {
    this.#options = options
    this.freeBytes = options.freeBytes ?? 100 * GIB
    const { copyOf } = options
    this.#storeUuid = `store ${copyOf?.name ?? options.name}`
    this.#incarnation = options.incarnation ?? 0
    this.server = copyOf?.server ?? 0
    this.registration = copyOf?.registration ?? 0
    for (const [chunk, replica] of copyOf?.replicas ?? []) this.replicas.set(chunk, { ...replica })
  }

  get name(): string {
    return this.#options.name
  }

  get isRunning(): boolean {
    return this.#dialer !== null
  }

  /** A new process. `uncleanStop`: it finds these chunks on its open list. */
  start(uncleanChunks: readonly number[] = []): void {
    const { clock, network, name, random, metadataServer, clusterName } = this.#options
    this.#incarnation += 1
    this.#heartbeat = 0
    for (const chunk of uncleanChunks) {
      const replica = this.replicas.get(chunk)
      if (replica !== undefined) replica.unclean = true
    }
    for (const replica of this.replicas.values())
      replica.restartedAt = replica.role === 'joining' ? replica.version : 0
    const view = clock.view()
    const host = network.host(name)
    this.#clock = view
    this.#host = host
    this.#dialer = new Dialer({
      network: host,
      clock: view,
      random: random.fork(`${name} ${this.#incarnation}`),
      logger: silentLogger,
      pool: new BufferPool(),
      address: { host: metadataServer.host, port: metadataServer.port + 1 },
      identity: () => ({ role: 'cs', clusterName, clusterUuid: '', session: 0, name }),
      onPeer: (peer) => this.#connected(peer, view),
    }).start()
  }

  /** kill -9. */
  crash(): void {
    this.#isHostCrash = false
    this.#clock?.stop()
    this.#timer?.cancel()
    this.#host?.stop()
    this.#dialer = null
    this.isRegistered = false
    this.#up = null
  }

  /** Power cut: crash counted, and what was open is unclean at the next start. */
  losePower(): void {
    this.#crashes += 1
    this.crash()
    this.#isHostCrash = true
  }

  /** The store is restored from a copy taken at this registration number. */
  rollBackRegistration(registration: number): void {
    this.registration = registration
  }

  /** The next heartbeat says a number that was said before, or a lower one. */
  rollBackHeartbeat(): void {
    this.#heartbeat = 0
  }

  report<N extends 'cs.badPages' | 'cs.badReplica' | 'cs.joinFailed'>(
    method: N,
    params: ParamsOf<ChunkServerUpMethods, N>,
  ): void {
    if (this.#up?.notify(method, params) !== true) throw new Error('not connected')
  }

  ordersOf(name: OrderName): unknown[] {
    return this.received.filter((entry) => entry.order === name).map((entry) => entry.params)
  }

  #connected(peer: Peer, clock: ClockView): void {
    peer.serve(chunkServerOrderMethods, this.#handlers(clock))
    const up = peer.caller(chunkServerUpMethods)
    this.#register(up, clock).catch((error: unknown) => {
      this.lastError = error
      peer.close('registration failed')
    })
  }

  lastError: unknown = null

  async #register(up: Caller<ChunkServerUpMethods>, clock: ClockView): Promise<void> {
    const { name, hostId } = this.#options
    const answer = await up.call('cs.register', {
      server: this.server,
      storeUuid: this.#storeUuid,
      registration: this.registration,
      incarnation: this.#incarnation,
      crashes: this.#crashes,
      uncleanStop: 'none',
      hostId: hostId ?? name,
      hostName: name,
      location: '0.0.0',
      tier: 0,
      host: name,
      port: 5000,
      space: this.#space(),
      checksums: true,
      replicaCount: this.replicas.size,
      overlays: this.knowsOverlays,
    })
    if (this.isDiskDead) throw new Error('the registration cannot be stored')
    this.server = answer.server
    this.registration = answer.registration
    const replicas = [...this.replicas].map(
      ([chunk, { version, role, lease, unclean, damaged, restartedAt, parent = 0 }]) => {
        const crashed = unclean && this.#isHostCrash
        const restarted = restartedAt === version
        return { chunk, version, role, lease, unclean, crashed, restarted, damaged, parent }
      },
    )
    await up.call('cs.report', { replicas, last: true })
    this.isRegistered = true
    this.#up = up
    this.#beat(up, clock, answer.heartbeatMs)
  }

  #space(): { totalBytes: number; freeBytes: number } {
    return { totalBytes: this.#options.totalBytes ?? 100 * GIB, freeBytes: this.freeBytes }
  }

  #beat(up: Caller<ChunkServerUpMethods>, clock: ClockView, periodMs: number): void {
    this.#timer?.cancel()
    this.#heartbeat += 1
    const counter = this.#heartbeat
    const sent = up.notify('cs.heartbeat', {
      counter,
      space: this.#space(),
      flags: 'C',
      oldestIoAgeMs: 0,
      givenUp: this.isDiskDead,
      counters: this.counters,
      due: this.due,
      grown: [...this.grown].map(([chunk, bytes]) => ({ chunk, bytes })),
    })
    if (!sent) {
      this.isRegistered = false
      return
    }
    this.#timer = clock.setTimer(periodMs, () => this.#beat(up, clock, periodMs))
  }

  #obey<N extends OrderName>(order: N, params: unknown): void {
    this.received.push({ order, params })
    const code = this.refuse.get(order)
    if (code !== undefined) throw new CairnError(code, 'refused by the test')
  }

  #handlers(clock: ClockView): Handlers<Orders> {
    const obey = this.#obey.bind(this)
    return {
      'replica.create': (params) => {
        obey('replica.create', params)
        const failed: { chunk: number; code: string }[] = []
        for (const { chunk, version, role, lease, parent = 0 } of params.replicas) {
          const isMissing = parent !== 0 && this.replicas.get(parent)?.role !== 'in-sync'
          if (this.replicas.has(chunk)) failed.push({ chunk, code: 'REFUSED' })
          else if (isMissing) failed.push({ chunk, code: 'NOT_IN_SYNC' })
          else this.replicas.set(chunk, { ...newReplica(version, role, lease), parent })
        }
        return { failed }
      },
      'replica.persist': (params) => {
        obey('replica.persist', params)
        return { held: params.replicas.map((order) => this.#persist(order)) }
      },
      'replica.delete': (params) => {
        obey('replica.delete', params)
        const deleted: number[] = []
        const refused: number[] = []
        const codes: { chunk: number; code: string }[] = []
        for (const { chunk, versionMax } of params.replicas) {
          const replica = this.replicas.get(chunk)
          const overlays = this.#overlaysOf(chunk)
          if (replica !== undefined && replica.version > versionMax) refused.push(chunk)
          else if (overlays.length > 0) {
            refused.push(chunk)
            codes.push({ chunk, code: 'HAS_OVERLAY' })
            for (const overlay of overlays) this.#mergeLater(overlay, chunk, clock)
          } else {
            this.replicas.delete(chunk)
            deleted.push(chunk)
          }
        }
        return { deleted, refused, codes }
      },
      'replica.merge': (params) => {
        obey('replica.merge', params)
        for (const { chunk, parent } of params.replicas) this.#mergeLater(chunk, parent, clock)
        return { refused: [] }
      },
      'replica.describe': ({ chunk }) => describeReplica(this.replicas.get(chunk)),
      'replica.join': (params, peer) => {
        obey('replica.join', params)
        if (!this.joinsHang) clock.setTimer(JOIN_MS, () => this.#joined(params, peer))
        return {}
      },
      'replica.heal': (params) => {
        obey('replica.heal', params)
        const replica = this.#at(params.chunk, params.version)
        replica.unclean = false
        replica.complete = true
        return { writtenEnd: replica.writtenEnd, adoptedPages: 0 }
      },
      'replica.repair': (params) => {
        obey('replica.repair', params)
        return {
          repaired: params.sources.length > 0 ? params.pages.length : 0,
          lost: params.sources.length > 0 ? 0 : params.pages.length,
        }
      },
      'replica.verify': async (params) => {
        obey('replica.verify', params)
        const records = this.#at(params.chunk, params.version).records ?? new Map<number, Buffer>()
        const digests = Array.from({ length: REGIONS_PER_CHUNK }, (_, region) =>
          crc32c(records.get(region) ?? blankRecords),
        )
        if (this.verifyMs > 0) await new Promise<void>((done) => void clock.setTimer(this.verifyMs, done))
        return { pages: records.size, badPages: [], lostPages: [], digests }
      },
      'replica.records': (params) => {
        obey('replica.records', params)
        const { records } = this.#at(params.chunk, params.version)
        return { records: records?.get(params.region) ?? blankRecords }
      },
      'replica.reject': (params) => {
        obey('replica.reject', params)
        return { rejected: params.pages.length }
      },
      'replica.verified': (params) => {
        obey('replica.verified', params)
        return {}
      },
      'replica.promote': (params) => {
        obey('replica.promote', params)
        const replica = this.#at(params.chunk, params.version)
        if (!replica.complete) throw new CairnError('NOT_IN_SYNC', 'it has to join first')
        replica.role = 'in-sync'
        return {}
      },
      'replica.close': (params) => {
        obey('replica.close', params)
        return {}
      },
      'cs.ping': () => ({ incarnation: this.#incarnation }),
    }
  }

  #overlaysOf(parent: number): number[] {
    return [...this.replicas].filter(([, replica]) => replica.parent === parent).map(([chunk]) => chunk)
  }

  #mergeLater(chunk: number, parent: number, clock: ClockView): void {
    if (this.mergesHang) return
    clock.setTimer(JOIN_MS, () => {
      const replica = this.replicas.get(chunk)
      if (replica === undefined) return
      if (replica.parent === parent) replica.parent = this.replicas.get(parent)?.parent ?? 0
      this.#up?.notify('cs.merged', { replicas: [{ chunk, parent: replica.parent ?? 0 }] })
    })
  }

  #at(chunk: number, version: number): FakeReplica {
    const replica = this.replicas.get(chunk)
    if (replica === undefined) throw new CairnError('NO_REPLICA', `no replica of ${chunk}`)
    if (replica.version !== version)
      throw new CairnError('WRONG_VERSION', `chunk ${chunk} is at ${replica.version}`)
    return replica
  }

  #persist(
    order: ParamsOf<Orders, 'replica.persist'>['replicas'][number],
  ): ResultOf<Orders, 'replica.persist'>['held'][number] {
    const { chunk, version, role, lease } = order
    const replica = this.replicas.get(chunk)
    if (replica === undefined) return { chunk, version: 0, code: 'NO_REPLICA' }
    if (replica.damaged || this.isDiskDead) return { chunk, version: replica.version, code: 'DISK_FAILED' }
    if (version < replica.version) return { chunk, version: replica.version }
    replica.version = version
    replica.role = role
    replica.lease = Math.max(lease, replica.lease)
    if (role !== 'in-sync') replica.complete = false
    return { chunk, version }
  }

  #joined({ chunk, version, attempt }: ParamsOf<Orders, 'replica.join'>, peer: Peer): void {
    const replica = this.replicas.get(chunk)
    if (replica === undefined || replica.version !== version) return
    replica.complete = true
    replica.unclean = false
    replica.damaged = false
    peer
      .caller(chunkServerUpMethods)
      .notify('cs.joined', { chunk, version, attempt, bytesPulled: 4096, lostPages: 0 })
  }
}
