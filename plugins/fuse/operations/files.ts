/**
 * Operations on open files: open, create, read, write, flush, fsync, release, fallocate. Reads and writes
 * are the data path: one closure and one table entry each, no promise, no copy of the payload.
 *
 * Close-to-open: an open takes fresh attributes, and the kernel keeps cached pages only if they are
 * known to be those of that state; closing a descriptor publishes size and times before close() returns.
 */
import type { File, Operation } from '@cairn/core/client'
import {
  MODE_PERMISSION_MASK,
  MODE_SETGID,
  MODE_SETUID,
  OPEN_KILL_SUIDGID,
  REQUEST_PAYLOAD_BYTES_MAX,
  WRITE_KILL_SUIDGID,
  fallocateMode,
  isDirect,
  openAnswerFlag,
  openFlag,
} from '../protocol/constants.ts'
import type { Context } from './context.ts'
import { SMALL_WRITE_BYTES_MAX } from '../protocol/device.ts'
import { EBADF, EINVAL, ENFILE, ENOTSUP, EPROTO, codeOf } from '../protocol/errno.ts'
import type { Pending } from '../protocol/pending.ts'
import { sameSizeAndTime } from './inode-table.ts'
import { type OpenFile, publish } from './open-files.ts'
import { modeWithoutPrivileges } from './nodes.ts'
import { ENTRY_BYTES, OPEN_BYTES, OUT_HEADER_BYTES, writeEntry, writeOpenAnswer } from '../protocol/reply.ts'
import { MalformedRequest, type Request, writeUInt64 } from '../protocol/request.ts'
import type { Attributes } from '../protocol/types.ts'

/** With `hold-on-nospace`: how often a write that found no space is tried again. */
const NO_SPACE_RETRY_MS = 2000
const WRITE_ANSWER_BYTES = OUT_HEADER_BYTES + 8

function answerFlags(flags: number, keepCache: boolean): number {
  let answer = keepCache ? openAnswerFlag.KEEP_CACHE : 0
  // A descriptor that cannot write has nothing to publish at close.
  if ((flags & openFlag.ACCESS_MODE) === 0) answer |= openAnswerFlag.NOFLUSH
  // O_DIRECT bypasses the page cache anyway; said explicitly, the kernel lets its writes run in parallel.
  if (isDirect(flags)) answer |= openAnswerFlag.DIRECT_IO | openAnswerFlag.PARALLEL_DIRECT_WRITES
  return answer
}

export function open(context: Context, request: Request): void {
  const { unique, node } = request
  const flags = request.uint32()
  const killsPrivileges = (request.uint32() & OPEN_KILL_SUIDGID) !== 0
  if (context.files.full) {
    context.error(unique, ENFILE)
    return
  }
  const isTruncating = (flags & openFlag.TRUNCATE) !== 0
  const pending = context.begin(unique)
  const work = context.fileSystem.open(node, isTruncating ? { truncate: true } : {})
  work.then(
    (file) => {
      if (pending.answered) {
        file.close()
        return
      }
      const attributes = file.attributes()
      const { handle, keepCache } = context.files.open(file, attributes, context.inodes.get(node))
      markTruncated(context, handle, isTruncating)
      const answer = () => answerOpen(context, pending, attributes, handle, answerFlags(flags, keepCache))
      if (killsPrivileges) withoutPrivileges(context, context.files.file(handle), answer)
      else answer()
    },
    (error: unknown) => {
      if (context.finish(pending)) context.fail(unique, error)
    },
  )
}

function markTruncated(context: Context, handle: number, isTruncating: boolean): void {
  const state = context.files.file(handle)?.state
  if (state === undefined || !isTruncating) return
  state.written = true // the truncation itself is in the quorum already
}

/**
 * The kernel trusts the attributes it was told for up to a second: when this open found others, it must
 * drop them before the program goes on, or a read could end at a size of the past.
 */
function answerOpen(
  context: Context,
  pending: Pending,
  attributes: Attributes,
  handle: number,
  flags: number,
): void {
  const answer = () => {
    if (!context.finish(pending)) {
      // A signal ended the wait for the kernel or for the mode: nobody will release this handle.
      const open = context.files.release(handle)
      if (open !== undefined) closeFile(context, open)
      return
    }
    context.scratchAnswer(pending.unique, writeOpenAnswer(context.scratch, handle, flags, OUT_HEADER_BYTES))
  }
  const known = context.inodes.get(attributes.inode)
  if (known?.attributes !== undefined && sameSizeAndTime(known.attributes, attributes)) {
    answer()
    return
  }
  if (known !== undefined) known.attributes = attributes
  // Attributes only: an open drops the pages itself.
  if (!context.notifier.dropAttributes(attributes.inode, answer)) answer()
}

