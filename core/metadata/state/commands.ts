/**
 * Commands of the replicated state machine. `apply(command, index)` is deterministic: the same commands
 * in the same order give the same state and the same results on every member. Time and randomness reach
 * it only inside commands (rule L11). File system and lease commands carry the parameters of the wire
 * method of the same name.
 */
import type { FileType, Mutation, PlacementAttributes } from '../../wire/messages/common.ts'
import type { MetadataMethods } from '../../wire/messages/metadata.ts'
import type { ParamsOf } from '../../wire/messages/method.ts'
import type { ChunkMember, EventSeverity, ServerState } from './rows.ts'

type FileSystemCommandName =
  | 'fs.setattr'
  | 'fs.create'
  | 'fs.mknod'
  | 'fs.symlink'
  | 'fs.link'
  | 'fs.unlink'
  | 'fs.rmdir'
  | 'fs.rename'
  | 'fs.setxattr'
  | 'fs.removexattr'
  | 'attr.set'
type LeaseCommandName =
  | 'lease.acquire'
  | 'lease.update'
  | 'lease.release'
  | 'lease.return'
  | 'lease.truncate'
  | 'lease.zeroed'
  | 'lease.unmap'
type SnapshotCommandName = 'snapshot.create' | 'snapshot.delete' | 'snapshot.clone' | 'snapshot.rollback'
type AdminCommandName = 'admin.setConfig'
type KeyValueCommandName = 'kv.transact'

/** Commands that a session's requests turn into, one to one. */
export type RequestCommandName =
  | FileSystemCommandName
  | LeaseCommandName
  | SnapshotCommandName
  | AdminCommandName
  | KeyValueCommandName
export type RequestCommand =
  | {
      [N in Exclude<RequestCommandName, 'fs.mknod'>]: { type: N; session: number } & ParamsOf<
        MetadataMethods,
        N
      >
    }[Exclude<RequestCommandName, 'fs.mknod'>]
  /** The wire calls the kind of node `type`; here that is the kind of command. */
  | ({ type: 'fs.mknod'; session: number; fileType: FileType } & Omit<
      ParamsOf<MetadataMethods, 'fs.mknod'>,
      'type'
    >)

