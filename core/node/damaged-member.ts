/**
 * A member whose disk or directory is at fault ends, and says by which command it comes back. Others are not
 * touched by it: what it cannot read it does not send.
 */
import { CairnError, codeOf } from '../base/errors.ts'

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
/** What the system says of a disk, whoever met it. */
const diskCodes: ReadonlySet<string> = new Set(['STORE_FAILED', 'ENOSPC', 'EDQUOT', 'EIO', 'EROFS', 'ENXIO'])
/** What SQLite says of pages that are not what they were. */
const DAMAGED_FILE = /SQLITE_(?:CORRUPT|NOTADB)/
const FULL_DISK = /SQLITE_FULL|ENOSPC|EDQUOT/

export function withNextStep(error: unknown, cluster: string, repository: string): Error {
  if (!(error instanceof Error)) return new Error(String(error))
  const code = codeOf(error)
  const detail = textsOf(error)
  const isDamaged = damageCodes.has(code) || DAMAGED_FILE.test(detail)
  if (!isDamaged && !diskCodes.has(code)) return error
  return new CairnError(code, `${repository}: ${detail}`, {
    next: nextStep(isDamaged, detail, cluster, repository),
    cause: error,
  })
}

function nextStep(isDamaged: boolean, detail: string, cluster: string, repository: string): string {
  const rebuild = `cairn -c ${cluster} make-mds --rebuild -r ${repository}`
  if (isDamaged)
    return `build this member again from the others: ${rebuild} (what is wrong: cairn mds check -r ${repository})`
  if (FULL_DISK.test(detail)) return `free space on the disk below ${repository} and start it again`
  return `check the disk below ${repository} and start it again; if what it holds is damaged: ${rebuild}`
}

/** Also of what caused it: the code of the disk stands there. */
function textsOf(error: Error): string {
  const { cause } = error
  if (!(cause instanceof Error) || error.message.includes(cause.message)) return error.message
  return `${error.message}: ${textsOf(cause)}`
}
