/** Pieces of one chunk: waiting in order of issue, and in flight. No two in flight share a page (rule E9). */
import type { Piece } from './piece.ts'

/** Pieces looked at behind blocked ones: keeps a long queue cheap. */
const SCAN_COUNT_MAX = 128
const IN_FLIGHT_PER_CHUNK_MAX = 256

export class PieceQueue {
  #waiting: Piece[] = []
  #inFlight: Piece[] = []
  #starting = false
  #limited = false

  get waitingCount(): number {
    return this.#waiting.length
  }

  get inFlightCount(): number {
    return this.#inFlight.length
  }

  /** Something was left waiting behind the limit. */
  get isLimited(): boolean {
    return this.#limited
  }

  /** A copy: pieces end while one goes through it. */
  inFlight(): Piece[] {
    return [...this.#inFlight]
  }

  add(piece: Piece): void {
    this.#waiting.push(piece)
  }

  /** Is there an unended piece over these bytes that was issued before? (rule E10) */
  overlapsBefore(begin: number, end: number, sequence: number): boolean {
    const isBefore = (piece: Piece): boolean => piece.sequence < sequence && piece.overlaps(begin, end)
    return this.#inFlight.some(isBefore) || this.#waiting.some(isBefore)
  }

  /**
   * Puts in flight whatever shares no page with an earlier piece and writes nothing behind `limitEnd`;
   * `mayStart` false stops (no budget).
   * `start` runs once the piece counts as in flight; nothing here runs inside itself.
   */
  start(limitEnd: number, mayStart: (piece: Piece) => boolean, start: (piece: Piece) => void): void {
    if (this.#starting) return
    this.#limited = false
    if (this.#waiting.length === 0) return
    this.#starting = true
    const waiting = this.#waiting
    let kept = 0
    let stopped = false
    for (let i = 0; i < waiting.length; i++) {
      const piece = waiting[i] as Piece
      if (i >= SCAN_COUNT_MAX || this.#inFlight.length >= IN_FLIGHT_PER_CHUNK_MAX) stopped = true
      const isBehind = piece.writtenEnd > limitEnd
      if (isBehind) this.#limited = true
      if (stopped || isBehind || this.#isBlocked(piece, waiting, kept)) {
        waiting[kept++] = piece
      } else if (!mayStart(piece)) {
        stopped = true
        waiting[kept++] = piece
      } else {
        this.#inFlight.push(piece)
        start(piece)
      }
    }
    waiting.length = kept
    this.#starting = false
  }

  /** Rule E9. */
  #isBlocked(piece: Piece, earlier: readonly Piece[], earlierCount: number): boolean {
    for (const other of this.#inFlight) if (other.sharesPageWith(piece)) return true
    for (let i = 0; i < earlierCount; i++) if ((earlier[i] as Piece).sharesPageWith(piece)) return true
    return false
  }

  /** It is not in flight any more. */
  ended(piece: Piece): void {
    const at = this.#inFlight.indexOf(piece)
    if (at < 0) return
    this.#inFlight[at] = this.#inFlight[this.#inFlight.length - 1] as Piece
    this.#inFlight.pop()
  }

  isWaiting(piece: Piece): boolean {
    return this.#waiting.includes(piece)
  }

  /** False: it is not waiting. */
  withdraw(piece: Piece): boolean {
    const at = this.#waiting.indexOf(piece)
    if (at < 0) return false
    this.#waiting.splice(at, 1)
    return true
  }

  /** The highest end of what waits. */
  get waitingEnd(): number {
    return this.#waiting.reduce((end, piece) => Math.max(end, piece.writtenEnd), 0)
  }

  takeWaitingBehind(limitEnd: number): Piece[] {
    const taken = this.#waiting.filter((piece) => piece.writtenEnd > limitEnd)
    this.#waiting = this.#waiting.filter((piece) => piece.writtenEnd <= limitEnd)
    return taken
  }

  takeWaiting(): Piece[] {
    const waiting = this.#waiting
    this.#waiting = []
    return waiting
  }

  takeAll(): Piece[] {
    const all = [...this.#inFlight, ...this.#waiting]
    this.#inFlight = []
    this.#waiting = []
    return all
  }
}