/** Commands of the master itself. Each states its condition; `apply` re-checks it and ignores what is stale (E6). */
export type ControlCommand =
  /** The first command of a cluster: its identity and the attributes of its root. Ignored later. */
  | {
      type: 'cluster.create'
      name: string
      uuid: string
      placement: PlacementAttributes
      /** In force from here on (state/feature-levels.ts). Absent: the first one. */
      level?: number
    }
  /** Every member understands this level: it is in force from here on. Ignored when it is already. */
  | { type: 'level.raise'; level: number }
  /** Password or key were changed: applied when nobody else did so meanwhile. The value is sealed. */
  | { type: 'authentication.set'; revision: number; value: string }
  | { type: 'session.open'; name: string; host: string; kind: string; secret: string }
  /** Ends all its leases; their intents become dirty by a dead lease (rules J5, L1). */
  | { type: 'session.expire'; session: number; clean: boolean }
  /** Reserves chunk ids ahead, so that ids are never reused (rule G1). Result: { from }. */
  | { type: 'chunk.reserve'; count: number }
  /** After the servers hold the empty replicas durably (rule E12). Comes with the intent of `lease`. */
  | {
      type: 'chunk.create'
      lease: number
      inode: number
      chunks: { chunk: number; index: number; members: number[] }[]
    }
  /** Result: { granted: chunk ids }. Refuses chunks that are pending or dirty. */
  | { type: 'intent.grant'; lease: number; inode: number; chunks: number[]; sizeLimit: number }
  | { type: 'intent.clear'; lease: number; inode: number; chunks: number[] }
  /**
   * The first write to chunks that are shared: each gets a child, whose overlays the servers hold durably, in its
   * place. Comes with the intent of `lease`.
   */
  | {
      type: 'chunk.branch'
      lease: number
      inode: number
      chunks: { chunk: number; parent: number; version: number; members: number[] }[]
    }
  /** What a replica reads through now; 0: nothing. */
  | { type: 'replica.parent'; replicas: { chunk: number; server: number; parent: number }[] }
  /** Goes on with a chunk list that is being taken over. `finish`: these were the last. */
  | { type: 'snapshot.step'; target: number; indexes: number[]; finish: boolean }
  /** `from` = highest committed version (active or pending) that the proposal was made against. */
  | { type: 'epoch.propose'; epochs: EpochProposal[] }
  /** `losses`: of these chunks the authority may have lacked acknowledged writes (rule F5). */
  | { type: 'epoch.activate'; epochs: { chunk: number; version: number }[]; losses?: number[] }
  | { type: 'join.complete'; joins: { chunk: number; version: number; server: number; attempt: number }[] }
  /**
   * After reconciliation of a file whose holder died: the true size (rule F8). Only while `chunk`, where it was
   * found, is still about to begin `version`: a truncate may have dropped it meanwhile (rule E6).
   */
  | { type: 'file.recoverSize'; inode: number; size: number; chunk?: number; version?: number }
  /**
   * A step of a truncation that has too many chunks for one: cuts the file at `size`, which is above that of the
   * truncation, of `session`, that is still to come. Nothing when that one was applied meanwhile (rule E6).
   */
  | {
      type: 'file.shrink'
      session: number
      lease: number
      inode: number
      size: number
      truncation: Mutation
    }
  /** Inodes without links that no session holds open any more. */
  | {
      type: 'file.collect'
      inodes: number[]
      /** Of one that has too many chunks to end at once: these go first. */
      partly?: { inode: number; indexes: number[] }
    }
  /** Deletion is decided here, carried out later, confirmed by replica.deleted (rule G1). */
  | {
      type: 'replica.condemn'
      /** `damaged`: its state cannot be read, so that it is worth nothing while any other is in sync. */
      replicas: { chunk: number; server: number; versionMax: number; damaged?: boolean }[]
    }
  | { type: 'replica.deleted'; replicas: { chunk: number; server: number }[] }
  /** A replica was reported that is no member, or a member turned out not to exist there any more. */
  | {
      type: 'replica.former'
      replicas: { chunk: number; server: number; version: number; exists: boolean }[]
    }
  | {
      type: 'server.register'
      server: number
      storeUuid: string
      registration: number
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
      /** That it has; absent: it does not count them. */
      marks?: number
      /** That the master has heard of, which may be more than what is committed. */
      marksHeard?: number
    }
  /** `marks`: it went back in time, its replicas know (rule B3): it counts from here on. */
  | { type: 'server.state'; server: number; state: ServerState; marks?: number }
  /**
   * Chunk servers have at least so many marks (rule B3). Those of the members of `chunks` cover what was given back up
   * to the index `through`. Result: { settled }.
   */
  | {
      type: 'server.marks'
      marks: { server: number; incarnation: number; marks: number }[]
      through: number
      chunks: number[]
    }
  /** Gives a new metadata server its id; it takes part when the members say so. Result: { member }. */
  | { type: 'mds.add'; host: string; port: number; name: string }
  /**
   * Where a metadata server is from now on. Makes the row of the first one. `listens`: it said so itself, also
   * when another row still has that address.
   */
  | { type: 'mds.member'; member: number; host: string; port: number; name: string; listens?: true }
  /** First `leaving`, then, once it is out of consensus' configuration, `removed`. */
  | { type: 'mds.state'; member: number; state: 'leaving' | 'removed' }
  /** While the cluster is recovered: the replicas that the chunk servers reported (chunks/renewal.ts). */
  | { type: 'chunk.adopt'; chunks: { chunk: number; version: number; servers: number[] }[] }
  /** An administrator has looked. `versionMax`: the highest that any chunk server reported. */
  | { type: 'recovery.end'; versionMax: number }
  /** Replicas of chunks that nobody knows may be deleted from now on. */
  | { type: 'recovery.discard' }
  /** A chunk server has what the quorum cannot have given out: we lost state (rule G1). Result: { isNew }. */
  | { type: 'recovery.alarm'; server: number; chunk: number; version: number }
  /** An administrator has seen it: replicas may be deleted again. */
  | { type: 'recovery.acknowledge' }
  /** An administrator gives up what a stale replica lacks (rule G2). `from`: as in a proposal. Result: { proposed }. */
  | {
      type: 'replica.promote'
      chunk: number
      from: number
      server: number
      /** A member whose disk went back in time (rule B3); else one that has left. */
      rolledBack?: boolean
    }
  | {
      type: 'event.record'
      system: 'MDS' | 'CS' | 'JRN' | 'CLI'
      severity: EventSeverity
      code: string
      message: string
    }
  /** Log time: milliseconds of the master's monotonic clock since its last tick, bounded (rule L11). */
  | { type: 'tick'; elapsedMs: number }

export interface EpochProposal {
  chunk: number
  from: number
  members: ChunkMember[]
  reconcile: boolean
  /** Members that leave: do their replicas still exist (re-join later), or are they lost? */
  leaving: { server: number; exists: boolean }[]
}

export type Command = RequestCommand | ControlCommand

/** What goes into the log: wall-clock time for file times and events comes from the master. */
export interface LogCommand {
  readonly command: Command
  readonly wallSeconds: number
  readonly wallNanoseconds: number
}
