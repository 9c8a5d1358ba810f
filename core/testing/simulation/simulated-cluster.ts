/**
 * A whole cluster in one process: a metadata server, chunk servers and clients, production code all of it,
 * on a simulated clock, network, store and disks. Everything follows from one seed. Nothing runs by itself:
 * move time with `clock.advance` and `clock.runUntil`.
 */
import { HIGHEST_LEVEL } from '../../metadata/state/feature-levels.ts'
import { present } from '../../base/assert.ts'
import type { Client } from '../../client/api.ts'
import type { Address } from '../../platform/network.ts'
import type { WindowLimits } from '../../metadata/quorum/recovery.ts'
import { type Logger, silentLogger } from '../../platform/logger.ts'
import { SeededRandom } from './seeded-random.ts'
import { ROOT_INODE } from '../../wire/messages/common.ts'
import { SimulatedAdmin } from './simulated-admin.ts'
import { SimulatedClock } from './simulated-clock.ts'
import { type DiskImage, SimulatedDisk } from './simulated-disk.ts'
import { SimulatedNetwork } from './simulated-network.ts'
import { ProcessLife } from './simulated-process.ts'
import { MetadataServerNode } from './simulated-metadata-server.ts'
import { SimulatedNode, SUPERVISOR_DELAY_MS } from './simulated-node.ts'
import type { ChunkServerRole, ChunkView, MetadataRole, SimulatedRoles } from './simulated-roles.ts'
import { CLUSTER_NAME, simulatedRoles } from './simulated-roles.ts'

const CHUNK_SERVER_PORT = 5000

export interface SimulatedClusterOptions {
  readonly seed: number
  readonly chunkServerCount: number
  /** Default 1. */
  readonly metadataServerCount?: number
  /** How much of the metadata log is kept; default: as in production. */
  readonly window?: WindowLimits
  /** replicas=N:M of the root directory. */
  readonly replicas: { readonly normal: number; readonly minimum: number }
  /** Cluster parameters, as `cairn set-config` takes them. */
  readonly parameters?: Readonly<Record<string, string>>
  readonly logger?: (name: string) => Logger
  /** Local milliseconds per true millisecond of each process's clock. */
  readonly clockRate?: (name: string) => number
  /** A process ended by itself, or broke: `error` says why. */
  readonly onEnded?: (name: string, error: unknown) => void
  /** Where a member was removed, another one asks to be let in. */
  readonly replacesRemovedMembers?: boolean
  /** For planted bugs. */
  readonly roles?: Partial<SimulatedRoles>
}

export class ChunkServerNode extends SimulatedNode {
  role: ChunkServerRole | null = null
  #server = 0
  #isMade = false

  constructor(cluster: SimulatedCluster, name: string, disk: SimulatedDisk) {
    super(cluster, name, disk)
  }

  override get server(): number {
    if (this.role !== null && this.role.server !== 0) this.#server = this.role.server
    return this.#server
  }

  get simulatedDisk(): SimulatedDisk {
    return this.disk as SimulatedDisk
  }

  /** How often its disk was replaced, died, or went back in time. */
  lossCount = 0

  /** kill -9, and the disk is replaced by an empty one: what starts again is a new chunk server. */
  wipe(): void {
    this.crash()
    this.lossCount++
    this.isRefused = false
    this.disk = this.cluster.makeDisk(`${this.name} ${this.lossCount}`)
    this.#isMade = false
    this.#server = 0
  }

  /** Every call fails from now on, also of the processes to come. */
  diskDies(): void {
    this.lossCount++
    this.simulatedDisk.faults.dead = true
  }

  get isDiskDead(): boolean {
    return this.simulatedDisk.faults.dead
  }

  /** Its disk went back behind its last registration: it must not be let in. */
  isRefused = false

  /** The machine loses power, and its disk is as it was at an earlier moment. */
  goBack(image: DiskImage, isRefused: boolean): void {
    this.isRefused = isRefused
    this.losePower()
    this.lossCount++
    this.simulatedDisk.restore(image)
  }

