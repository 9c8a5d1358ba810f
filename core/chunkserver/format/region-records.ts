/**
 * Page records of one region (256 pages): stamp, stored checksum, state. One image on disk is one
 * 4 KiB slot; two slots alternate (rule P2).
 *
 * Stored checksum = CRC32C(content) XOR mix(chunk id, page, stamp) (rule S4): a page that landed in the
 * wrong place, or an old page under a new record, does not verify. For holes the content CRC
 * counts as 0; bad and lost pages keep stamp and CRC of what they held. Invariant: a page in state *hole* has
 * zeros in its data area, or was never written; so has one in state *absent*.
 *
 * Rule S2: *absent* is only in overlays, and says that the page is the parent's. There it is also the state of
 * every page of a region without records.
 */
import { hash } from 'node:crypto'
import { PAGES_PER_REGION, REGION_SIZE_BYTES } from '../../base/units.ts'
import { crc32c } from '../../wire/checksum.ts'
import { REGION_DIGEST_BYTES } from '../../wire/data.ts'
import { CHUNK_FORMAT, readUInt64, SLOT_BYTES, writeUInt64 } from './chunk-layout.ts'

export const PageState = { hole: 0, data: 1, bad: 2, lost: 3, absent: 4 } as const
export type PageState = (typeof PageState)[keyof typeof PageState]

/** Of a bad page of an overlay of which nothing is known, not even whether it was present: no stamp is higher. */
export const UNKNOWN_STAMP = 0xffffffff
const RECORD_MAGIC = 0x524e5243 // 'CRNR'
const STAMPS_AT = 64
const SUMS_AT = STAMPS_AT + 4 * PAGES_PER_REGION
const STATES_AT = SUMS_AT + 4 * PAGES_PER_REGION
const STATES_END = STATES_AT + PAGES_PER_REGION
const TABLE_BYTES = STATES_END - STAMPS_AT
const blankTable = Buffer.alloc(TABLE_BYTES)
/** Table and written end, as `digest` reads them. */
const digested = Buffer.alloc(TABLE_BYTES + 4)
export const blankDigest = hash('sha256', digested, 'buffer').subarray(0, REGION_DIGEST_BYTES)
/** Of a region whose digest says nothing: its records are compared one by one. */
export const unknownDigest = Buffer.alloc(REGION_DIGEST_BYTES)

/** Bijective in `page` for a fixed chunk and stamp: swapped pages of a chunk never verify. */
export function identityMix(chunk: number, page: number, stamp: number): number {
  let hash = Math.imul(chunk ^ 0x9e3779b9, 0x85ebca6b)
  hash = Math.imul(hash ^ (hash >>> 15) ^ Math.floor(chunk / 0x100000000), 0xc2b2ae35)
  hash = Math.imul(hash ^ (hash >>> 13) ^ stamp, 0x27d4eb2f)
  hash = Math.imul(hash ^ (hash >>> 16) ^ page, 0x85ebca6b)
  hash = Math.imul(hash ^ (hash >>> 13), 0xc2b2ae35)
  return (hash ^ (hash >>> 16)) >>> 0
}

export class RegionRecords {
  readonly chunk: number
  readonly region: number
  readonly stamps: Uint32Array
  readonly sums: Uint32Array
  readonly states: Uint8Array
  /** Stamps, sums and states as they lie in an image (little-endian, as every platform we run on). */
  readonly #bytes: Buffer
  /** Highest written byte in the region, exclusive (rule F8). */
  writtenEnd = 0
  /** Of an overlay: the parent's written end counts, too, up to here: it was cut by a truncation. */
  parentEndMax = REGION_SIZE_BYTES
  /** Of the image last written to disk; slot = sequence % 2. 0: none yet. */
  sequence = 0
  /** Changed since the last image; set by whoever changes it, through `StoreCore.touch`. */
  dirty = false
  /** Used since the cache's hand passed. */
  referenced = true

  /** Rule S2: may pages be absent? */
  #isOverlay: boolean

  constructor(chunk: number, region: number, isOverlay = false) {
    this.chunk = chunk
    this.region = region
    this.#isOverlay = isOverlay
    const memory = new ArrayBuffer(TABLE_BYTES)
    this.#bytes = Buffer.from(memory)
    this.stamps = new Uint32Array(memory, 0, PAGES_PER_REGION)
    this.sums = new Uint32Array(memory, SUMS_AT - STAMPS_AT, PAGES_PER_REGION)
    this.states = new Uint8Array(memory, STATES_AT - STAMPS_AT, PAGES_PER_REGION)
    if (isOverlay) this.states.fill(PageState.absent)
  }

  /** The replica needs no parent any more: what is absent still is blank in what was the parent. */
  becomeFlat(): void {
    this.#isOverlay = false
    this.parentEndMax = REGION_SIZE_BYTES
    const { states } = this
    for (let index = 0; index < PAGES_PER_REGION; index++) {
      if (states[index] === PageState.absent) states[index] = PageState.hole
    }
  }

  /** Nothing was ever written there: every page is a hole without a stamp. */
  get isBlank(): boolean {
    return this.#bytes.equals(blankTable)
  }

  /** The same of one page. */
  isBlankAt(index: number): boolean {
    return this.states[index] === PageState.hole && this.stamps[index] === 0
  }

  /** Content CRC as recorded; `index` counts pages within the region. */
  contentChecksum(index: number): number {
    const page = this.region * PAGES_PER_REGION + index
    return ((this.sums[index] ?? 0) ^ identityMix(this.chunk, page, this.stamps[index] ?? 0)) >>> 0
  }

