/**
 * The last changes of the key-value store, with the rows before and after each: what watchers are told, and
 * what a listing of several pages is undone with. Bounded in number and bytes; the oldest revisions go first,
 * each as a whole. Follows from applied commands; it is no part of the rows and begins empty.
 */
import { MIB } from '../../base/units.ts'
import type { KeyValueRow } from './key-value-table.ts'

export const HISTORY_COUNT_MAX = 16_384
export const HISTORY_BYTES_MAX = 32 * MIB

export interface KeyValueChange {
  readonly revision: number
  readonly namespace: string
  readonly key: string
  readonly before: KeyValueRow | undefined
  /** Undefined: deleted. */
  readonly after: KeyValueRow | undefined
}

export class ChangeHistory {
  readonly #countMax: number
  readonly #bytesMax: number
  #changes: KeyValueChange[] = []
  #head = 0
  #bytes = 0
  #droppedThrough = 0

  constructor(countMax: number = HISTORY_COUNT_MAX, bytesMax: number = HISTORY_BYTES_MAX) {
    this.#countMax = countMax
    this.#bytesMax = bytesMax
  }

  /** Changes up to this revision are forgotten. What was before the first change is not known here. */
  get droppedThrough(): number {
    return this.#droppedThrough
  }

  get size(): number {
    return this.#changes.length - this.#head
  }

  get bytes(): number {
    return this.#bytes
  }

  /** Revisions rise or stay. */
  push(change: KeyValueChange): void {
    this.#changes.push(change)
    this.#bytes += changeBytes(change)
    while (this.size > this.#countMax || this.#bytes > this.#bytesMax) this.#dropRevision()
  }

  /** Changes of this revision and later ones, oldest first. */
  *from(revision: number): Generator<KeyValueChange, void> {
    let low = this.#head
    let high = this.#changes.length
    while (low < high) {
      const middle = (low + high) >>> 1
      if ((this.#changes[middle]?.revision ?? 0) < revision) low = middle + 1
      else high = middle
    }
    for (; low < this.#changes.length; low++) yield this.#changes[low] as KeyValueChange
  }

  /** The row that a key had at the revision of its last change. */
  find(namespace: string, key: string, revision: number): KeyValueRow | undefined {
    for (const change of this.from(revision)) {
      if (change.key !== key || change.namespace !== namespace) continue
      if (change.before?.revision === revision) return change.before
      if (change.after?.revision === revision) return change.after
    }
    return undefined
  }

  #dropRevision(): void {
    const revision = this.#changes[this.#head]?.revision
    if (revision === undefined) return
    while (this.#changes[this.#head]?.revision === revision) {
      this.#bytes -= changeBytes(this.#changes[this.#head] as KeyValueChange)
      this.#head += 1
    }
    this.#droppedThrough = revision
    if (this.#head < this.#countMax) return
    this.#changes = this.#changes.slice(this.#head)
    this.#head = 0
  }
}

/** Rows are shared with the table and with each other; counted as if they were not. */
function changeBytes({ key, before, after }: KeyValueChange): number {
  const objects = 200
  return key.length * 2 + (before?.value.length ?? 0) + (after?.value.length ?? 0) + objects
}
