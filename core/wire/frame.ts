/**
 * Frames: a fixed header of 32 bytes, then meta, then payload. Little-endian. docs/formats/wire.md.
 *
 *    0  magic u32  'CRNW'          16  meta length u32
 *    4  CRC32C u32 of 8..32+meta   20  payload length u32
 *    8  version u8 · kind u8       24  reserved, zero (8 bytes)
 *   10  flags u16
 *   12  request id u32
 *
 * The payload (data frames only) is not covered here: the page table in the meta covers it.
 */
import type { BufferPool } from '../base/buffer-pool.ts'
import { KIB } from '../base/units.ts'
import { crc32c } from './checksum.ts'
import { META_BYTES_MAX, PAYLOAD_BYTES_MAX, TAG_BYTES } from './limits.ts'

export const FRAME_HEADER_BYTES = 32
export const FRAME_MAGIC = 0x574e5243
export const FRAME_VERSION = 1
const CHECKSUM_BEGIN = 8

export const FrameKind = {
  hello: 1,
  welcome: 2,
  refuse: 3,
  call: 4,
  result: 5,
  error: 6,
  notify: 7,
  ping: 8,
  pong: 9,
  dataRequest: 10,
  dataAnswer: 11,
  authentication: 12,
  bundle: 13,
} as const
const KIND_MAX = 13

/** What a header says; one object per parser, reused for every frame. */
export interface FrameHeader {
  kind: number
  flags: number
  requestId: number
  metaBytes: number
  payloadBytes: number
}

/** Writes header and checksum in front of a meta that is already at `at + FRAME_HEADER_BYTES`. */
export function sealFrame(
  target: Buffer,
  at: number,
  kind: number,
  requestId: number,
  metaBytes: number,
  payloadBytes: number,
): void {
  target.writeUInt32LE(FRAME_MAGIC, at)
  target.writeUInt32LE(FRAME_VERSION | (kind << 8), at + 8)
  target.writeUInt32LE(requestId, at + 12)
  target.writeUInt32LE(metaBytes, at + 16)
  target.writeUInt32LE(payloadBytes, at + 20)
  target.fill(0, at + 24, at + FRAME_HEADER_BYTES)
  const checksum = crc32c(target.subarray(at + CHECKSUM_BEGIN, at + FRAME_HEADER_BYTES + metaBytes))
  target.writeUInt32LE(checksum, at + 4)
}

export interface FrameHandler {
  /** `borrowedHeader` and `borrowedMeta` until it returns; `ownedPayload` is from the pool, null when empty. */
  onFrame(borrowedHeader: FrameHeader, borrowedMeta: Buffer, ownedPayload: Buffer | null): void
  /** Once; nothing follows. */
  onFrameError(reason: string): void
}

const EMPTY = Buffer.alloc(0)
/** Scratch memory larger than this is given up after the frame that needed it. */
const SCRATCH_KEPT_BYTES = 64 * KIB

/**
 * Fed with whatever the socket gives, in any pieces. Holds at most one meta (grows with the bytes that
 * really arrive) and one payload buffer. A frame that lies in one piece is parsed where it is.
 */
export class FrameParser {
  readonly #handler: FrameHandler
  readonly #pool: BufferPool
  readonly #header: FrameHeader = { kind: 0, flags: 0, requestId: 0, metaBytes: 0, payloadBytes: 0 }
  /** Header and meta of a frame that came in pieces. */
  #scratch = EMPTY
  #scratchUsed = 0
  /** Header and meta are complete (in the scratch) and the payload is being filled. */
  #payload: Buffer | null = null
  #payloadUsed = 0
  #dead = false
  #halted = false

  constructor(handler: FrameHandler, pool: BufferPool) {
    this.#handler = handler
    this.#pool = pool
  }

  /** In the middle of a frame: the slow-loris deadline applies. */
  get incomplete(): boolean {
    return this.#scratchUsed > 0
  }

  /** Memory held for an incomplete frame. */
  get heldBytes(): number {
    return this.#scratch.length + (this.#payload?.length ?? 0)
  }

