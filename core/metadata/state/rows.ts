/**
 * Rows of the replicated state: what the quorum remembers. Everything here is deterministic data;
 * soft state (connections, open files, heartbeats) lives in `metadata/server`. Objects are internal to
 * the state machine: nobody outside mutates them.
 */
import type { FileType, PlacementAttributes, Role } from '../../wire/messages/common.ts'
import type { FileChunks } from './columns/file-chunks.ts'

/** What is stored of an inode. */
export interface InodeFields {
  readonly inode: number
  readonly type: FileType
  mode: number
  uid: number
  gid: number
  links: number
  size: number
  readonly device: number
  accessSeconds: number
  accessNanoseconds: number
  modifySeconds: number
  modifyNanoseconds: number
  changeSeconds: number
  changeNanoseconds: number
  generation: number
  /** Directories: the parent ('..'); files: 0. */
  parent: number
  readonly target?: string | undefined
  placement?: PlacementAttributes | undefined
  extended?: Record<string, string> | undefined
  /** Tail of the last chunk that must be zeroed before the size may grow past it (rule T1). */
  zeroFrom?: number | undefined
  /** Upper bound under the current lease; set when intents are granted (rule F8). */
  sizeLimit?: number | undefined
}

export interface InodeRow extends InodeFields {
  /** Files: their chunks by index. Sparse files have only what exists. */
  readonly chunks: FileChunks
}

export interface ChunkMember {
  server: number
  role: Role
  /** Version since which it is continuously in sync (rule E8); 0 for a joiner. */
  since: number
  /** Join attempt (rule E6); 0 when in sync. */
  attempt: number
}

export interface PendingEpoch {
  version: number
  members: ChunkMember[]
  /** Members are made equal before it becomes active (rules J1, J5). */
  reconcile: boolean
}

/** The replica on `server` is an overlay: it reads what it lacks from the replica of `parent` there. */
export interface ReplicaParent {
  server: number
  parent: number
}

/** View of one row of the chunk table (columns in typed arrays inside). */
export interface ChunkRow {
  chunk: number
  /** The first holder, a file or a snapshot; 0: nobody holds it, and overlays still read through it. */
  inode: number
  /** In every list that holds it. */
  index: number
  /** Version and members of the last active epoch. */
  version: number
  members: ChunkMember[]
  writable: boolean
  pending: PendingEpoch | null
  /** Lease that holds a write intent, 0 = none. */
  intentLease: number
  /** Dirty by a dead lease until reconciled (rule J5). */
  dirtyDead: boolean
  /** Replicas that left but may still exist: server -> highest version they may have. */
  former: { server: number; version: number }[]
  /** Further holders, rising. With any, or with an overlay above it, nobody writes to the chunk. */
  holders?: readonly number[]
  /** Members that are overlays, by rising server. */
  overlays?: readonly ReplicaParent[]
  /**
   * The last epoch that began with what a crashed or stale replica had, so that acknowledged writes may be gone; until
   * the intent of whom that concerns is given back (rule F5).
   */
  lossVersion?: number
}

/** Its chunk list, size and times are those of the inode of the same number, which has no name. */
export interface SnapshotRow {
  snapshot: number
  /** The file; it may be gone. */
  source: number
  name: string
  /** What the file was called then, for people. */
  path: string
  seconds: number
  nanoseconds: number
}

export type CopyKind = 'snapshot' | 'clone' | 'rollback'

/** A chunk list that is being taken over in steps. Until it ends neither inode's list changes otherwise. */
export interface CopyRow {
  target: number
  source: number
  kind: CopyKind
  /** Where the clone appears when it is complete. */
  parent: number
  name: string
}

export interface SessionRow {
  session: number
  secret: string
  name: string
  host: string
  kind: string
  openedAtTickMs: number
}

export interface LeaseRow {
  lease: number
  inode: number
  session: number
  pinned: boolean
}

export type ServerState = 'active' | 'inactive' | 'offline' | 'dropped'

export interface ServerRow {
  server: number
  storeUuid: string
  /** The last number given out (rule B3). */
  registration: number
  /** The last number it has certainly stored: presenting less means a copy or a restored disk. */
  registrationConfirmed: number
  incarnation: number
  crashes: number
  hostId: string
  hostName: string
  location: string
  tier: number
  host: string
  port: number
  totalBytes: number
  checksums: boolean
  state: ServerState
  /** Of its replica log, at least: presenting less means a disk that went back in time (rule B3). */
  marks?: number
}

/** A chunk whose intent was given back, and whose servers' marks are not known to cover that yet (rule B3). */
export interface UnsettledRow {
  /** Log index of the clear. */
  index: number
}

/**
 * `leaving`: it is being taken out. `replaced`: of a quorum that another one replaced; it is told so when it is
 * met. `removed` for ever: its id is never used again, and it must not come back.
 */
export type MemberState = 'member' | 'leaving' | 'replaced' | 'removed'

/** A metadata server: where it is. Who has a vote is in consensus' own configuration. */
export interface MemberRow {
  member: number
  host: string
  port: number
  name: string
  state: MemberState
}

export interface CondemnedRow {
  chunk: number
  server: number
  versionMax: number
}

export type EventSeverity = 'info' | 'warn' | 'err'

export interface EventRow {
  id: number
  timeMs: number
  system: 'MDS' | 'CS' | 'JRN' | 'CLI'
  severity: EventSeverity
  code: string
  message: string
}
