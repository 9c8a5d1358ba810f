/** `admin.stat` and `admin.services`: the keys of `cairn stat --json`, from soft state and the censuses. */
import { domainCapacities, logicalCapacity } from '../../../placement/capacity.ts'
import { domainCount, type FailureDomain, type PlacementServer } from '../../../placement/topology.ts'
import { ROOT_INODE } from '../../../wire/messages/common.ts'
import { formatAddress } from '../../../platform/network.ts'
import type {
  ChunkServerStatistics,
  ClientStatistics,
  ClusterStatistics,
  ServiceEntry,
} from '../../../wire/messages/statistics.ts'
import type { ChunkCensus } from '../../control/replication/chunk-census.ts'
import type { ClusterHealth } from '../../control/cluster-health.ts'
import type { FileCensus } from '../../control/file-census.ts'
import type { Master } from '../../control/servers/master.ts'
import type { RateSamples, ServerConnection } from '../../control/servers/server-connection.ts'
import type { ServersView } from '../../control/servers/servers-view.ts'
import { defaultPlacement, type EffectivePlacement, effectivePlacement } from '../../namespace/placement.ts'
import type { MembersView } from '../../quorum/members-view.ts'
import type { ServerRow } from '../../state/rows.ts'
import type { SpaceSource } from './file-system-service.ts'
import type { OpenFiles } from './open-files.ts'
import type { SessionService } from './session-service.ts'

export interface ProcessUsage {
  readonly cpuPct: number
  readonly memBytes: number
}

export interface StatisticsParts {
  readonly master: Master
  readonly members: MembersView
  readonly clusterName: string
  readonly clusterUuid: string
  readonly connections: ReadonlyMap<number, ServerConnection>
  readonly view: ServersView
  readonly health: ClusterHealth
  readonly census: ChunkCensus
  readonly files: FileCensus
  readonly sessions: SessionService
  readonly openFiles: OpenFiles
}

/** Kind of session of the command line: no client that reads or writes. */
const ADMINISTRATOR = 'admin'

export class Statistics implements SpaceSource {
  readonly #parts: StatisticsParts
  readonly #startedMs: number

  constructor(parts: StatisticsParts) {
    this.#parts = parts
    this.#startedMs = parts.master.clock.nowMs()
  }

