/**
 * Gathers the frames of one connection and writes them once per event-loop turn. Headers, metas and small
 * payloads are laid one behind the other in segments of the pool; large payloads go out where they are. Control
 * frames that follow each other become one bundle, if the peer takes bundles.
 * One write is under way at a time, so what waits stays here, counted, and leaves in large pieces.
 */
import { assert } from '../base/assert.ts'
import type { BufferPool } from '../base/buffer-pool.ts'
import { KIB, MIB } from '../base/units.ts'
import type { Clock } from '../platform/clock.ts'
import type { Connection } from '../platform/network.ts'
import { BUNDLE_BYTES_MAX, BUNDLED_HEADER_BYTES, BUNDLED_META_BYTES_MAX, writeBundled } from './bundle.ts'
import { DATA_ANSWER_BYTES, DATA_REQUEST_BYTES, type DataAnswer, type DataRequest } from './data.ts'
import { writeDataAnswer, writeDataRequest, writeTable } from './data-codec.ts'
import { FRAME_HEADER_BYTES, FrameKind, sealFrame } from './frame.ts'
import { META_BYTES_MAX, TAG_BYTES } from './limits.ts'
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
  /** Set when the handshake is over: the peer takes them. */
  hasBundles = false
  /** Where the header of the open bundle lies in the segment; -1: none is open. */
  #bundleAt = -1

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

  /** The payload stays unchanged until it is sent. */
  dataRequest(
    requestId: number,
    request: DataRequest,
    table: Uint32Array | Buffer | null,
    borrowedPayload: Buffer | null,
  ): void {
    const metaBytes = DATA_REQUEST_BYTES + (table === null ? 0 : table.byteLength)
    assert(metaBytes <= META_BYTES_MAX, 'the table of a data request fits its frame')
    const target = this.#begin(metaBytes)
    writeDataRequest(target, this.#metaAt, request)
    writeTable(target, this.#metaAt + DATA_REQUEST_BYTES, table)
    this.#commit(FrameKind.dataRequest, requestId, metaBytes, borrowedPayload, false, false)
  }

  /** The payload goes back to the pool when it is sent. */
  dataAnswer(
    requestId: number,
    answer: DataAnswer,
    table: Uint32Array | Buffer | null,
    ownedPayload: Buffer | null,
  ): void {
    const metaBytes = DATA_ANSWER_BYTES + (table === null ? 0 : table.byteLength)
    assert(metaBytes <= META_BYTES_MAX, 'the table of a data answer fits its frame')
    const target = this.#begin(metaBytes)
    writeDataAnswer(target, this.#metaAt, answer)
    writeTable(target, this.#metaAt + DATA_ANSWER_BYTES, table)
    this.#commit(FrameKind.dataAnswer, requestId, metaBytes, ownedPayload, true, true)
  }

  /** Room for a frame of its own: the meta belongs at [`#metaAt`…] of what it returns, then comes `#commit`. */
  #begin(metaBytes: number): Buffer {
    this.#closeBundle()
    return this.#reserve(FRAME_HEADER_BYTES + metaBytes + COPIED_PAYLOAD_BYTES_MAX)
  }

  #reserve(wanted: number): Buffer {
    if (this.#segment !== null && this.#segment.length - this.#segmentUsed >= wanted) return this.#segment
    this.#endSegment()
    this.#segmentBegin = 0
    this.#segmentUsed = 0
    this.#segment = this.#pool.acquire(Math.max(SEGMENT_BYTES, wanted))
    return this.#segment
  }

  get #metaAt(): number {
    return this.#segmentUsed + FRAME_HEADER_BYTES
  }

  /** `releasePayload`: it goes back to the pool when sent. `isAnswer`: counts towards `answerBytes`. */
  #commit(
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
    this.#taken(sizeBytes, isAnswer)
  }

  #taken(sizeBytes: number, isAnswer: boolean): void {
    const batch = this.#batch
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
    if (this.hasBundles && borrowedMeta.length <= BUNDLED_META_BYTES_MAX) {
      this.#bundle(kind, requestId, borrowedMeta, isAnswer)
      return
    }
    const { protection } = this
    const metaBytes = borrowedMeta.length + (protection === null ? 0 : TAG_BYTES)
    const target = this.#begin(metaBytes)
    borrowedMeta.copy(target, this.#metaAt)
    protection?.sign(target, this.#metaAt, borrowedMeta.length, kind, requestId)
    this.#commit(kind, requestId, metaBytes, null, false, isAnswer)
  }

  #bundle(kind: number, requestId: number, borrowedMeta: Buffer, isAnswer: boolean): void {
    const sizeBytes = BUNDLED_HEADER_BYTES + borrowedMeta.length
    const segment = this.#segment
    const hasRoom =
      this.#bundleAt >= 0 &&
      segment !== null &&
      this.#segmentUsed + sizeBytes + TAG_BYTES <= segment.length &&
      this.#segmentUsed + sizeBytes <= this.#bundleAt + FRAME_HEADER_BYTES + BUNDLE_BYTES_MAX
    let added = sizeBytes
    if (!hasRoom) added += this.#openBundle(sizeBytes)
    writeBundled(this.#segment as Buffer, this.#segmentUsed, kind, requestId, borrowedMeta)
    this.#segmentUsed += sizeBytes
    this.#taken(added, isAnswer)
  }

  /** Returns how many bytes the bundle has besides its frames. */
  #openBundle(sizeBytes: number): number {
    this.#closeBundle()
    this.#reserve(FRAME_HEADER_BYTES + sizeBytes + TAG_BYTES)
    this.#bundleAt = this.#segmentUsed
    this.#segmentUsed += FRAME_HEADER_BYTES
    return FRAME_HEADER_BYTES + (this.protection === null ? 0 : TAG_BYTES)
  }

  #closeBundle(): void {
    const at = this.#bundleAt
    if (at < 0) return
    this.#bundleAt = -1
    const segment = this.#segment as Buffer
    const metaBytes = this.#segmentUsed - at - FRAME_HEADER_BYTES
    const { protection } = this
    protection?.sign(segment, at + FRAME_HEADER_BYTES, metaBytes, FrameKind.bundle, 0)
    const tagBytes = protection === null ? 0 : TAG_BYTES
    sealFrame(segment, at, FrameKind.bundle, 0, metaBytes + tagBytes, 0)
    this.#segmentUsed += tagBytes
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
    this.#closeBundle()
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
