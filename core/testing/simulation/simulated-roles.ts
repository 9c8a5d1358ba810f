/**
 * How the simulated cluster starts the production code of each role. Replaceable one by one, so that the
 * simulator can plant bugs and see that it finds them.
 */
import { BufferPool } from '../../base/buffer-pool.ts'
import { ChunkServer } from '../../chunkserver/chunk-server.ts'
import { createStore } from '../../chunkserver/store/store-open.ts'
import type { Client, ConnectOptions } from '../../client/api.ts'
import { connect } from '../../client/client.ts'
import type { ClientPlatform } from '../../client/session/transport.ts'
import { placementOf } from '../../metadata/chunks/sharing.ts'
import { createCluster } from '../../metadata/server/cluster-repository.ts'
import type { WindowLimits } from '../../metadata/quorum/recovery.ts'
import { MetadataServer } from '../../metadata/server/metadata-server.ts'
import type { Clock } from '../../platform/clock.ts'
import type { Disk } from '../../platform/disk.ts'
import type { Logger } from '../../platform/logger.ts'
import type { Address, Network } from '../../platform/network.ts'
import type { Random } from '../../platform/random.ts'
import type { HardStateFile } from '../../platform/hard-state.ts'
import type { SnapshotFiles } from '../../platform/snapshot-files.ts'
import type { Store } from '../../platform/store.ts'

export const CLUSTER_NAME = 'simulation'

/** Where one replica set is, as the quorum sees it. */
export interface ChunkView {
  readonly chunk: number
  /** Of those that hold it; 0: none does, and overlays read through it. */
  readonly inode: number
  readonly index: number
  readonly version: number
  /** How many replicas those that hold it want. */
  readonly wantedCount: number
  /** In-sync servers of the active epoch. */
  readonly inSync: readonly number[]
  /** Where it is an overlay, and over which chunk. */
  readonly overlays: readonly { readonly server: number; readonly parent: number }[]
  /** A new epoch is under way. */
  readonly isPending: boolean
  /** Nothing is on its way: no pending epoch, no joiner, no writer, no dead writer's mark. */
  readonly isSettled: boolean
}

interface ProcessParts {
  readonly clock: Clock
  readonly network: Network
  readonly random: Random
  readonly logger: Logger
  readonly clusterName: string
  readonly hostName: string
  readonly address: Address
  readonly onFatal: (error: Error) => void
}

export interface MetadataServerParts extends ProcessParts {
  readonly store: Store
  readonly hardState: HardStateFile
  readonly snapshots: SnapshotFiles
  /** How much of the log is kept; default: as in production. */
  readonly window?: WindowLimits
}

export interface MetadataRole {
  readonly server: MetadataServer
  chunks(): ChunkView[]
}

export interface ChunkServerParts extends ProcessParts {
  readonly disk: Disk
  readonly metadataServers: readonly Address[]
}

export interface ChunkServerRole {
  /** Id in the cluster; 0: not registered yet. */
  readonly server: number
  /** Registered and serving. */
  readonly isRegistered: boolean
  /** The number on its disk (rule B3). */
  readonly registration: number
  /** Pages it knows to be bad. */
  readonly badPageCount: number
  /** The chunks it keeps replicas of, and what each reads through; 0: nothing. */
  replicas(): { readonly chunk: number; readonly parent: number }[]
}

export interface SimulatedRoles {
  /** Once, on an empty store. */
  createCluster(parts: MetadataServerParts): Promise<void>
  metadataServer(parts: MetadataServerParts): Promise<MetadataRole>
  /** Once, on an empty disk. */
  makeChunkStore(parts: ChunkServerParts): Promise<void>
  chunkServer(parts: ChunkServerParts): Promise<ChunkServerRole>
  client(options: ConnectOptions, platform: ClientPlatform): Promise<Client>
}

/** Of all simulated processes: most live too short to fill one of their own. */
const pool = new BufferPool()

export const simulatedRoles: SimulatedRoles = {
  async createCluster({ store, hardState, clock, random, logger, clusterName, onFatal }) {
    await createCluster({ store, hardState, clock, random, logger, onFatal }, { name: clusterName })
  },

  async metadataServer(parts) {
    const server = await MetadataServer.start({ ...parts, pool })
    return { server, chunks: () => chunksOf(server) }
  },

  async makeChunkStore({ disk, clock, random, clusterName }) {
    await createStore({ disk, clock, random, clusterName, tier: 0, checksums: true })
  },

  async chunkServer(parts) {
    const { disk, clock, network, random, logger, clusterName, hostName } = parts
    const server = new ChunkServer({
      disk,
      clock,
      network,
      random,
      logger,
      clusterName,
      metadataAddresses: parts.metadataServers,
      listen: parts.address,
      hostId: hostName,
      hostName,
      location: '0.0.0',
      pool,
    })
    await server.start()
    return {
      get server() {
        return server.store?.superblock.server ?? 0
      },
      get registration() {
        return server.store?.superblock.registration ?? 0
      },
      get isRegistered() {
        return server.isRegistered
      },
      get badPageCount() {
        return server.badPageCount
      },
      replicas: () =>
        [...(server.store?.replicas.values() ?? [])]
          .filter(({ deleted }) => !deleted)
          .map(({ chunk, state }) => ({ chunk, parent: state.parent })),
    }
  },

  client: (options, platform) => connect(options, { ...platform, pool }),
}

function chunksOf(server: MetadataServer): ChunkView[] {
  const { chunks } = server.state
  const found: ChunkView[] = []
  for (const id of chunks.ids()) {
    const row = chunks.get(id)
    if (row === undefined) continue
    const inSync = row.members.filter(({ role }) => role === 'in-sync').map((member) => member.server)
    found.push({
      chunk: row.chunk,
      inode: row.inode,
      index: row.index,
      version: row.version,
      wantedCount: placementOf(server.state, row)?.replicasNormal ?? 0,
      inSync,
      overlays: chunks.sharing.overlays(id),
      isPending: row.pending !== null,
      isSettled:
        row.pending === null &&
        !row.dirtyDead &&
        row.intentLease === 0 &&
        inSync.length === row.members.length,
    })
  }
  return found
}
