/**
 * What metadata servers say to each other on the base port (either side of a connection may say it), and what
 * one of them says of itself to an observer.
 */
import { Type } from '@sinclair/typebox'
import { method, Nothing, UInt } from './method.ts'

const ENTRIES_MAX = 16_384

export const memberMethods = {
  /**
   * (one-way) One message of consensus. `head` is checked by consensus itself; entries follow the head's
   * previousIndex and travel as they are stored (docs/formats/metadata.md).
   */
  'raft.step': method(
    Type.Object({
      head: Type.Unknown(),
      terms: Type.Array(UInt, { maxItems: ENTRIES_MAX }),
      entries: Type.Array(Type.Uint8Array(), { maxItems: ENTRIES_MAX }),
    }),
    Nothing,
  ),
  /**
   * A copy of the sender's store for a member that lacks more than the log holds: pieces in order from offset 0
   * on, each answered, then the end with the CRC32C of all of it and the message of consensus that it belongs to.
   */
  'snapshot.piece': method(Type.Object({ offset: UInt, bytes: Type.Uint8Array() }), Nothing),
  'snapshot.end': method(Type.Object({ sizeBytes: UInt, checksum: UInt, head: Type.Unknown() }), Nothing),
  /**
   * (one-way) What a member says of itself to the master: for `stat`, and where it listens, which the master
   * puts into the register of members when it is news.
   */
  'mds.report': method(
    Type.Object({
      member: UInt,
      ctimePct: Type.Number(),
      commitsPerS: Type.Number(),
      cpuPct: Type.Number(),
      memBytes: UInt,
      uptimeMs: UInt,
      /** Absent before feature level 2. */
      place: Type.Optional(
        Type.Object({
          address: Type.Object({
            host: Type.String({ minLength: 1, maxLength: 255 }),
            port: Type.Integer({ minimum: 1, maximum: 65_534 }),
          }),
          name: Type.String({ maxLength: 255 }),
        }),
      ),
    }),
    Nothing,
  ),
  /**
   * (one-way) At the beginning of a connection: where the sender's register says that members are. A hint for one
   * that was away while others moved.
   */
  'mds.register': method(
    Type.Object({
      members: Type.Array(
        Type.Object({
          member: UInt,
          host: Type.String({ minLength: 1, maxLength: 255 }),
          port: Type.Integer({ minimum: 1, maximum: 65_534 }),
        }),
        { maxItems: 64 },
      ),
    }),
    Nothing,
  ),
  /** The one who is told was removed from the cluster: it ends. Answered before the connection closes. */
  'mds.removed': method(Type.Object({ member: UInt }), Nothing),
  /** (one-way) The cluster is being shut down by an administrator. */
  'mds.shutdown': method(Nothing, Nothing),
} as const
export type MemberMethods = typeof memberMethods

/** Role of a connection that looks at one metadata server, master or not: for when there is no master. */
export const OBSERVER_ROLE = 'observer'

const MEMBERS_MAX = 64
/** What fits one answer. */
export const SERVERS_LISTED_MAX = 2_048

export const observerMethods = {
  /** What this member knows by itself. Old or new: nobody else was asked. */
  'mds.look': method(
    Nothing,
    Type.Object({
      member: UInt,
      role: Type.String({ maxLength: 32 }),
      term: UInt,
      /** 0: knows of none. */
      leader: UInt,
      /** Master, and a majority has just said so. */
      isReady: Type.Boolean(),
      lastIndex: UInt,
      members: Type.Array(
        Type.Object({
          id: UInt,
          address: Type.String({ maxLength: 300 }),
          host: Type.String({ maxLength: 255 }),
          isVoter: Type.Boolean(),
          isConnected: Type.Boolean(),
        }),
        { maxItems: MEMBERS_MAX },
      ),
      chunkServers: Type.Array(
        Type.Object({
          id: UInt,
          address: Type.String({ maxLength: 300 }),
          host: Type.String({ maxLength: 255 }),
          hostId: Type.String({ maxLength: 64 }),
        }),
        { maxItems: SERVERS_LISTED_MAX },
      ),
      inodes: UInt,
      chunks: UInt,
    }),
  ),
} as const
export type ObserverMethods = typeof observerMethods
