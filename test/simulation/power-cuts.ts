/**
 * Everything loses power at once, again and again, in the middle of overwrites of what was flushed before: torn,
 * partial and reordered as the disks choose (simulated-disk.ts). After each time, with nobody writing: every page can
 * be read, every flushed byte is there, the replicas are equal (rules P1, P2, F1).
 */
import type { SimulatedCluster } from '../../core/testing/simulation/simulated-cluster.ts'
import type { SeededRandom } from '../../core/testing/simulation/seeded-random.ts'
import type { ClientUnderLoad } from './client-under-load.ts'
import { losePower } from './fault-tools.ts'
import { checkReplicas, waitUntilHealthy } from './final-check.ts'
import { checkFiles, checkNames } from './final-reads.ts'
import { Links } from './links.ts'
import type { SharedState } from './shared-state.ts'
import type { World } from './nemesis.ts'

/** Of one run: with more of them the oracle would have to remember too much. */
export const ROUNDS_PER_RUN = 25
const WRITING_MS_MIN = 20
const WRITING_MS_SPAN = 300
/** One time in so many the power fails again while all that is being repaired. */
const AGAIN_ONE_IN = 4
const AGAIN_MS_SPAN = 3000
const CONNECT_LIMIT_MS = 30_000
const CHECK_LIMIT_MS = 60_000

export interface PowerCutRun {
  readonly cluster: SimulatedCluster
  readonly shared: SharedState
  readonly random: SeededRandom
  readonly clients: readonly ClientUnderLoad[]
  readonly directory: number
  /** For each time. */
  readonly onCut: () => void
}

export async function cutPower(run: PowerCutRun): Promise<void> {
  const { cluster, shared, random, clients, directory } = run
  const { oracle } = shared
  const { clock } = cluster
  const isBroken = (): boolean => oracle.violation !== null
  for (let round = 1; round <= ROUNDS_PER_RUN && !isBroken(); round++) {
    await clock.runUntil(isBroken, WRITING_MS_MIN + random.float() * WRITING_MS_SPAN)
    shared.isStopping = true
    cutOnce(run)
    while (random.below(AGAIN_ONE_IN) === 0) {
      await clock.runUntil(isBroken, random.float() * AGAIN_MS_SPAN)
      cutOnce(run)
    }
    await waitUntilHealthy(cluster, shared)
    if (isBroken()) return
    await checkReplicas(cluster, shared)
    const [reader] = clients
    await clock.runUntil(() => reader?.node.client !== null, CONNECT_LIMIT_MS)
    const client = reader?.node.client ?? null
    if (client === null) return oracle.fail('no client connects after a power cut')
    await clock.settled(checkNames(client, 'reader', shared, directory), CHECK_LIMIT_MS)
    await clock.settled(checkFiles(client, 'reader', shared), CHECK_LIMIT_MS)
    shared.isStopping = false
    for (const one of clients) one.begin(directory)
  }
}

function cutOnce({ cluster, shared, random, clients, onCut }: PowerCutRun): void {
  const { oracle } = shared
  const world: World = { cluster, oracle, random, clients, links: new Links(cluster.network) }
  oracle.trace.line('run', 'the power fails')
  onCut()
  for (const client of clients) client.crash()
  for (const server of cluster.chunkServers) losePower(world, server)
  for (const server of cluster.metadataServers) server.losePower()
  for (const server of [...cluster.metadataServers, ...cluster.chunkServers]) server.restart()
  for (const client of clients) client.restart()
}
