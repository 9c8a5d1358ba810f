/**
 * Control messages between a metadata server and a chunk server (one connection, opened by the chunk
 * server), and those that clients and chunk servers may send to a chunk server. Data travels in
 * `wire/data.ts`. Every report and order about a replica names the version it starts from (rule E6).
 */
import { type Static, Type } from '@sinclair/typebox'
import { method, Nothing, UInt } from './method.ts'

export const ReplicaRole = Type.Union([
  Type.Literal('in-sync'),
  Type.Literal('joining'),
  Type.Literal('reconciling'),
])
export type ReplicaRole = Static<typeof ReplicaRole>

/** One replica as a chunk server holds it durably. */
export const ReplicaReport = Type.Object({
  chunk: UInt,
  version: UInt,
  role: ReplicaRole,
  lease: UInt,
  /** On the open list when the server stopped uncleanly: contents unverified until the quorum decides (B1). */
  unclean: Type.Boolean(),
  /** Unclean, and acknowledged writes may be missing: its host crashed, or its disk failed (rule J3). */
  crashed: Type.Optional(Type.Boolean()),
  /** Unclean, since its disk went back in time: never an authority (rule B3). */
  rolledBack: Type.Optional(Type.Boolean()),
  /** Joining, and may have answered writes at this version in an earlier process (rule J4). */
  restarted: Type.Optional(Type.Boolean()),
  /** The state could not be read: counts as void. */
  damaged: Type.Boolean(),
  /** An overlay: the chunk whose replica on this server it reads through (docs/formats/snapshots.md). */
  parent: Type.Optional(UInt),
})
export type ReplicaReport = Static<typeof ReplicaReport>

export const SpaceReport = Type.Object({ totalBytes: UInt, freeBytes: UInt })

/** Chunk server to metadata server. */
export const chunkServerUpMethods = {
  /**
   * First message. `server` 0 asks for an id. `registration` is the number stored at the last
   * registration, `marks` how many the replica log ever had (rule B3). `crashes` counts host crashes seen by this store (rules B2, F6).
   */
  'cs.register': method(
    Type.Object({
      server: UInt,
      storeUuid: Type.String({ maxLength: 64 }),
      registration: UInt,
      incarnation: UInt,
      crashes: UInt,
      uncleanStop: Type.Union([Type.Literal('none'), Type.Literal('process'), Type.Literal('host')]),
      hostId: Type.String({ maxLength: 64 }),
      hostName: Type.String({ maxLength: 255 }),
      location: Type.String({ maxLength: 255 }),
      tier: UInt,
      host: Type.String({ maxLength: 255 }),
      port: UInt,
      space: SpaceReport,
      checksums: Type.Boolean(),
      replicaCount: UInt,
      /** It knows replicas with parents; one that does not would make empty ones instead. */
      overlays: Type.Optional(Type.Boolean()),
      marks: Type.Optional(UInt),
    }),
    Type.Object({
      server: UInt,
      registration: UInt,
      /** Heartbeat period. */
      heartbeatMs: UInt,
      /** It once had more marks: before it reports, no replica is good any more, durably (rule B3). */
      rolledBack: Type.Optional(Type.Boolean()),
    }),
  ),
  /** The whole inventory in pages after registration; `last` ends it. Serving starts when it is answered. */
  'cs.report': method(
    Type.Object({ replicas: Type.Array(ReplicaReport, { maxItems: 4096 }), last: Type.Boolean() }),
    Nothing,
  ),
  'cs.heartbeat': method(
    Type.Object({
      counter: UInt,
      /** Of the replica log (rule B3). */
      marks: Type.Optional(UInt),
      space: SpaceReport,
      /** Letters of the guide: H h R T for failures, J C D c for the normal state. */
      flags: Type.String({ maxLength: 16 }),
      oldestIoAgeMs: Type.Number(),
      /** The disk is given up for writing: what it holds can only be read (rule F7). */
      givenUp: Type.Optional(Type.Boolean()),
      counters: Type.Record(Type.String({ maxLength: 64 }), Type.Number()),
      /** Replicas that took new room, and how much since the server started (rule A2). */
      grown: Type.Optional(Type.Array(Type.Object({ chunk: UInt, bytes: UInt }), { maxItems: 4096 })),
      /** The replicas that were verified longest ago, oldest first, and how long (rule R2). */
      due: Type.Optional(Type.Array(Type.Object({ chunk: UInt, ageMs: UInt }), { maxItems: 64 })),
    }),
    Nothing,
  ),
  /** The join of `attempt` is complete and synced (rule F1). */
  'cs.joined': method(
    Type.Object({ chunk: UInt, version: UInt, attempt: UInt, bytesPulled: UInt, lostPages: UInt }),
    Nothing,
  ),
  'cs.joinFailed': method(
    Type.Object({ chunk: UInt, version: UInt, attempt: UInt, reason: Type.String({ maxLength: 128 }) }),
    Nothing,
  ),
  /** These read through another parent than before, durably; 0: through none (rules S3, S5). */
  'cs.merged': method(
    Type.Object({ replicas: Type.Array(Type.Object({ chunk: UInt, parent: UInt }), { maxItems: 1024 }) }),
    Nothing,
  ),
  /** Pages that do not verify; the server goes on to repair them by itself once it has sources. */
  'cs.badPages': method(
    Type.Object({
      chunk: UInt,
      version: UInt,
      pages: Type.Array(UInt, { maxItems: 1024 }),
      reason: Type.String({ maxLength: 128 }),
    }),
    Nothing,
  ),
  /** The replica as a whole is unusable (missing or short file, unreadable records, sync error). */
  'cs.badReplica': method(
    Type.Object({ chunk: UInt, version: UInt, reason: Type.String({ maxLength: 128 }) }),
    Nothing,
  ),
} as const
export type ChunkServerUpMethods = typeof chunkServerUpMethods

