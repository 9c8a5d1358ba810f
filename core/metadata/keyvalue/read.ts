/**
 * Questions to the key-value store, answered from applied state. A listing of several pages stays at the
 * revision of its first page: what changed since is undone with the history.
 */
import type { KeyValueEntry } from '../../wire/messages/key-value.ts'
import type { KeyValueRow, KeyValueTable } from './key-value-table.ts'
import { PAGE_BYTES_MAX } from './limits.ts'

export interface ListQuestion {
  readonly namespace: string
  readonly prefix: string
  /** Only keys behind this one; '' for the first page. */
  readonly after: string
  readonly limit: number
}

export function entryOf({ key, value, revision, created, session }: KeyValueRow): KeyValueEntry {
  return { key, value, revision, created, session }
}

/** The caller has checked that the history reaches back to `revision`. */
export function listAt(
  table: KeyValueTable,
  question: ListQuestion,
  revision: number,
): { entries: KeyValueEntry[]; end: boolean } {
  const { namespace, prefix, after, limit } = question
  const earlier = rowsBefore(table, question, revision)
  const entries: KeyValueEntry[] = []
  let bytes = 0
  for (const key of mergedKeys(table, question, earlier)) {
    if (!key.startsWith(prefix)) break
    if (key === after) continue
    const row = earlier.has(key) ? earlier.get(key) : table.get(namespace, key)
    if (row === undefined) continue
    bytes += key.length * 3 + row.value.length
    if (entries.length === limit || (bytes > PAGE_BYTES_MAX && entries.length > 0)) {
      return { entries, end: false }
    }
    entries.push(entryOf(row))
  }
  return { entries, end: true }
}

/** Keys that changed after `revision`, with the rows they had then. */
function rowsBefore(
  table: KeyValueTable,
  { namespace, prefix }: ListQuestion,
  revision: number,
): Map<string, KeyValueRow | undefined> {
  const earlier = new Map<string, KeyValueRow | undefined>()
  for (const change of table.history.from(revision + 1)) {
    if (change.namespace !== namespace || !change.key.startsWith(prefix)) continue
    if (!earlier.has(change.key)) earlier.set(change.key, change.before)
  }
  return earlier
}

/** The keys of the table and those deleted since, rising, from the question's beginning on. */
function* mergedKeys(
  table: KeyValueTable,
  { namespace, prefix, after }: ListQuestion,
  earlier: ReadonlyMap<string, KeyValueRow | undefined>,
): Generator<string, void> {
  const first = after > prefix ? after : prefix
  const deleted = [...earlier.keys()]
    .filter((key) => key >= first && table.get(namespace, key) === undefined)
    .toSorted()
  let next = 0
  for (const key of table.keysFrom(namespace, first)) {
    for (; next < deleted.length && (deleted[next] ?? '') < key; next++) yield deleted[next] ?? ''
    yield key
  }
  for (; next < deleted.length; next++) yield deleted[next] ?? ''
}
