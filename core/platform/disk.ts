/**
 * A directory tree on one disk. Callbacks may run before the call returns (the page cache answered)
 * or later (the device had to); callers must be ready for both. Errors are CairnErrors whose code is
 * one of DiskErrorCode; a callback is called exactly once. After a sync error nothing about the
 * unsynced bytes of that file may be believed again (rule F7).
 */
import type { CairnError } from '../base/errors.ts'

export type DiskErrorCode =
  | 'DISK_NOT_FOUND'
  | 'DISK_EXISTS'
  | 'DISK_NO_SPACE'
  | 'DISK_IO'
  | 'DISK_READ_ONLY'
  | 'DISK_BUSY'

export type DiskCallback = (error: CairnError | null) => void
export type DiskReadCallback = (error: CairnError | null, bytesRead: number) => void

export interface DiskFile {
  sizeBytes(): number
  /** Fills `borrowedBuffer` from `position`; a short count means end of file. */
  read(borrowedBuffer: Buffer, position: number, callback: DiskReadCallback): void
  /** Writes all of `borrowedBuffers` one behind the other; borrowed until the callback. */
  write(borrowedBuffers: readonly Buffer[], position: number, callback: DiskCallback): void
  /** fdatasync: data, and the metadata that is needed to read it back. */
  sync(callback: DiskCallback): void
  /** Grows (sparse) or shrinks. */
  truncate(sizeBytes: number): void
  /** Idempotent. */
  close(): void
}

/** What tells a process crash from a host crash (rule B2). Any difference counts as a host crash. */
export interface DiskIdentity {
  readonly bootId: string
  readonly deviceSequence: string
  readonly mountInstance: string
}

export interface Disk {
  /** Synchronous; throws CairnError. `create` makes an empty file when missing. */
  open(path: string, options?: { readonly create?: boolean; readonly exclusive?: boolean }): DiskFile
  exists(path: string): boolean
  /** Names in a directory, sorted. */
  list(path: string): string[]
  makeDirectory(path: string): void
  rename(from: string, to: string): void
  remove(path: string): void
  /** fsync of the directory itself: names created, renamed or removed in it are durable afterwards. */
  syncDirectory(path: string, callback: DiskCallback): void
  space(): { readonly totalBytes: number; readonly freeBytes: number }
  identity(): DiskIdentity
}
