/**
 * Bytes from the connection to the parser, with a stop in between: when too much is unanswered the parser
 * halts after the frame it is at, the connection is paused, and what still arrives is kept (bounded) and
 * fed later.
 */
import type { Clock } from '../platform/clock.ts'
import type { Connection } from '../platform/network.ts'
import type { BundleReader } from './bundle.ts'
import type { FrameParser } from './frame.ts'

/** Pieces kept while paused; a network stops after one or two. */
const HELD_PIECE_COUNT_MAX = 64

export class Inbound {
  readonly #connection: Connection
  readonly #clock: Clock
  readonly #parser: FrameParser
  /** Holds what is left of a bundle in the middle of which we paused; comes before all that is held here. */
  readonly #bundles: BundleReader
  #held: Buffer[] = []
  #paused = false
  #closed = false

  constructor(connection: Connection, clock: Clock, parser: FrameParser, bundles: BundleReader) {
    this.#connection = connection
    this.#clock = clock
    this.#parser = parser
    this.#bundles = bundles
  }

  get paused(): boolean {
    return this.#paused
  }

  get heldBytes(): number {
    const inside = this.#parser.heldBytes + this.#bundles.heldBytes
    return this.#held.reduce((sum, piece) => sum + piece.length, inside)
  }

  /** False: more arrives than a paused connection may deliver. */
  take(borrowed: Buffer): boolean {
    if (this.#paused || this.#held.length > 0 || this.#bundles.isInterrupted) {
      if (this.#held.length >= HELD_PIECE_COUNT_MAX) return false
      this.#held.push(Buffer.from(borrowed))
      return true
    }
    const taken = this.#parser.feed(borrowed)
    if (taken < borrowed.length && !this.#closed) this.#held.push(Buffer.from(borrowed.subarray(taken)))
    return true
  }

  /** From inside the parser's handler or outside of it. */
  pause(): void {
    this.#parser.halt()
    if (this.#paused || this.#closed) return
    this.#paused = true
    this.#connection.pause()
  }

  resume(): void {
    if (!this.#paused || this.#closed) return
    this.#paused = false
    // not from here: this may be inside a handler that runs inside the parser
    this.#clock.defer(this.#feedHeld)
  }

  close(): void {
    this.#closed = true
    this.#held = []
    this.#parser.stop()
    this.#bundles.stop()
  }

  readonly #feedHeld = (): void => {
    if (!this.#paused && !this.#closed) this.#bundles.goOn()
    while (this.#held.length > 0 && !this.#paused && !this.#closed) {
      const piece = this.#held[0] as Buffer
      const taken = this.#parser.feed(piece)
      // closed from inside: the list is another one now
      if (this.#closed) return
      if (taken < piece.length) this.#held[0] = piece.subarray(taken)
      else this.#held.shift()
    }
    if (!this.#paused && !this.#closed) this.#connection.resume()
  }
}
