/**
 * Starts a serving process in the background and waits until its mount is usable. The child is the same
 * program in foreground mode; it reports on descriptor 3, one line of JSON, and lives on by itself.
 */
import { spawn } from 'node:child_process'
import { closeSync, mkdirSync, openSync, writeSync } from 'node:fs'
import { dirname } from 'node:path'
import type { Readable } from 'node:stream'
import { CairnError } from '@cairn/core/plugin'
import { codeOf } from '../protocol/errno.ts'
import { mountError } from './system-mount.ts'

/** Set for the child: the descriptor it reports on. */
export const READY_VARIABLE = 'CAIRN_MOUNT_READY_FD'
const READY_DESCRIPTOR = 3
const REPORT_BYTES_MAX = 65_536

type Report =
  | { readonly ready: true }
  | { readonly ready: false; readonly code: string; readonly message: string; readonly next?: string }

export interface BackgroundStart {
  /** This program, its global options and the mount command in foreground mode. */
  readonly command: readonly string[]
  /** What the child prints before it has a log of its own. */
  readonly logFile: string
  readonly deadlineMs: number
}

/** Resolves with the process id when the mount is usable; rejects with what the child said. */
export async function startInBackground(start: BackgroundStart): Promise<number> {
  const [program, ...parameters] = start.command
  if (program === undefined) throw new Error('a background start needs a command')
  mkdirSync(dirname(start.logFile), { recursive: true })
  const log = openSync(start.logFile, 'a', 0o640)
  const child = spawn(program, parameters, {
    detached: true,
    cwd: '/',
    stdio: ['ignore', log, log, 'pipe'],
    env: {
      ...process.env,
      [READY_VARIABLE]: String(READY_DESCRIPTOR),
    },
  })
  closeSync(log)
  const processId = child.pid
  const pipe = child.stdio[READY_DESCRIPTOR] as Readable | null
  try {
    const report = await reportOf(child, pipe, start)
    if (!report.ready) {
      const next = report.next === undefined ? {} : { next: report.next }
      throw new CairnError(report.code, report.message, next)
    }
    if (processId === undefined) throw new Error('a process that reported has no id')
    return processId
  } finally {
    pipe?.destroy()
    child.unref()
  }
}

function reportOf(
  child: ReturnType<typeof spawn>,
  pipe: Readable | null,
  start: BackgroundStart,
): Promise<Report> {
  return new Promise((resolve, reject) => {
    let text = ''
    const deadline = setTimeout(() => {
      child.kill('SIGTERM')
      reject(mountError('TIMED_OUT', 'the mount did not become usable in time', `look into ${start.logFile}`))
    }, start.deadlineMs)
    const settle = (report: Report) => {
      clearTimeout(deadline)
      resolve(report)
    }
    pipe?.on('data', (data: Buffer) => {
      text += data.toString('utf8')
      if (text.includes('\n') || text.length > REPORT_BYTES_MAX) settle(parseReport(text, start))
    })
    const gone = (how: string) => {
      settle({
        ready: false,
        code: 'MOUNT_FAILED',
        message: `the mount process ${how} before the mount was usable`,
        next: `look into ${start.logFile}`,
      })
    }
    child.on('error', (error) => gone(`could not be started: ${error.message}`))
    child.on('close', (status, signal) =>
      gone(signal === null ? `ended with status ${status}` : `was ended by ${signal}`),
    )
  })
}

function parseReport(text: string, start: BackgroundStart): Report {
  try {
    const report: unknown = JSON.parse(text.split('\n')[0] ?? '')
    if (typeof report === 'object' && report !== null && 'ready' in report) return report as Report
  } catch {
    // falls through: the child wrote something else
  }
  return {
    ready: false,
    code: 'MOUNT_FAILED',
    message: 'the mount process said nothing useful',
    next: `look into ${start.logFile}`,
  }
}

/** In the child: tells the parent, if there is one waiting. Once. */
export function reportReady(error?: unknown): void {
  const descriptor = Number(process.env[READY_VARIABLE] ?? Number.NaN)
  if (!Number.isInteger(descriptor)) return
  delete process.env[READY_VARIABLE]
  try {
    writeSync(descriptor, `${JSON.stringify(error === undefined ? { ready: true } : describe(error))}\n`)
    closeSync(descriptor)
  } catch {
    // The parent gave up waiting: the log tells what happened.
  }
}

function describe(error: unknown): Report {
  const message = error instanceof Error ? error.message : String(error)
  const next = error instanceof CairnError ? error.next : undefined
  return { ready: false, code: codeOf(error), message, ...(next === undefined ? {} : { next }) }
}
