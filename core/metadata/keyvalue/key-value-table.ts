/**
 * The table of the replicated key-value store: (namespace, key) -> value, revision of the last change and of
 * the one that made it, and the session that it ends with. Rows are never changed in place, so the history
 * and answers under way may keep them. Sizes and the keys of each session are soft indexes beside it.
 */
import type { RowChange } from '../../platform/store.ts'
import { metadataError } from '../errors.ts'
import { type ChangeTracked, jsonArray } from '../state/table.ts'
import { ChangeHistory } from './change-history.ts'
import { entryBytes, keyFault, namespaceFault } from './limits.ts'
import { SortedKeys } from './sorted-keys.ts'

export interface KeyValueRow {
  readonly namespace: string
  readonly key: string
  readonly value: Buffer
  /** Log index of the last change. */
  readonly revision: number
  /** Log index of the change that made the key. */
  readonly created: number
  /** The key is deleted when this session ends; 0: it stays. */
  readonly session: number
}

interface Namespace {
  readonly rows: Map<string, KeyValueRow>
  readonly sorted: SortedKeys
  bytes: number
}

export class KeyValueTable implements ChangeTracked {
  readonly name = 'keyValue'
  readonly history = new ChangeHistory()
  readonly #namespaces = new Map<string, Namespace>()
  /** Row keys: namespace/key. A namespace holds no slash. */
  readonly #dirty = new Set<string>()
  readonly #bySession = new Map<number, Set<string>>()
  #bytes = 0

  /** Keys, values and an overhead for each key. */
  get bytes(): number {
    return this.#bytes
  }

  bytesOf(namespace: string): number {
    return this.#namespaces.get(namespace)?.bytes ?? 0
  }

  keyCountOf(session: number): number {
    return this.#bySession.get(session)?.size ?? 0
  }

  get(namespace: string, key: string): KeyValueRow | undefined {
    return this.#namespaces.get(namespace)?.rows.get(key)
  }

  /** Keys of a namespace from `first` on, rising. */
  keysFrom(namespace: string, first: string): Iterable<string> {
    return this.#namespaces.get(namespace)?.sorted.from(first) ?? []
  }

  /** `ownedValue` stays in the table. */
  put(namespace: string, key: string, ownedValue: Buffer, revision: number, session: number): void {
    const before = this.get(namespace, key)
    const created = before?.created ?? revision
    const row: KeyValueRow = { namespace, key, value: ownedValue, revision, created, session }
    this.#set(before, row)
    this.#changed(before, row, revision)
  }

  delete(namespace: string, key: string, revision: number): void {
    const before = this.get(namespace, key)
    if (before === undefined) return
    this.#unset(before)
    this.#changed(before, undefined, revision)
  }

  /** In the order of the row keys, which is the same on every member. */
  endSession(session: number, revision: number): void {
    for (const rowKey of [...(this.#bySession.get(session) ?? [])].toSorted()) {
      const { namespace, key } = splitRowKey(rowKey)
      this.delete(namespace, key, revision)
    }
  }

  loadRow(rowKey: string, text: string): void {
    try {
      const { namespace, key } = splitRowKey(rowKey)
      if (namespaceFault(namespace) !== null || keyFault(key) !== null) throw new Error('bad key')
      const [base64, ...numbers] = jsonArray(JSON.parse(text), 4)
      const [revision, created, session] = numbers as [number, number, number]
      if (!numbers.every((number) => Number.isSafeInteger(number))) throw new Error('bad number')
      const value = Buffer.from(base64 as string, 'base64')
      if (value.toString('base64') !== base64) throw new Error('bad value')
      this.#set(this.get(namespace, key), { namespace, key, value, revision, created, session })
    } catch (error) {
      throw metadataError('ROW_CORRUPT', `${this.name}/${rowKey}`, error)
    }
  }

  get changedCount(): number {
    return this.#dirty.size
  }

  collectChanges(into: RowChange[]): void {
    for (const rowKey of this.#dirty) {
      const { namespace, key } = splitRowKey(rowKey)
      const row = this.get(namespace, key)
      into.push({ table: this.name, key: rowKey, value: row === undefined ? null : encodeRow(row) })
    }
    this.#dirty.clear()
  }

  *rows(): Iterable<readonly [string, string]> {
    for (const { rows } of this.#namespaces.values()) {
      for (const row of rows.values()) yield [rowKeyOf(row), encodeRow(row)]
    }
  }

  #set(before: KeyValueRow | undefined, row: KeyValueRow): void {
    if (before !== undefined) this.#unset(before)
    let space = this.#namespaces.get(row.namespace)
    if (space === undefined) {
      space = { rows: new Map(), sorted: new SortedKeys(), bytes: 0 }
      this.#namespaces.set(row.namespace, space)
    }
    space.rows.set(row.key, row)
    space.sorted.add(row.key)
    const bytes = entryBytes(row.key, row.value.length)
    space.bytes += bytes
    this.#bytes += bytes
    if (row.session === 0) return
    const keys = this.#bySession.get(row.session)
    if (keys === undefined) this.#bySession.set(row.session, new Set([rowKeyOf(row)]))
    else keys.add(rowKeyOf(row))
  }

  #unset(row: KeyValueRow): void {
    const space = this.#namespaces.get(row.namespace)
    if (space === undefined) return
    space.rows.delete(row.key)
    space.sorted.remove(row.key)
    const bytes = entryBytes(row.key, row.value.length)
    space.bytes -= bytes
    this.#bytes -= bytes
    if (space.rows.size === 0) this.#namespaces.delete(row.namespace)
    const keys = this.#bySession.get(row.session)
    keys?.delete(rowKeyOf(row))
    if (keys?.size === 0) this.#bySession.delete(row.session)
  }

  #changed(before: KeyValueRow | undefined, after: KeyValueRow | undefined, revision: number): void {
    const { namespace, key } = (after ?? before) as KeyValueRow
    this.#dirty.add(`${namespace}/${key}`)
    this.history.push({ revision, namespace, key, before, after })
  }
}

function rowKeyOf({ namespace, key }: KeyValueRow): string {
  return `${namespace}/${key}`
}

function splitRowKey(rowKey: string): { namespace: string; key: string } {
  const slash = rowKey.indexOf('/')
  return { namespace: rowKey.slice(0, Math.max(0, slash)), key: rowKey.slice(slash + 1) }
}

function encodeRow({ value, revision, created, session }: KeyValueRow): string {
  return JSON.stringify([value.toString('base64'), revision, created, session])
}
