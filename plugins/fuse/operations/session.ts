/**
 * One FUSE connection: negotiates (INIT), hands each request to its operation and lives until the kernel
 * ends it. A request that cannot be parsed gets an error and hurts nobody else; an operation we do not
 * have gets ENOSYS, which the kernel remembers.
 *
 * Deliberate choices:
 * - no kernel write-back cache (rule L9): a write that returned has been acknowledged by the cluster;
 * - no POSIX_LOCKS and FLOCK_LOCKS: the kernel keeps locks itself, right within one mount;
 * - access times change when a program sets them, never by reading (relatime would cost a quorum write);
 * - SEEK_DATA and SEEK_HOLE are left to the kernel: the whole file is data;
 * - FSYNCDIR is left out (ENOSYS means success): namespace changes are durable when they are answered.
 */
import {
  FUSE_MAJOR,
  FUSE_MINOR,
  FUSE_MINOR_MIN,
  REQUEST_PAGES_MAX,
  REQUEST_PAYLOAD_BYTES_MAX,
  initFlag,
  initFlag2,
  opcode,
} from '../protocol/constants.ts'
import type { Context } from './context.ts'
import { EAGAIN, ENOSYS, ENOTTY, EPROTO } from '../protocol/errno.ts'
import * as xattrs from './attributes.ts'
import * as directories from './directories.ts'
import * as files from './files.ts'
import * as nodes from './nodes.ts'
import { OUT_HEADER_BYTES } from '../protocol/reply.ts'
import type { Request } from '../protocol/request.ts'

/** True: the request's buffer is kept and released later. */
type Handler = (context: Context, request: Request) => boolean | void

/** Requests the kernel sends on behalf of nobody (read-ahead, asynchronous direct I/O) at the same time. */
const BACKGROUND_MAX = 128
const BACKGROUND_CONGESTED = 96
const READ_AHEAD_BYTES_MAX = 4 * REQUEST_PAYLOAD_BYTES_MAX
const INIT_ANSWER_BYTES = OUT_HEADER_BYTES + 64
const OPCODES_MAX = 64

const WANTED =
  initFlag.ASYNC_READ |
  initFlag.ATOMIC_O_TRUNC |
  initFlag.BIG_WRITES |
  initFlag.DO_READDIRPLUS |
  initFlag.READDIRPLUS_AUTO |
  initFlag.ASYNC_DIO |
  initFlag.PARALLEL_DIROPS |
  initFlag.MAX_PAGES |
  initFlag.CACHE_SYMLINKS |
  initFlag.HANDLE_KILLPRIV_V2 |
  initFlag.INIT_EXT

const WANTED2 = initFlag2.DIRECT_IO_ALLOW_MMAP

const handlers: (Handler | undefined)[] = new Array<Handler | undefined>(OPCODES_MAX).fill(undefined)
handlers[opcode.LOOKUP] = nodes.lookup
handlers[opcode.FORGET] = nodes.forget
handlers[opcode.BATCH_FORGET] = nodes.batchForget
handlers[opcode.GETATTR] = nodes.getattr
handlers[opcode.SETATTR] = nodes.setattr
handlers[opcode.READLINK] = nodes.readlink
handlers[opcode.SYMLINK] = nodes.symlink
handlers[opcode.MKNOD] = nodes.mknod
handlers[opcode.MKDIR] = nodes.mkdir
handlers[opcode.UNLINK] = nodes.unlink
handlers[opcode.RMDIR] = nodes.rmdir
handlers[opcode.RENAME] = nodes.rename
handlers[opcode.RENAME2] = nodes.rename2
handlers[opcode.LINK] = nodes.link
handlers[opcode.STATFS] = nodes.statfs
handlers[opcode.OPEN] = files.open
handlers[opcode.CREATE] = files.create
handlers[opcode.READ] = files.read
handlers[opcode.WRITE] = files.write
handlers[opcode.FLUSH] = files.flush
handlers[opcode.FSYNC] = files.fsync
handlers[opcode.RELEASE] = files.release
handlers[opcode.FALLOCATE] = files.fallocate
handlers[opcode.OPENDIR] = directories.opendir
handlers[opcode.READDIR] = directories.readdir
handlers[opcode.READDIRPLUS] = directories.readdirplus
handlers[opcode.RELEASEDIR] = directories.releasedir
handlers[opcode.GETXATTR] = xattrs.getxattr
handlers[opcode.SETXATTR] = xattrs.setxattr
handlers[opcode.LISTXATTR] = xattrs.listxattr
handlers[opcode.REMOVEXATTR] = xattrs.removexattr
handlers[opcode.INTERRUPT] = interrupt
handlers[opcode.DESTROY] = (context, request) => context.ok(request.unique)
handlers[opcode.IOCTL] = (context, request) => context.error(request.unique, ENOTTY)

