/**
 * Messages about passwords and cluster keys. `passwordMethods` are all that a connection with the role `auth`
 * may call; `keyMethods` are an administrator's. Contents: docs/formats/authentication.md.
 */
import { Type } from '@sinclair/typebox'
import { method, Nothing, UInt } from './method.ts'

/** The messages of OPAQUE are shorter. */
const Message = Type.String({ minLength: 1, maxLength: 1024 })
const Sealed = Type.Uint8Array({ maxByteLength: 4096 })

export const passwordMethods = {
  /** Begins an exchange. Each counts as an attempt until it is finished. */
  'auth.start': method(
    Type.Object({ request: Message, host: Type.String({ maxLength: 255 }) }),
    Type.Object({ response: Message }),
  ),
  /** Answers with the accepted cluster keys, or WRONG_PASSWORD. */
  'auth.finish': method(Type.Object({ finish: Message }), Type.Object({ sealed: Sealed })),
  /** A new password, after `auth.finish` on the same connection. */
  'auth.register': method(Type.Object({ sealed: Sealed }), Type.Object({ sealed: Sealed })),
  'auth.replace': method(Type.Object({ sealed: Sealed }), Nothing),
} as const
export type PasswordMethods = typeof passwordMethods

export const keyMethods = {
  /** Makes a new version of the cluster key; the old one stays valid for `overlapMs`. */
  'key.rotate': method(Nothing, Type.Object({ version: UInt, overlapMs: UInt })),
  /** Ends the overlap now. */
  'key.retire': method(Nothing, Type.Object({ oldest: UInt })),
} as const
export type KeyMethods = typeof keyMethods
