/**
 * Numbers of the Linux FUSE kernel protocol (version 7, linux/fuse.h), as far as this plugin uses them.
 * Nothing but numbers: layouts are in `request.ts` and `reply.ts`.
 */

export const FUSE_MAJOR = 7
/** Highest minor version spoken; the kernel and we use the lower of the two. */
export const FUSE_MINOR = 40
/** Below this the INIT answer and several structures look different: Linux 5.4 (2019) speaks 31. */
export const FUSE_MINOR_MIN = 31

export const KERNEL_PAGE_BYTES = 4096
/** Largest READ or WRITE: 256 pages, the kernel's limit without changing a sysctl. */
export const REQUEST_PAYLOAD_BYTES_MAX = 1024 * 1024
export const REQUEST_PAGES_MAX = REQUEST_PAYLOAD_BYTES_MAX / KERNEL_PAGE_BYTES
/** A request with the largest payload and its structures. */
export const REQUEST_BYTES_MAX = REQUEST_PAYLOAD_BYTES_MAX + KERNEL_PAGE_BYTES

export const opcode = {
  LOOKUP: 1,
  FORGET: 2,
  GETATTR: 3,
  SETATTR: 4,
  READLINK: 5,
  SYMLINK: 6,
  MKNOD: 8,
  MKDIR: 9,
  UNLINK: 10,
  RMDIR: 11,
  RENAME: 12,
  LINK: 13,
  OPEN: 14,
  READ: 15,
  WRITE: 16,
  STATFS: 17,
  RELEASE: 18,
  FSYNC: 20,
  SETXATTR: 21,
  GETXATTR: 22,
  LISTXATTR: 23,
  REMOVEXATTR: 24,
  FLUSH: 25,
  INIT: 26,
  OPENDIR: 27,
  READDIR: 28,
  RELEASEDIR: 29,
  FSYNCDIR: 30,
  CREATE: 35,
  INTERRUPT: 36,
  DESTROY: 38,
  IOCTL: 39,
  BATCH_FORGET: 42,
  FALLOCATE: 43,
  READDIRPLUS: 44,
  RENAME2: 45,
} as const

/** INIT flags, bits 0-31. */
export const initFlag = {
  ASYNC_READ: 1 << 0,
  ATOMIC_O_TRUNC: 1 << 3,
  BIG_WRITES: 1 << 5,
  DO_READDIRPLUS: 1 << 13,
  READDIRPLUS_AUTO: 1 << 14,
  ASYNC_DIO: 1 << 15,
  PARALLEL_DIROPS: 1 << 18,
  ABORT_ERROR: 1 << 21,
  MAX_PAGES: 1 << 22,
  CACHE_SYMLINKS: 1 << 23,
  HANDLE_KILLPRIV_V2: 1 << 28,
  INIT_EXT: 1 << 30,
} as const

/** INIT flags, bits 32-63 (shifted down). */
export const initFlag2 = {
  /** Shared mmap of files opened with FOPEN_DIRECT_IO. */
  DIRECT_IO_ALLOW_MMAP: 1 << 4,
} as const

export const openAnswerFlag = {
  DIRECT_IO: 1 << 0,
  KEEP_CACHE: 1 << 1,
  NOFLUSH: 1 << 5,
  PARALLEL_DIRECT_WRITES: 1 << 6,
} as const

export const setattrValid = {
  MODE: 1 << 0,
  UID: 1 << 1,
  GID: 1 << 2,
  SIZE: 1 << 3,
  ATIME: 1 << 4,
  MTIME: 1 << 5,
  FH: 1 << 6,
  ATIME_NOW: 1 << 7,
  MTIME_NOW: 1 << 8,
  KILL_SUIDGID: 1 << 11,
} as const

/** fuse_write_in.write_flags, fuse_open_in.open_flags. */
export const WRITE_KILL_SUIDGID = 1 << 2
export const OPEN_KILL_SUIDGID = 1 << 0

export const notifyCode = { INVAL_INODE: 2, INVAL_ENTRY: 3, INCREASE_EPOCH: 8 } as const

/** open(2) flags of Linux on x86-64 and arm64 (generic ABI; O_DIRECT differs, see `isDirect`). */
export const openFlag = {
  ACCESS_MODE: 0o3,
  WRITE_ONLY: 0o1,
  EXCLUSIVE: 0o200,
  TRUNCATE: 0o1000,
} as const

const O_DIRECT = process.arch === 'arm64' ? 0o200000 : 0o40000

export function isDirect(flags: number): boolean {
  return (flags & O_DIRECT) !== 0
}

export const fallocateMode = {
  KEEP_SIZE: 0x01,
  PUNCH_HOLE: 0x02,
  ZERO_RANGE: 0x10,
} as const

export const renameFlag = { NOREPLACE: 1, EXCHANGE: 2, WHITEOUT: 4 } as const
export const xattrFlag = { CREATE: 1, REPLACE: 2 } as const

/** File type bits of st_mode. */
export const modeType = {
  fifo: 0o010000,
  'character-device': 0o020000,
  directory: 0o040000,
  'block-device': 0o060000,
  file: 0o100000,
  symlink: 0o120000,
  socket: 0o140000,
} as const

export const MODE_TYPE_MASK = 0o170000
export const MODE_PERMISSION_MASK = 0o7777
export const MODE_SETUID = 0o4000
export const MODE_SETGID = 0o2000
export const MODE_GROUP_EXECUTE = 0o010
