/**
 * Rows of one table on their way from the store into memory, many in one piece: key and value of each as UTF-8,
 * each ended by a NUL. Neither holds one: keys are ids and checked names, values are JSON or numbers. A table of
 * millions reads its rows from the bytes; all others, and what is unusual in a large one, read them as texts.
 *
 *     k e y NUL v a l u e NUL k e y NUL …
 *
 * No promise, object or text for each row: with them five million chunks took half a minute to load.
 */

export const NUL = 0
/** Bytes of JSON. */
export const Sign = { comma: 0x2c, open: 0x5b, close: 0x5d } as const
const ZERO = 0x30
/** Every number of so many digits is a safe integer. */
const DIGIT_COUNT_MAX = 15

export class PackedRows {
  /** How many there should be. */
  readonly count: number
  readonly #bytes: Buffer
  #at = 0
  #endedCount = 0
  #rowAt = 0
  #rowEndedCount = 0

  constructor(ownedBytes: Buffer, count: number) {
    this.#bytes = ownedBytes
    this.count = count
  }

  static of(rows: readonly (readonly [key: string, value: string])[]): PackedRows {
    const text = rows.map(([key, value]) => `${key}\0${value}\0`).join('')
    return new PackedRows(Buffer.from(text), rows.length)
  }

  /** Every row was read to its end, and there were as many as there should be. */
  get isExhausted(): boolean {
    return this.#at === this.#bytes.length && this.#endedCount === 2 * this.count
  }

  /** Begins the next row; the one before must have been read. False at the end. */
  next(): boolean {
    this.#rowAt = this.#at
    this.#rowEndedCount = this.#endedCount
    return this.#at < this.#bytes.length
  }

  /** Back to the beginning of this row. */
  rewind(): void {
    this.#at = this.#rowAt
    this.#endedCount = this.#rowEndedCount
  }

  /** The rest of the key, or of the value. */
  text(): string {
    const end = this.#bytes.indexOf(NUL, this.#at)
    const text = this.#bytes.toString('utf8', this.#at, end < 0 ? this.#bytes.length : end)
    this.#at = end < 0 ? this.#bytes.length : end + 1
    if (end >= 0) this.#endedCount += 1
    return text
  }

  /** Steps over this byte, if it comes next. */
  takes(byte: number): boolean {
    if (this.#bytes[this.#at] !== byte) return false
    this.#at += 1
    if (byte === NUL) this.#endedCount += 1
    return true
  }

  /** A whole number as JavaScript writes it, or -1. */
  integer(): number {
    const bytes = this.#bytes
    const start = this.#at
    let value = 0
    for (;;) {
      const digit = (bytes[this.#at] ?? NUL) - ZERO
      if (digit < 0 || digit > 9) break
      value = value * 10 + digit
      this.#at += 1
    }
    const length = this.#at - start
    const isCanonical = length === 1 || (length > 1 && bytes[start] !== ZERO)
    return isCanonical && length <= DIGIT_COUNT_MAX ? value : -1
  }

  /** Copies the rest of the key, or of the value, to `into`, and returns its length; -1 when it does not fit. */
  bytes(into: Buffer): number {
    const end = this.#bytes.indexOf(NUL, this.#at)
    const length = end - this.#at
    if (end < 0 || length > into.length) return -1
    this.#bytes.copy(into, 0, this.#at, end)
    this.#at = end + 1
    this.#endedCount += 1
    return length
  }

  /** As `takes`, of several bytes, among which only the last may be a NUL. */
  takesAll(bytes: Buffer): boolean {
    for (let position = 0; position < bytes.length; position++)
      if (this.#bytes[this.#at + position] !== bytes[position]) return false
    this.#at += bytes.length
    if (bytes[bytes.length - 1] === NUL) this.#endedCount += 1
    return true
  }
}
