/**
 * What every long-running role has in common: log file, plugin host, control socket, clean stop on
 * SIGTERM or when the supervisor goes away, and a loud end when something unforeseen happens.
 */
import { CairnError, codeOf } from '../base/errors.ts'
import { ExitStatus } from '../cli/exit.ts'
import type { Logger } from '../platform/logger.ts'
import { nodeClock } from '../platform/node/platform.ts'

const STOP_DEADLINE_MS = 15_000

export interface RunningRole {
  /** Resolves with a reason when the role ends because it was asked to, rejects when it cannot go on. */
  readonly ended: Promise<string>
  stop(): Promise<void>
}

export interface RoleProcessOptions {
  readonly name: string
  readonly logger: Logger
  /** Standard input is a pipe of the supervisor: its end is a request to stop. */
  readonly supervised: boolean
  start(): Promise<RunningRole>
}

/** Runs until stopped; returns the exit status. */
export async function runRole(options: RoleProcessOptions): Promise<number> {
  const { logger, name } = options
  const stopRequested = new Promise<string>((resolve) => {
    process.once('SIGTERM', () => resolve('SIGTERM'))
    process.once('SIGINT', () => resolve('SIGINT'))
    if (options.supervised) {
      process.stdin.once('end', () => resolve('the supervisor went away'))
      process.stdin.once('error', () => resolve('the supervisor went away'))
      process.stdin.resume()
    }
  })
  process.on('uncaughtException', (error) => endLoudly(logger, name, error))
  process.on('unhandledRejection', (error) => endLoudly(logger, name, error))
  const running = await options.start()
  logger.info(`${name} is running`, { pid: process.pid })
  const first = await Promise.race<Ending>([
    stopRequested.then((reason) => ({ status: ExitStatus.done, reason })),
    running.ended.then((reason) => ({ status: ExitStatus.done, reason }), failureOf),
  ])
  if (first.status === ExitStatus.done) logger.info(`${name} stops`, { reason: first.reason })
  else {
    const { reason, next } = first
    logger.error(`${name} ends`, { reason, next })
    process.stderr.write(`cairn: ${name}: ${reason}\n${next === undefined ? '' : `cairn: ${next}\n`}`)
  }
  const deadline = nodeClock.setTimer(STOP_DEADLINE_MS, () => {
    logger.error(`${name} did not stop within ${STOP_DEADLINE_MS / 1000} s`)
    process.exit(1)
  })
  await running.stop()
  deadline.cancel()
  return first.status
}

interface Ending {
  readonly status: ExitStatus
  readonly reason: string
  /** What to do about it. */
  readonly next?: string | undefined
}

function failureOf(error: unknown): Ending {
  const status = codeOf(error) === 'MEMBER_REMOVED' ? ExitStatus.removed : ExitStatus.failed
  if (error instanceof CairnError) return { status, reason: error.message, next: error.next }
  return { status, reason: error instanceof Error ? error.message : String(error) }
}

/** A bug: say where, and go before anything is hurt. The supervisor starts the process again. */
function endLoudly(logger: Logger, name: string, error: unknown): never {
  const detail = error instanceof Error ? (error.stack ?? error.message) : String(error)
  logger.error(`${name} ends: unexpected error`, { detail })
  process.stderr.write(`cairn: ${name}: unexpected error: ${detail}\n`)
  process.exit(70)
}