  protected async begin(life: ProcessLife): Promise<void> {
    const parts = {
      disk: this.simulatedDisk,
      clock: life.clock,
      network: life.network,
      random: life.random,
      logger: this.cluster.loggerOf(this.name),
      clusterName: CLUSTER_NAME,
      address: { host: this.host, port: CHUNK_SERVER_PORT },
      metadataServers: this.cluster.metadataServers.map(({ address }) => address),
      hostName: this.host,
      onFatal: (error: Error) => this.ended(life, error),
    }
    if (!this.#isMade) {
      await this.cluster.roles.makeChunkStore(parts)
      this.#isMade = true
    }
    const role = await this.cluster.roles.chunkServer(parts)
    if (life === this.life) this.role = role
  }

  protected forget(): void {
    this.role = null
  }
}

export class ClientNode extends SimulatedNode {
  client: Client | null = null
  readonly #onClient: (client: Client) => void

  constructor(cluster: SimulatedCluster, name: string, onClient: (client: Client) => void = () => {}) {
    super(cluster, name, null)
    this.#onClient = onClient
  }

  protected async begin(life: ProcessLife): Promise<void> {
    const servers = this.cluster.metadataServers.map(({ address: { host, port } }) => `${host}:${port}`)
    const client = await this.cluster.roles.client(
      { cluster: CLUSTER_NAME, metadataServers: servers, kind: 'test', name: this.name },
      {
        clock: life.clock,
        network: life.network,
        random: life.random,
        logger: this.cluster.loggerOf(this.name),
        hostName: this.host,
      },
    )
    if (life !== this.life) return
    this.client = client
    this.#onClient(client)
  }

  protected forget(): void {
    this.client = null
  }
}

export class SimulatedCluster {
  readonly options: SimulatedClusterOptions
  readonly clock = new SimulatedClock()
  readonly random: SeededRandom
  readonly network: SimulatedNetwork
  readonly roles: SimulatedRoles
  readonly metadataServers: readonly MetadataServerNode[]
  readonly chunkServers: readonly ChunkServerNode[]
  readonly clients: ClientNode[] = []

  #adminCount = 0

  constructor(options: SimulatedClusterOptions) {
    this.options = options
    this.random = new SeededRandom(options.seed)
    this.network = new SimulatedNetwork(this.clock, this.random.fork('network'))
    this.roles = { ...simulatedRoles, ...options.roles }
    this.metadataServers = Array.from(
      { length: options.metadataServerCount ?? 1 },
      (_, index) => new MetadataServerNode(this, index + 1),
    )
    this.chunkServers = Array.from({ length: options.chunkServerCount }, (_, index) => {
      const name = `cs${index + 1}`
      return new ChunkServerNode(this, name, this.makeDisk(name))
    })
  }

  makeDisk(name: string): SimulatedDisk {
    const seed = this.random.fork(`disk ${name}`).uint32()
    return new SimulatedDisk({ seed, clock: this.clock })
  }

  /** Resolves when all servers serve. Time must move meanwhile: see `runUntil`. */
  start(): void {
    for (const server of this.metadataServers) server.restart()
    for (const server of this.chunkServers) server.restart()
  }

  addClient(name: string, onClient?: (client: Client) => void): ClientNode {
    const node = new ClientNode(this, name, onClient)
    this.clients.push(node)
    return node
  }

  /** Every chunk as the quorum sees it; none while no metadata server runs. */
  chunks(): ChunkView[] {
    return this.#witness?.chunks() ?? []
  }

  /** Does the quorum take this chunk server for active? */
  isActive(server: number): boolean {
    return this.#witness?.server.state.servers.get(server)?.state === 'active'
  }