  set(index: number, state: PageState, stamp: number, contentChecksum: number): void {
    const page = this.region * PAGES_PER_REGION + index
    this.stamps[index] = stamp
    this.states[index] = state
    this.sums[index] = contentChecksum ^ identityMix(this.chunk, page, stamp)
  }

  /**
   * Equal for equal records of one chunk and for nothing else (rule P3: 128 bits that nobody can choose). Of a region
   * with a bad page, and of an overlay, unknown: they are compared page by page.
   */
  get digest(): Buffer {
    if (this.#isOverlay || this.states.includes(PageState.bad)) return unknownDigest
    if (this.writtenEnd === 0 && this.isBlank) return blankDigest
    return this.#computeDigest()
  }

  #computeDigest(): Buffer {
    this.#bytes.copy(digested)
    digested.writeUInt32LE(this.writtenEnd, TABLE_BYTES)
    return hash('sha256', digested, 'buffer').subarray(0, REGION_DIGEST_BYTES)
  }

  extendWritten(end: number): void {
    if (end > this.writtenEnd) this.writtenEnd = end
  }

  /** Keeps stamp and sum: the page may verify again, and repair compares stamps (rule P3). */
  setState(index: number, state: PageState): void {
    this.states[index] = state
  }

  /**
   * The next image, for the slot that does not hold the newest one.
   *   0 magic u32 · 4 CRC32C u32 of 8..4096 · 8 format u16 · 10 region u16 · 12 slot u16 · 14 reserved
   *   16 chunk u64 · 24 sequence u64 · 32 written end u32 · 36 bytes at the end for which the parent's does not count u32
   *   64 stamps u32 × 256 · 1088 sums u32 × 256 · 2112 states u8 × 256 · zeros
   */
  encodeNext(target: Buffer): void {
    this.sequence++
    target.fill(0, 0, STAMPS_AT)
    target.writeUInt32LE(RECORD_MAGIC, 0)
    target.writeUInt16LE(CHUNK_FORMAT, 8)
    target.writeUInt16LE(this.region, 10)
    target.writeUInt16LE(this.sequence % 2, 12)
    writeUInt64(target, this.chunk, 16)
    writeUInt64(target, this.sequence, 24)
    target.writeUInt32LE(this.writtenEnd, 32)
    target.writeUInt32LE(REGION_SIZE_BYTES - this.parentEndMax, 36)
    this.#bytes.copy(target, STAMPS_AT)
    target.fill(0, STATES_END, SLOT_BYTES)
    target.writeUInt32LE(crc32c(target.subarray(8, SLOT_BYTES)), 4)
  }

  /** Sequence of a valid image in `slot`, or 0. */
  validSequence(image: Buffer, slot: number): number {
    if (image.readUInt32LE(0) !== RECORD_MAGIC) return 0
    if (image.readUInt32LE(4) !== crc32c(image.subarray(8, SLOT_BYTES))) return 0
    if (image.readUInt16LE(8) !== CHUNK_FORMAT || image.readUInt16LE(10) !== this.region) return 0
    if (image.readUInt16LE(12) !== slot || readUInt64(image, 16) !== this.chunk) return 0
    if (image.readUInt32LE(32) > REGION_SIZE_BYTES || image.readUInt32LE(36) > REGION_SIZE_BYTES) return 0
    return readUInt64(image, 24) || 0
  }

  /** Takes over an image that `validSequence` accepted. */
  decode(image: Buffer): void {
    this.sequence = readUInt64(image, 24)
    this.writtenEnd = image.readUInt32LE(32)
    this.parentEndMax = REGION_SIZE_BYTES - image.readUInt32LE(36)
    image.copy(this.#bytes, 0, STAMPS_AT, STATES_END)
    const { states } = this
    const highest = this.#isOverlay ? PageState.absent : PageState.lost
    for (let index = 0; index < PAGES_PER_REGION; index++) {
      if ((states[index] ?? 0) > highest) states[index] = PageState.bad
    }
  }
}

export const zeroSlots = Buffer.alloc(2 * SLOT_BYTES)
const zeroSlot = zeroSlots.subarray(0, SLOT_BYTES)

export interface SlotReading {
  /** No usable image although there should be one: every page is bad. */
  damaged: boolean
  /** The older image was taken because the other slot holds something unreadable (rule P2). */
  fellBack: boolean
}

/** Loads the newest valid image of `area` (both slots, 8 KiB). `present`: the header promises records. */
export function loadSlots(records: RegionRecords, area: Buffer, present: boolean): SlotReading {
  // most regions of most chunks were never written
  if (!present && area.equals(zeroSlots)) return { damaged: false, fellBack: false }
  const images = [area.subarray(0, SLOT_BYTES), area.subarray(SLOT_BYTES, 2 * SLOT_BYTES)] as const
  const first = records.validSequence(images[0], 0)
  const second = records.validSequence(images[1], 1)
  const torn = (first === 0 && !images[0].equals(zeroSlot)) || (second === 0 && !images[1].equals(zeroSlot))
  if (first === 0 && second === 0) {
    const damaged = present || torn
    if (damaged) records.states.fill(PageState.bad)
    if (damaged) records.writtenEnd = 0
    return { damaged, fellBack: false }
  }
  records.decode(first > second ? images[0] : images[1])
  return { damaged: false, fellBack: torn }
}
