/** Errors this room makes itself. All other codes come over the wire as they are. */
import { CairnError, codeOf } from '../../base/errors.ts'

export function leaseLost(inode: number): CairnError {
  return new CairnError(
    'EIO',
    `the write lease of inode ${inode} ended: the outcome of this write is unknown`,
    {
      next: 'check what the file holds; another client may have written it meanwhile',
    },
  )
}

export function dataLost(inode: number, why: string): CairnError {
  return new CairnError('EIO', `acknowledged data of inode ${inode} may be lost: ${why}`, {
    next: 'write it again or restore it; this error is reported once to each open of the file',
  })
}

export function cancelled(): CairnError {
  return new CairnError('EINTR', 'cancelled by the caller; what was sent still ends on all replicas')
}

export function heldTooLong(holdMs: number): CairnError {
  return new CairnError('ETIMEDOUT', `held for ${holdMs} ms (hold_timeout)`, {
    retryable: true,
    next: 'see `cairn stat` for offline chunk servers and metadata servers',
  })
}

export function clientClosed(): CairnError {
  return new CairnError('DISCONNECTED', 'the client was closed')
}

export function invalid(message: string): CairnError {
  return new CairnError('EINVAL', message)
}

export function overloaded(what: string): CairnError {
  return new CairnError('OVERLOADED', `too many ${what}`, { retryable: true })
}

/** Anything thrown, as a CairnError. */
export function asCairnError(error: unknown): CairnError {
  if (error instanceof CairnError) return error
  return new CairnError(codeOf(error) === 'UNKNOWN' ? 'INTERNAL' : codeOf(error), String(error), {
    cause: error,
  })
}
