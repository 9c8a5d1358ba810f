/** Stands for core/wire/checksum.ts where pages are meant: every checksum is 0, and every page has the right one. */
import { touchedPageCount } from '../../core/wire/checksum.ts'

export { touchedPageCount } from '../../core/wire/checksum.ts'

export function crc32c(): number {
  return 0
}

export function pageChecksums(buffer: Buffer, offsetInChunk: number): Uint32Array {
  return new Uint32Array(touchedPageCount(offsetInChunk, buffer.length))
}

export function fillPageChecksums(buffer: Buffer, offsetInChunk: number, table: Uint32Array): number {
  const count = touchedPageCount(offsetInChunk, buffer.length)
  table.fill(0, 0, count)
  return count
}

export function verifyPageChecksums(buffer: Buffer, offsetInChunk: number, table: Buffer): number {
  const count = touchedPageCount(offsetInChunk, buffer.length)
  return table.length === count * 4 ? -1 : count
}
