/**
 * One write (or zeroing) of a file: split into pieces, answered when all of them have ended and the
 * session is confirmed (rules L5, L6). Cancelling removes the answer, never the obligation (rule E11).
 */
import type { CairnError } from '../../base/errors.ts'
import { CHUNK_SIZE_BYTES, DATA_PAYLOAD_BYTES_MAX } from '../../base/units.ts'
import type { IoCallback, Operation } from '../api.ts'
import type { ChunkWriter } from '../chunk/chunk-writer.ts'
import { cancelled, leaseLost } from '../session/errors.ts'
import type { GateItem } from './file-gate.ts'
import type { FileState } from './file-state.ts'
import { Piece, type PieceOwner } from '../chunk/piece.ts'

export class WriteOperation implements Operation, PieceOwner, GateItem {
  readonly file: FileState
  readonly offset: number
  readonly length: number
  readonly sequence: number
  readonly startedMs: number
  readonly needsLease = true
  /** Null: zeroing. */
  #data: Buffer | null
  #callback: IoCallback | null
  #pieces: Piece[] = []
  #unended = 0
  #error: CairnError | null = null
  #begun = false
  #finished = false
  #copiedBytes = 0

  constructor(file: FileState, offset: number, length: number, data: Buffer | null, callback: IoCallback) {
    this.file = file
    this.offset = offset
    this.length = length
    this.#data = data
    this.#callback = callback
    this.sequence = file.engine.nextSequence()
    this.startedMs = file.engine.clock.nowMs()
  }

  get end(): number {
    return this.offset + this.length
  }

  /** The gate let it through: lease held, tail zeroed. */
  begin(): void {
    this.#begun = true
    this.file.unfinishedWrites.add(this)
    if (this.#data !== null) this.file.streamed(this.offset, this.end)
    let at = this.offset
    while (at < this.end) {
      const index = Math.floor(at / CHUNK_SIZE_BYTES)
      const begin = at - index * CHUNK_SIZE_BYTES
      const end = begin + this.#pieceLength(begin, this.end - at)
      const data = this.#data?.subarray(at - this.offset, at - this.offset + end - begin) ?? null
      this.#pieces.push(new Piece(this, this.file.writerOf(index), this.sequence, begin, end, data))
      at += end - begin
    }
    this.#unended = this.#pieces.length
    // Pieces can end while others are being submitted.
    for (const piece of [...this.#pieces]) if (!piece.ended) piece.writer.submit(piece)
    if (this.#pieces.length === 0) this.#end()
  }

  /** A request fits one data message; longer ones are cut at 1 MiB so that no two pieces share a page. */
  #pieceLength(begin: number, left: number): number {
    const inChunk = Math.min(left, CHUNK_SIZE_BYTES - begin)
    if (this.#data === null || inChunk <= DATA_PAYLOAD_BYTES_MAX) return inChunk
    return DATA_PAYLOAD_BYTES_MAX - (begin % DATA_PAYLOAD_BYTES_MAX)
  }

  /** Never got through the gate. */
  fail(error: CairnError): void {
    if (this.#finished) return
    this.#error = error
    this.#finished = true
    this.#answer()
  }

  pieceEnded(piece: Piece, error: CairnError | null): void {
    if (error !== null) this.#error ??= error
    else this.file.wrote(piece.data === null ? 0 : piece.writer.index * CHUNK_SIZE_BYTES + piece.end)
    if (--this.#unended === 0) this.#end()
  }

  #end(): void {
    this.#finished = true
    if (this.#copiedBytes > 0) this.file.engine.giveCancelledBytes(this.#copiedBytes)
    this.#pieces = []
    this.#data = null
    this.file.writeEnded(this)
    if (this.#error !== null || this.file.engine.session.isConfirmed()) return this.#answer()
    const leaseNumber = this.file.leaseNumber
    this.file.engine.session.whenConfirmed((alive) => {
      if (!alive || leaseNumber !== this.file.leaseNumber) this.#error = leaseLost(this.file.inode)
      this.#answer()
    })
  }

  #answer(): void {
    const callback = this.#callback
    if (callback === null) return
    this.#callback = null
    if (this.#error === null) {
      const { engine } = this.file
      engine.counters.writeDone(this.length, engine.clock.nowMs() - this.startedMs)
    }
    callback(this.#error)
  }

  cancel(): void {
    this.giveUp(cancelled())
  }

  /** Answers now with `error` if that is possible; what was sent goes on from a copy. */
  giveUp(error: CairnError): void {
    if (this.#callback === null) return
    if (!this.#begun) {
      this.file.gate.leave(this)
      return this.fail(error)
    }
    if (this.#finished) {
      this.#error = error
      return this.#answer()
    }
    const sent = this.#pieces.filter((piece) => !piece.ended && !piece.writer.isUnsent(piece))
    const sentBytes = sent.reduce((sum, piece) => sum + piece.payloadBytes, 0)
    if (sentBytes > 0 && !this.file.engine.takeCancelledBytes(sentBytes)) return
    this.#copiedBytes = sentBytes
    for (const piece of sent) if (piece.data !== null) piece.data = Buffer.from(piece.data)
    const callback = this.#callback
    this.#callback = null
    for (const piece of [...this.#pieces])
      if (!piece.ended && piece.writer.isUnsent(piece)) piece.writer.withdraw(piece, error)
    callback(error)
  }

  /** The writers it goes to, for look-ahead. */
  get lastWriter(): ChunkWriter | undefined {
    return this.#pieces[this.#pieces.length - 1]?.writer
  }
}
