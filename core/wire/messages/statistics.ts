/**
 * What `admin.stat` and `admin.services` answer: the keys of `cairn stat --json`, stable for scripts.
 * Sizes in bytes, times in milliseconds. Each chunk counts in exactly one of healthy, standby, degraded,
 * urgent, blocked, offline, void; replicating, pending, overcommitted and deleting are extra counts.
 */
export interface ClusterStatistics {
  cluster: string
  uuid: string
  status: 'healthy' | 'degraded' | 'failure' | 'unknown'
  epochUptimeMs: number
  space: { total: number; free: number; allocatable: number; allocatableTotal: number; logicalUsed: number }
  tiers: { tier: number; total: number; free: number }[]
  mds: MetadataServerStatistics[]
  /** What all metadata servers have to understand; `waitsFor`: who does not understand `highest` yet, or is away. */
  featureLevel?: { inForce: number; highest: number; waitsFor: number[] }
  cs: ChunkServerStatistics[]
  clients: ClientStatistics[]
  chunks: ChunkStatistics
  replication: { normal: number; minimum: number; maximum: number }
  fs: {
    files: number
    inodes: number
    fileMaps: number
    chunks: number
    chunkReplicas: number
    bytes: number
  }
  io: { readBytesPerS: number; writeBytesPerS: number; readOpsPerS: number; writeOpsPerS: number }
  license: string | null
}

export interface MetadataServerStatistics {
  id: number
  address: string
  master: boolean
  status: string
  term: number
  /** Committed entries that it has not confirmed. */
  lag: number
  /** Since when it lacks something; to the second. */
  lagMs: number
  ctimePct: number
  commitsPerS: number
  cpuPct: number
  memBytes: number
  uptimeMs: number
}

export interface ChunkServerStatistics {
  id: number
  address: string
  host: string
  location: string
  tier: number
  status: string
  flags: string
  spaceTotal: number
  spaceFree: number
  replicas: number
  ioWaitPct: number
  ioLatMsAvg: number
  ioLatMsMax: number
  queueDepth: number
  rmw: number
  /** Pages that it copied from other chunk servers since it was started. */
  pulledBytes: number
  jrmw: number
  oldestUnverifiedMs: number
}

export interface ClientStatistics {
  id: number
  host: string
  leases: number
  readBytesPerS: number
  writeBytesPerS: number
  readOpsPerS: number
  writeOpsPerS: number
  fsyncsPerS: number
  ioLatMsAvg: number
  ioLatMsMax: number
}

export interface ChunkStatistics {
  total: number
  healthy: number
  standby: number
  degraded: number
  urgent: number
  blocked: number
  offline: number
  void: number
  replicating: number
  pending: number
  overcommitted: number
  deleting: number
}

export interface ServiceEntry {
  kind: 'mds' | 'cs' | 'client'
  id: number
  address: string
  host: string
  hostId: string
  status: string
  /** Metadata servers only, as in MetadataServerStatistics. */
  master?: boolean
  term?: number
  lag?: number
  lagMs?: number
}
