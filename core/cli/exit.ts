/** Exit statuses of every command, and how errors map to them (docs/cli.md). */
import { codeOf } from '../base/errors.ts'

export const ExitStatus = {
  done: 0,
  failed: 1,
  usage: 2,
  notFound: 3,
  refused: 4,
  unreachable: 5,
  /** Of a role process: it was removed from the cluster, and starting it again changes nothing. */
  removed: 6,
  timedOut: 124,
} as const
export type ExitStatus = (typeof ExitStatus)[keyof typeof ExitStatus]

const statusByCode: Readonly<Record<string, ExitStatus>> = {
  USAGE: ExitStatus.usage,
  EINVAL: ExitStatus.usage,
  BAD_CONFIG: ExitStatus.failed,
  ENOENT: ExitStatus.notFound,
  NOT_FOUND: ExitStatus.notFound,
  REFUSED: ExitStatus.refused,
  EBUSY: ExitStatus.refused,
  EPERM: ExitStatus.refused,
  EACCES: ExitStatus.refused,
  KEY_MISSING: ExitStatus.refused,
  KEY_UNPROTECTED: ExitStatus.refused,
  KEY_RETIRED: ExitStatus.refused,
  WRONG_KEY: ExitStatus.refused,
  WRONG_PASSWORD: ExitStatus.refused,
  TOO_MANY_ATTEMPTS: ExitStatus.refused,
  WRONG_CLUSTER: ExitStatus.refused,
  MEMBER_REMOVED: ExitStatus.removed,
  UNREACHABLE: ExitStatus.unreachable,
  DISCONNECTED: ExitStatus.unreachable,
  NOT_MASTER: ExitStatus.unreachable,
  STARTING: ExitStatus.unreachable,
  TIMED_OUT: ExitStatus.timedOut,
}

export function exitStatusOf(error: unknown): ExitStatus {
  return statusByCode[codeOf(error)] ?? ExitStatus.failed
}
