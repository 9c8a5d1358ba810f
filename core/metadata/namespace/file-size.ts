/**
 * Sizes of files, inside lease commands (rule T2). Shrinking sets the size, drops whole chunks and marks the
 * tail of the last one in one command; the size may grow past the mark only after the holder zeroed the tail
 * on all members (rule T1). Readers clip by size.
 */
import { CHUNK_SIZE_BYTES } from '../../base/units.ts'
import type { ApplyContext } from '../state/apply.ts'
import { type Refusal, refused } from '../state/result.ts'
import type { InodeRow } from '../state/rows.ts'
import type { ChunkActions } from './chunk-actions.ts'
import { setModifyTime } from './inodes.ts'
import { FILE_SIZE_BYTES_MAX } from './limits.ts'

/** From this feature level on a truncation leaves the upper size of what was granted. */
const LIMIT_STAYS_LEVEL = 2

/** Why the file may not have this size (yet). */
export function sizeRefusal(row: InodeRow, size: number): Refusal | undefined {
  if (row.type !== 'file') return refused('EINVAL', `a ${row.type} has no size to set`)
  if (size > FILE_SIZE_BYTES_MAX) return refused('EFBIG', `a file has at most ${FILE_SIZE_BYTES_MAX} bytes`)
  return row.zeroFrom !== undefined && size > row.zeroFrom
    ? refused('REFUSED', `the tail from ${row.zeroFrom} must be zeroed first (rule T1)`)
    : undefined
}

/** `sizeRefusal` must have been asked. Sets times as truncate(2) does, also when the size stays. */
export function setFileSize(
  context: ApplyContext,
  row: InodeRow,
  size: number,
  chunkActions: ChunkActions,
): void {
  // Under a lease there may be bytes up to the limit that the quorum has not heard of yet (rule F8).
  const knownEnd = Math.max(row.size, row.sizeLimit ?? 0)
  if (size < knownEnd || hasChunksBeyond(row, size)) shrink(context, row, size, chunkActions)
  // What was granted stays granted: the holder may write up to there again without asking (rule F8). Members of
  // level 1 do not know that, and all must come to the same row.
  const staysGranted = context.state.level.inForce >= LIMIT_STAYS_LEVEL
  if (staysGranted && row.sizeLimit !== undefined) row.sizeLimit = knownEnd
  row.size = size
  setModifyTime(context, row)
}

/**
 * A step of a truncation to less: drops what lies from `size` on, a multiple of the chunk size, and takes the size
 * down to it. The mark of a tail stays for the truncation itself, unless it was cut off.
 */
export function cutFile(
  context: ApplyContext,
  row: InodeRow,
  size: number,
  chunkActions: ChunkActions,
): void {
  const dropped = takeChunks(row, chunkIndexesBeyond(row, size))
  if (dropped.length > 0) chunkActions.dropChunks(context, row.inode, dropped)
  // As after the truncation: what was granted stays granted (rule F8).
  if (row.sizeLimit !== undefined) row.sizeLimit = Math.max(row.size, row.sizeLimit)
  if (row.zeroFrom !== undefined && row.zeroFrom >= size) row.zeroFrom = undefined
  row.size = Math.min(row.size, size)
  setModifyTime(context, row)
}

function hasChunksBeyond(row: InodeRow, size: number): boolean {
  return row.chunks.indexes(1, Math.ceil(size / CHUNK_SIZE_BYTES)).length > 0
}

function chunkIndexesBeyond(row: InodeRow, size: number): number[] {
  const keptCount = Math.ceil(size / CHUNK_SIZE_BYTES)
  return row.chunks.indexes(undefined, keptCount)
}

/** Takes the chunks at these indexes out of the file, and returns them. */
export function takeChunks(row: InodeRow, indexes: readonly number[]): number[] {
  const taken: number[] = []
  for (const index of indexes) {
    const chunk = row.chunks.get(index)
    if (chunk === undefined) continue
    taken.push(chunk)
    row.chunks.delete(index)
  }
  return taken
}

function shrink(context: ApplyContext, row: InodeRow, size: number, chunkActions: ChunkActions): void {
  const dropped = takeChunks(row, chunkIndexesBeyond(row, size))
  if (dropped.length > 0) chunkActions.dropChunks(context, row.inode, dropped)
  // A hole at the end needs no mark, and an older mark lies in a dropped chunk or behind the new one.
  const hasTail = size % CHUNK_SIZE_BYTES !== 0 && row.chunks.has(Math.floor(size / CHUNK_SIZE_BYTES))
  if (hasTail) row.zeroFrom = size
  else row.zeroFrom = undefined
}

/** The holder zeroed the tail from `zeroFrom` on all members. A mark made later stays. */
export function clearZeroMark(context: ApplyContext, row: InodeRow, zeroFrom: number): void {
  if (row.zeroFrom !== zeroFrom) return
  row.zeroFrom = undefined
  context.state.inodes.touch(row.inode)
}

/** Unmaps whole chunks (hole punching). Returns how many there were. */
export function unmapChunks(
  context: ApplyContext,
  row: InodeRow,
  indexes: readonly number[],
  chunkActions: ChunkActions,
): number {
  const dropped = takeChunks(row, indexes)
  if (row.zeroFrom !== undefined && !row.chunks.has(Math.floor(row.zeroFrom / CHUNK_SIZE_BYTES))) {
    row.zeroFrom = undefined
  }
  if (dropped.length > 0) {
    chunkActions.dropChunks(context, row.inode, dropped)
    setModifyTime(context, row)
  }
  return dropped.length
}
