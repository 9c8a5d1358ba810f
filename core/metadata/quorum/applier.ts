/**
 * Applies committed entries, each once, and says when it has been enough: for one turn of the event loop, and for
 * the rows that the store lacks. Rows are what costs. One entry of a mass deletion changes as many as hundreds of
 * others, and what many entries have changed is written in one commit, so both are counted.
 */
import type { RowChange } from '../../platform/store.ts'
import { type Entry, entrySizeBytes } from '../../raft/index.ts'

/**
 * The rows may lag so far behind what is applied: what lies between is applied again after a start, and a row
 * that changes often, or is made and deleted, is written once or never.
 */
export const ROWS_BEHIND_ENTRIES_MAX = 512
const ROWS_BEHIND_BYTES_MAX = 256 * 1024
/** Entries applied before others get their turn, and rows changed before they go to the disk: some milliseconds each. */
const SLICE_ENTRIES_MAX = 256
export const SLICE_ROWS_MAX = 2_048

export interface ApplierHost {
  /** Called in order, each once, after the entry is durable here. */
  apply(entry: Entry): void
  /** Rows that the store lacks. */
  changedRowCount(): number
  /** Some rows must not lag: they go into the next commit, with all others. */
  hasUrgentRows(): boolean
  /** The rows that the store lacks: exactly those of the state after `appliedIndex`. */
  takeRows(): { readonly rows: RowChange[]; readonly appliedIndex: number }
}

export class Applier {
  readonly #host: ApplierHost
  #appliedIndex: number
  /** Applied since the rows were taken last. */
  #rowsBehindEntries = 0
  #rowsBehindBytes = 0
  /** Applied in this turn. */
  #sliceEntries = 0

  constructor(host: ApplierHost, appliedIndex: number) {
    this.#host = host
    this.#appliedIndex = appliedIndex
  }

  apply(entry: Entry): void {
    if (entry.index <= this.#appliedIndex) return
    this.#appliedIndex = entry.index
    this.#sliceEntries++
    this.#rowsBehindEntries++
    this.#rowsBehindBytes += entrySizeBytes(entry)
    this.#host.apply(entry)
  }

  /** Others have had their turn. */
  beginSlice(): void {
    this.#sliceEntries = 0
  }

  get isSliceFull(): boolean {
    return this.#sliceEntries >= SLICE_ENTRIES_MAX || this.hasManyRows
  }

  /** Nothing more is applied before they are in the store. */
  get hasManyRows(): boolean {
    return this.#host.changedRowCount() >= SLICE_ROWS_MAX
  }

  get areRowsDue(): boolean {
    return (
      this.#host.hasUrgentRows() ||
      this.hasManyRows ||
      this.#rowsBehindEntries >= ROWS_BEHIND_ENTRIES_MAX ||
      this.#rowsBehindBytes >= ROWS_BEHIND_BYTES_MAX
    )
  }

  takeRows(): { readonly rows: RowChange[]; readonly appliedIndex: number } {
    this.#rowsBehindEntries = 0
    this.#rowsBehindBytes = 0
    return this.#host.takeRows()
  }
}
