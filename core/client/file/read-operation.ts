/**
 * One read of a file: split into parts inside chunks, each from one in-sync member, gathered into one
 * buffer. Every payload is checked against its page table; what does not verify, or does not come, is
 * read from another member (rules E4, R1, P5). Holes and missing chunks are zeros. A read over bytes of
 * our own unended writes waits for them (E10). Under a lease the answer is passed on only while the
 * session is confirmed, checked after the data has arrived (L2, L6).
 */
import type { CairnError } from '../../base/errors.ts'
import { CHUNK_SIZE_BYTES, DATA_PAYLOAD_BYTES_MAX } from '../../base/units.ts'
import type { Operation, ReadCallback } from '../api.ts'
import type { Swept } from '../session/engine.ts'
import { cancelled, heldTooLong, leaseLost } from '../session/errors.ts'
import type { FileState } from './file-state.ts'
import { ReadPart } from './read-part.ts'

const EMPTY = Buffer.alloc(0)

export class ReadOperation implements Operation, Swept {
  readonly file: FileState
  readonly offset: number
  readonly length: number
  readonly sequence: number
  readonly startedMs: number
  #callback: ReadCallback | null
  #parts: ReadPart[] = []
  #unended = 0
  #error: CairnError | null = null
  /** Result: gathered, or the payload of the only part (which goes back to its pool). */
  #buffer: Buffer | null = null
  #ownedPayload: Buffer | null = null
  #leaseNumber = 0
  /** Read-ahead serves the program's reads; its own loads do not count as such. */
  readonly #isCounted: boolean

  constructor(file: FileState, offset: number, length: number, isCounted: boolean, callback: ReadCallback) {
    this.file = file
    this.offset = offset
    this.length = length
    this.#isCounted = isCounted
    this.#callback = callback
    this.sequence = file.engine.nextSequence()
    this.startedMs = file.engine.clock.nowMs()
  }

  get isOver(): boolean {
    return this.#callback === null
  }

  /** The caller has clipped the range to the size. */
  start(): void {
    if (this.file.dead) return this.#finish(leaseLost(this.file.inode))
    if (this.length === 0) return this.#finish(null)
    this.file.engine.swept.add(this)
    this.#leaseNumber = this.file.leaseNumber
    if (!this.mustWait()) return this.#read()
    this.file.waitingReads.add(this)
  }

  /** Rule E10. */
  mustWait(): boolean {
    const { file, offset, length, sequence } = this
    const end = offset + length
    if (file.unfinishedWrites.size === 0) return file.gateOverlaps(offset, end, sequence)
    for (let at = offset; at < end; ) {
      const index = Math.floor(at / CHUNK_SIZE_BYTES)
      const chunkAt = index * CHUNK_SIZE_BYTES
      const stop = Math.min(end, chunkAt + CHUNK_SIZE_BYTES)
      if (file.writers.get(index)?.overlapsBefore(at - chunkAt, stop - chunkAt, sequence) === true)
        return true
      at = stop
    }
    return file.gateOverlaps(offset, end, sequence)
  }

  writesEnded(): void {
    if (!this.isOver && this.mustWait()) return
    this.file.waitingReads.delete(this)
    if (!this.isOver) this.#read()
  }

  #read(): void {
    const end = this.offset + this.length
    for (let at = this.offset; at < end; ) {
      const index = Math.floor(at / CHUNK_SIZE_BYTES)
      const begin = at - index * CHUNK_SIZE_BYTES
      const length = Math.min(end - at, CHUNK_SIZE_BYTES - begin, DATA_PAYLOAD_BYTES_MAX)
      this.#parts.push(new ReadPart(this, index, begin, length, at - this.offset))
      at += length
    }
    this.#unended = this.#parts.length
    if (this.#unended > 1) this.#buffer = Buffer.allocUnsafe(this.length)
    for (const part of this.#parts) part.start()
  }

  partEnded(part: ReadPart, error: CairnError | null, ownedPayload: Buffer | null, isZeros: boolean): void {
    if (error !== null) this.#error ??= error
    if (this.#buffer === null) {
      if (ownedPayload !== null) {
        this.#ownedPayload = ownedPayload
        this.#buffer = ownedPayload
      } else if (isZeros) {
        this.#buffer = Buffer.alloc(this.length)
      }
    } else if (ownedPayload !== null) {
      ownedPayload.copy(this.#buffer, part.targetAt)
      this.file.engine.pool.release(ownedPayload)
    } else if (isZeros) {
      this.#buffer.fill(0, part.targetAt, part.targetAt + part.length)
    }
    if (--this.#unended === 0) this.#arrived()
  }

  /** Rules L2, L6. */
  #arrived(): void {
    const { file } = this
    if (this.isOver || this.#error !== null || this.#leaseNumber === 0) return this.#finish(this.#error)
    if (this.#leaseNumber === file.leaseNumber && file.engine.session.isConfirmed()) return this.#finish(null)
    if (this.#leaseNumber !== file.leaseNumber) return this.#readAgain()
    file.engine.session.whenConfirmed((alive) => {
      if (this.isOver) return this.#finish(null)
      if (alive && this.#leaseNumber === file.leaseNumber) this.#finish(null)
      else this.#readAgain()
    })
  }

  /** The lease under which this was read is gone: read as everybody. */
  #readAgain(): void {
    this.#giveBack()
    this.#parts = []
    this.start()
  }

  #giveBack(): void {
    if (this.#ownedPayload !== null) this.file.engine.pool.release(this.#ownedPayload)
    this.#ownedPayload = null
    this.#buffer = null
  }

  #finish(error: CairnError | null): void {
    const { engine } = this.file
    engine.swept.delete(this)
    this.file.waitingReads.delete(this)
    const callback = this.#callback
    this.#callback = null
    if (callback !== null) {
      if (error === null && this.#isCounted)
        engine.counters.readDone(this.length, engine.clock.nowMs() - this.startedMs)
      callback(error, error === null ? (this.#buffer ?? EMPTY) : EMPTY)
    }
    this.#giveBack()
  }

  cancel(): void {
    this.giveUp(cancelled())
  }

  giveUp(error: CairnError): void {
    const callback = this.#callback
    if (callback === null) return
    this.#callback = null
    this.file.engine.swept.delete(this)
    this.file.waitingReads.delete(this)
    for (const part of this.#parts) part.stop()
    callback(error, EMPTY)
    if (this.#unended === 0) this.#giveBack()
  }

  sweep(nowMs: number): void {
    const holdMs = this.file.engine.holdTimeoutMs
    if (holdMs > 0 && nowMs - this.startedMs >= holdMs) return this.giveUp(heldTooLong(holdMs))
    for (const part of this.#parts) part.sweep(nowMs)
  }
}
