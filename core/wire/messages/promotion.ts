/** Chunks without a replica in sync that can be used, and the stale ones that an administrator may promote (rule G2). */
import { type Static, Type } from '@sinclair/typebox'
import { method, Nothing, UInt } from './method.ts'

const Holder = Type.Object({
  server: UInt,
  /** Of its server: active, inactive, offline, dropped. */
  state: Type.String({ maxLength: 16 }),
})

const StaleReplica = Type.Object({
  ...Holder.properties,
  /** It has everything that was written up to this version; 0: it was never in sync, or cannot say. */
  inSyncVersion: UInt,
  /** Its host crashed, or its disk failed, since: pages may be older than that. */
  crashed: Type.Boolean(),
  /** Why it cannot be promoted; '' when it can. */
  obstacle: Type.String({ maxLength: 256 }),
})
export type StaleReplica = Static<typeof StaleReplica>

const StrandedChunk = Type.Object({
  chunk: UInt,
  inode: UInt,
  index: UInt,
  /** The highest that was committed. */
  version: UInt,
  inSync: Type.Array(Holder),
  stale: Type.Array(StaleReplica),
})
export type StrandedChunk = Static<typeof StrandedChunk>

export const promotionMethods = {
  /** `chunk` 0: the first of all. `total`: how many there are. */
  'admin.stranded': method(
    Type.Object({ chunk: UInt }),
    Type.Object({ chunks: Type.Array(StrandedChunk), total: UInt }),
  ),
  /** What was written since is lost. REFUSED when a replica in sync answers, or `version` is not the highest any more. */
  'admin.promote': method(Type.Object({ chunk: UInt, version: UInt, server: UInt }), Nothing),
} as const
