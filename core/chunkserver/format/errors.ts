/** How errors of the disk become the codes that cross the wire, and the codes of this room. */
import { CairnError, codeOf } from '../../base/errors.ts'
import type { WireCode } from '../../wire/codes.ts'

/**
 * Codes that stay inside of the room:
 *   STORE_INVALID   the directory holds no chunk store, or one that cannot be read (flag R)
 *   STORE_FOREIGN   the store belongs to another cluster
 *   STORE_DECORATED the store needs a decorator that is not loaded (rule B4)
 *   STORE_EXISTS    make-cs on a directory that holds a store already
 */
export type StoreErrorCode = 'STORE_INVALID' | 'STORE_FOREIGN' | 'STORE_DECORATED' | 'STORE_EXISTS'

export function storeError(code: StoreErrorCode, message: string, next: string): CairnError {
  return new CairnError(code, message, { next })
}

export function wireCodeOfDiskError(error: unknown): WireCode {
  return codeOf(error) === 'DISK_NO_SPACE' ? 'DISK_FULL' : 'DISK_FAILED'
}

/** An error a peer may see. */
export function wireError(code: WireCode, message: string): CairnError {
  return new CairnError(code, message)
}
