/**
 * One table of the replicated state: rows in memory, the keys that changed since the last collection, and
 * the text form in which rows lie in the Store. The Store is a copy that lags; memory is the state.
 * A row may be changed in place, followed by `touch`. Nobody but `apply` and loading writes here.
 */
import type { PackedRows } from '../../platform/packed-rows.ts'
import type { RowChange } from '../../platform/store.ts'
import { metadataError } from '../errors.ts'

/** What the log needs of a table, whatever it looks like inside (the chunk table has columns). */
export interface ChangeTracked {
  /** Name of the table in the Store. */
  readonly name: string
  /** Takes one stored row; not a change. Throws ROW_CORRUPT. */
  loadRow(key: string, value: string): void
  /**
   * The same from the bytes, for tables of millions. Reads a row of the usual form to its end; false, and nothing
   * is taken in, for any other, which `loadRow` gets then.
   */
  loadPacked?(rows: PackedRows): boolean
  /** How many rows changed since the last collection, or less. */
  readonly changedCount: number
  /** Appends every change since the last call. The result depends only on the state, not on time. */
  collectChanges(into: RowChange[]): void
  /** Every row as it would be stored, in any order (digests, tests). */
  rows(): Iterable<readonly [key: string, value: string]>
}

/** `encode` must be canonical: equal rows give equal text on every member. */
export interface RowCodec<Key, Row> {
  keyText(key: Key): string
  parseKey(text: string): Key
  /** JSON text. */
  encode(row: Row): string
  /** `value` is parsed JSON. May throw anything; it becomes ROW_CORRUPT. */
  decode(value: unknown, key: Key): Row
}

/** Keeps soft indexes beside a table. Called after each change; loading counts as `onSet`. */
export interface TableObserver<Key, Row> {
  onSet(key: Key, row: Row): void
  onDelete(key: Key, row: Row): void
}

export class Table<Key extends string | number, Row> implements ChangeTracked {
  readonly name: string
  private readonly codec: RowCodec<Key, Row>
  private readonly map = new Map<Key, Row>()
  private readonly dirty = new Set<Key>()
  private readonly observers: TableObserver<Key, Row>[] = []

  constructor(name: string, codec: RowCodec<Key, Row>) {
    this.name = name
    this.codec = codec
  }

  get size(): number {
    return this.map.size
  }

  get changedCount(): number {
    return this.dirty.size
  }

  get(key: Key): Row | undefined {
    return this.map.get(key)
  }

  has(key: Key): boolean {
    return this.map.has(key)
  }

  set(key: Key, row: Row): void {
    this.map.set(key, row)
    this.dirty.add(key)
    for (const observer of this.observers) observer.onSet(key, row)
  }

  /** The row was changed in place. */
  touch(key: Key): void {
    this.dirty.add(key)
  }

  delete(key: Key): boolean {
    const row = this.map.get(key)
    if (row === undefined) return false
    this.map.delete(key)
    this.dirty.add(key)
    for (const observer of this.observers) observer.onDelete(key, row)
    return true
  }

  /** In order of insertion; after a restart in the order of the Store. Sort where the order matters. */
  values(): MapIterator<Row> {
    return this.map.values()
  }

  keys(): MapIterator<Key> {
    return this.map.keys()
  }

  entries(): MapIterator<[Key, Row]> {
    return this.map.entries()
  }

  /** Also tells the observer about the rows that are there already. */
  observe(observer: TableObserver<Key, Row>): void {
    this.observers.push(observer)
    for (const [key, row] of this.map) observer.onSet(key, row)
  }

  loadRow(key: string, value: string): void {
    try {
      const parsedKey = this.codec.parseKey(key)
      const row = this.codec.decode(JSON.parse(value), parsedKey)
      this.map.set(parsedKey, row)
      for (const observer of this.observers) observer.onSet(parsedKey, row)
    } catch (error) {
      throw metadataError('ROW_CORRUPT', `${this.name}/${key}`, error)
    }
  }

  collectChanges(into: RowChange[]): void {
    for (const key of this.dirty) {
      const row = this.map.get(key)
      const value = row === undefined ? null : this.codec.encode(row)
      into.push({ table: this.name, key: this.codec.keyText(key), value })
    }
    this.dirty.clear()
  }

  *rows(): Iterable<readonly [string, string]> {
    for (const [key, row] of this.map) yield [this.codec.keyText(key), this.codec.encode(row)]
  }
}

/** Keys that are ids. */
export const numberKey = {
  keyText: (key: number): string => String(key),
  parseKey(text: string): number {
    const key = Number(text)
    if (!Number.isSafeInteger(key) || String(key) !== text) throw new Error('the key is no integer')
    return key
  },
}

export const stringKey = {
  keyText: (key: string): string => key,
  parseKey: (text: string): string => text,
}

/** For small tables of plain objects: the fields in this order as one JSON array. `optionalCount` of the last may lack. */
export function fieldsCodec<Row extends object>(
  fields: readonly (keyof Row & string)[],
  optionalCount = 0,
): Pick<RowCodec<number, Row>, 'encode' | 'decode'> {
  return {
    encode(row) {
      const values = fields.map((field) => row[field])
      while (values.length > fields.length - optionalCount && values.at(-1) === undefined) values.pop()
      return JSON.stringify(values)
    },
    decode(value) {
      const values = jsonArray(value, fields.length - optionalCount)
      const row: Record<string, unknown> = {}
      for (const [position, field] of fields.entries())
        if (position < values.length) row[field] = values[position]
      return row as Row
    },
  }
}

/** An array of at least `lengthMin` elements, or an Error. */
export function jsonArray(value: unknown, lengthMin: number): unknown[] {
  if (!Array.isArray(value) || value.length < lengthMin) throw new Error('the row has the wrong form')
  return value as unknown[]
}
