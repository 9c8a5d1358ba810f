/**
 * The log as consensus sees it: a window of durable entries (LogStorage) and behind it the unstable ones,
 * which are in memory and not yet known to be durable.
 *
 *      trimmed away      durable: LogStorage            unstable
 *   ................|------------------------------|---------------------|
 *        firstIndex-1 (its term is known)       offset-1      handed out ^   ^ lastIndex
 *
 * Unstable entries may replace durable ones: reading prefers them, and `stabilise` makes the storage follow.
 * Everything is synchronous. Entries behind the window are gone for Raft: a member that needs them gets a
 * snapshot.
 */
import { assert, present } from '../base/assert.ts'
import { entryOverheadBytes } from './options.ts'
import type { Entry, Snapshot } from './types.ts'

/** The durable window, in memory. `append` and `reset` are called by advance(), after the driver's sync. */
export interface LogStorage {
  /** Index of the first entry still held; lastIndex + 1 when empty. */
  firstIndex(): number
  lastIndex(): number
  /** Known from firstIndex - 1 to lastIndex. */
  term(index: number): number | undefined
  /** From `from` to `to`, both included, cut after maxBytes but never before the first. */
  entries(from: number, to: number, maxBytes: number): Entry[]
  /** Replaces everything from entries[0].index on. */
  append(entries: readonly Entry[]): void
  /** Forgets all entries: the state now comes from a snapshot. */
  reset(index: number, term: number): void
}

export function entrySizeBytes(entry: Entry): number {
  return entry.data.length + entryOverheadBytes
}

/** LogStorage over an array; trims by moving its head, so nothing is copied per entry. */
export class TrailingLog implements LogStorage {
  #baseIndex: number
  #baseTerm: number
  #entries: Entry[] = []
  #head = 0
  #sizeBytes = 0

  /** The window starts behind (index, term): 0, 0 for a new log. */
  constructor(baseIndex = 0, baseTerm = 0) {
    this.#baseIndex = baseIndex
    this.#baseTerm = baseTerm
  }

  get sizeBytes(): number {
    return this.#sizeBytes
  }

  get count(): number {
    return this.#entries.length - this.#head
  }

  firstIndex(): number {
    return this.#baseIndex + 1
  }

  lastIndex(): number {
    return this.#baseIndex + this.count
  }

