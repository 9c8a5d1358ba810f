/** What the faults of the torture reach for: the cluster, its clients, chance, and somewhere to say things. */
import { setTimeout as pause } from 'node:timers/promises'
import type { SeededRandom } from '../../core/testing/simulation/seeded-random.ts'
import { checkCluster, type FsckResult } from '../../core/cli/fsck.ts'
import type { HostRole } from '../integration/support/network.ts'
import { until } from '../integration/support/programs.ts'
import type { ClusterStatistics } from '../../core/wire/messages/statistics.ts'
import type { ClientHost } from './clients.ts'
import type { ChunkServerPlace, Place, ServerPlace, TorturedCluster } from './cluster.ts'

export interface World extends TorturedCluster {
  readonly hosts: readonly ClientHost[]
  readonly random: SeededRandom
}

const RECOVERY_TIMEOUT_MS = 300_000

/** Evenly between the two. */
export async function away(random: SeededRandom, fromMs: number, toMs: number): Promise<number> {
  const awayMs = fromMs + random.below(toMs - fromMs)
  await pause(awayMs)
  return awayMs
}

export function placesOf(world: World): readonly Place[] {
  return [...world.metadataServers, ...world.chunkServers, ...world.clients]
}

/** Clients are no servers. */
export function serversOf(world: World, role: HostRole): readonly ServerPlace[] {
  return role === 'mds' ? world.metadataServers : role === 'cs' ? world.chunkServers : []
}

/** A server that has ended by itself; null: all run. `except`: on these hosts anything may happen now. */
export function whatEnded(world: World, except: (host: string) => boolean = () => false): string | null {
  const places = [...world.metadataServers, ...world.chunkServers]
  const ended = places.find(({ host, server }) => !server.isRunning && !except(host.name))
  return ended === undefined ? null : `${ended.host.name} has ended by itself: ${ended.server.output}`
}

/** Null: nobody answers for now. */
export async function lookAt(world: World): Promise<ClusterStatistics | null> {
  try {
    return await world.cluster.statistics()
  } catch {
    return null
  }
}

/** Every chunk has all its replicas. */
export function isHealthy({ chunks }: ClusterStatistics): boolean {
  return chunks.healthy === chunks.total && chunks.replicating === 0 && chunks.pending === 0
}

/** What the cluster says of this server now. */
export async function statusOf(world: World, { server }: ChunkServerPlace): Promise<string> {
  const { id } = server
  const found = (await lookAt(world))?.cs.find((candidate) => candidate.id === id)
  return found === undefined ? 'nothing' : `${found.status} ${found.flags} ${found.replicas}`
}

/** Reads everything until nothing is wrong any more. Gives how many problems the first look found. */
export async function repairAll(world: World): Promise<number> {
  let found: number | null = null
  await until(
    'everything is repaired',
    async () => {
      const result = await fsck(world)
      if (result === null) return 'no answer'
      found ??= result.problemCount
      return result.problemCount === 0 || JSON.stringify(result.problems.slice(0, 3))
    },
    RECOVERY_TIMEOUT_MS,
  )
  return found ?? 0
}

/** Every chunk becomes healthy, and all its replicas are readable and equal; if not, `problems` hears of it. */
export async function allWell(world: World, problems: string[]): Promise<void> {
  await until(
    'all chunks are healthy',
    async () => {
      const ended = whatEnded(world)
      if (ended !== null) throw new Error(ended)
      const seen = await lookAt(world)
      return (seen !== null && isHealthy(seen)) || JSON.stringify(seen?.chunks)
    },
    RECOVERY_TIMEOUT_MS,
  )
  await until(
    'fsck compares everything',
    async () => {
      const result = await fsck(world)
      if (result === null) return 'no answer'
      if (result.problemCount > 0) problems.push(`fsck: ${JSON.stringify(result.problems.slice(0, 5))}`)
      return result.problemCount > 0 || result.notCompared === 0 || `${result.notCompared} chunks in use`
    },
    RECOVERY_TIMEOUT_MS,
  )
}

/** As `cairn fsck` does it. Null: it could not be carried through. */
async function fsck(world: World): Promise<FsckResult | null> {
  try {
    return await world.cluster.ask((admin) => checkCluster(admin, { repairs: false, onProgress: () => {} }))
  } catch {
    // No master for now.
    return null
  }
}
