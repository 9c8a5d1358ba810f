/**
 * How much of the log stays behind the applied index (rule L10), so that a member that blinked catches up
 * from the log. Counts entries and bytes; knows nothing of the store.
 */
import { assert } from '../../base/assert.ts'
import { MIB } from '../../base/units.ts'

export const TRAILING_ENTRIES_MAX = 100_000
export const TRAILING_BYTES_MAX = 256 * MIB
/** Trimming in steps spares the store a range delete per commit. */
const TRIM_STEP_ENTRIES = 1_000

export class TrailingWindow {
  private readonly entriesMax: number
  private readonly bytesMax: number
  private readonly step: number
  /** Sizes of entries `firstIndex`…; the first `head` of the array are trimmed already. */
  private sizes: number[] = []
  private head = 0
  private firstIndex = 1
  private bytes = 0

  constructor(entriesMax = TRAILING_ENTRIES_MAX, bytesMax = TRAILING_BYTES_MAX, step = TRIM_STEP_ENTRIES) {
    this.entriesMax = entriesMax
    this.bytesMax = bytesMax
    this.step = step
  }

  add(index: number, sizeBytes: number): void {
    if (this.head === this.sizes.length) this.firstIndex = index
    assert(index === this.firstIndex + this.sizes.length - this.head, 'log entries follow one another')
    this.sizes.push(sizeBytes)
    this.bytes += sizeBytes
  }

  /** The index through which may be trimmed now, never above `appliedIndex`; undefined: not yet. */
  maybeTrim(appliedIndex: number): number | undefined {
    const excess = this.sizes.length - this.head - this.entriesMax
    if (excess < this.step && this.bytes <= this.bytesMax) return undefined
    let through: number | undefined
    while (this.firstIndex <= appliedIndex && this.head < this.sizes.length) {
      const count = this.sizes.length - this.head
      if (count <= this.entriesMax && this.bytes <= this.bytesMax) break
      this.bytes -= this.sizes[this.head] ?? 0
      this.head += 1
      through = this.firstIndex
      this.firstIndex += 1
    }
    if (this.head > this.sizes.length / 2) {
      this.sizes = this.sizes.slice(this.head)
      this.head = 0
    }
    return through
  }
}
