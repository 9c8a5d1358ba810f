/**
 * A stage for tests of the metadata server: the real one on a simulated clock, network and store, fake chunk
 * servers, and plain sessions that call its methods. Everything follows from one seed.
 */
import { BufferPool } from '../base/buffer-pool.ts'
import { MetadataServer } from '../metadata/server/metadata-server.ts'
import { createCluster } from '../metadata/server/cluster-repository.ts'
import type { ChunkRow } from '../metadata/state/rows.ts'
import { type Logger, silentLogger } from '../platform/logger.ts'
import type { StoreBatch } from '../platform/store.ts'
import { Dialer } from '../wire/dialer.ts'
import type { PlacementAttributes } from '../wire/messages/common.ts'
import {
  type ClientMethods,
  clientMethods,
  type MetadataMethods,
  metadataMethods,
} from '../wire/messages/metadata.ts'
import type { ParamsOf, ResultOf } from '../wire/messages/method.ts'
import type { Caller, Peer } from '../wire/types.ts'
import { FakeChunkServer, type FakeChunkServerOptions } from './fake-chunk-server.ts'
import { SeededRandom } from './simulation/seeded-random.ts'
import { type ClockView, SimulatedClock } from './simulation/simulated-clock.ts'
import { type SimulatedHost, SimulatedNetwork } from './simulation/simulated-network.ts'
import { SimulatedHardState, SimulatedHardStateContents } from './simulation/simulated-hard-state.ts'
import { SimulatedStore, SimulatedStoreContents } from './simulation/simulated-store.ts'

type Methods = MetadataMethods
type Name = keyof Methods
type WithoutMutation<P> = Omit<P, 'mutation'>

const CLUSTER_NAME = 'scene'
const COMMIT_MS = 1
const SETTLE_LIMIT_MS = 60_000

export interface SceneOptions {
  readonly seed?: number
  readonly chunkServerCount: number
  readonly placement: PlacementAttributes
  readonly logger?: Logger
  /** Sees what the metadata server commits. */
  readonly onCommit?: (batch: StoreBatch) => void
}

export class MetadataScene {
  readonly clock = new SimulatedClock()
  readonly random: SeededRandom
  readonly network: SimulatedNetwork
  readonly contents = new SimulatedStoreContents()
  readonly hardState = new SimulatedHardStateContents()
  readonly address = { host: 'mds', port: 2510 }
  readonly chunkServers: FakeChunkServer[] = []
  readonly fatal: Error[] = []
  #mds: MetadataServer | null = null
  #host: SimulatedHost | null = null
  #view: ClockView | null = null
  readonly #options: SceneOptions

  private constructor(options: SceneOptions) {
    this.#options = options
    this.random = new SeededRandom(options.seed ?? 1)
    this.network = new SimulatedNetwork(this.clock, this.random.fork('network'))
  }

  /** Everything runs and is registered. */
  static async open(options: SceneOptions): Promise<MetadataScene> {
    const scene = new MetadataScene(options)
    const { clock } = scene
    const store = new SimulatedStore(scene.contents)
    const created = createCluster(
      {
        store,
        hardState: new SimulatedHardState(scene.hardState),
        clock,
        logger: silentLogger,
        random: scene.random,
        onFatal: (error) => scene.fatal.push(error),
      },
      { name: CLUSTER_NAME, placement: options.placement },
    )
    await clock.settled(created)
    await scene.startMetadataServer()
    for (let number = 1; number <= options.chunkServerCount; number++)
      scene.addChunkServer(`cs${number}`).start()
    await scene.until(() => scene.chunkServers.every((server) => server.isRegistered))
    return scene
  }

