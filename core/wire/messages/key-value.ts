/**
 * The replicated key-value store, as a client asks for it: namespaces of keys with values, transactions over
 * a few keys of one namespace, keys that end with the session that wrote them, and watching. A *revision* is
 * the log index of a change; 0 stands for "no such key". Bounds are checked by the state machine
 * (metadata/keyvalue/limits.ts), which answers with a clear code; the schema only keeps nonsense out.
 */
import { type Static, Type } from '@sinclair/typebox'
import { KIB } from '../../base/units.ts'
import { Mutation } from './common.ts'
import { method, Nothing, UInt } from './method.ts'

export const VALUE_BYTES_MAX = 64 * KIB
/** Keys and values of guards and writes together. */
export const TRANSACTION_BYTES_MAX = 512 * KIB

const Namespace = Type.String({ maxLength: 1024 })
const Key = Type.String({ maxLength: 4096 })

export const KeyValueEntry = Type.Object({
  key: Key,
  value: Type.Uint8Array(),
  /** Of the last change. */
  revision: UInt,
  /** Of the change that made the key. */
  created: UInt,
  /** The key ends with this session; 0: it stays. */
  session: UInt,
})
export type KeyValueEntry = Static<typeof KeyValueEntry>

/** Exactly one of the two. `revision` 0: the key must not exist. */
const Guard = Type.Object({
  key: Key,
  revision: Type.Optional(UInt),
  value: Type.Optional(Type.Uint8Array()),
})
export type KeyValueGuard = Static<typeof Guard>

const Write = Type.Object({
  key: Key,
  /** Missing: delete. */
  value: Type.Optional(Type.Uint8Array()),
  /** The key is deleted when the session of this request ends. A put without it unties the key. */
  bind: Type.Optional(Type.Boolean()),
})
export type KeyValueWrite = Static<typeof Write>

export const keyValueMethods = {
  /** `revision`: the state this was read from. */
  'kv.get': method(
    Type.Object({ namespace: Namespace, key: Key }),
    Type.Object({ revision: UInt, entry: Type.Optional(KeyValueEntry) }),
  ),
  /**
   * Keys with `prefix` behind `after`, in the order of their UTF-16 code units. `revision`: the state of that
   * moment, for the pages behind the first one; COMPACTED when the history no longer reaches it.
   */
  'kv.list': method(
    Type.Object({
      namespace: Namespace,
      prefix: Key,
      after: Key,
      limit: Type.Integer({ minimum: 1, maximum: 4096 }),
      revision: Type.Optional(UInt),
    }),
    Type.Object({ revision: UInt, entries: Type.Array(KeyValueEntry), end: Type.Boolean() }),
  ),
  /**
   * (mutation) All writes, when all guards hold; else none. `revision` is that of the writes, or of the state
   * in which a guard did not hold. Then `failed` is its index, `present` the revision of the key of every
   * guard (0: absent), and `value` the value of the one that failed.
   */
  'kv.transact': method(
    Type.Object({
      mutation: Mutation,
      namespace: Namespace,
      guards: Type.Array(Guard, { maxItems: 1024 }),
      writes: Type.Array(Write, { maxItems: 1024 }),
    }),
    Type.Object({
      revision: UInt,
      failed: Type.Optional(UInt),
      present: Type.Optional(Type.Array(UInt)),
      value: Type.Optional(Type.Uint8Array()),
    }),
  ),
  /**
   * Waits up to `waitMs` for changes behind revision `after`; ask again from `revision`. All changes of one
   * revision come together, and none is left out. `compacted`: the history no longer reaches `after`: list
   * again. `watch` is a number of the client's choice; asking again under it ends what waits there.
   */
  'kv.watch': method(
    Type.Object({
      watch: UInt,
      namespace: Namespace,
      prefix: Key,
      after: UInt,
      waitMs: UInt,
    }),
    Type.Object({
      revision: UInt,
      compacted: Type.Boolean(),
      changes: Type.Array(
        Type.Object({
          key: Key,
          revision: UInt,
          /** These are missing where the key was deleted. */
          value: Type.Optional(Type.Uint8Array()),
          created: Type.Optional(UInt),
          session: Type.Optional(UInt),
        }),
      ),
    }),
  ),
  /** What waits under this number is answered now. */
  'kv.unwatch': method(Type.Object({ watch: UInt }), Nothing),
} as const