const Source = Type.Object({ server: UInt, host: Type.String({ maxLength: 255 }), port: UInt })

/** Metadata server to chunk server. Batched; each answer lists what was done, item by item. */
export const chunkServerOrderMethods = {
  /** Creates empty replicas durably (rule E12). With `parent` an overlay over that chunk's replica here. */
  'replica.create': method(
    Type.Object({
      replicas: Type.Array(
        Type.Object({
          chunk: UInt,
          version: UInt,
          role: ReplicaRole,
          lease: UInt,
          parent: Type.Optional(UInt),
        }),
        { maxItems: 1024 },
      ),
    }),
    Type.Object({ failed: Type.Array(Type.Object({ chunk: UInt, code: Type.String() })) }),
  ),
  /**
   * Makes (version, role, lease fence) durable; answered only after everything admitted at a lower
   * version has finished (rule E2). Missing replicas are refused: NO_REPLICA. The answer carries what
   * the replica holds now, which may be higher.
   */
  'replica.persist': method(
    Type.Object({
      replicas: Type.Array(Type.Object({ chunk: UInt, version: UInt, role: ReplicaRole, lease: UInt }), {
        maxItems: 1024,
      }),
    }),
    Type.Object({
      held: Type.Array(Type.Object({ chunk: UInt, version: UInt, code: Type.Optional(Type.String()) })),
    }),
  ),
  /**
   * Deletes replicas up to a version; refuses newer ones (rule E6), and those that an overlay reads through
   * (HAS_OVERLAY, rule S3). `codes`: why, of those in `refused`.
   */
  'replica.delete': method(
    Type.Object({ replicas: Type.Array(Type.Object({ chunk: UInt, versionMax: UInt }), { maxItems: 1024 }) }),
    Type.Object({
      deleted: Type.Array(UInt),
      refused: Type.Array(UInt),
      codes: Type.Optional(Type.Array(Type.Object({ chunk: UInt, code: Type.String() }))),
    }),
  ),
  /**
   * `chunk` takes from `parent` what it lacks, in the background, and then reads through the parent's parent.
   * Answered when accepted; `cs.merged` says that it is done.
   */
  'replica.merge': method(
    Type.Object({ replicas: Type.Array(Type.Object({ chunk: UInt, parent: UInt }), { maxItems: 1024 }) }),
    Type.Object({ refused: Type.Array(Type.Object({ chunk: UInt, code: Type.String() })) }),
  ),
  /** What is there of a replica that somebody complains of, or that nobody counts on. NO_REPLICA. */
  'replica.describe': method(
    Type.Object({ chunk: UInt }),
    Type.Object({
      version: UInt,
      role: ReplicaRole,
      /** The last version under which it took every write; 0: unknown (rule J7). */
      inSyncVersion: UInt,
      crashed: Type.Boolean(),
      damaged: Type.Boolean(),
      /** The code with which a member in sync here would refuse a write; '' when it would not (rule A1). */
      fault: Type.String({ maxLength: 32 }),
    }),
  ),
  /** Pull what differs from a source, then sync, then `cs.joined`. Answered when accepted. */
  'replica.join': method(
    Type.Object({
      chunk: UInt,
      version: UInt,
      attempt: UInt,
      sources: Type.Array(Source, { minItems: 1, maxItems: 16 }),
      /** Version since which every member in sync has been so; 0: nothing can be told (rule J7). */
      inSyncSince: Type.Optional(UInt),
    }),
    Nothing,
  ),
  /**
   * The chosen authority of a dirty chunk: verify open regions, fetch what does not verify from peers
   * that verify it, adopt the rest (rule P1), sync. Answers with the highest written byte (rule F8).
   */
  'replica.heal': method(
    Type.Object({ chunk: UInt, version: UInt, peers: Type.Array(Source, { maxItems: 16 }) }),
    Type.Object({ writtenEnd: UInt, adoptedPages: UInt }),
  ),
  /** Pages of an in-sync replica to repair from peers (rules R1, J7). */
  'replica.repair': method(
    Type.Object({
      chunk: UInt,
      version: UInt,
      pages: Type.Array(UInt, { maxItems: 1024 }),
      /** Members in sync. */
      sources: Type.Array(Source, { maxItems: 16 }),
      /** Others that have or had a replica: asked when no member in sync has the page (rule J7). */
      formers: Type.Optional(Type.Array(Source, { maxItems: 16 })),
      /** As in `replica.join`. */
      inSyncSince: Type.Optional(UInt),
    }),
    Type.Object({ repaired: UInt, lost: UInt }),
  ),
  /**
   * Scrubbing and fsck: reads and verifies all pages of a replica in sync (rule R1; `depth` records: none of them),
   * and says what its page records are, so that replicas can be compared (rule R2).
   */
  'replica.verify': method(
    Type.Object({
      chunk: UInt,
      version: UInt,
      depth: Type.Union([Type.Literal('pages'), Type.Literal('records')]),
    }),
    Type.Object({
      pages: UInt,
      badPages: Type.Array(UInt),
      lostPages: Type.Array(UInt),
      /** CRC32C over (stamp, content CRC, state) of each region's pages. */
      digests: Type.Array(UInt),
    }),
  ),
  /** The page records of one region (`PAGE_RECORD_BYTES` each). */
  'replica.records': method(
    Type.Object({ chunk: UInt, version: UInt, region: UInt }),
    Type.Object({ records: Type.Uint8Array() }),
  ),
  /**
   * Pages that verify here, and that another replica is right about: not good from now on, unless their record has
   * changed since it was compared, and repaired as any bad page is (rules R1, R2).
   */
  'replica.reject': method(
    Type.Object({
      chunk: UInt,
      version: UInt,
      pages: Type.Array(
        Type.Object({ page: UInt, stamp: UInt, checksum: UInt, rightStamp: UInt, rightChecksum: UInt }),
        { maxItems: 1024 },
      ),
    }),
    Type.Object({ rejected: UInt }),
  ),
  /** Their replicas were verified and compared: not looked at again before all others. */
  'replica.verified': method(Type.Object({ chunks: Type.Array(UInt, { maxItems: 1024 }) }), Nothing),
  /** The role changes without a bump (joining to in-sync adds rights only, rule E7). */
  'replica.promote': method(Type.Object({ chunk: UInt, version: UInt }), Nothing),
  /** The intent is cleared: open-list entries may go after a covering sync (rule B1). */
  'replica.close': method(Type.Object({ chunks: Type.Array(UInt, { maxItems: 1024 }) }), Nothing),
  /** `marks`: what was marked before it was asked is durable, and counted (rule B3). */
  'cs.ping': method(Nothing, Type.Object({ incarnation: UInt, marks: Type.Optional(UInt) })),
} as const
export type ChunkServerOrderMethods = typeof chunkServerOrderMethods

/** Control messages on a chunk server's data port (clients, other chunk servers). */
export const chunkServerPortMethods = {
  /** Rule E5: answers when no request of an earlier connection of this session is queued any more. */
  'cs.drain': method(Type.Object({ session: UInt }), Type.Object({ incarnation: UInt })),
  /** `cairn shutdown`, after the metadata servers: end in order. Administrators only. */
  'cs.shutdown': method(Type.Object({}), Type.Object({})),
} as const
