/**
 * Error codes to the numbers the kernel gives to programs. Every code a Client may answer with has a
 * number; what is not listed is EIO, so that nothing unknown ever looks like success.
 */
import { constants } from 'node:os'

const E = constants.errno

/** Linux numbers that Node does not list. */
export const ENODATA = 61
export const ENOSYS = E.ENOSYS
export const ENOTSUP = 95
export const ESTALE = E.ESTALE
export const EINVAL = E.EINVAL
export const EIO = E.EIO
export const EINTR = E.EINTR
export const EBADF = E.EBADF
export const EAGAIN = E.EAGAIN
export const EFBIG = E.EFBIG
export const ENOENT = E.ENOENT
export const ENOTTY = E.ENOTTY
export const EILSEQ = E.EILSEQ
export const ENAMETOOLONG = E.ENAMETOOLONG
export const ERANGE = E.ERANGE
export const ENFILE = E.ENFILE
export const EROFS = E.EROFS
export const EPROTO = E.EPROTO

const byCode: Readonly<Record<string, number>> = {
  ENOENT,
  EEXIST: E.EEXIST,
  ENOTDIR: E.ENOTDIR,
  EISDIR: E.EISDIR,
  ENOTEMPTY: E.ENOTEMPTY,
  ENAMETOOLONG,
  EINVAL,
  EMLINK: E.EMLINK,
  ENOSPC: E.ENOSPC,
  EFBIG,
  EPERM: E.EPERM,
  EACCES: E.EACCES,
  ENODATA,
  E2BIG: E.E2BIG,
  ESTALE,
  EBUSY: E.EBUSY,
  EIO,
  EINTR,
  ETIMEDOUT: E.ETIMEDOUT,
  EXDEV: E.EXDEV,
  ENOTSUP,
  EROFS,
  ENOSYS,
  NOT_FOUND: ENOENT,
  NO_SESSION: EIO,
  DISK_FULL: E.ENOSPC,
  OVERLOADED: E.EBUSY,
  TIMED_OUT: E.ETIMEDOUT,
  DISCONNECTED: EIO,
  REFUSED: E.EPERM,
}

/** The code of anything thrown: a CairnError's or a system error's, else 'UNKNOWN'. */
export function codeOf(error: unknown): string {
  if (error instanceof Error && 'code' in error && typeof error.code === 'string') return error.code
  return 'UNKNOWN'
}

/** Positive errno for an error code of the client library. */
export function errnoOf(error: unknown): number {
  const code = codeOf(error)
  return Object.hasOwn(byCode, code) ? (byCode[code] ?? EIO) : EIO
}
