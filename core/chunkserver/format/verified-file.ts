/**
 * The file `verified`: when each replica was last verified (docs/formats/chunk-store.md). Written now and then as
 * a whole under another name, and renamed. It only says what scrubbing does next, so what does not read back is
 * left out: those replicas count as verified when the store is opened.
 *
 * Blocks of 4096 bytes:  0 magic u32 · 4 CRC32C u32 of 8..4096 · 8 format u16 · 10 entries u16 · 12 block u32
 * then entries of 12 bytes: chunk u64 · wall-clock seconds u32
 */
import { KIB } from '../../base/units.ts'
import type { Disk } from '../../platform/disk.ts'
import { crc32c } from '../../wire/checksum.ts'
import { readUInt64, writeUInt64 } from './chunk-layout.ts'
import { readFile, syncDirectory, syncFile, writeFile } from './disk-calls.ts'

export const VERIFIED_NAME = 'verified'
const NEW_NAME = 'verified.new'
const MAGIC = 0x564e5243 // 'CRNV'
const FORMAT = 1
const BLOCK_BYTES = 4096
const HEADER_BYTES = 16
const ENTRY_BYTES = 12
const ENTRIES_PER_BLOCK = Math.floor((BLOCK_BYTES - HEADER_BYTES) / ENTRY_BYTES)
/** Encoded between two writes: well below a millisecond. */
const PIECE_BYTES = 64 * KIB

/** Durable when it resolves. Throws errors of the disk; what was there before stays then. */
export async function saveVerified(
  disk: Disk,
  entries: Iterable<readonly [chunk: number, seconds: number]>,
  countMax: number,
): Promise<void> {
  const file = disk.open(NEW_NAME, { create: true })
  try {
    file.truncate(0)
    const piece = Buffer.alloc(PIECE_BYTES)
    let position = 0
    let block = 0
    let used = 0
    let count = 0
    const endBlock = (): void => {
      seal(piece, block % (PIECE_BYTES / BLOCK_BYTES), block, used)
      block++
      used = 0
    }
    for (const [chunk, seconds] of entries) {
      // what was verified meanwhile stands at the end again
      if (count++ === countMax) break
      const at = (block % (PIECE_BYTES / BLOCK_BYTES)) * BLOCK_BYTES + HEADER_BYTES + used * ENTRY_BYTES
      writeUInt64(piece, chunk, at)
      piece.writeUInt32LE(seconds, at + 8)
      if (++used < ENTRIES_PER_BLOCK) continue
      endBlock()
      if (block % (PIECE_BYTES / BLOCK_BYTES) !== 0) continue
      await writeFile(file, piece, position)
      position += PIECE_BYTES
      piece.fill(0)
    }
    if (used > 0) endBlock()
    const rest = block * BLOCK_BYTES - position
    if (rest > 0) await writeFile(file, piece.subarray(0, rest), position)
    await syncFile(file)
  } finally {
    file.close()
  }
  disk.rename(NEW_NAME, VERIFIED_NAME)
  await syncDirectory(disk, '.')
}

function seal(piece: Buffer, index: number, block: number, entries: number): void {
  const at = index * BLOCK_BYTES
  piece.writeUInt32LE(MAGIC, at)
  piece.writeUInt16LE(FORMAT, at + 8)
  piece.writeUInt16LE(entries, at + 10)
  piece.writeUInt32LE(block, at + 12)
  piece.writeUInt32LE(crc32c(piece.subarray(at + 8, at + BLOCK_BYTES)), at + 4)
}

/** What can be read of it; empty without the file. Never throws because of its contents. */
export async function loadVerified(disk: Disk): Promise<Map<number, number>> {
  const times = new Map<number, number>()
  if (!disk.exists(VERIFIED_NAME)) return times
  const file = disk.open(VERIFIED_NAME)
  try {
    const size = file.sizeBytes()
    for (let position = 0; position < size; position += PIECE_BYTES) {
      const piece = await readFile(file, position, Math.min(PIECE_BYTES, size - position))
      for (let at = 0; at + BLOCK_BYTES <= piece.length; at += BLOCK_BYTES)
        decodeBlock(piece.subarray(at, at + BLOCK_BYTES), (position + at) / BLOCK_BYTES, times)
    }
  } finally {
    file.close()
  }
  return times
}

function decodeBlock(bytes: Buffer, block: number, into: Map<number, number>): void {
  if (bytes.readUInt32LE(0) !== MAGIC || bytes.readUInt16LE(8) !== FORMAT) return
  if (bytes.readUInt32LE(4) !== crc32c(bytes.subarray(8)) || bytes.readUInt32LE(12) !== block) return
  const entries = Math.min(bytes.readUInt16LE(10), ENTRIES_PER_BLOCK)
  for (let index = 0; index < entries; index++) {
    const at = HEADER_BYTES + index * ENTRY_BYTES
    into.set(readUInt64(bytes, at), bytes.readUInt32LE(at + 8))
  }
}
