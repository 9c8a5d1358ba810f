/** Losses that leave just enough: one replica alone, a file or page records that are gone. */
import { chunkPath, regionSlotPosition, SLOT_BYTES } from '../../core/chunkserver/format/chunk-layout.ts'
import { REGIONS_PER_CHUNK } from '../../core/base/units.ts'
import type { ChunkServerNode } from '../../core/testing/simulation/simulated-cluster.ts'
import {
  between,
  type Fault,
  type FaultSource,
  hasMetadata,
  pick,
  running,
  tellMemoryLost,
} from './fault-tools.ts'
import type { World } from './nemesis.ts'

/** Of servers; more would make the cluster count as failed (mds.wd.max_offline_cs). */
const LOSSES_MAX = 2
const IN_SYNC_MIN = 3

/** Of a chunk that has other replicas in sync; always on the same server, so that good ones are left. */
function damagedAtRest(
  world: World,
  what: string,
  damage: (server: ChunkServerNode, path: string) => void,
): Fault | null {
  const server = world.cluster.chunkServers[0]
  if (server === undefined || !server.isRunning || !hasMetadata(world)) return null
  const chunks = world.cluster
    .chunks()
    .filter(
      ({ inSync, isPending }) => !isPending && inSync.length >= IN_SYNC_MIN && inSync.includes(server.server),
    )
    .map(({ chunk }) => chunk)
    .filter((chunk) => server.simulatedDisk.exists(chunkPath(chunk)))
  const chunk = pick(world, chunks)
  if (chunk === null) return null
  return {
    description: `${server.name} chunk ${chunk} loses its ${what}`,
    durationMs: between(world, 50, 1000),
    begin: () => {
      tellMemoryLost(world.cluster, world.oracle, server.server)
      server.crash()
      damage(server, chunkPath(chunk))
    },
    end: () => server.restart(),
  }
}

export const lossFaults = {
  /**
   * All chunk servers but one burn, and that one loses power: what was flushed is there as long as one disk of a
   * replica in sync is (promise 1). So every replica in sync must have all of it, alone.
   */
  'one-survivor': (world) => {
    const { cluster, oracle } = world
    const survivor = pick(world, running(cluster.chunkServers))
    const losses = cluster.chunkServers.reduce((sum, { lossCount }) => sum + lossCount, 0)
    if (
      survivor === null ||
      survivor.server === 0 ||
      losses + cluster.chunkServers.length - 1 > LOSSES_MAX ||
      !hasMetadata(world)
    )
      return null
    const hasAll = cluster
      .chunks()
      .every(({ inSync, isPending }) => !isPending && inSync.includes(survivor.server))
    // what is being created is created on all of them
    const isWhole = cluster.chunkServers.every(
      ({ server, isRunning }) => isRunning && cluster.isActive(server),
    )
    const others = cluster.chunkServers.filter((server) => server !== survivor)
    if (!hasAll || !isWhole) return null
    return {
      description: survivor.name,
      durationMs: between(world, 50, 3000),
      begin: () => {
        for (const { server } of cluster.chunkServers) tellMemoryLost(cluster, oracle, server)
        for (const other of others) other.wipe()
        survivor.losePower()
      },
      end: () => cluster.chunkServers.forEach((server) => server.restart()),
    }
  },
  /** The directory entry of a chunk file is gone. */
  'lost-file': (world) =>
    damagedAtRest(world, 'file', ({ simulatedDisk }, path) => {
      simulatedDisk.remove(path)
      simulatedDisk.syncDirectory(path.slice(0, path.lastIndexOf('/')), () => {})
    }),
  /** Page records of all regions read as if they had never been written. */
  'lost-records': (world) =>
    damagedAtRest(world, 'page records', ({ simulatedDisk }, path) => {
      const zeros = Buffer.alloc(2 * SLOT_BYTES)
      for (let region = 0; region < REGIONS_PER_CHUNK; region++)
        simulatedDisk.overwrite(path, regionSlotPosition(region, 0), zeros)
    }),
} as const satisfies Record<string, FaultSource>