  get mds(): MetadataServer {
    if (this.#mds === null) throw new Error('the metadata server is down')
    return this.#mds
  }

  addChunkServer(name: string, facts: Partial<FakeChunkServerOptions> = {}): FakeChunkServer {
    const { clock, network, random, address } = this
    const server = new FakeChunkServer({
      clock,
      network,
      random,
      name,
      metadataServer: address,
      clusterName: CLUSTER_NAME,
      ...facts,
    })
    this.chunkServers.push(server)
    return server
  }

  async startMetadataServer(): Promise<void> {
    const view = this.clock.view()
    const host = this.network.host('mds')
    const store = new SimulatedStore(this.contents, {
      schedule: (callback) => void view.setTimer(COMMIT_MS, callback),
      fateOf: (_number, batch) => {
        this.#options.onCommit?.(batch)
        return 'done'
      },
    })
    this.#view = view
    this.#host = host
    const starting = MetadataServer.start({
      store,
      hardState: new SimulatedHardState(this.hardState, {
        schedule: (callback) => void view.setTimer(COMMIT_MS, callback),
      }),
      clock: view,
      network: host,
      random: this.random.fork('mds'),
      logger: this.#options.logger ?? silentLogger,
      pool: new BufferPool(),
      address: this.address,
      hostName: 'mds',
      onFatal: (error) => this.fatal.push(error),
    })
    this.#mds = await this.clock.settled(starting)
  }

  /** kill -9 of the metadata server. */
  crashMetadataServer(): void {
    this.#view?.stop()
    this.#host?.stop()
    this.#mds = null
  }

  /** Lets time pass until it holds; fails after a minute of simulated time. */
  async until(condition: () => boolean, what = String(condition)): Promise<void> {
    if (!(await this.clock.runUntil(condition, SETTLE_LIMIT_MS))) throw new Error(`never: ${what}`)
  }

  async session(name: string): Promise<SceneSession> {
    const session = new SceneSession(this, name, CLUSTER_NAME)
    await session.open()
    return session
  }

  chunk(chunk: number): ChunkRow {
    const row = this.mds.state.chunks.get(chunk)
    if (row === undefined) throw new Error(`no chunk ${chunk}`)
    return row
  }

  server(id: number): FakeChunkServer {
    const server = this.chunkServers.find((candidate) => candidate.server === id)
    if (server === undefined) throw new Error(`no server ${id}`)
    return server
  }

  inSync(chunk: number): number[] {
    return this.chunk(chunk)
      .members.filter((member) => member.role === 'in-sync')
      .map((member) => member.server)
      .toSorted((a, b) => a - b)
  }

  eventCodes(): string[] {
    return [...this.mds.state.events.values()].map((event) => event.code)
  }
}

/** One session with numbered mutations and automatic renewals, as a client has. */
export class SceneSession {
  readonly name: string
  readonly recalls: ParamsOf<ClientMethods, 'lease.recall'>[] = []
  readonly recalledIntents: ParamsOf<ClientMethods, 'intent.recall'>[] = []
  readonly moved: ParamsOf<ClientMethods, 'chunk.moved'>[] = []
  readonly pauses: ParamsOf<ClientMethods, 'lease.pause'>[] = []
  onRecall: ((params: ParamsOf<ClientMethods, 'lease.recall'>) => void) | null = null
  onPause: ((params: ParamsOf<ClientMethods, 'lease.pause'>) => void) | null = null
  id = 0
  #secret = ''
  #sequence = 0
  readonly #scene: MetadataScene
  readonly #clusterName: string
  #caller: Caller<Methods> | null = null
  #dialer: Dialer | null = null
  #host: SimulatedHost | null = null
  #clock: ClockView | null = null

  constructor(scene: MetadataScene, name: string, clusterName: string) {
    this.#scene = scene
    this.name = name
    this.#clusterName = clusterName
  }

  async open(): Promise<void> {
    await this.#connect()
    const answer = await this.call('session.open', { name: this.name, host: this.name, kind: 'test' })
    this.id = answer.session
    this.#secret = answer.secret
    this.#renew()
  }

