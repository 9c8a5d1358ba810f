/**
 * A member whose disk or directory is at fault ends, and says by which command it comes back. Others are not
 * touched by it: what it cannot read it does not send.
 */
import { CairnError } from '../base/errors.ts'

/** What it holds cannot be used any more. */
const damageCodes: ReadonlySet<string> = new Set([
  'LOG_CORRUPT',
  'ROW_CORRUPT',
  'STATE_FORMAT',
  'STORE_FORMAT',
  'HARD_STATE_DAMAGED',
  'RAFT_HARD_STATE_LOST',
  'RAFT_BAD_STATE',
])
/** What SQLite says of pages that are not what they were. */
const DAMAGED_FILE = /SQLITE_(?:CORRUPT|NOTADB)/

export function withNextStep(error: unknown, cluster: string, repository: string): Error {
  if (!(error instanceof CairnError)) return error instanceof Error ? error : new Error(String(error))
  const isDamaged = damageCodes.has(error.code) || DAMAGED_FILE.test(textsOf(error))
  if (!isDamaged && error.code !== 'STORE_FAILED') return error
  const rebuild = `cairn -c ${cluster} make-mds --rebuild -r ${repository}`
  const next = isDamaged
    ? `build this member again from the others: ${rebuild} (what is wrong: cairn mds check -r ${repository})`
    : `check space and health of the disk below ${repository} and start it again; if it is damaged: ${rebuild}`
  const detail = textsOf(error)
  return new CairnError(error.code, `${repository}: ${detail}`, { next, cause: error })
}

/** Also of what caused it: the code of the disk stands there. */
function textsOf(error: Error): string {
  const { cause } = error
  if (!(cause instanceof Error) || error.message.includes(cause.message)) return error.message
  return `${error.message}: ${textsOf(cause)}`
}
