/**
 * Error codes of the metadata room that do not cross the wire: each is fatal for the process that meets
 * it. What a client may see is a `WireCode` (wire/codes.ts), carried as a value in a `CommandResult`.
 */
import { CairnError } from '../base/errors.ts'
import { type WireCode, wireCodes } from '../wire/codes.ts'

export const metadataErrorCodes = {
  LOG_CORRUPT: 'a log entry does not verify or has an unknown format',
  ROW_CORRUPT: 'a stored row of the state cannot be read',
  STORE_FAILED: 'the store could not commit or load',
  STATE_FORMAT: 'the stored state has a format this version does not know',
  VERSION_TOO_OLD: 'this version of Cairn is too old for the metadata of this cluster',
} as const
export type MetadataErrorCode = keyof typeof metadataErrorCodes

const nextSteps: Record<MetadataErrorCode, string> = {
  LOG_CORRUPT:
    'Check the disk below it; build this member again from the others: cairn make-mds --rebuild -r DIR.',
  ROW_CORRUPT:
    'Check the disk below it; build this member again from the others: cairn make-mds --rebuild -r DIR.',
  STORE_FAILED:
    'Check space and health of the disk below the metadata directory, then start the server again.',
  STATE_FORMAT: 'Start the version of Cairn that wrote it, or a newer one.',
  VERSION_TOO_OLD:
    'Install the version of Cairn that the other metadata servers run: a cluster does not go back to an older one.',
}

export function metadataError(code: MetadataErrorCode, detail: string, cause?: unknown): CairnError {
  return new CairnError(code, `${metadataErrorCodes[code]}: ${detail}`, {
    next: nextSteps[code],
    ...(cause === undefined ? {} : { cause }),
  })
}

/** A refusal as an exception, for request handlers that answer a session. */
export function wireError(code: WireCode, message: string, next?: string): CairnError {
  const { retryable } = wireCodes[code]
  return new CairnError(code, message, { retryable, isAnswer: true, ...(next === undefined ? {} : { next }) })
}

/** The member is not part of its cluster any more: starting it again changes nothing. */
export function memberRemoved(member: number, cluster: string): CairnError {
  return new CairnError('MEMBER_REMOVED', `MDS#${member} was removed from cluster '${cluster}'`, {
    next: 'delete its directory; a metadata server on this host gets a new id with make-mds',
  })
}
