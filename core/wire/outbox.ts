/**
 * Gathers the frames of one connection and writes them once per event-loop turn. Headers, metas and small
 * payloads are laid one behind the other in segments of the pool; large payloads go out where they are.
 * One write is under way at a time, so what waits stays here, counted, and leaves in large pieces.
 */
import type { BufferPool } from '../base/buffer-pool.ts'
import { KIB, MIB } from '../base/units.ts'
import type { Clock } from '../platform/clock.ts'
import type { Connection } from '../platform/network.ts'
import { FRAME_HEADER_BYTES, sealFrame } from './frame.ts'
import { TAG_BYTES } from './limits.ts'
import type { FrameProtection } from './types.ts'

const SEGMENT_BYTES = 64 * KIB
/** Up to here a copy is cheaper than one more element in a writev. */
const COPIED_PAYLOAD_BYTES_MAX = 16 * KIB
/** One write: large enough to be cheap, small enough to see that the peer makes progress. */
const BATCH_BYTES_MAX = 4 * MIB

class Batch {
  buffers: Buffer[] = []
  /** Back to the pool when sent. */
  owned: Buffer[] = []
  sizeBytes = 0
  answerBytes = 0
}

export class Outbox {
  readonly #connection: Connection
  readonly #clock: Clock
  readonly #pool: BufferPool
  readonly #onSent: () => void
  readonly #batches: Batch[] = []
  #batch = new Batch()
  #segment: Buffer | null = null
  #segmentBegin = 0
  #segmentUsed = 0
  #sending: Batch | null = null
  #scheduled = false
  #closed = false
  #queuedBytes = 0
  #answerBytes = 0
  #sentCount = 0
  #takenBytes = 0
  /** Set once the connection is authenticated. */
  protection: FrameProtection | null = null

  /** `onSent` runs after each completed write. */
  constructor(connection: Connection, clock: Clock, pool: BufferPool, onSent: () => void) {
    this.#connection = connection
    this.#clock = clock
    this.#pool = pool
    this.#onSent = onSent
  }

  get queuedBytes(): number {
    return this.#queuedBytes
  }

  /** The part of it that answers what the peer asked. */
  get answerBytes(): number {
    return this.#answerBytes
  }

  /** All bytes ever taken; those up to `takenBytes - queuedBytes` have left. */
  get takenBytes(): number {
    return this.#takenBytes
  }

  /** A write is under way; with `sentCount` standing still the peer does not read. */
  get sending(): boolean {
    return this.#sending !== null
  }

  get sentCount(): number {
    return this.#sentCount
  }

  /**
   * Room for a frame: the meta belongs at `metaTarget`[`metaAt`…]. Finish with `commit` before anything
   * else happens to this object.
   */
  begin(metaBytes: number): void {
    const wanted = FRAME_HEADER_BYTES + metaBytes + COPIED_PAYLOAD_BYTES_MAX
    if (this.#segment !== null && this.#segment.length - this.#segmentUsed >= wanted) return
    this.#endSegment()
    this.#segment = this.#pool.acquire(Math.max(SEGMENT_BYTES, wanted))
    this.#segmentBegin = 0
    this.#segmentUsed = 0
  }

  get metaTarget(): Buffer {
    return this.#segment as Buffer
  }

  get metaAt(): number {
    return this.#segmentUsed + FRAME_HEADER_BYTES
  }

  /** `releasePayload`: it goes back to the pool when sent. `isAnswer`: counts towards `answerBytes`. */
  commit(
    kind: number,
    requestId: number,
    metaBytes: number,
    payload: Buffer | null,
    releasePayload: boolean,
    isAnswer: boolean,
  ): void {
    const segment = this.#segment as Buffer
    const payloadBytes = payload === null ? 0 : payload.length
    sealFrame(segment, this.#segmentUsed, kind, requestId, metaBytes, payloadBytes)
    this.#segmentUsed += FRAME_HEADER_BYTES + metaBytes
    const sizeBytes = FRAME_HEADER_BYTES + metaBytes + payloadBytes
    const batch = this.#batch
    if (payload !== null) {
      if (payloadBytes <= COPIED_PAYLOAD_BYTES_MAX) {
        payload.copy(segment, this.#segmentUsed)
        this.#segmentUsed += payloadBytes
        if (releasePayload) this.#pool.release(payload)
      } else {
        this.#pushSegmentPart()
        batch.buffers.push(payload)
        if (releasePayload) batch.owned.push(payload)
      }
    }
    batch.sizeBytes += sizeBytes
    this.#queuedBytes += sizeBytes
    this.#takenBytes += sizeBytes
    if (isAnswer) {
      batch.answerBytes += sizeBytes
      this.#answerBytes += sizeBytes
    }
    if (batch.sizeBytes >= BATCH_BYTES_MAX) this.#endBatch()
    if (this.#scheduled || this.#sending !== null) return
    this.#scheduled = true
    this.#clock.defer(this.#flush)
  }

  /** A control frame: its meta exists already, and gets a tag when the connection has them. */
  frame(kind: number, requestId: number, borrowedMeta: Buffer, isAnswer = false): void {
    const { protection } = this
    const metaBytes = borrowedMeta.length + (protection === null ? 0 : TAG_BYTES)
    this.begin(metaBytes)
    borrowedMeta.copy(this.metaTarget, this.metaAt)
    protection?.sign(this.metaTarget, this.metaAt, borrowedMeta.length, kind, requestId)
    this.commit(kind, requestId, metaBytes, null, false, isAnswer)
  }

  /** Writes what is there without waiting for the end of the turn (last words of a connection). */
  flushNow(): void {
    this.#flush()
  }

  /** Drops what waits. What is being written is released when the connection lets go of it. */
  close(): void {
    if (this.#closed) return
    this.#closed = true
    this.#endBatch()
    for (const batch of this.#batches) this.#releaseBatch(batch)
    this.#batches.length = 0
  }

  readonly #flush = (): void => {
    this.#scheduled = false
    if (this.#closed || this.#sending !== null) return
    if (this.#batches.length === 0) this.#endBatch()
    const batch = this.#batches.shift()
    if (batch === undefined) return
    this.#sending = batch
    this.#connection.write(batch.buffers, this.#sent)
  }

  readonly #sent = (): void => {
    const batch = this.#sending
    if (batch === null) return
    this.#sending = null
    this.#sentCount++
    this.#releaseBatch(batch)
    if (this.#closed) return
    this.#onSent()
    if (this.#queuedBytes > 0 && !this.#scheduled) this.#flush()
  }

  #releaseBatch(batch: Batch): void {
    this.#queuedBytes -= batch.sizeBytes
    this.#answerBytes -= batch.answerBytes
    for (const buffer of batch.owned) this.#pool.release(buffer)
  }

  #pushSegmentPart(): void {
    if (this.#segment === null || this.#segmentUsed === this.#segmentBegin) return
    this.#batch.buffers.push(this.#segment.subarray(this.#segmentBegin, this.#segmentUsed))
    this.#segmentBegin = this.#segmentUsed
  }

  #endSegment(): void {
    if (this.#segment === null) return
    this.#pushSegmentPart()
    this.#batch.owned.push(this.#segment)
    this.#segment = null
  }

  #endBatch(): void {
    this.#endSegment()
    if (this.#batch.sizeBytes === 0) return
    this.#batches.push(this.#batch)
    this.#batch = new Batch()
  }
}