  /** Who knows best what is committed: the master, or who has applied most while there is none. */
  get #witness(): MetadataRole | null {
    if (this.master !== null) return this.master.role
    const roles = this.metadataServers.map(({ role }) => role).filter((role) => role !== null)
    return roles.toSorted((a, b) => b.server.log.appliedIndex - a.server.log.appliedIndex)[0] ?? null
  }

  /** The first, which is the only one when there is one. */
  get metadataServer(): MetadataServerNode {
    return present(this.metadataServers[0], 'there is a metadata server')
  }

  /** Who takes itself for the master; of several that of the latest term. */
  get master(): MetadataServerNode | null {
    const termOf = (node: MetadataServerNode): number => node.role?.server.log.status.term ?? 0
    const masters = this.metadataServers.filter((node) => node.isMaster)
    return masters.toSorted((one, other) => termOf(other) - termOf(one))[0] ?? null
  }

  /** All servers run, are registered (unless their disk is dead), vote, and there is a master. */
  get isServing(): boolean {
    return (
      this.master?.role?.server.log.configuration.voters.length === this.metadataServers.length &&
      this.metadataServers.every(({ role }) => role !== null) &&
      this.chunkServers.every(({ role, isDiskDead }) => isDiskDead || role?.isRegistered === true)
    )
  }

  /** An administrator's session. Close it. */
  connectAdmin(): Promise<SimulatedAdmin> {
    const life = this.newLife('admin', 'admin.host', ++this.#adminCount)
    const { address } = this.master ?? this.metadataServer
    return SimulatedAdmin.connect(life, CLUSTER_NAME, address)
  }

  /** Asks the master for an id, until it has one. */
  async addMember(address: Address, name: string, life: ProcessLife): Promise<number> {
    for (;;) {
      try {
        const admin = await this.connectAdmin()
        const { member } = await admin.metadata.call('mds.add', { ...address, name, level: HIGHEST_LEVEL })
        await admin.close()
        return member
      } catch (error) {
        this.loggerOf(name).info('no id yet', { error: String(error) })
      }
      await new Promise<void>((resolve) => void life.clock.setTimer(SUPERVISOR_DELAY_MS, resolve))
    }
  }

  /** Sets the parameters and the attributes of the root directory as the options say. */
  async configure(): Promise<void> {
    const admin = await this.connectAdmin()
    for (const [key, value] of Object.entries(this.options.parameters ?? {}))
      await admin.metadata.call('admin.setConfig', { mutation: admin.mutation(), key, value })
    await admin.setReplicas(ROOT_INODE, this.options.replicas)
    await admin.close()
  }

  /** One command of an administrator; rejects when the master does not answer. */
  async administrate<T>(command: (admin: SimulatedAdmin) => Promise<T>): Promise<T> {
    const admin = await this.connectAdmin()
    const result = await command(admin)
    await admin.close()
    return result
  }

  /** The run is over; nothing of it may be used any more. */
  dispose(): void {
    for (const node of [...this.metadataServers, ...this.chunkServers, ...this.clients]) node.crash()
    for (const server of this.chunkServers) server.simulatedDisk.dispose()
  }

  loggerOf(name: string): Logger {
    return this.options.logger?.(name) ?? silentLogger
  }

  newLife(name: string, host: string, number: number): ProcessLife {
    this.#resetOldConnections(host)
    const skew = { rate: this.options.clockRate?.(name) ?? 1, bootOffsetMs: 1000 }
    return new ProcessLife(this.clock, this.network, host, this.random.fork(`${name} ${number}`), skew)
  }

  processEnded(name: string, reason: unknown): void {
    this.options.onEnded?.(name, reason)
  }

  readonly #silentHosts = new Set<string>()

  noteSilentEnd(host: string): void {
    this.#silentHosts.add(host)
  }

  #resetOldConnections(host: string): void {
    if (!this.#silentHosts.delete(host)) return
    for (const node of [...this.metadataServers, ...this.chunkServers, ...this.clients])
      if (node.host !== host) this.network.cut(host, node.host)
  }
}