  term(index: number): number | undefined {
    if (index === this.#baseIndex) return this.#baseTerm
    return this.#at(index)?.term
  }

  entries(from: number, to: number, maxBytes: number): Entry[] {
    assert(from > this.#baseIndex && to <= this.lastIndex(), 'the window holds the entries')
    const found: Entry[] = []
    let sizeBytes = 0
    for (let index = from; index <= to; index++) {
      const entry = present(this.#at(index), 'the window has no gaps')
      sizeBytes += entrySizeBytes(entry)
      if (found.length > 0 && sizeBytes > maxBytes) break
      found.push(entry)
    }
    return found
  }

  append(entries: readonly Entry[]): void {
    const first = entries[0]
    if (first === undefined) return
    assert(first.index > this.#baseIndex && first.index <= this.lastIndex() + 1, 'the log has no gaps')
    while (this.lastIndex() >= first.index)
      this.#sizeBytes -= entrySizeBytes(present(this.#entries.pop(), 'counted'))
    for (const entry of entries) {
      assert(entry.index === this.lastIndex() + 1, 'entries are consecutive')
      this.#entries.push(entry)
      this.#sizeBytes += entrySizeBytes(entry)
    }
  }

  reset(index: number, term: number): void {
    this.#baseIndex = index
    this.#baseTerm = term
    this.#entries = []
    this.#head = 0
    this.#sizeBytes = 0
  }

  /** The index through which the window may be cut to stay within both limits, never above `appliedIndex` (rule L10). */
  excessThrough(countMax: number, sizeBytesMax: number, appliedIndex: number): number {
    let index = this.#baseIndex
    let { count, sizeBytes } = this
    const lastAllowed = Math.min(appliedIndex, this.lastIndex())
    while (index < lastAllowed && (count > countMax || sizeBytes > sizeBytesMax)) {
      index++
      count--
      sizeBytes -= entrySizeBytes(present(this.#at(index), 'the window has no gaps'))
    }
    return index
  }

  /** Forgets entries up to and including `index`. Only applied ones may go. */
  trimThrough(index: number): void {
    if (index <= this.#baseIndex) return
    const term = present(this.term(index), 'the window is cut inside of itself')
    const newHead = this.#head + (index - this.#baseIndex)
    for (let position = this.#head; position < newHead; position++) {
      this.#sizeBytes -= entrySizeBytes(present(this.#entries[position], 'the window has no gaps'))
      this.#entries[position] = releasedEntry
    }
    this.#head = newHead
    this.#baseIndex = index
    this.#baseTerm = term
    // Amortised: every entry is moved about once.
    if (this.#head * 2 > this.#entries.length) {
      this.#entries = this.#entries.slice(this.#head)
      this.#head = 0
    }
  }

  #at(index: number): Entry | undefined {
    return index <= this.#baseIndex ? undefined : this.#entries[this.#head + (index - this.#baseIndex - 1)]
  }
}

const releasedEntry: Entry = { index: 0, term: 0, kind: 'empty', data: Buffer.alloc(0) }

export class RaftLog {
  readonly #storage: LogStorage
  #unstable: Entry[] = []
  /** Index of the first unstable entry, were there one. */
  #offset: number
  /** The last index given out to be persisted. */
  #handedIndex: number
  /** Accepted and not yet installed: the storage still shows the log before it. */
  #restored: Snapshot | null = null

  constructor(storage: LogStorage) {
    this.#storage = storage
    this.#offset = storage.lastIndex() + 1
    this.#handedIndex = storage.lastIndex()
  }

  get firstIndex(): number {
    return this.#restored === null ? this.#storage.firstIndex() : this.#restored.index + 1
  }

  get lastIndex(): number {
    return this.#offset + this.#unstable.length - 1
  }

  get lastTerm(): number {
    return present(this.term(this.lastIndex), 'the term of the last entry is known')
  }

  /** Everything up to here is durable. */
  get stableIndex(): number {
    return this.#restored === null ? this.#offset - 1 : 0
  }

  get isRestoring(): boolean {
    return this.#restored !== null
  }

  /** Known from firstIndex - 1 to lastIndex. */
  term(index: number): number | undefined {
    if (index >= this.#offset) return this.#unstable[index - this.#offset]?.term
    if (this.#restored !== null) return index === this.#restored.index ? this.#restored.term : undefined
    return this.#storage.term(index)
  }

  entries(from: number, to: number, maxBytes: number): Entry[] {
    assert(from >= this.firstIndex && to <= this.lastIndex, 'the log holds the entries')
    if (from > to) return []
    const found =
      from < this.#offset ? this.#storage.entries(from, Math.min(to, this.#offset - 1), maxBytes) : []
    if (found.length > 0 && from + found.length < Math.min(to + 1, this.#offset)) return found
    let sizeBytes = 0
    for (const entry of found) sizeBytes += entrySizeBytes(entry)
    for (let index = from + found.length; index <= to; index++) {
      const entry = present(this.#unstable[index - this.#offset], 'the log has no gaps')
      sizeBytes += entrySizeBytes(entry)
      if (found.length > 0 && sizeBytes > maxBytes) break
      found.push(entry)
    }
    return found
  }

  /** Replaces everything from entries[0].index on. The caller knows that nothing committed is replaced. */
  append(entries: readonly Entry[]): void {
    const first = entries[0]
    if (first === undefined) return
    assert(first.index >= this.firstIndex && first.index <= this.lastIndex + 1, 'the log has no gaps')
    if (first.index < this.#offset) {
      this.#unstable = []
      this.#offset = first.index
    } else this.#unstable.length = first.index - this.#offset
    for (const entry of entries) this.#unstable.push(entry)
    this.#handedIndex = Math.min(this.#handedIndex, first.index - 1)
  }

  restore(snapshot: Snapshot): void {
    this.#restored = snapshot
    this.#unstable = []
    this.#offset = snapshot.index + 1
    this.#handedIndex = snapshot.index
  }

  /** Is the entry at `index` of this term? */
  matches(index: number, term: number): boolean {
    return this.term(index) === term
  }

  /** Is a log that ends at (index, term) at least as good as this one (paper, section 5.4.1)? */
  isBehindOrEqual(index: number, term: number): boolean {
    return term > this.lastTerm || (term === this.lastTerm && index >= this.lastIndex)
  }

  /**
   * The highest index at or below `index` whose term is not above `term`: a log that has `term` at `index`
   * cannot agree with this one any later. Skips whole terms in one exchange (paper, end of section 5.3).
   * Term 0 when the window does not reach that far.
   */
  agreement(index: number, term: number): { readonly index: number; readonly term: number } {
    for (let candidate = Math.min(index, this.lastIndex); candidate > 0; candidate--) {
      const termHere = this.term(candidate)
      if (termHere === undefined) return { index: candidate, term: 0 }
      if (termHere <= term) return { index: candidate, term: termHere }
    }
    return { index: 0, term: 0 }
  }

  get hasUnhanded(): boolean {
    return this.#handedIndex < this.lastIndex
  }

  /** The entries to persist next. */
  takeUnhanded(): Entry[] {
    const entries = this.#unstable.slice(this.#handedIndex + 1 - this.#offset)
    this.#handedIndex = this.lastIndex
    return entries
  }

  /** These are durable now, in the order in which they were handed out. */
  stabilise(snapshot: Snapshot | null, entries: readonly Entry[]): void {
    if (snapshot !== null) {
      this.#storage.reset(snapshot.index, snapshot.term)
      if (this.#restored === snapshot) this.#restored = null
    }
    this.#storage.append(entries)
    const last = entries.at(-1)
    // Replaced in the meantime: the replacement is in a later batch. The very entry is compared, as the
    // replacement may have been replaced by an equal one, which is durable only after both.
    if (last === undefined || this.#restored !== null || last.index < this.#offset) return
    if (this.#unstable[last.index - this.#offset] !== last) return
    this.#unstable.splice(0, last.index + 1 - this.#offset)
    this.#offset = last.index + 1
  }
}
