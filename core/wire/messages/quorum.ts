/** What metadata servers say to each other on the base port. Either side of a connection may say it. */
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
  /** (one-way) What a member says of itself to the master, for `stat`. */
  'mds.report': method(
    Type.Object({
      member: UInt,
      ctimePct: Type.Number(),
      commitsPerS: Type.Number(),
      cpuPct: Type.Number(),
      memBytes: UInt,
      uptimeMs: UInt,
    }),
    Nothing,
  ),
  /** (one-way) The cluster is being shut down by an administrator. */
  'mds.shutdown': method(Nothing, Nothing),
} as const
export type MemberMethods = typeof memberMethods
