/**
 * A directory on a real disk. Reads and writes are system calls made at once, because the page cache
 * answers in 1-2 µs where a trip through the thread pool costs 20. When an operation was slow (the device
 * had to answer, or dirty pages are throttled) the next ones of that kind go through the thread pool until
 * they are quick again (pace.ts), so that the event loop waits for at most one. fdatasync always goes
 * through the pool. No order is promised between operations that are in flight together.
 */
import * as fs from 'node:fs'
import { join, normalize } from 'node:path'
import { assert } from '../../base/assert.ts'
import { CairnError, codeOf } from '../../base/errors.ts'
import type { Disk, DiskCallback, DiskErrorCode, DiskFile, DiskIdentity, DiskReadCallback } from '../disk.ts'
import { diskIdentity } from './disk-identity.ts'
import { Pace } from './pace.ts'

/** Buffers in one system call; the kernel's limit is 1024. */
const BUFFERS_PER_WRITE_MAX = 512

export interface NodeDiskOptions {
  /** For tests: everything through the thread pool, or nothing. Default: adaptive. */
  readonly mode?: 'adaptive' | 'synchronous' | 'asynchronous'
}

export class NodeDisk implements Disk {
  readonly root: string
  readonly #readPace: Pace
  readonly #writePace: Pace

  /** `root` must exist. */
  constructor(root: string, options: NodeDiskOptions = {}) {
    this.root = attempt('open', root, () => fs.realpathSync(root))
    this.#readPace = new Pace(options.mode ?? 'adaptive')
    this.#writePace = new Pace(options.mode ?? 'adaptive')
  }

