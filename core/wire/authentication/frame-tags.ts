/**
 * The tags of control frames on an authenticated connection: HMAC-SHA256 over number, header and meta, cut to
 * 16 bytes. Numbers count each direction's tagged frames, so that a repeated, dropped or reordered frame does
 * not verify. Data frames never come here. Format: docs/formats/authentication.md.
 */
import { createHmac, createSecretKey, type KeyObject, timingSafeEqual } from 'node:crypto'
import { FRAME_HEADER_BYTES, FRAME_VERSION } from '../frame.ts'
import { TAG_BYTES } from '../limits.ts'
import type { FrameProtection } from '../types.ts'

const NUMBER_BYTES = 8
const CHECKED_HEADER_BYTES = FRAME_HEADER_BYTES - 8

export class FrameTags implements FrameProtection {
  readonly #sendKey: KeyObject
  readonly #receiveKey: KeyObject
  /** Number and header, filled anew for each frame. */
  readonly #head = Buffer.alloc(NUMBER_BYTES + CHECKED_HEADER_BYTES)
  #sentCount = 0
  #receivedCount = 0

  constructor(sendKey: Uint8Array, receiveKey: Uint8Array) {
    this.#sendKey = createSecretKey(sendKey)
    this.#receiveKey = createSecretKey(receiveKey)
  }

  sign(target: Buffer, metaAt: number, metaBytes: number, kind: number, requestId: number): void {
    const metaEnd = metaAt + metaBytes
    const meta = target.subarray(metaAt, metaEnd)
    this.#tag(this.#sendKey, this.#sentCount++, meta, kind, requestId).copy(target, metaEnd, 0, TAG_BYTES)
  }

  verify(borrowedMeta: Buffer, kind: number, requestId: number): boolean {
    const metaBytes = borrowedMeta.length - TAG_BYTES
    if (metaBytes < 0) return false
    const meta = borrowedMeta.subarray(0, metaBytes)
    const tag = this.#tag(this.#receiveKey, this.#receivedCount++, meta, kind, requestId)
    return timingSafeEqual(tag.subarray(0, TAG_BYTES), borrowedMeta.subarray(metaBytes))
  }

  #tag(key: KeyObject, number: number, meta: Buffer, kind: number, requestId: number): Buffer {
    const head = this.#head
    head.writeUInt32LE(number >>> 0, 0)
    head.writeUInt32LE(Math.floor(number / 2 ** 32), 4)
    head.writeUInt32LE(FRAME_VERSION | (kind << 8), NUMBER_BYTES)
    head.writeUInt32LE(requestId, NUMBER_BYTES + 4)
    head.writeUInt32LE(meta.length + TAG_BYTES, NUMBER_BYTES + 8)
    // payload length and reserved bytes of a control frame stay zero
    return createHmac('sha256', key).update(head).update(meta).digest()
  }
}