  /** Nothing is called back any more; memory goes back. */
  stop(): void {
    this.#dead = true
    if (this.#payload !== null) this.#pool.release(this.#payload)
    this.#payload = null
    this.#scratch = EMPTY
    this.#scratchUsed = 0
  }

  /**
   * Returns how many bytes were taken: all of them, unless the handler called `halt` (the rest has to be
   * fed again later).
   */
  feed(borrowed: Buffer): number {
    let at = 0
    this.#halted = false
    while (at < borrowed.length && !this.#dead && !this.#halted) {
      if (this.#payload !== null) at = this.#fillPayload(borrowed, at)
      else if (this.#scratchUsed > 0) at = this.#fillScratch(borrowed, at)
      else at = this.#parseInPlace(borrowed, at)
    }
    return this.#dead ? borrowed.length : at
  }

  /** From inside the handler: no further frame from this feed. */
  halt(): void {
    this.#halted = true
  }

  #parseInPlace(borrowed: Buffer, at: number): number {
    const available = borrowed.length - at
    if (available < FRAME_HEADER_BYTES) return this.#keep(borrowed, at)
    if (!this.#readHeader(borrowed, at)) return borrowed.length
    const header = this.#header
    const bodyAt = at + FRAME_HEADER_BYTES
    const payloadAt = bodyAt + header.metaBytes
    if (payloadAt > borrowed.length) return this.#keep(borrowed, at)
    if (!this.#checkSum(borrowed, at)) return borrowed.length
    if (header.payloadBytes === 0) {
      this.#handler.onFrame(header, borrowed.subarray(bodyAt, payloadAt), null)
      return payloadAt
    }
    const end = payloadAt + header.payloadBytes
    if (end <= borrowed.length) {
      const payload = this.#pool.acquire(header.payloadBytes)
      borrowed.copy(payload, 0, payloadAt, end)
      this.#handler.onFrame(header, borrowed.subarray(bodyAt, payloadAt), payload)
      return end
    }
    this.#keepRange(borrowed, at, payloadAt)
    this.#payload = this.#pool.acquire(header.payloadBytes)
    this.#payloadUsed = 0
    return payloadAt
  }

  #fillScratch(borrowed: Buffer, at: number): number {
    if (this.#scratchUsed < FRAME_HEADER_BYTES) {
      at = this.#take(borrowed, at, FRAME_HEADER_BYTES)
      if (this.#scratchUsed < FRAME_HEADER_BYTES) return at
      if (!this.#readHeader(this.#scratch, 0)) return borrowed.length
    }
    const header = this.#header
    const wanted = FRAME_HEADER_BYTES + header.metaBytes
    at = this.#take(borrowed, at, wanted)
    if (this.#scratchUsed < wanted) return at
    if (!this.#checkSum(this.#scratch, 0)) return borrowed.length
    if (header.payloadBytes === 0) {
      this.#deliver(null)
    } else {
      this.#payload = this.#pool.acquire(header.payloadBytes)
      this.#payloadUsed = 0
    }
    return at
  }

  #fillPayload(borrowed: Buffer, at: number): number {
    const payload = this.#payload as Buffer
    const end = Math.min(borrowed.length, at + payload.length - this.#payloadUsed)
    borrowed.copy(payload, this.#payloadUsed, at, end)
    this.#payloadUsed += end - at
    if (this.#payloadUsed === payload.length) {
      this.#payload = null
      this.#deliver(payload)
    }
    return end
  }

  #deliver(payload: Buffer | null): void {
    const scratch = this.#scratch
    const meta = scratch.subarray(FRAME_HEADER_BYTES, FRAME_HEADER_BYTES + this.#header.metaBytes)
    this.#scratchUsed = 0
    if (scratch.length > SCRATCH_KEPT_BYTES) this.#scratch = EMPTY
    this.#handler.onFrame(this.#header, meta, payload)
  }

  #keep(borrowed: Buffer, at: number): number {
    this.#keepRange(borrowed, at, borrowed.length)
    return borrowed.length
  }

  #keepRange(borrowed: Buffer, at: number, end: number): void {
    this.#reserve(end - at)
    borrowed.copy(this.#scratch, 0, at, end)
    this.#scratchUsed = end - at
  }

  /** Moves bytes into the scratch until it holds `wanted`. */
  #take(borrowed: Buffer, at: number, wanted: number): number {
    const end = Math.min(borrowed.length, at + wanted - this.#scratchUsed)
    this.#reserve(this.#scratchUsed + end - at)
    borrowed.copy(this.#scratch, this.#scratchUsed, at, end)
    this.#scratchUsed += end - at
    return end
  }

  #reserve(sizeBytes: number): void {
    if (this.#scratch.length >= sizeBytes) return
    const grown = Buffer.allocUnsafeSlow(Math.max(256, sizeBytes, this.#scratch.length * 2))
    this.#scratch.copy(grown, 0, 0, this.#scratchUsed)
    this.#scratch = grown
  }

  /** Checks everything that can be checked before memory is spent on the frame. */
  #readHeader(source: Buffer, at: number): boolean {
    if (source.readUInt32LE(at) !== FRAME_MAGIC) return this.#fail('not a Cairn frame (bad magic)')
    const version = source[at + 8]
    if (version !== FRAME_VERSION) return this.#fail(`unknown frame version ${version}`)
    const header = this.#header
    header.kind = source[at + 9] as number
    header.flags = source.readUInt16LE(at + 10)
    header.requestId = source.readUInt32LE(at + 12)
    header.metaBytes = source.readUInt32LE(at + 16)
    header.payloadBytes = source.readUInt32LE(at + 20)
    if (header.kind === 0 || header.kind > KIND_MAX) return this.#fail(`unknown frame kind ${header.kind}`)
    if (header.flags !== 0) return this.#fail(`unknown frame flags ${header.flags}`)
    if (header.metaBytes > META_BYTES_MAX + TAG_BYTES) return this.#fail(`meta of ${header.metaBytes} bytes`)
    if (header.payloadBytes > PAYLOAD_BYTES_MAX) return this.#fail(`payload of ${header.payloadBytes} bytes`)
    if (
      header.payloadBytes > 0 &&
      header.kind !== FrameKind.dataRequest &&
      header.kind !== FrameKind.dataAnswer
    )
      return this.#fail(`payload in a frame of kind ${header.kind}`)
    if (source.readUInt32LE(at + 24) !== 0 || source.readUInt32LE(at + 28) !== 0)
      return this.#fail('reserved header bytes are not zero')
    return true
  }

  #checkSum(source: Buffer, at: number): boolean {
    const end = at + FRAME_HEADER_BYTES + this.#header.metaBytes
    if (crc32c(source.subarray(at + CHECKSUM_BEGIN, end)) === source.readUInt32LE(at + 4)) return true
    return this.#fail('bad frame checksum')
  }

  #fail(reason: string): false {
    this.stop()
    this.#handler.onFrameError(reason)
    return false
  }
}