  open(path: string, options: { readonly create?: boolean; readonly exclusive?: boolean } = {}): DiskFile {
    const { O_RDWR, O_CREAT, O_EXCL } = fs.constants
    const flags = O_RDWR | (options.create ? O_CREAT : 0) | (options.exclusive ? O_CREAT | O_EXCL : 0)
    const full = this.#resolve(path)
    const descriptor = attempt('open', path, () => fs.openSync(full, flags, 0o600))
    return new NodeFile(path, descriptor, this.#readPace, this.#writePace)
  }

  exists(path: string): boolean {
    try {
      fs.accessSync(this.#resolve(path))
      return true
    } catch (error) {
      if (codeOf(error) === 'ENOENT' || codeOf(error) === 'ENOTDIR') return false
      throw diskError('look up', path, error)
    }
  }

  list(path: string): string[] {
    return attempt('list', path, () => fs.readdirSync(this.#resolve(path))).sort()
  }

  /** With its parents; no error when it exists. */
  makeDirectory(path: string): void {
    attempt('create', path, () => fs.mkdirSync(this.#resolve(path), { recursive: true, mode: 0o700 }))
  }

  rename(from: string, to: string): void {
    attempt('rename', from, () => fs.renameSync(this.#resolve(from), this.#resolve(to)))
  }

  /** A file or an empty directory. */
  remove(path: string): void {
    const full = this.#resolve(path)
    attempt('remove', path, () => {
      try {
        fs.unlinkSync(full)
      } catch (error) {
        if (codeOf(error) !== 'EISDIR') throw error
        fs.rmdirSync(full)
      }
    })
  }

  syncDirectory(path: string, callback: DiskCallback): void {
    let descriptor: number
    try {
      descriptor = fs.openSync(this.#resolve(path), fs.constants.O_RDONLY | fs.constants.O_DIRECTORY)
    } catch (error) {
      callback(diskError('sync', path, error))
      return
    }
    fs.fsync(descriptor, (error) => {
      fs.closeSync(descriptor)
      callback(error === null ? null : diskError('sync', path, error))
    })
  }

  space(): { readonly totalBytes: number; readonly freeBytes: number } {
    const stats = attempt('measure', this.root, () => fs.statfsSync(this.root))
    return { totalBytes: stats.blocks * stats.bsize, freeBytes: stats.bavail * stats.bsize }
  }

  identity(): DiskIdentity {
    return attempt('identify', this.root, () => diskIdentity(this.root))
  }

  #resolve(path: string): string {
    const clean = normalize(path)
    assert(
      !clean.startsWith('/') && clean !== '..' && !clean.startsWith('../'),
      'a path stays below its root',
    )
    return join(this.root, clean)
  }
}

class NodeFile implements DiskFile {
  readonly #path: string
  readonly #descriptor: number
  readonly #readPace: Pace
  readonly #writePace: Pace
  /** Operations in the thread pool: the descriptor must not be closed (and reused) under them. */
  #pendingCount = 0
  #closing = false
  #closed = false

  constructor(path: string, descriptor: number, readPace: Pace, writePace: Pace) {
    this.#path = path
    this.#descriptor = descriptor
    this.#readPace = readPace
    this.#writePace = writePace
  }

  sizeBytes(): number {
    this.#assertOpen()
    return attempt('measure', this.#path, () => fs.fstatSync(this.#descriptor)).size
  }

  read(borrowedBuffer: Buffer, position: number, callback: DiskReadCallback): void {
    this.#assertOpen()
    if (this.#readPace.slow) {
      this.#readPooled(borrowedBuffer, position, 0, performance.now(), callback)
      return
    }
    const beganMs = performance.now()
    let count = 0
    let failure: CairnError | null = null
    try {
      while (count < borrowedBuffer.length) {
        const got = fs.readSync(
          this.#descriptor,
          borrowedBuffer,
          count,
          borrowedBuffer.length - count,
          position + count,
        )
        if (got === 0) break
        count += got
      }
    } catch (error) {
      failure = diskError('read', this.#path, error)
    }
    this.#readPace.took(performance.now() - beganMs, count)
    callback(failure, failure === null ? count : 0)
  }

  write(borrowedBuffers: readonly Buffer[], position: number, callback: DiskCallback): void {
    this.#assertOpen()
    if (this.#writePace.slow) {
      this.#writePooled(borrowedBuffers, position, performance.now(), 0, callback)
      return
    }
    const beganMs = performance.now()
    let written = 0
    let failure: CairnError | null = null
    try {
      if (borrowedBuffers.length === 1) {
        const buffer = borrowedBuffers[0] as Buffer
        while (written < buffer.length)
          written += fs.writeSync(
            this.#descriptor,
            buffer,
            written,
            buffer.length - written,
            position + written,
          )
      } else {
        let rest = borrowedBuffers
        while (rest.length > 0) {
          const count = fs.writevSync(this.#descriptor, firstOf(rest), position + written)
          written += count
          rest = withoutBytes(rest, count)
        }
      }
    } catch (error) {
      failure = diskError('write', this.#path, error)
    }
    this.#writePace.took(performance.now() - beganMs, written)
    callback(failure)
  }

  sync(callback: DiskCallback): void {
    this.#assertOpen()
    this.#pendingCount++
    fs.fdatasync(this.#descriptor, (error) => {
      this.#settle()
      // rule F7: the error is told once by the kernel; it is the caller's to remember
      callback(error === null ? null : diskError('sync', this.#path, error))
    })
  }

  truncate(sizeBytes: number): void {
    this.#assertOpen()
    attempt('truncate', this.#path, () => fs.ftruncateSync(this.#descriptor, sizeBytes))
  }

  close(): void {
    this.#closing = true
    this.#maybeClose()
  }

  #readPooled(
    buffer: Buffer,
    position: number,
    count: number,
    beganMs: number,
    callback: DiskReadCallback,
  ): void {
    this.#pendingCount++
    fs.read(this.#descriptor, buffer, count, buffer.length - count, position + count, (error, got) => {
      this.#settle()
      if (error === null && got > 0 && count + got < buffer.length) {
        this.#readPooled(buffer, position, count + got, beganMs, callback)
        return
      }
      this.#readPace.took(performance.now() - beganMs, buffer.length)
      if (error === null) callback(null, count + got)
      else callback(diskError('read', this.#path, error), 0)
    })
  }

  #writePooled(
    buffers: readonly Buffer[],
    position: number,
    beganMs: number,
    written: number,
    callback: DiskCallback,
  ): void {
    this.#pendingCount++
    fs.writev(this.#descriptor, firstOf(buffers), position + written, (error, count) => {
      this.#settle()
      const rest = error === null ? withoutBytes(buffers, count) : []
      if (rest.length > 0) {
        this.#writePooled(rest, position, beganMs, written + count, callback)
        return
      }
      this.#writePace.took(performance.now() - beganMs, written)
      callback(error === null ? null : diskError('write', this.#path, error))
    })
  }

  #settle(): void {
    this.#pendingCount--
    // after the callbacks of this turn: a read in several steps goes on with the same descriptor
    if (this.#closing) process.nextTick(() => this.#maybeClose())
  }

  #maybeClose(): void {
    if (this.#closed || this.#pendingCount > 0) return
    this.#closed = true
    attempt('close', this.#path, () => fs.closeSync(this.#descriptor))
  }

  #assertOpen(): void {
    assert(!this.#closing, 'a file is not used after it was closed')
  }
}

function firstOf(buffers: readonly Buffer[]): Buffer[] {
  return buffers.length <= BUFFERS_PER_WRITE_MAX
    ? (buffers as Buffer[])
    : buffers.slice(0, BUFFERS_PER_WRITE_MAX)
}

/** What is left after `count` bytes were written. */
function withoutBytes(buffers: readonly Buffer[], count: number): readonly Buffer[] {
  let index = 0
  let left = count
  while (index < buffers.length && left >= (buffers[index] as Buffer).length) {
    left -= (buffers[index] as Buffer).length
    index++
  }
  const rest = buffers.slice(index)
  if (left > 0) rest[0] = (rest[0] as Buffer).subarray(left)
  return rest
}

const codesByErrno: Readonly<Record<string, DiskErrorCode>> = {
  ENOENT: 'DISK_NOT_FOUND',
  ENOTDIR: 'DISK_NOT_FOUND',
  EEXIST: 'DISK_EXISTS',
  ENOSPC: 'DISK_NO_SPACE',
  EDQUOT: 'DISK_NO_SPACE',
  EROFS: 'DISK_READ_ONLY',
  EBUSY: 'DISK_BUSY',
  ENOTEMPTY: 'DISK_BUSY',
  EMFILE: 'DISK_BUSY',
  ENFILE: 'DISK_BUSY',
}

/** Anything unknown counts as a failing disk. */
function diskError(action: string, path: string, error: unknown): CairnError {
  const code = codesByErrno[codeOf(error)] ?? 'DISK_IO'
  return new CairnError(code, `cannot ${action} ${path}: ${codeOf(error)}`, { cause: error })
}

function attempt<T>(action: string, path: string, step: () => T): T {
  try {
    return step()
  } catch (error) {
    throw error instanceof CairnError ? error : diskError(action, path, error)
  }
}
