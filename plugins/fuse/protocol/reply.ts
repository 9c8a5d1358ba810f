/**
 * Answers of the FUSE protocol, us to the kernel: encoders into a reusable scratch buffer, and the
 * notifications that drop what the kernel has cached. Layouts follow linux/fuse.h 7.31 and later.
 */
import type { FileSystemStatus } from '@cairn/core/client'
import { KERNEL_PAGE_BYTES, modeType, notifyCode } from './constants.ts'
import { writeUInt64 } from './request.ts'
import type { Attributes } from './types.ts'

export const OUT_HEADER_BYTES = 16
export const ATTRIBUTES_BYTES = 88
export const ENTRY_BYTES = 40 + ATTRIBUTES_BYTES
export const OPEN_BYTES = 16
const DIRECTORY_ENTRY_BYTES = 24
const NANOSECONDS_PER_MS = 1e6

/** `error` is a positive errno or 0. */
export function writeHeader(buffer: Buffer, byteCount: number, error: number, unique: number): void {
  buffer.writeUInt32LE(byteCount, 0)
  buffer.writeInt32LE(-error, 4)
  writeUInt64(buffer, unique, 8)
}

function writeTimeout(buffer: Buffer, timeoutMs: number, secondsAt: number, nanosecondsAt: number): void {
  const seconds = Math.floor(timeoutMs / 1000)
  writeUInt64(buffer, seconds, secondsAt)
  buffer.writeUInt32LE(Math.floor((timeoutMs - seconds * 1000) * NANOSECONDS_PER_MS), nanosecondsAt)
}

/** fuse_attr. `device` is the kernel's own 32-bit encoding of st_rdev, kept as MKNOD brought it. */
export function writeAttributes(buffer: Buffer, attributes: Attributes, at: number): void {
  writeUInt64(buffer, attributes.inode, at)
  writeUInt64(buffer, attributes.size, at + 8)
  writeUInt64(buffer, Math.ceil(attributes.allocated / 512), at + 16)
  writeUInt64(buffer, attributes.accessSeconds, at + 24)
  writeUInt64(buffer, attributes.modifySeconds, at + 32)
  writeUInt64(buffer, attributes.changeSeconds, at + 40)
  buffer.writeUInt32LE(attributes.accessNanoseconds, at + 48)
  buffer.writeUInt32LE(attributes.modifyNanoseconds, at + 52)
  buffer.writeUInt32LE(attributes.changeNanoseconds, at + 56)
  buffer.writeUInt32LE(modeType[attributes.type] | attributes.mode, at + 60)
  buffer.writeUInt32LE(attributes.links, at + 64)
  buffer.writeUInt32LE(attributes.uid, at + 68)
  buffer.writeUInt32LE(attributes.gid, at + 72)
  buffer.writeUInt32LE(attributes.device, at + 76)
  // A larger block size would make stdio allocate it per stream, and the kernel mixes it with its page logic.
  buffer.writeUInt32LE(KERNEL_PAGE_BYTES, at + 80)
  buffer.writeUInt32LE(0, at + 84)
}

export interface CacheTimeouts {
  readonly entryMs: number
  readonly attributesMs: number
}

/** fuse_entry_out. Inode numbers are never reused, so the node's generation is always 0. */
export function writeEntry(
  buffer: Buffer,
  attributes: Attributes,
  timeouts: CacheTimeouts,
  at: number,
): number {
  writeUInt64(buffer, attributes.inode, at)
  writeUInt64(buffer, 0, at + 8)
  writeTimeout(buffer, timeouts.entryMs, at + 16, at + 32)
  writeTimeout(buffer, timeouts.attributesMs, at + 24, at + 36)
  writeAttributes(buffer, attributes, at + 40)
  return at + ENTRY_BYTES
}

/** The entry of a name that does not exist: the kernel may remember that. */
export function writeNegativeEntry(buffer: Buffer, timeouts: CacheTimeouts, at: number): number {
  buffer.fill(0, at, at + ENTRY_BYTES)
  writeTimeout(buffer, timeouts.entryMs, at + 16, at + 32)
  return at + ENTRY_BYTES
}

/** fuse_attr_out. */
export function writeAttributesAnswer(
  buffer: Buffer,
  attributes: Attributes,
  timeouts: CacheTimeouts,
  at: number,
): number {
  writeTimeout(buffer, timeouts.attributesMs, at, at + 8)
  buffer.writeUInt32LE(0, at + 12)
  writeAttributes(buffer, attributes, at + 16)
  return at + 16 + ATTRIBUTES_BYTES
}

