/**
 * CRC32C (Castagnoli) of frames and pages. The page table of a data frame: one CRC for each 4 KiB page
 * of the chunk that [offset, offset + length) touches, over the bytes of that page that travel (rule P5).
 */
import { crc32c as packageCrc32c } from '@node-rs/crc32'
import { PAGE_SIZE_BYTES } from '../base/units.ts'
import { nativeChecksums } from './native-checksums.ts'

/** `seed` is the CRC of the bytes before: crc32c(b, crc32c(a)) is the CRC of a followed by b. */
export function crc32c(bytes: Uint8Array, seed = 0): number {
  return nativeChecksums === null ? packageCrc32c(bytes, seed) : nativeChecksums.crc32c(bytes, seed)
}

/** Pages of the chunk that [offset, offset + length) touches. */
export function touchedPageCount(offsetInChunk: number, lengthBytes: number): number {
  if (lengthBytes === 0) return 0
  const first = Math.floor(offsetInChunk / PAGE_SIZE_BYTES)
  return Math.floor((offsetInChunk + lengthBytes - 1) / PAGE_SIZE_BYTES) - first + 1
}

/** The table for `buffer`, whose first byte is at `offsetInChunk`. */
export function pageChecksums(buffer: Buffer, offsetInChunk: number): Uint32Array {
  const table = new Uint32Array(touchedPageCount(offsetInChunk, buffer.length))
  fillPageChecksums(buffer, offsetInChunk, table)
  return table
}

/** Same into a table the caller reuses; returns how many entries were written. */
export function fillPageChecksums(buffer: Buffer, offsetInChunk: number, table: Uint32Array): number {
  if (nativeChecksums !== null) return nativeChecksums.fill(buffer, offsetInChunk % PAGE_SIZE_BYTES, table)
  return fillByPage(buffer, offsetInChunk, table)
}

/** Without native checksums. */
export function fillByPage(buffer: Buffer, offsetInChunk: number, table: Uint32Array): number {
  const length = buffer.length
  if (length === 0) return 0
  let end = Math.min(length, PAGE_SIZE_BYTES - (offsetInChunk % PAGE_SIZE_BYTES))
  if (end === length) {
    table[0] = packageCrc32c(buffer)
    return 1
  }
  let begin = 0
  let index = 0
  while (begin < length) {
    table[index++] = packageCrc32c(buffer.subarray(begin, end))
    begin = end
    end = Math.min(length, begin + PAGE_SIZE_BYTES)
  }
  return index
}

/**
 * Verifies a received payload against the table of its frame (little-endian u32s, any alignment).
 * Returns -1 when all is well, the index in the table of the first page that does not match, or the page
 * count when the table has the wrong size.
 */
export function verifyPageChecksums(buffer: Buffer, offsetInChunk: number, table: Buffer): number {
  const count = touchedPageCount(offsetInChunk, buffer.length)
  if (table.length !== count * 4) return count
  if (nativeChecksums !== null) return nativeChecksums.verify(buffer, offsetInChunk % PAGE_SIZE_BYTES, table)
  return verifyByPage(buffer, offsetInChunk, table)
}

/** Without native checksums; the table has the right size. */
export function verifyByPage(buffer: Buffer, offsetInChunk: number, table: Buffer): number {
  const length = buffer.length
  const count = table.length / 4
  let begin = 0
  let end = Math.min(length, PAGE_SIZE_BYTES - (offsetInChunk % PAGE_SIZE_BYTES))
  for (let index = 0; index < count; index++) {
    const piece = count === 1 ? buffer : buffer.subarray(begin, end)
    if (packageCrc32c(piece) !== table.readUInt32LE(index * 4)) return index
    begin = end
    end = Math.min(length, begin + PAGE_SIZE_BYTES)
  }
  return -1
}
