/** What `cairn fsck` asks the master: which chunks there are, the check of one of them, and repair. */
import { type Static, Type } from '@sinclair/typebox'
import { ChunkLocation, ServerAddress } from './common.ts'
import { method, Nothing, UInt } from './method.ts'

export const ChunkProblem = Type.Object({
  kind: Type.Union([
    Type.Literal('bad-page'),
    Type.Literal('lost-page'),
    Type.Literal('unreadable'),
    Type.Literal('differs'),
    Type.Literal('unreachable'),
    Type.Literal('too-few'),
  ]),
  /** 0: none. */
  server: UInt,
  detail: Type.String(),
  /** Within the chunk. */
  page: Type.Optional(UInt),
})
export type ChunkProblem = Static<typeof ChunkProblem>

export const checkMethods = {
  /** Pages through all chunks: every replica the quorum believes in. */
  'admin.chunks': method(
    Type.Object({ after: UInt, limit: Type.Integer({ minimum: 1, maximum: 4096 }) }),
    Type.Object({
      chunks: Type.Array(Type.Object({ inode: UInt, busy: Type.Boolean(), location: ChunkLocation })),
      servers: Type.Array(ServerAddress),
      end: Type.Boolean(),
    }),
  ),
  /**
   * Verifies every page of every replica of one chunk, now, and compares them as scrubbing does (rule R2). Takes as
   * long as the disks need to read it. `repairs`: those that differ are repaired.
   */
  'admin.check': method(
    Type.Object({ chunk: UInt, repairs: Type.Boolean() }),
    Type.Object({
      exists: Type.Boolean(),
      replicas: UInt,
      pages: UInt,
      /** False: it is in use. */
      isCompared: Type.Boolean(),
      problemCount: UInt,
      /** The first ones. */
      problems: Type.Array(ChunkProblem, { maxItems: 1024 }),
    }),
  ),
  /** Asks for repair of pages or replicas that fsck found bad. */
  'admin.repair': method(
    Type.Object({
      chunk: UInt,
      server: UInt,
      page: Type.Optional(UInt),
      reason: Type.String({ maxLength: 64 }),
    }),
    Nothing,
  ),
} as const