  stat(): ClusterStatistics {
    const { master, health, census, files, clusterName, clusterUuid } = this.#parts
    const servers = this.#parts.view.forNewChunks().filter((server) => server.state === 'active')
    const placement = this.#rootPlacement()
    const uptimeMs = Math.round(master.clock.nowMs() - this.#startedMs)
    const { files: fileCount, fileMaps, bytes } = files.counts
    const clients = this.#clients()
    const sum = (key: 'readBytesPerS' | 'writeBytesPerS' | 'readOpsPerS' | 'writeOpsPerS') =>
      Math.round(clients.reduce((total, client) => total + client[key], 0))
    return {
      cluster: clusterName,
      uuid: clusterUuid,
      status: health.status,
      epochUptimeMs: uptimeMs,
      space: { ...this.#space(servers, placement), logicalUsed: bytes },
      tiers: tiersOf(servers),
      mds: this.#parts.members.list(),
      featureLevel: this.#parts.members.featureLevel(),
      cs: [...master.state.servers.values()]
        .filter((row) => row.state !== 'dropped')
        .map((row) => this.#chunkServer(row)),
      clients,
      chunks: { ...census.counts },
      replication: {
        normal: placement.replicasNormal,
        minimum: placement.replicasMinimum,
        maximum: domainCount(servers, placement.failureDomain),
      },
      fs: {
        files: fileCount,
        inodes: master.state.inodes.size,
        fileMaps,
        chunks: master.state.chunks.size,
        chunkReplicas: census.replicaCount,
        bytes,
      },
      io: {
        readBytesPerS: sum('readBytesPerS'),
        writeBytesPerS: sum('writeBytesPerS'),
        readOpsPerS: sum('readOpsPerS'),
        writeOpsPerS: sum('writeOpsPerS'),
      },
      license: null,
    }
  }

  services(): ServiceEntry[] {
    const { master, members, sessions } = this.#parts
    const entries: ServiceEntry[] = members.services()
    for (const row of master.state.servers.values()) {
      const { server: id, hostName: host, hostId, state: status } = row
      entries.push({ kind: 'cs', id, address: formatAddress(row), host, hostId, status })
    }
    for (const row of master.state.sessions.values()) {
      if (row.kind === ADMINISTRATOR) continue
      const peer = sessions.get(row.session)?.peer ?? null
      entries.push({
        kind: 'client',
        id: row.session,
        address: peer?.remote ?? '',
        host: row.host,
        hostId: '',
        status: peer === null ? 'inactive' : 'active',
      })
    }
    return entries
  }

  /** As statfs(2): what is free and not available is the margin that new chunks leave. */
  fileSystemSpace(replicasNormal: number): { totalBytes: number; freeBytes: number; availableBytes: number } {
    const servers = this.#parts.view.forNewChunks().filter((server) => server.state === 'active')
    const placement = this.#rootPlacement()
    // Writing goes on with fewer replicas while they are enough for `min`: then there is room, too.
    const domains = domainCount(servers, placement.failureDomain)
    const count = Math.max(placement.replicasMinimum, Math.min(replicasNormal, domains))
    const margin = this.#marginOf
    const capacity = this.#capacityOf(servers, placement.failureDomain, count)
    return {
      totalBytes: capacity((server) => server.totalBytes),
      freeBytes: capacity((server) => server.freeBytes),
      availableBytes: capacity((server) => server.freeBytes - margin(server)),
    }
  }

  #rootPlacement(): EffectivePlacement {
    const root = this.#parts.master.state.inodes.get(ROOT_INODE)
    return root === undefined ? defaultPlacement : effectivePlacement(root)
  }

  readonly #marginOf = (server: PlacementServer): number =>
    (server.totalBytes * this.#parts.master.parameter('mds.alloc.fill_margin')) / 100

  #capacityOf(servers: readonly PlacementServer[], domain: FailureDomain, replicas: number) {
    const active = servers.filter((server) => server.state === 'active')
    return (bytesOf: (server: PlacementServer) => number) =>
      logicalCapacity(domainCapacities(active, domain, bytesOf), replicas)
  }

  #space(servers: readonly PlacementServer[], placement: EffectivePlacement) {
    const active = servers.filter((server) => server.state === 'active')
    const margin = this.#marginOf
    const capacity = this.#capacityOf(servers, placement.failureDomain, placement.replicasNormal)
    return {
      total: active.reduce((sum, server) => sum + server.totalBytes, 0),
      free: active.reduce((sum, server) => sum + Math.max(0, server.freeBytes), 0),
      allocatable: capacity((server) => server.freeBytes - margin(server)),
      allocatableTotal: capacity((server) => server.totalBytes - margin(server)),
    }
  }

  #chunkServer(row: ServerRow): ChunkServerStatistics {
    const connection = this.#parts.connections.get(row.server)
    const counters = connection?.samples.latest ?? {}
    return {
      id: row.server,
      address: formatAddress(row),
      host: row.hostName,
      location: row.location,
      tier: row.tier,
      status: row.state,
      flags: connection?.flags ?? '',
      spaceTotal: connection?.totalBytes ?? row.totalBytes,
      spaceFree: connection?.freeBytes ?? 0,
      replicas: this.#parts.master.state.chunks.replicaCount(row.server),
      ioWaitPct: round(counters['ioWaitPercent'] ?? 0),
      ioLatMsAvg: round(counters['latencyAverageMs'] ?? 0),
      ioLatMsMax: round(counters['latencyMaxMs'] ?? 0),
      queueDepth: round(counters['queueDepth'] ?? 0),
      rmw: Math.round(counters['readModifyWrites'] ?? 0),
      pulledBytes: Math.round(counters['pulledBytes'] ?? 0),
      jrmw: Math.round(counters['journalReadModifyWrites'] ?? 0),
      oldestUnverifiedMs: Math.round(counters['oldestUnverifiedMs'] ?? 0),
    }
  }

  #clients(): ClientStatistics[] {
    const { master, sessions, openFiles } = this.#parts
    const clients: ClientStatistics[] = []
    for (const row of master.state.sessions.values()) {
      if (row.kind === ADMINISTRATOR) continue
      const samples = sessions.get(row.session)?.samples
      clients.push({
        id: row.session,
        host: row.host,
        leases: openFiles.openCount(row.session),
        readBytesPerS: rate(samples, 'readBytes'),
        writeBytesPerS: rate(samples, 'writeBytes'),
        readOpsPerS: rate(samples, 'readOperations'),
        writeOpsPerS: rate(samples, 'writeOperations'),
        fsyncsPerS: rate(samples, 'flushOperations'),
        ...latencyOf(samples?.latest ?? {}),
      })
    }
    return clients
  }
}

function latencyOf(counters: Readonly<Record<string, number>>): { ioLatMsAvg: number; ioLatMsMax: number } {
  const reads = counters['readOperations'] ?? 0
  const writes = counters['writeOperations'] ?? 0
  const sumMs =
    reads * (counters['readLatencyAverageMs'] ?? 0) + writes * (counters['writeLatencyAverageMs'] ?? 0)
  return {
    ioLatMsAvg: reads + writes === 0 ? 0 : round(sumMs / (reads + writes)),
    ioLatMsMax: round(Math.max(counters['readLatencyMaxMs'] ?? 0, counters['writeLatencyMaxMs'] ?? 0)),
  }
}

function rate(samples: RateSamples | undefined, name: string): number {
  return round(samples?.rate(name) ?? 0)
}

function round(value: number): number {
  return Math.round(value * 100) / 100
}

function tiersOf(servers: readonly PlacementServer[]): ClusterStatistics['tiers'] {
  const tiers = new Map<number, { tier: number; total: number; free: number }>()
  for (const { tier, totalBytes, freeBytes, state } of servers) {
    if (state !== 'active') continue
    const entry = tiers.get(tier) ?? { tier, total: 0, free: 0 }
    entry.total += totalBytes
    entry.free += Math.max(0, freeBytes)
    tiers.set(tier, entry)
  }
  return [...tiers.values()].toSorted((a, b) => a.tier - b.tier)
}
