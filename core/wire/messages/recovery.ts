/** What an administrator asks of the master about copies of the metadata, and about metadata that have begun anew. */
import { Type } from '@sinclair/typebox'
import { method, Nothing, UInt } from './method.ts'

export const recoveryMethods = {
  /** A consistent copy of the metadata, fetched in pieces until one is empty, then ended. One at a time. */
  'mds.backup': method(Nothing, Type.Object({ backup: UInt, index: UInt, term: UInt, generation: UInt })),
  'mds.backupPiece': method(
    Type.Object({ backup: UInt, offset: UInt }),
    Type.Object({ bytes: Type.Uint8Array() }),
  ),
  'mds.backupEnd': method(Type.Object({ backup: UInt }), Nothing),
  /** Metadata that have begun anew: what they wait for, and what the chunk servers have reported. */
  'mds.recovery': method(
    Nothing,
    Type.Object({
      isWaiting: Type.Boolean(),
      generation: UInt,
      /** Replicas of chunks that nobody knows are kept. */
      keepsUnknown: Type.Boolean(),
      missingServers: Type.Array(UInt),
      /** What was reported that the metadata cannot have given out: nothing is deleted. */
      alarm: Type.Optional(Type.String()),
      summary: Type.Optional(
        Type.Object({
          chunkCount: UInt,
          foundCount: UInt,
          newerCount: UInt,
          doubtfulCount: UInt,
          missingCount: UInt,
          unknownCount: UInt,
        }),
      ),
    }),
  ),
  /** Ends the recovery. REFUSED while a chunk server has not reported, unless `withoutMissing`. */
  'mds.recover': method(Type.Object({ withoutMissing: Type.Boolean() }), Nothing),
  /** Ends the alarm. REFUSED when there is none. */
  'mds.acknowledge': method(Nothing, Nothing),
  'mds.discardUnknown': method(Nothing, Nothing),
} as const
