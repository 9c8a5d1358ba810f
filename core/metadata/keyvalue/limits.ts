/** Bounds of the key-value store, and the forms of namespaces, keys and transactions. Part of `apply`. */
import { assert } from '../../base/assert.ts'
import { KIB } from '../../base/units.ts'
import { META_BYTES_MAX } from '../../wire/limits.ts'
import {
  type KeyValueGuard,
  type KeyValueWrite,
  TRANSACTION_BYTES_MAX,
  VALUE_BYTES_MAX,
} from '../../wire/messages/key-value.ts'
import { type Refusal, refused } from '../state/result.ts'

export const NAMESPACE_BYTES_MAX = 64
export const KEY_BYTES_MAX = 512
export const GUARD_COUNT_MAX = 64
export const WRITE_COUNT_MAX = 64
/** What the end of a session deletes in one command. */
export const KEYS_PER_SESSION_MAX = 1024
/** Counted for each key besides its bytes. */
export const ENTRY_OVERHEAD_BYTES = 64
/** Keys and values of one page of a listing, or one answer to a watcher; one revision is never divided. */
export const PAGE_BYTES_MAX = 256 * KIB
/** Of each item in a message, at most. */
export const ITEM_OVERHEAD_BYTES = 100

assert(TRANSACTION_BYTES_MAX + PAGE_BYTES_MAX < META_BYTES_MAX, 'a transaction fits one message and answer')
assert(
  KEYS_PER_SESSION_MAX * (KEY_BYTES_MAX + ITEM_OVERHEAD_BYTES) + PAGE_BYTES_MAX < META_BYTES_MAX,
  'the end of a session fits one answer to a watcher',
)

const namespaceForm = /^[a-z0-9.-]{1,64}$/

export function namespaceFault(namespace: string): Refusal | null {
  if (namespaceForm.test(namespace)) return null
  return refused('EINVAL', `a namespace is 1 to ${NAMESPACE_BYTES_MAX} of a-z, 0-9, '.' and '-'`)
}

export function keyFault(key: string): Refusal | null {
  if (key === '') return refused('EINVAL', 'a key must not be empty')
  // The log refuses what is not well-formed; NUL would end the text in the Store.
  if (!key.isWellFormed() || key.includes('\0')) {
    return refused('EINVAL', 'a key is well-formed Unicode without NUL')
  }
  if (Buffer.byteLength(key) <= KEY_BYTES_MAX) return null
  return refused('TOO_LARGE', `a key has at most ${KEY_BYTES_MAX} bytes`)
}

export function entryBytes(key: string, valueBytes: number): number {
  return Buffer.byteLength(key) + valueBytes + ENTRY_OVERHEAD_BYTES
}

interface Transaction {
  readonly namespace: string
  readonly guards: readonly KeyValueGuard[]
  readonly writes: readonly KeyValueWrite[]
}

export function transactionFault({ namespace, guards, writes }: Transaction): Refusal | null {
  const fault = namespaceFault(namespace)
  if (fault !== null) return fault
  if (guards.length + writes.length === 0) return refused('EINVAL', 'the transaction is empty')
  if (guards.length > GUARD_COUNT_MAX || writes.length > WRITE_COUNT_MAX) {
    const most = `${GUARD_COUNT_MAX} guards and ${WRITE_COUNT_MAX} writes`
    return refused('TOO_LARGE', `a transaction has at most ${most}`)
  }
  let bytes = 0
  for (const item of [...guards, ...writes]) {
    const wrong = keyFault(item.key) ?? valueFault(item.value)
    if (wrong !== null) return wrong
    bytes += Buffer.byteLength(item.key) + (item.value?.length ?? 0)
  }
  if (bytes > TRANSACTION_BYTES_MAX) {
    return refused('TOO_LARGE', `a transaction has at most ${TRANSACTION_BYTES_MAX} bytes of keys and values`)
  }
  for (const { key, revision, value } of guards) {
    if ((revision === undefined) === (value === undefined)) {
      return refused('EINVAL', `the guard of '${key}' names a revision or a value`)
    }
  }
  if (new Set(writes.map(({ key }) => key)).size < writes.length) {
    return refused('EINVAL', 'a transaction writes a key once')
  }
  return null
}

function valueFault(value: Uint8Array | undefined): Refusal | null {
  if (value === undefined || value.length <= VALUE_BYTES_MAX) return null
  return refused('TOO_LARGE', `a value has at most ${VALUE_BYTES_MAX} bytes`)
}
