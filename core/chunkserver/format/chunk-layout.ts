/**
 * Where things are in a chunk file, and its header. docs/formats/chunk-store.md has the drawing.
 *
 *   0        header slot 0, header slot 1              2 × 4 KiB
 *   8 KiB    region 0: record slot 0, 1; region 1: …   64 × 2 × 4 KiB
 *   520 KiB  data                                      64 MiB, sparse
 *
 * The header says which regions have records (bitmap `present`): zeros where records should be are
 * damage, not holes (rule P6). Two slots, the higher sequence wins, never overwritten in place (rule P2).
 */
import { CHUNK_SIZE_BYTES, PAGE_SIZE_BYTES, REGIONS_PER_CHUNK } from '../../base/units.ts'
import { crc32c } from '../../wire/checksum.ts'

export const SLOT_BYTES = 4096
export const HEADER_AREA_BYTES = 2 * SLOT_BYTES
export const DATA_POSITION = HEADER_AREA_BYTES + REGIONS_PER_CHUNK * 2 * SLOT_BYTES
export const CHUNK_FILE_BYTES = DATA_POSITION + CHUNK_SIZE_BYTES
export const CHUNK_FORMAT = 1
const HEADER_MAGIC = 0x4b4e5243 // 'CRNK'
const CHECKED_FROM = 8

export function regionSlotPosition(region: number, slot: number): number {
  return HEADER_AREA_BYTES + (region * 2 + slot) * SLOT_BYTES
}

export function pagePosition(page: number): number {
  return DATA_POSITION + page * PAGE_SIZE_BYTES
}

/** 'chunks/3f/1087': the last byte of the id spreads the files over 256 directories. */
export function chunkDirectory(chunk: number): string {
  return `chunks/${(chunk % 256).toString(16).padStart(2, '0')}`
}

export function chunkPath(chunk: number): string {
  return `${chunkDirectory(chunk)}/${chunk}`
}

export interface ChunkHeader {
  sequence: number
  presentLow: number
  presentHigh: number
}

/**
 *   0 magic u32 · 4 CRC32C u32 of 8..4096 · 8 format u16 · 10 slot u16 · 12 reserved u32
 *   16 chunk u64 · 24 sequence u64 · 32 present u64 · zeros
 */
export function encodeHeader(target: Buffer, chunk: number, header: ChunkHeader): void {
  target.fill(0, 0, SLOT_BYTES)
  target.writeUInt32LE(HEADER_MAGIC, 0)
  target.writeUInt16LE(CHUNK_FORMAT, 8)
  target.writeUInt16LE(header.sequence % 2, 10)
  writeUInt64(target, chunk, 16)
  writeUInt64(target, header.sequence, 24)
  target.writeUInt32LE(header.presentLow >>> 0, 32)
  target.writeUInt32LE(header.presentHigh >>> 0, 36)
  target.writeUInt32LE(crc32c(target.subarray(CHECKED_FROM, SLOT_BYTES)), 4)
}

/** The newest valid header of the two slots in `area` (8 KiB), or null. */
export function decodeHeaders(area: Buffer, chunk: number): ChunkHeader | null {
  let newest: ChunkHeader | null = null
  for (let slot = 0; slot < 2; slot++) {
    const image = area.subarray(slot * SLOT_BYTES, (slot + 1) * SLOT_BYTES)
    if (image.readUInt32LE(0) !== HEADER_MAGIC) continue
    if (image.readUInt32LE(4) !== crc32c(image.subarray(CHECKED_FROM))) continue
    if (image.readUInt16LE(8) !== CHUNK_FORMAT || image.readUInt16LE(10) !== slot) continue
    if (readUInt64(image, 16) !== chunk) continue
    const sequence = readUInt64(image, 24)
    if (newest !== null && newest.sequence > sequence) continue
    newest = { sequence, presentLow: image.readUInt32LE(32), presentHigh: image.readUInt32LE(36) }
  }
  return newest
}

export function writeUInt64(target: Buffer, value: number, at: number): void {
  target.writeUInt32LE(value % 0x100000000, at)
  target.writeUInt32LE(Math.floor(value / 0x100000000), at + 4)
}

/** NaN when the number is not below 2^53: it compares unequal to everything. */
export function readUInt64(source: Buffer, at: number): number {
  const value = source.readUInt32LE(at + 4) * 0x100000000 + source.readUInt32LE(at)
  return Number.isSafeInteger(value) ? value : Number.NaN
}

/** Bit `region` of a 64-bit map kept as two 32-bit halves. */
export function hasRegionBit(low: number, high: number, region: number): boolean {
  return region < 32 ? (low & (1 << region)) !== 0 : (high & (1 << (region - 32))) !== 0
}