export function create(context: Context, request: Request): void {
  const { unique, node } = request
  const flags = request.uint32()
  const mode = request.uint32() & MODE_PERMISSION_MASK
  request.skip(8)
  const name = request.name()
  const isExclusive = (flags & openFlag.EXCLUSIVE) !== 0
  if (context.files.full) {
    context.error(unique, ENFILE)
    return
  }
  const pending = context.begin(unique)
  const work = context
    .ownerOf(request)
    .then((owner) => context.fileSystem.create(node, name, mode, owner, isExclusive))
    .then(async (made) => {
      // Somebody else created it between the kernel's lookup and now: O_TRUNC is still ours to do.
      if (made.created || (flags & openFlag.TRUNCATE) === 0) return made
      return { ...made, attributes: await made.file.truncate(0) }
    })
  work.then(
    (made) => {
      if (!context.finish(pending)) {
        made.file.close()
        return
      }
      answerCreate(context, unique, made.file, made.attributes, flags)
    },
    (error: unknown) => {
      if (context.finish(pending)) context.fail(unique, error)
    },
  )
}

function answerCreate(
  context: Context,
  unique: number,
  file: File,
  attributes: Attributes,
  flags: number,
): void {
  const current = context.current(attributes)
  context.inodes.told(current, true)
  const known = context.inodes.get(attributes.inode)
  const { handle, keepCache } = context.files.open(file, attributes, known)
  writeEntry(context.scratch, current, context.timeouts, OUT_HEADER_BYTES)
  const end = writeOpenAnswer(
    context.scratch,
    handle,
    answerFlags(flags, keepCache),
    OUT_HEADER_BYTES + ENTRY_BYTES,
  )
  if (end !== OUT_HEADER_BYTES + ENTRY_BYTES + OPEN_BYTES) throw new Error('create answer has a wrong size')
  context.scratchAnswer(unique, end)
}

export function read(context: Context, request: Request): void {
  const { unique } = request
  const open = context.files.file(request.uint64())
  const offset = request.position64()
  const length = request.uint32()
  if (open === undefined || length > REQUEST_PAYLOAD_BYTES_MAX) {
    context.error(unique, open === undefined ? EBADF : EINVAL)
    return
  }
  const pending = context.begin(unique)
  pending.operation = open.file.read(offset, length, (error, borrowedData) => {
    if (!context.finish(pending)) return
    if (error !== null) context.fail(unique, error)
    else context.data(unique, borrowedData)
  })
}

/** Returns true: the buffer is the client's until the write is answered. */
export function write(context: Context, request: Request): boolean {
  const { unique } = request
  const open = context.files.file(request.uint64())
  const offset = request.position64()
  const length = request.uint32()
  const flags = request.uint32()
  request.skip(16)
  if (open === undefined) {
    context.error(unique, EBADF)
    return false
  }
  if (length !== request.remainingBytes) {
    throw new MalformedRequest(EPROTO, `a write of ${length} bytes carries ${request.remainingBytes}`)
  }
  let borrowedData = request.bytes(length)
  const isCopied = length <= SMALL_WRITE_BYTES_MAX && context.device.isShortOfBuffers
  if (isCopied) borrowedData = Buffer.from(borrowedData)
  open.state.written = true
  const kept = isCopied ? undefined : request
  const pending = context.begin(unique)
  const start = () => startWrite(context, open, pending, offset, borrowedData, kept)
  if ((flags & WRITE_KILL_SUIDGID) === 0) start()
  else withoutPrivileges(context, open, start)
  return !isCopied
}

function startWrite(
  context: Context,
  open: OpenFile,
  pending: Pending,
  offset: number,
  borrowedData: Buffer,
  kept: Request | undefined,
): void {
  if (pending.answered) {
    if (kept !== undefined) context.device.release(kept)
    return
  }
  const attempt = () => {
    pending.operation = open.file.write(offset, borrowedData, (error) => {
      // Also after an error: an unacknowledged write may have changed size and times (rule E11).
      open.state.unpublished = true
      if (error !== null && context.settings.holdOnNoSpace && codeOf(error) === 'ENOSPC') {
        pending.operation = retryLater(context, attempt, () => end(error))
        return
      }
      end(error)
    })
  }
  const end = (error: Error | null) => {
    if (kept !== undefined) context.device.release(kept)
    if (!context.finish(pending)) return
    if (error !== null) context.fail(pending.unique, error)
    else answerWrite(context, pending.unique, borrowedData.length)
  }
  attempt()
}