  /** After the metadata server restarted, or a crash of the connection. */
  async resume(openInodes: number[] = []): Promise<void> {
    this.crash()
    await this.#connect()
    await this.call('session.resume', { session: this.id, secret: this.#secret, openInodes })
    this.#renew()
  }

  /** The client is gone, without a word. */
  crash(): void {
    this.#clock?.stop()
    this.#host?.stop()
    this.#dialer = null
  }

  call<N extends Name>(method: N, params: ParamsOf<Methods, N>): Promise<ResultOf<Methods, N>> {
    return this.#scene.clock.settled(this.start(method, params))
  }

  /** Does not let time pass. */
  start<N extends Name>(method: N, params: ParamsOf<Methods, N>): Promise<ResultOf<Methods, N>> {
    if (this.#caller === null) throw new Error('not connected')
    return this.#caller.call(method, params, { timeoutMs: 30_000 })
  }

  mutate<N extends Name>(
    method: N,
    params: WithoutMutation<ParamsOf<Methods, N>>,
  ): Promise<ResultOf<Methods, N>> {
    return this.call(method, { ...params, mutation: this.#nextMutation() } as unknown as ParamsOf<Methods, N>)
  }

  /** Does not let time pass. */
  mutateLater<N extends Name>(
    method: N,
    params: WithoutMutation<ParamsOf<Methods, N>>,
  ): Promise<ResultOf<Methods, N>> {
    return this.start(method, { ...params, mutation: this.#nextMutation() } as unknown as ParamsOf<
      Methods,
      N
    >)
  }

  #nextMutation(): { sequence: number; acknowledgedBelow: number } {
    this.#sequence += 1
    return { sequence: this.#sequence, acknowledgedBelow: this.#sequence }
  }

  async createFile(name: string): Promise<number> {
    const owner = { uid: 0, gid: 0 }
    const answer = await this.mutate('fs.create', {
      parent: 1,
      name,
      mode: 0o644,
      ...owner,
      exclusive: true,
      lease: false,
    })
    return answer.attributes.inode
  }

  async lease(inode: number): Promise<number> {
    return (await this.mutate('lease.acquire', { inode, pinned: false })).lease
  }

  /** As clients do: again while the answer is TRY_AGAIN. */
  async insist<T>(ask: () => Promise<T>): Promise<T> {
    for (let attempt = 0; ; attempt++) {
      try {
        return await ask()
      } catch (error) {
        if ((error as { code?: string }).code !== 'TRY_AGAIN' || attempt > 100) throw error
        await this.#scene.clock.advance(100)
      }
    }
  }

  async #connect(): Promise<void> {
    const { clock, network, random, address } = this.#scene
    const view = clock.view()
    const host = network.host(this.name)
    this.#clock = view
    this.#host = host
    this.#dialer = new Dialer({
      network: host,
      clock: view,
      random: random.fork(this.name),
      logger: silentLogger,
      pool: new BufferPool(),
      address: { host: address.host, port: address.port + 1 },
      identity: () => ({
        role: 'client',
        clusterName: this.#clusterName,
        clusterUuid: '',
        session: 0,
        name: this.name,
      }),
      onPeer: (peer) => this.#serve(peer),
    }).start()
    const peer = await clock.settled(this.#dialer.ready(10_000))
    this.#caller = peer.caller(metadataMethods)
  }

  #serve(peer: Peer): void {
    peer.serve(clientMethods, {
      'mds.members': () => ({}),
      'lease.recall': (params) => {
        this.recalls.push(params)
        this.onRecall?.(params)
        return {}
      },
      'intent.recall': (params) => {
        this.recalledIntents.push(params)
        return {}
      },
      'lease.pause': (params) => {
        this.pauses.push(params)
        this.onPause?.(params)
        return {}
      },
      'chunk.moved': (params) => {
        this.moved.push(params)
        return {}
      },
      'cache.invalidate': () => ({}),
    })
  }

  #renew(): void {
    const clock = this.#clock
    clock?.setTimer(1000, () => {
      this.#caller?.call('session.renew', {}).catch(() => {})
      if (this.#clock === clock) this.#renew()
    })
  }
}
