/**
 * How far into its chunk a writer may write. A grant stands for room that every member keeps free (rule A2) and
 * for the upper size of the file (rule F8), so it covers what is needed soon: little for a small file, more with
 * every grant, the whole chunk for a stream. More is asked for ahead, while earlier writes go on. Where there is
 * no room for that, just what waits is asked for, before ENOSPC is said.
 */
import type { CairnError } from '../../base/errors.ts'
import { CHUNK_SIZE_BYTES, MIB } from '../../base/units.ts'
import type { ChunkWriter } from './chunk-writer.ts'
import type { PieceQueue } from './piece-queue.ts'

/** Each grant reaches this many times as far as the one before, or as the stream has come. */
const GROWTH_FACTOR = 4
const STEP_BYTES = MIB
/** On nearly full servers. */
const TIGHT_STEP_BYTES = 64 * 1024

interface Reservation {
  readonly end: number
  readonly callback: (error: CairnError | null) => void
}

export class WriteLimit {
  readonly #writer: ChunkWriter
  readonly #pieces: PieceQueue
  grantedEnd = 0
  /** More is wanted than was granted. */
  isAsking = false
  #startedEnd = 0
  #isTight = false
  #reservations: Reservation[] = []

  constructor(writer: ChunkWriter, pieces: PieceQueue) {
    this.#writer = writer
    this.#pieces = pieces
  }

  /** The end up to which the next grant shall reach. */
  get wantedEnd(): number {
    const needed = this.#neededEnd
    if (this.#isTight) return roundedUp(needed, TIGHT_STEP_BYTES)
    const ahead = needed + (GROWTH_FACTOR - 1) * this.#writer.host.streamBytes
    return roundedUp(Math.max(ahead, GROWTH_FACTOR * this.grantedEnd), STEP_BYTES)
  }

  get #neededEnd(): number {
    let needed = Math.max(this.grantedEnd, this.#startedEnd, this.#pieces.waitingEnd)
    for (const { end } of this.#reservations) needed = Math.max(needed, end)
    return needed
  }

  /** A piece that writes up to `end` begins. */
  started(end: number): void {
    if (end > this.#startedEnd) this.#startedEnd = end
  }

  /** Is the writer still interested in an answer? */
  get isWanted(): boolean {
    const { phase } = this.#writer
    return phase === 'granting' || (this.isAsking && (phase === 'active' || phase === 'recovering'))
  }

  /** Asks for more when what waits, or will soon come, is behind the limit. */
  maybeAsk(): void {
    if (this.#writer.phase !== 'active' || this.isAsking || !this.#needsMore()) return
    this.isAsking = true
    this.#writer.host.wantMore(this.#writer)
  }

  #needsMore(): boolean {
    if (this.grantedEnd >= CHUNK_SIZE_BYTES) return false
    if (this.#pieces.isLimited || this.#reservations.some(({ end }) => end > this.grantedEnd)) return true
    const left = this.grantedEnd - this.#startedEnd
    return !this.#isTight && left < Math.min(this.#writer.host.streamBytes, this.grantedEnd / 2)
  }

  /** fallocate: `callback` runs when the grant reaches up to `end`, or was refused. */
  reserve(end: number, callback: (error: CairnError | null) => void): void {
    this.#reservations.push({ end, callback })
    this.#writer.wantIntent()
    // one that is given back stands for nothing
    if (this.#writer.hasIntent && this.#writer.phase !== 'surrendering') this.tell()
    this.maybeAsk()
  }

  get isReserving(): boolean {
    return this.#reservations.length > 0
  }

  granted(end: number): void {
    this.isAsking = false
    this.grantedEnd = Math.max(this.grantedEnd, end)
  }

  /** Tells those whose reservation is covered. */
  tell(): void {
    if (this.#reservations.length === 0) return
    const covered = this.#reservations.filter(({ end }) => end <= this.grantedEnd)
    this.#reservations = this.#reservations.filter(({ end }) => end > this.grantedEnd)
    for (const { callback } of covered) callback(null)
  }

  /** There is no room: true when less can be asked for that is still enough. */
  tighten(): boolean {
    if (this.#isTight) return false
    const asked = this.wantedEnd
    this.#isTight = true
    return this.wantedEnd < asked && this.#neededEnd > this.grantedEnd
  }

  /** Reservations behind the limit fail. */
  refused(error: CairnError): void {
    this.isAsking = false
    this.tell()
    const failed = this.#reservations
    this.#reservations = []
    for (const { callback } of failed) callback(error)
  }

  /** The intent is gone. */
  reset(): void {
    this.grantedEnd = 0
    this.isAsking = false
    this.#startedEnd = 0
    this.#isTight = false
  }
}

function roundedUp(end: number, step: number): number {
  return Math.min(CHUNK_SIZE_BYTES, Math.max(1, Math.ceil(end / step)) * step)
}
