/**
 * Metadata servers come, move and go: what an administrator asks the master for, up to the end of all of them,
 * and what the master tells whoever it serves.
 */
import { Type } from '@sinclair/typebox'
import { method, Nothing, UInt } from './method.ts'
import { promotionMethods } from './promotion.ts'
import { recoveryMethods } from './recovery.ts'

export const membershipMethods = {
  /** Takes in a further metadata server: the base address where it will be. Its id is never used again. */
  'mds.add': method(
    Type.Object({
      host: Type.String({ minLength: 1, maxLength: 255 }),
      port: Type.Integer({ minimum: 1, maximum: 65_534 }),
      name: Type.String({ maxLength: 255 }),
      /** The feature level that it understands; absent: the first (docs/formats/metadata.md). */
      level: Type.Optional(UInt),
    }),
    Type.Object({ member: UInt }),
  ),
  /** Takes one out; ask again until it is gone. TRY_AGAIN: it is the master, and another takes over first. */
  'mds.remove': method(Type.Object({ member: UInt }), Type.Object({ gone: Type.Boolean() })),
  'admin.shutdown': method(Nothing, Nothing),
  ...recoveryMethods,
  ...promotionMethods,
} as const

const MEMBERS_MAX = 64

/** What the master tells clients and chunk servers on their connection. */
export const registerMethods = {
  /** (one-way) Base addresses of all metadata servers, at the beginning and whenever one comes, moves or leaves. */
  'mds.members': method(
    Type.Object({
      servers: Type.Array(
        Type.Object({
          host: Type.String({ minLength: 1, maxLength: 255 }),
          port: Type.Integer({ minimum: 1, maximum: 65_534 }),
        }),
        { maxItems: MEMBERS_MAX },
      ),
    }),
    Nothing,
  ),
} as const
export type RegisterMethods = typeof registerMethods
