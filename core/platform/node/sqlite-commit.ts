/**
 * How a batch reaches SQLite: one statement, atomic by itself, one trip through the thread pool, one sync.
 *
 * Nearly every commit only puts entries behind the log: that is a plain insert, fed with one blob and a list of
 * numbers. Everything else is an insert into a view whose trigger does each step. View and trigger are temporary,
 * made anew for each connection: how a batch is told to SQLite is no part of the file's format. (The file has a
 * view `batch` of its own, with which earlier versions do the same.)
 *
 * Of json_each only `key` and `value` of flat lists and objects are used: reaching into an element parses its
 * text again.
 */
import { assert } from '../../base/assert.ts'
import type { RowChange, StoreBatch, StoredLogEntry } from '../store.ts'

/** Place and length of an entry in the blob are one number: length in the low bits. Below 2^53 both together. */
const LENGTH_BITS = 24
const LENGTH_FACTOR = 2 ** LENGTH_BITS
const OFFSET_MAX = 2 ** (53 - LENGTH_BITS)

/** Index of the first entry and its term; places and lengths; the blob. */
const INSERT_ENTRIES = (first: string, term: string, places: string, data: string): string =>
  `INSERT INTO log (idx, term, data)
     SELECT ${first} + key, ${term}, substr(${data}, 1 + (value >> ${LENGTH_BITS}), value & ${LENGTH_FACTOR - 1})
     FROM json_each(${places})`

export const APPEND = INSERT_ENTRIES('?1', '?2', '?3', '?4')

/** Of a batch whose entries are of several terms (a follower that catches up), the list of terms goes along. */
export const COMMIT_SCHEMA = `
  PRAGMA temp_store = MEMORY;
  CREATE TEMP VIEW change AS SELECT 0 AS applied, 0 AS truncate_from, 0 AS trim_through, 0 AS first, '' AS terms,
    '' AS places, x'' AS data, '' AS rows, '' AS gone;
  CREATE TEMP TRIGGER change_commit INSTEAD OF INSERT ON change BEGIN
    DELETE FROM log WHERE NEW.truncate_from IS NOT NULL AND idx >= NEW.truncate_from;
    ${INSERT_ENTRIES('NEW.first', "NEW.terms ->> ('$[' || key || ']')", 'NEW.places', 'NEW.data')};
    INSERT OR REPLACE INTO row (tab, key, value)
      SELECT part.key, pair.key, pair.value FROM json_each(NEW.rows) AS part, json_each(part.value) AS pair;
    DELETE FROM row WHERE (tab, key) IN
      (SELECT part.key, name.value FROM json_each(NEW.gone) AS part, json_each(part.value) AS name);
    DELETE FROM log WHERE NEW.trim_through IS NOT NULL AND idx <= NEW.trim_through;
    UPDATE state SET applied = NEW.applied WHERE applied <> NEW.applied;
  END;
`
export const COMMIT = 'INSERT INTO change VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)'

/** Nothing but entries of one term, and the rows stay those of `storedIndex`. */
export function isAppend(batch: StoreBatch, storedIndex: number): boolean {
  const { entries, rows, truncateFrom, trimThrough, appliedIndex } = batch
  const isPlain = rows.length === 0 && truncateFrom === undefined && trimThrough === undefined
  return (
    isPlain && appliedIndex === storedIndex && entries.length > 0 && entries[0]?.term === entries.at(-1)?.term
  )
}

export function appendParameters({ entries }: StoreBatch): unknown[] {
  const first = entries[0] as StoredLogEntry
  return [first.index, first.term, placesOf(entries), blobOf(entries)]
}

export function commitParameters(batch: StoreBatch): unknown[] {
  const { entries } = batch
  const [changed, gone] = rowTables(batch.rows)
  return [
    batch.appliedIndex,
    batch.truncateFrom ?? null,
    batch.trimThrough ?? null,
    entries[0]?.index ?? 0,
    `[${entries.map(({ term }) => term).join(',')}]`,
    placesOf(entries),
    blobOf(entries),
    changed,
    gone,
  ]
}

function blobOf(entries: readonly StoredLogEntry[]): Buffer {
  const [only] = entries
  return entries.length === 1 && only !== undefined
    ? only.data
    : Buffer.concat(entries.map(({ data }) => data))
}

function placesOf(entries: readonly StoredLogEntry[]): string {
  const first = entries[0]?.index ?? 0
  let offset = 0
  let text = '['
  for (const [position, { index, data }] of entries.entries()) {
    assert(index === first + position, 'the entries of a batch follow each other')
    assert(data.length < LENGTH_FACTOR && offset < OFFSET_MAX, 'a batch of entries fits its list of places')
    text += `${position === 0 ? '' : ','}${offset * LENGTH_FACTOR + data.length}`
    offset += data.length
  }
  return `${text}]`
}

/** What to set ({table: {key: value}}) and what to delete ({table: [key]}); of several changes of one key the last counts. */
function rowTables(rows: readonly RowChange[]): [string, string] {
  const tables = new Map<string, Map<string, string | null>>()
  let table = ''
  let keys = new Map<string, string | null>()
  for (const row of rows) {
    if (row.table !== table || tables.size === 0) {
      table = row.table
      keys = tables.get(table) ?? new Map<string, string | null>()
      tables.set(table, keys)
    }
    keys.set(row.key, row.value)
  }
  const changed: string[] = []
  const gone: string[] = []
  for (const [name, values] of tables) {
    const pairs: string[] = []
    const names: string[] = []
    for (const [key, value] of values) {
      if (value === null) names.push(JSON.stringify(key))
      else pairs.push(`${JSON.stringify(key)}:${JSON.stringify(value)}`)
    }
    if (pairs.length > 0) changed.push(`${JSON.stringify(name)}:{${pairs.join(',')}}`)
    if (names.length > 0) gone.push(`${JSON.stringify(name)}:[${names.join(',')}]`)
  }
  return [`{${changed.join(',')}}`, `{${gone.join(',')}}`]
}