export function writeOpenAnswer(buffer: Buffer, handle: number, flags: number, at: number): number {
  writeUInt64(buffer, handle, at)
  buffer.writeUInt32LE(flags, at + 8)
  buffer.writeUInt32LE(0, at + 12)
  return at + OPEN_BYTES
}

/** Blocks of 4 KiB, as `df` and quota tools expect of f_frsize. */
export function writeStatus(buffer: Buffer, status: FileSystemStatus, at: number): number {
  writeUInt64(buffer, Math.floor(status.totalBytes / KERNEL_PAGE_BYTES), at)
  writeUInt64(buffer, Math.floor(status.freeBytes / KERNEL_PAGE_BYTES), at + 8)
  writeUInt64(buffer, Math.floor(status.availableBytes / KERNEL_PAGE_BYTES), at + 16)
  // f_files counts used and free ones: df computes the used ones as the difference.
  writeUInt64(buffer, status.files + status.filesFree, at + 24)
  writeUInt64(buffer, status.filesFree, at + 32)
  buffer.writeUInt32LE(KERNEL_PAGE_BYTES, at + 40)
  buffer.writeUInt32LE(status.nameBytesMax, at + 44)
  buffer.writeUInt32LE(KERNEL_PAGE_BYTES, at + 48)
  buffer.fill(0, at + 52, at + 80)
  return at + 80
}

export interface ListedEntry {
  readonly name: string
  readonly inode: number
  readonly type: keyof typeof modeType
  /** Where to go on behind this entry. */
  readonly offset: number
}

/**
 * One entry of READDIR, or with `attributes` (undefined: unknown to the kernel) of READDIRPLUS.
 * Returns the position behind it, or -1 when it does not fit before `end`.
 */
export function writeDirectoryEntry(
  buffer: Buffer,
  entry: ListedEntry,
  plus: { readonly attributes: Attributes | undefined; readonly timeouts: CacheTimeouts } | undefined,
  at: number,
  end: number,
): number {
  const nameBytes = Buffer.byteLength(entry.name)
  const unpadded = DIRECTORY_ENTRY_BYTES + nameBytes + (plus === undefined ? 0 : ENTRY_BYTES)
  const next = at + Math.ceil(unpadded / 8) * 8
  if (next > end) return -1
  let position = at
  if (plus !== undefined) {
    if (plus.attributes === undefined) buffer.fill(0, position, position + ENTRY_BYTES)
    else writeEntry(buffer, plus.attributes, plus.timeouts, position)
    position += ENTRY_BYTES
  }
  writeUInt64(buffer, entry.inode, position)
  writeUInt64(buffer, entry.offset, position + 8)
  buffer.writeUInt32LE(nameBytes, position + 16)
  buffer.writeUInt32LE(modeType[entry.type] >> 12, position + 20)
  buffer.write(entry.name, position + DIRECTORY_ENTRY_BYTES, 'utf8')
  buffer.fill(0, at + unpadded, next)
  return next
}

function notification(code: number, bodyBytes: number): Buffer {
  const buffer = Buffer.alloc(OUT_HEADER_BYTES + bodyBytes)
  // A notification is an answer to nothing (unique 0) with its code in the error field.
  buffer.writeUInt32LE(buffer.length, 0)
  buffer.writeInt32LE(code, 4)
  return buffer
}

/** Makes every cached name be asked again at its next use (7.44; older kernels answer EINVAL). */
export function encodeIncreaseEpoch(): Buffer {
  return notification(notifyCode.INCREASE_EPOCH, 0)
}

/** Drops attributes and, from `offset` on, cached pages (a negative offset: attributes only). */
export function encodeInvalidateInode(inode: number, offset: number): Buffer {
  const buffer = notification(notifyCode.INVAL_INODE, 24)
  writeUInt64(buffer, inode, OUT_HEADER_BYTES)
  writeUInt64(buffer, offset, OUT_HEADER_BYTES + 8)
  // length 0: to the end of the file
  return buffer
}

export function encodeInvalidateEntry(parent: number, name: string): Buffer {
  const bytes = Buffer.from(name, 'utf8')
  const buffer = notification(notifyCode.INVAL_ENTRY, 16 + bytes.length + 1)
  writeUInt64(buffer, parent, OUT_HEADER_BYTES)
  buffer.writeUInt32LE(bytes.length, OUT_HEADER_BYTES + 8)
  bytes.copy(buffer, OUT_HEADER_BYTES + 16)
  return buffer
}
