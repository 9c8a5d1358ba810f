/**
 * The command of the key-value store, for the state machine: a transaction over keys of one namespace. Single
 * puts, deletes and compare-and-set are transactions of one. The keys of a session end in `session.expire`.
 */
import { parameterOf } from '../chunks/parameters.ts'
import type { CommandOf, Handlers } from '../state/apply.ts'
import { type Refusal, refused } from '../state/result.ts'
import type { MetadataState } from '../state/state.ts'
import type { KeyValueRow, KeyValueTable } from './key-value-table.ts'
import { entryBytes, KEYS_PER_SESSION_MAX, transactionFault } from './limits.ts'

type Transact = CommandOf<'kv.transact'>

export const keyValueHandlers: Handlers<'kv.transact'> = {
  'kv.transact'({ state, index }, command) {
    const { session, namespace, guards, writes } = command
    const table = state.keyValue
    const fault = transactionFault(command)
    if (fault !== null) return fault
    const failed = guards.findIndex((guard) => !holds(table.get(namespace, guard.key), guard))
    if (failed >= 0) {
      // Revisions only: this answer is kept until the session acknowledges it. The value is looked up later.
      const present = guards.map(({ key }) => table.get(namespace, key)?.revision ?? 0)
      return { ok: { revision: index, failed, present } }
    }
    const excess = quotaFault(state, command) ?? bindFault(table, command)
    if (excess !== null) return excess
    for (const { key, value, bind } of writes) {
      if (value === undefined) table.delete(namespace, key, index)
      // Copied: what came from the log is a view of the whole entry.
      else table.put(namespace, key, Buffer.from(value), index, bind === true ? session : 0)
    }
    return { ok: { revision: index } }
  },
}

function holds(row: KeyValueRow | undefined, guard: Transact['guards'][number]): boolean {
  if (guard.value !== undefined) return row !== undefined && row.value.equals(guard.value)
  return (row?.revision ?? 0) === guard.revision
}

/** What makes a namespace smaller is always allowed. */
function quotaFault(state: MetadataState, { namespace, writes }: Transact): Refusal | null {
  const table = state.keyValue
  let added = 0
  for (const { key, value } of writes) {
    const row = table.get(namespace, key)
    if (row !== undefined) added -= entryBytes(key, row.value.length)
    if (value !== undefined) added += entryBytes(key, value.length)
  }
  if (added <= 0) return null
  const ofNamespace = parameterOf(state.config, 'mds.kv.namespace_bytes')
  if (table.bytesOf(namespace) + added > ofNamespace) {
    return refused(
      'QUOTA',
      `namespace ${namespace} would exceed ${ofNamespace} bytes (mds.kv.namespace_bytes)`,
    )
  }
  const ofAll = parameterOf(state.config, 'mds.kv.bytes')
  if (table.bytes + added <= ofAll) return null
  return refused('QUOTA', `the key-value store would exceed ${ofAll} bytes (mds.kv.bytes)`)
}

function bindFault(table: KeyValueTable, { session, namespace, writes }: Transact): Refusal | null {
  let added = 0
  for (const { key, value, bind } of writes) {
    if (table.get(namespace, key)?.session === session) added -= 1
    if (value !== undefined && bind === true) added += 1
  }
  if (added <= 0 || table.keyCountOf(session) + added <= KEYS_PER_SESSION_MAX) return null
  return refused('QUOTA', `a session has at most ${KEYS_PER_SESSION_MAX} keys bound to it`)
}
