/**
 * The durable half of a metadata server: replicated log and materialised state in one atomic store.
 * One commit is one transaction and one sync; a crash leaves all of a commit or nothing of it.
 * `core/platform/node/sqlite-store.ts` is the real one; the simulator has a model with the same
 * crash contract; one contract test runs on both. Term, vote and member id live outside of the file that
 * is shipped as a snapshot (rule L4, hard-state.ts).
 */
import type { PackedRows } from './packed-rows.ts'

export interface StoredLogEntry {
  readonly index: number
  readonly term: number
  readonly data: Buffer
}

/** `value: null` deletes. Keys sort as strings within a table. Neither key nor value holds a NUL. */
export interface RowChange {
  readonly table: string
  readonly key: string
  readonly value: string | null
}

export interface StoreBatch {
  readonly entries: readonly StoredLogEntry[]
  /** Removes stored entries from this index up before `entries` are added. */
  readonly truncateFrom?: number
  readonly rows: readonly RowChange[]
  /** The rows are the state after this log index. Never goes backward. */
  readonly appliedIndex: number
  /** Entries at or below this index may be removed (rule L10: keep a trailing window). */
  readonly trimThrough?: number
}

export interface StoreLoadHandler {
  /** Some rows of one table; valid until it returns. Few enough for one turn. */
  onRows(table: string, borrowedRows: PackedRows): void
  onEntry(entry: StoredLogEntry): void
}

export interface StoreGlance {
  readonly appliedIndex: number
  /** Of the log entry at that index; 0 when it is not there. */
  readonly appliedTerm: number
  readonly rows: ReadonlyMap<string, string>
}

export interface Store {
  /** Rows first (any order), then log entries by rising index. Resolves with the applied index. */
  load(handler: StoreLoadHandler): Promise<{ readonly appliedIndex: number }>
  /** Durable when it resolves. One at a time: the caller waits before it commits again. */
  commit(batch: StoreBatch): Promise<void>
  /** Without loading: what the store is of, and the rows of one small table. */
  glance(table: string): Promise<StoreGlance>
  /** A consistent copy of the state without stopping commits. */
  snapshot(path: string): Promise<void>
  close(): Promise<void>
}