/** The kernel gave up on a request, or a signal arrived for the program that waits for it. */
function interrupt(context: Context, request: Request): void {
  // Not here: still on its way to us from another reading thread, or answered meanwhile (then the
  // kernel ignores this answer). EAGAIN makes it ask again.
  if (!context.pending.interrupt(request.uint64())) context.error(request.unique, EAGAIN)
}

function expectsAnswer(code: number): boolean {
  return code !== opcode.FORGET && code !== opcode.BATCH_FORGET && code !== opcode.INTERRUPT
}

export class Session {
  readonly #context: Context
  readonly #onReady: () => void
  #isInitialized = false

  /** `onReady` runs when INIT has been answered: from then on the mount is usable. */
  constructor(context: Context, onReady: () => void) {
    this.#context = context
    this.#onReady = onReady
  }

  /** One request; true when its buffer was kept. */
  handle(request: Request): boolean {
    const context = this.#context
    const { opcode: code, unique } = request
    try {
      if (code === opcode.INIT) {
        this.#initialize(request)
        return false
      }
      const handler = code < OPCODES_MAX ? handlers[code] : undefined
      if (handler === undefined || !this.#isInitialized) {
        context.error(unique, ENOSYS)
        return false
      }
      return handler(context, request) === true
    } catch (error) {
      if (expectsAnswer(code)) context.fail(unique, error)
      else context.log.warn('a request was not understood', { opcode: code })
      return false
    }
  }

  #initialize(request: Request): void {
    const { scratch, log } = this.#context
    const major = request.uint32()
    const minor = request.uint32()
    if (major !== FUSE_MAJOR || minor < FUSE_MINOR_MIN) {
      log.error('this kernel speaks another FUSE protocol than 7.31 or later', { major, minor })
      this.#context.error(request.unique, EPROTO)
      return
    }
    const readAhead = request.uint32()
    const flags = request.uint32()
    const flags2 = request.remainingBytes >= 4 ? request.uint32() : 0
    const isExtended = (flags & initFlag.INIT_EXT) !== 0
    scratch.fill(0, OUT_HEADER_BYTES, INIT_ANSWER_BYTES)
    scratch.writeUInt32LE(FUSE_MAJOR, OUT_HEADER_BYTES)
    scratch.writeUInt32LE(Math.min(minor, FUSE_MINOR), OUT_HEADER_BYTES + 4)
    scratch.writeUInt32LE(Math.min(readAhead, READ_AHEAD_BYTES_MAX), OUT_HEADER_BYTES + 8)
    scratch.writeUInt32LE((flags & WANTED) >>> 0, OUT_HEADER_BYTES + 12)
    scratch.writeUInt16LE(BACKGROUND_MAX, OUT_HEADER_BYTES + 16)
    scratch.writeUInt16LE(BACKGROUND_CONGESTED, OUT_HEADER_BYTES + 18)
    scratch.writeUInt32LE(REQUEST_PAYLOAD_BYTES_MAX, OUT_HEADER_BYTES + 20)
    scratch.writeUInt32LE(1, OUT_HEADER_BYTES + 24) // times in nanoseconds
    scratch.writeUInt16LE(REQUEST_PAGES_MAX, OUT_HEADER_BYTES + 28)
    scratch.writeUInt32LE(isExtended ? (flags2 & WANTED2) >>> 0 : 0, OUT_HEADER_BYTES + 32)
    this.#context.scratchAnswer(request.unique, INIT_ANSWER_BYTES)
    this.#isInitialized = true
    this.#onReady()
  }
}
