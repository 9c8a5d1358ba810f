/**
 * Snapshots and clones of files (docs/formats/snapshots.md). A snapshot's id is an inode without a name: it is
 * opened, located and read as a file is, and never written.
 */
import { Type } from '@sinclair/typebox'
import { Mutation } from './common.ts'
import { method, Nothing, UInt } from './method.ts'

export const SNAPSHOTS_LISTED_MAX = 1_000
/** Longer than any legal one, so that the state machine can say so itself. */
const Text = Type.String({ maxLength: 8192 })

const Snapshot = Type.Object({
  snapshot: UInt,
  /** Inode of the file; it may be gone. */
  source: UInt,
  sourceExists: Type.Boolean(),
  name: Type.String(),
  /** What the file was called then. */
  path: Type.String(),
  timeMs: Type.Number(),
  size: UInt,
  /** In its list. */
  chunks: UInt,
  /** False: its chunk list is being taken over, or it is being rolled back to. */
  ready: Type.Boolean(),
})

export const snapshotMethods = {
  /** (mutation) Pauses whoever writes the file (rule S1). `path` is kept for people. */
  'snapshot.create': method(
    Type.Object({ mutation: Mutation, inode: UInt, name: Text, path: Text }),
    Type.Object({ snapshot: UInt }),
  ),
  /** (mutation) */
  'snapshot.delete': method(Type.Object({ mutation: Mutation, snapshot: UInt }), Nothing),
  /** (mutation) A new file with the contents of `source`, a snapshot or a file. */
  'snapshot.clone': method(
    Type.Object({ mutation: Mutation, source: UInt, parent: UInt, name: Text, uid: UInt, gid: UInt }),
    Type.Object({ inode: UInt }),
  ),
  /** (mutation) Its file gets the contents it had. Recalls the lease first; EBUSY while it is not given up. */
  'snapshot.rollback': method(
    Type.Object({ mutation: Mutation, snapshot: UInt }),
    Type.Object({ inode: UInt }),
  ),
  /** Of one file, or of all with `source` 0; continue with the last id. */
  'snapshot.list': method(
    Type.Object({
      source: UInt,
      after: UInt,
      limit: Type.Integer({ minimum: 1, maximum: SNAPSHOTS_LISTED_MAX }),
    }),
    Type.Object({ snapshots: Type.Array(Snapshot), end: Type.Boolean() }),
  ),
  /** One of them, and how much of it is shared: chunks that nobody else holds, and the others. */
  'snapshot.info': method(
    Type.Object({ snapshot: UInt }),
    Type.Object({ snapshot: Snapshot, ownChunks: UInt, sharedChunks: UInt }),
  ),
} as const

/** From a metadata server to a client. */
export const pauseMethods = {
  /**
   * Drain, flush and surrender all intents; the lease stays, and new intents are granted later (rule S1). Answered
   * at once: that the intents are gone says that it is done.
   */
  'lease.pause': method(Type.Object({ inode: UInt, lease: UInt, deadlineMs: UInt }), Nothing),
} as const
