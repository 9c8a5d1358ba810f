/**
 * A whole cluster for the tests of a plugin or a program: a metadata server, chunk servers and a client,
 * the real code, in memory and on virtual time. Nothing outlives the test: there are no real timers,
 * sockets or files, so there is nothing to stop when a test fails.
 *
 *   const cluster = await startTestCluster()
 *   const { file } = await cluster.run(cluster.client.fileSystem.create(1, 'a', 0o644, owner, true))
 *   cluster.chunkServers[0].crash()
 *   await cluster.advance(10_000)
 *
 * Time stands still between the calls: `run` lets it pass until the promise has settled.
 */
import type { Client } from '../client/api.ts'
import type { WindowLimits } from '../metadata/quorum/recovery.ts'
import type { Logger } from '../platform/logger.ts'
import { type ChunkServerNode, SimulatedCluster } from './simulation/simulated-cluster.ts'
import type { MetadataServerNode } from './simulation/simulated-metadata-server.ts'
import type { SimulatedClock } from './simulation/simulated-clock.ts'
import type { SimulatedNetwork } from './simulation/simulated-network.ts'

const START_LIMIT_MS = 60_000
const RUN_LIMIT_MS = 600_000

export interface TestClusterOptions {
  /** The same seed gives the same run. Default 1. */
  readonly seed?: number
  /** Default 1. */
  readonly metadataServers?: number
  /** How much of the metadata log is kept; default: as in production. */
  readonly window?: WindowLimits
  /** Default 3. */
  readonly chunkServers?: number
  /** replicas=N:M. Default: one on each chunk server up to 3, at least 2 of them. */
  readonly replicas?: { readonly normal: number; readonly minimum: number }
  /** As `cairn set-config KEY=VALUE`. */
  readonly parameters?: Readonly<Record<string, string>>
  readonly logger?: (name: string) => Logger
}

export interface TestCluster {
  readonly client: Client
  readonly clock: SimulatedClock
  /** `partition`, `heal`, `cut`, `setDelay` between `node.host` names. */
  readonly network: SimulatedNetwork
  /** `crash()`, `losePower()`, `restart()`, `disk.faults`. */
  readonly metadataServer: MetadataServerNode
  readonly metadataServers: readonly MetadataServerNode[]
  /** Null while there is none. */
  master(): MetadataServerNode | null
  readonly chunkServers: readonly ChunkServerNode[]
  /** Another client; nobody but the test stops it. */
  connect(name: string): Promise<Client>
  /** The promise's outcome, letting time pass until it is there. */
  run<T>(promise: Promise<T>, limitMs?: number): Promise<T>
  advance(durationMs: number): Promise<void>
  /** Lets time pass until `condition` holds; rejects when `limitMs` have passed before. */
  until(condition: () => boolean, limitMs?: number): Promise<void>
  /** Every chunk has all its replicas in sync. */
  isHealthy(): boolean
  /** Closes the client; flushes and gives back leases. */
  stop(): Promise<void>
}

/** Resolves when the cluster serves and a client is connected. */
export async function startTestCluster(options: TestClusterOptions = {}): Promise<TestCluster> {
  const chunkServerCount = options.chunkServers ?? 3
  const normal = Math.min(3, chunkServerCount)
  const cluster = new SimulatedCluster({
    seed: options.seed ?? 1,
    chunkServerCount,
    metadataServerCount: options.metadataServers ?? 1,
    replicas: options.replicas ?? { normal, minimum: Math.min(2, normal) },
    ...(options.parameters === undefined ? {} : { parameters: options.parameters }),
    ...(options.window === undefined ? {} : { window: options.window }),
    ...(options.logger === undefined ? {} : { logger: options.logger }),
  })
  const { clock } = cluster
  const until = async (condition: () => boolean, limitMs = RUN_LIMIT_MS): Promise<void> => {
    if (!(await clock.runUntil(condition, limitMs)))
      throw new Error(`it did not come true in ${limitMs} ms of simulated time`)
  }
  const connect = async (name: string): Promise<Client> => {
    const node = cluster.addClient(name)
    node.restart()
    await until(() => node.client !== null, START_LIMIT_MS)
    return node.client as Client
  }
  cluster.start()
  await until(() => cluster.isServing, START_LIMIT_MS)
  await clock.settled(cluster.configure(), START_LIMIT_MS)
  const client = await connect('client')
  return {
    client,
    clock,
    network: cluster.network,
    metadataServer: cluster.metadataServer,
    metadataServers: cluster.metadataServers,
    master: () => cluster.master,
    chunkServers: cluster.chunkServers,
    connect,
    run: (promise, limitMs = RUN_LIMIT_MS) => clock.settled(promise, limitMs),
    advance: (durationMs) => clock.advance(durationMs),
    until,
    isHealthy: () =>
      cluster.isServing &&
      cluster.chunks().every((chunk) => chunk.isSettled && chunk.inSync.length >= chunk.wantedCount),
    stop: () => clock.settled(client.close(), RUN_LIMIT_MS),
  }
}
