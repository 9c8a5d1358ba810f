/**
 * A model of the Store (core/platform/store.ts) with the same crash contract: a commit is durable as a whole
 * or not at all, and until its promise resolves nobody knows which. What lies on disk outlives the handle:
 * crash the handle, open another one on the same contents. A plan decides what happens to each commit.
 */
import { assert } from '../../base/assert.ts'
import { CairnError } from '../../base/errors.ts'
import { PackedRows } from '../../platform/packed-rows.ts'
import type {
  Store,
  StoreBatch,
  StoredLogEntry,
  StoreGlance,
  StoreLoadHandler,
} from '../../platform/store.ts'

/** What is durable. */
export class SimulatedStoreContents {
  readonly rows = new Map<string, Map<string, string>>()
  readonly entries = new Map<number, StoredLogEntry>()
  appliedIndex = 0

  /** As if another file had taken its place. */
  replaceWith(other: SimulatedStoreContents): void {
    const { rows, entries, appliedIndex } = other.copy()
    this.rows.clear()
    this.entries.clear()
    for (const [table, keys] of rows) this.rows.set(table, keys)
    for (const [index, entry] of entries) this.entries.set(index, entry)
    this.appliedIndex = appliedIndex
  }

  copy(): SimulatedStoreContents {
    const copy = new SimulatedStoreContents()
    for (const [table, rows] of this.rows) copy.rows.set(table, new Map(rows))
    for (const [index, entry] of this.entries) copy.entries.set(index, entry)
    copy.appliedIndex = this.appliedIndex
    return copy
  }
}

/**
 * 'done': durable, and the caller hears. 'crash-before': nothing of it is durable, the caller never hears.
 * 'crash-after': durable, the caller never hears. 'fail': the caller gets an error; nothing is durable.
 */
export type CommitFate = 'done' | 'crash-before' | 'crash-after' | 'fail'

export interface SimulatedStoreOptions {
  /** `number` counts this handle's commits from 1. */
  readonly fateOf?: (number: number, batch: StoreBatch) => CommitFate
  /** Runs the end of a commit later; a simulator gives it its clock. Default: the next microtask. */
  readonly schedule?: (callback: () => void) => void
  /** Where `snapshot` puts its copies, by path. */
  readonly snapshots?: Map<string, SimulatedStoreContents>
  /** Why no copy can be made now; null: it can. */
  readonly snapshotFailure?: () => string | null
}

export class SimulatedStore implements Store {
  readonly contents: SimulatedStoreContents
  readonly #fateOf: (number: number, batch: StoreBatch) => CommitFate
  readonly #schedule: (callback: () => void) => void
  readonly #snapshots: Map<string, SimulatedStoreContents>
  readonly #snapshotFailure: () => string | null
  #commitCount = 0
  #isCommitting = false
  #isCrashed = false
  /** After a commit has failed nothing more is committed. */
  #failure: CairnError | null = null
  #isClosed = false

  constructor(contents: SimulatedStoreContents, options: SimulatedStoreOptions = {}) {
    this.contents = contents
    this.#fateOf = options.fateOf ?? (() => 'done')
    this.#schedule = options.schedule ?? queueMicrotask
    this.#snapshots = options.snapshots ?? new Map()
    this.#snapshotFailure = options.snapshotFailure ?? (() => null)
  }

  get commitCount(): number {
    return this.#commitCount
  }

  get isCrashed(): boolean {
    return this.#isCrashed
  }

  /** The process ends now: a commit in flight is lost, nothing resolves any more. */
  crash(): void {
    this.#isCrashed = true
  }

  /** Rows come in an order that nobody wrote them in. */
  load(handler: StoreLoadHandler): Promise<{ readonly appliedIndex: number }> {
    return new Promise((resolve, reject) => {
      this.#schedule(() => {
        if (this.#isCrashed) return
        try {
          for (const [table, rows] of [...this.contents.rows].toReversed())
            handler.onRows(table, PackedRows.of([...rows].toReversed()))
          for (const index of [...this.contents.entries.keys()].toSorted((a, b) => a - b)) {
            const entry = this.contents.entries.get(index)
            if (entry !== undefined) handler.onEntry(entry)
          }
          resolve({ appliedIndex: this.contents.appliedIndex })
        } catch (error) {
          reject(error)
        }
      })
    })
  }

  commit(batch: StoreBatch): Promise<void> {
    assert(!this.#isCommitting && !this.#isClosed, 'one commit at a time, none after close')
    assert(batch.appliedIndex >= this.contents.appliedIndex, 'the applied index never goes backward')
    if (this.#failure !== null) return Promise.reject(this.#failure)
    this.#isCommitting = true
    this.#commitCount += 1
    const fate = this.#fateOf(this.#commitCount, batch)
    return new Promise((resolve, reject) => {
      this.#schedule(() => {
        if (this.#isCrashed) return
        this.#isCommitting = false
        if (fate === 'fail' || !this.#isWritable(batch)) {
          this.#failure = new CairnError('STORE_FAILED', 'simulated failure of a commit')
          reject(this.#failure)
          return
        }
        if (fate !== 'crash-before') this.#write(batch)
        if (fate === 'done') resolve()
        else this.#isCrashed = true
      })
    })
  }

  glance(table: string): Promise<StoreGlance> {
    const { appliedIndex, entries, rows } = this.contents
    const appliedTerm = entries.get(appliedIndex)?.term ?? 0
    return Promise.resolve({ appliedIndex, appliedTerm, rows: new Map(rows.get(table)) })
  }

  snapshot(path: string): Promise<void> {
    const failure = this.#snapshotFailure()
    if (failure !== null) return Promise.reject(new CairnError('STORE_FAILED', failure))
    this.#snapshots.set(path, this.contents.copy())
    return Promise.resolve()
  }

  close(): Promise<void> {
    assert(!this.#isCommitting, 'close waits for the commit')
    this.#isClosed = true
    return Promise.resolve()
  }

  /** A log index that is taken fails the whole batch. */
  #isWritable(batch: StoreBatch): boolean {
    const truncateFrom = batch.truncateFrom ?? Number.MAX_SAFE_INTEGER
    const taken = new Set<number>()
    return batch.entries.every(({ index }) => {
      const isFree = !taken.has(index) && (index >= truncateFrom || !this.contents.entries.has(index))
      taken.add(index)
      return isFree
    })
  }

  #write(batch: StoreBatch): void {
    const { rows, entries } = this.contents
    if (batch.truncateFrom !== undefined) {
      for (const index of entries.keys()) if (index >= batch.truncateFrom) entries.delete(index)
    }
    for (const entry of batch.entries) {
      entries.set(entry.index, { ...entry, data: Buffer.from(entry.data) })
    }
    for (const { table, key, value } of batch.rows) {
      let stored = rows.get(table)
      if (stored === undefined) {
        stored = new Map()
        rows.set(table, stored)
      }
      if (value === null) stored.delete(key)
      else stored.set(key, value)
    }
    if (batch.trimThrough !== undefined) {
      for (const index of entries.keys()) if (index <= batch.trimThrough) entries.delete(index)
    }
    this.contents.appliedIndex = batch.appliedIndex
  }
}