/** `cancel` ends the wait with what the last attempt said. */
function retryLater(context: Context, attempt: () => void, giveUp: () => void): Operation {
  const timer = setTimeout(() => {
    context.noSpaceWaits.delete(cancel)
    attempt()
  }, NO_SPACE_RETRY_MS)
  const cancel = () => {
    clearTimeout(timer)
    context.noSpaceWaits.delete(cancel)
    giveUp()
  }
  context.noSpaceWaits.add(cancel)
  return { cancel }
}

function answerWrite(context: Context, unique: number, byteCount: number): void {
  writeUInt64(context.scratch, byteCount, OUT_HEADER_BYTES)
  context.scratchAnswer(unique, WRITE_ANSWER_BYTES)
}

/**
 * The kernel leaves it to us (HANDLE_KILLPRIV_V2) to take set-user-id and set-group-id at a write or a
 * truncation. `next` runs afterwards, so that no program sees the new contents with the old mode.
 */
function withoutPrivileges(context: Context, open: OpenFile | undefined, next: () => void): void {
  const attributes = open?.file.attributes()
  if (
    open === undefined ||
    attributes === undefined ||
    (attributes.mode & (MODE_SETUID | MODE_SETGID)) === 0
  ) {
    next()
    return
  }
  const { inode, type, mode, changeSeconds, changeNanoseconds } = attributes
  const newMode = modeWithoutPrivileges(type, mode)
  // The same state again: it was cleared, and the handle has not learnt that yet.
  const seen = `${mode} ${changeSeconds} ${changeNanoseconds}`
  if (newMode === mode || open.state.clearedPrivileges === seen) {
    next()
    return
  }
  open.state.clearedPrivileges = seen
  context.fileSystem.setAttributes(inode, { mode: newMode }).then(
    () => {
      if (!context.notifier.dropAttributes(inode, next)) next()
    },
    (error: unknown) => {
      context.log.warn('set-user-id could not be cleared', { inode, code: codeOf(error) })
      next()
    },
  )
}

/** close(2) of one descriptor. */
export function flush(context: Context, request: Request): void {
  const { unique } = request
  const open = context.files.file(request.uint64())
  if (open === undefined) {
    context.error(unique, EBADF)
    return
  }
  if (!open.state.unpublished) {
    context.ok(unique)
    return
  }
  const pending = context.begin(unique)
  publish(open, (error) => {
    if (!context.finish(pending)) return
    if (error !== null) context.fail(unique, error)
    else context.ok(unique)
  })
}

export function fsync(context: Context, request: Request): void {
  const { unique } = request
  const open = context.files.file(request.uint64())
  if (open === undefined) {
    context.error(unique, EBADF)
    return
  }
  const pending = context.begin(unique)
  // `unpublished` stays: the times may lag until the close.
  pending.operation = open.file.flush((error) => {
    if (!context.finish(pending)) return
    if (error !== null) context.fail(unique, error)
    else context.ok(unique)
  })
}

export function release(context: Context, request: Request): void {
  const open = context.files.release(request.uint64())
  context.ok(request.unique)
  if (open !== undefined) closeFile(context, open)
}

/** Publishes what write-back of a shared mapping may have left behind, then closes. */
export function closeFile(context: Context, open: OpenFile, done?: () => void): void {
  publish(open, (error) => {
    if (error !== null) {
      context.log.warn('size and times could not be published at close', {
        inode: open.file.inode,
        code: error.code,
      })
    }
    if (open.state.files.size === 0) rememberPages(context, open)
    open.file.close()
    done?.()
  })
}

function rememberPages(context: Context, open: OpenFile): void {
  const known = context.inodes.get(open.file.inode)
  if (known === undefined) return
  const attributes = open.file.attributes()
  known.pages = open.state.pagesMatch(attributes) ? attributes : undefined
  // The kernel followed our own writes by itself: what it holds is this.
  if (known.pages !== undefined) known.attributes = attributes
}

export function fallocate(context: Context, request: Request): void {
  const { unique } = request
  const open = context.files.file(request.uint64())
  const offset = request.position64()
  const length = request.position64()
  const mode = request.uint32()
  if (open === undefined) {
    context.error(unique, EBADF)
    return
  }
  const keepSize = (mode & fallocateMode.KEEP_SIZE) !== 0
  const kind = mode & ~fallocateMode.KEEP_SIZE
  if (
    (kind !== 0 && kind !== fallocateMode.PUNCH_HOLE && kind !== fallocateMode.ZERO_RANGE) ||
    (kind === fallocateMode.PUNCH_HOLE && !keepSize)
  ) {
    context.error(unique, ENOTSUP)
    return
  }
  open.state.written = true
  const work =
    kind === 0 ? open.file.allocate(offset, length, keepSize) : open.file.zero(offset, length, keepSize)
  const marked = work.finally(() => {
    open.state.unpublished = true
  })
  context.run(unique, marked, () => context.ok(unique))
}
