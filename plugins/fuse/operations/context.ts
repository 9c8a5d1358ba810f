/**
 * What every operation of a mount works with: the client, the tables, and the ways to answer.
 * Answers are written synchronously from one scratch buffer, so nothing is allocated for them.
 */
import type { FileSystem } from '@cairn/core/client'
import { MODE_SETGID } from '../protocol/constants.ts'
import type { Device } from '../protocol/device.ts'
import { EINTR, EIO, codeOf, errnoOf } from '../protocol/errno.ts'
import { InodeTable } from './inode-table.ts'
import type { Notifier } from '../protocol/notifier.ts'
import { OpenFiles } from './open-files.ts'
import type { MountSettings } from '../options.ts'
import { type Pending, PendingTable } from '../protocol/pending.ts'
import {
  type CacheTimeouts,
  OUT_HEADER_BYTES,
  writeAttributesAnswer,
  writeEntry,
  writeHeader,
} from '../protocol/reply.ts'
import { MalformedRequest, type Request } from '../protocol/request.ts'
import type { Attributes, MountLogger } from '../protocol/types.ts'

/** Largest answer that is encoded here (directory listings); file data is never copied into it. */
export const SCRATCH_BYTES = 256 * 1024
/** Requests that may wait for the cluster at once; above it no new ones are read. */
export const PENDING_REQUESTS_MAX = 4096

export class Context {
  readonly fileSystem: FileSystem
  readonly device: Device
  readonly notifier: Notifier
  readonly settings: MountSettings
  readonly log: MountLogger
  readonly timeouts: CacheTimeouts
  readonly inodes = new InodeTable()
  readonly files = new OpenFiles()
  readonly pending: PendingTable
  readonly scratch = Buffer.alloc(SCRATCH_BYTES)
  /** Counts changes of names by this mount: each may have changed the link count of an open file. */
  namesChanged = 0
  /** Writes that wait for space (`hold-on-nospace`): how to end each wait. */
  readonly noSpaceWaits = new Set<() => void>()
  /** For answers that go out while `scratch` is being filled (data headers). */
  readonly #header = Buffer.alloc(OUT_HEADER_BYTES)

  constructor(
    fileSystem: FileSystem,
    device: Device,
    notifier: Notifier,
    settings: MountSettings,
    log: MountLogger,
  ) {
    this.fileSystem = fileSystem
    this.device = device
    this.notifier = notifier
    this.settings = settings
    this.log = log
    this.timeouts = { entryMs: settings.entryTimeoutMs, attributesMs: settings.attributesTimeoutMs }
    this.pending = new PendingTable((pending) => this.#giveUp(pending))
  }

  /** A signal waited long enough: ends the program's wait, not the operation (rule E11). */
  #giveUp(pending: Pending): void {
    if (pending.operation !== undefined) pending.operation.cancel()
    else if (this.finish(pending)) this.error(pending.unique, EINTR)
  }

  begin(unique: number): Pending {
    const pending = this.pending.add(unique)
    if (this.pending.size >= PENDING_REQUESTS_MAX) this.device.pause()
    return pending
  }

  finish(pending: Pending): boolean {
    if (!this.pending.finish(pending)) return false
    if (this.pending.size < PENDING_REQUESTS_MAX) this.device.resume()
    return true
  }

  ok(unique: number): void {
    writeHeader(this.#header, OUT_HEADER_BYTES, 0, unique)
    this.device.write(this.#header, OUT_HEADER_BYTES)
  }

  /** `errno` is positive. */
  error(unique: number, errno: number): void {
    writeHeader(this.#header, OUT_HEADER_BYTES, errno, unique)
    this.device.write(this.#header, OUT_HEADER_BYTES)
  }

  /** For whatever was thrown or rejected. */
  fail(unique: number, error: unknown): void {
    if (error instanceof MalformedRequest) {
      this.error(unique, error.errno)
      return
    }
    const errno = errnoOf(error)
    if (errno === EIO) {
      const message = error instanceof Error ? error.message : String(error)
      this.log.warn('a request ended in an input/output error', { code: codeOf(error), message })
    }
    this.error(unique, errno)
  }

  /** Answers with what has been encoded in `scratch` from OUT_HEADER_BYTES up to `end`. */
  scratchAnswer(unique: number, end: number): void {
    writeHeader(this.scratch, end, 0, unique)
    this.device.write(this.scratch, end)
  }

  /** Answers with `borrowedData`, without copying it. */
  data(unique: number, borrowedData: Buffer): void {
    writeHeader(this.#header, OUT_HEADER_BYTES + borrowedData.length, 0, unique)
    if (borrowedData.length === 0) this.device.write(this.#header, OUT_HEADER_BYTES)
    else this.device.writeTwo(this.#header, borrowedData)
  }

  /** A lookup of `attributes` is answered: the kernel counts it. */
  entry(unique: number, attributes: Attributes): void {
    const current = this.current(attributes)
    this.inodes.told(current, true)
    this.scratchAnswer(unique, writeEntry(this.scratch, current, this.timeouts, OUT_HEADER_BYTES))
  }

  attributes(unique: number, attributes: Attributes): void {
    const current = this.current(attributes)
    this.inodes.told(current, false)
    this.scratchAnswer(unique, writeAttributesAnswer(this.scratch, current, this.timeouts, OUT_HEADER_BYTES))
  }

  /** What is known here of a file with local writes is newer than any answer of the quorum. */
  current(attributes: Attributes): Attributes {
    const state = this.files.openInode(attributes.inode)
    if (state === undefined || !state.written) return attributes
    const own = this.files.anyFileOf(attributes.inode)?.file.attributes()
    if (own === undefined) return attributes
    return {
      ...attributes,
      size: own.size,
      allocated: Math.max(own.allocated, attributes.allocated),
      modifySeconds: own.modifySeconds,
      modifyNanoseconds: own.modifyNanoseconds,
      changeSeconds: own.changeSeconds,
      changeNanoseconds: own.changeNanoseconds,
    }
  }

  /** Runs a namespace operation; `work` answers itself when `pending` may still be answered. */
  run<T>(unique: number, work: Promise<T>, answer: (result: T) => void): void {
    const pending = this.begin(unique)
    work.then(
      (result) => {
        if (this.finish(pending)) answer(result)
        else this.log.debug('an answer came after the program had stopped waiting', { unique })
      },
      (error: unknown) => {
        if (this.finish(pending)) this.fail(unique, error)
      },
    )
    // A bug in `answer` rejects this chain and ends the process: Node's default for unhandled rejections.
  }

  /** Owner of a new child: a directory with the set-group-id bit passes its group on. */
  async owner(request: { uid: number; gid: number; parent: number }): Promise<{ uid: number; gid: number }> {
    const inherited = this.inodes.inheritedGroup(request.parent)
    if (inherited !== undefined) return { uid: request.uid, gid: inherited.group ?? request.gid }
    const parent = await this.fileSystem.attributes(request.parent)
    return { uid: request.uid, gid: (parent.mode & MODE_SETGID) === 0 ? request.gid : parent.gid }
  }

  ownerOf(request: Request): Promise<{ uid: number; gid: number }> {
    return this.owner({ uid: request.uid, gid: request.gid, parent: request.node })
  }
}
