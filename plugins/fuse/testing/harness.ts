/**
 * For tests: mounts the in-memory client in a process of its own, runs programs on it, cleans up. The
 * test's own process may use the mount synchronously, because another process answers.
 */
import { type ChildProcess, execFile, spawn } from 'node:child_process'
import { mkdtempSync, rmdirSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

const PROGRAM_DEADLINE_MS = 60_000
const READY_DEADLINE_MS = 30_000

export interface MountedProcess {
  readonly directory: string
  readonly child: ChildProcess
  /** What the serving process logged. */
  log(): string
  stop(): Promise<void>
}

export function makeDirectory(): string {
  return mkdtempSync(join(tmpdir(), 'cairn-fuse-'))
}

/** Resolves when `child` has ended, with its status or signal. */
export function ended(child: ChildProcess): Promise<number | string> {
  if (child.exitCode !== null) return Promise.resolve(child.exitCode)
  if (child.signalCode !== null) return Promise.resolve(child.signalCode)
  return new Promise((resolve) => child.once('exit', (code, signal) => resolve(code ?? signal ?? -1)))
}

export async function mountMemory(directory = makeDirectory()): Promise<MountedProcess> {
  const child = spawn(process.execPath, [join(import.meta.dirname, 'mount-main.ts'), directory], {
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  let log = ''
  child.stderr.on('data', (data: Buffer) => {
    log += data.toString('utf8')
  })
  await new Promise<void>((resolve, reject) => {
    const fail = () => reject(new Error(`the memory client was not mounted: ${log}`))
    const deadline = setTimeout(fail, READY_DEADLINE_MS)
    child.once('exit', fail)
    child.stdout.once('data', () => {
      clearTimeout(deadline)
      child.off('exit', fail)
      resolve()
    })
  })
  return {
    directory,
    child,
    log: () => log,
    async stop() {
      if (child.exitCode === null && child.signalCode === null) child.kill('SIGTERM')
      await ended(child)
      rmdirSync(directory)
    },
  }
}

export interface ProgramResult {
  readonly status: number
  readonly output: string
}

/**
 * Runs a program; never rejects for its exit status. It starts in "/": a spawn waits, synchronously, until
 * the child has changed its directory, so a directory that this very process serves would be a deadlock.
 */
export function program(command: string, parameters: readonly string[]): Promise<ProgramResult> {
  return new Promise((resolve) => {
    const options = {
      timeout: PROGRAM_DEADLINE_MS,
      maxBuffer: 16 * 1024 * 1024,
      env: { ...process.env, LC_ALL: 'C' },
      cwd: '/',
    }
    execFile(command, [...parameters], options, (error, stdout, stderr) => {
      const status = error === null ? 0 : typeof error.code === 'number' ? error.code : -1
      resolve({ status, output: `${stdout}${stderr}`.trim() })
    })
  })
}

/** A shell script with `set -eu`; throws with its output when it fails. */
export async function shell(script: string, cwd: string): Promise<string> {
  const { status, output } = await program('/bin/sh', ['-euc', `cd '${cwd}'\n${script}`])
  if (status !== 0) throw new Error(`script ended with status ${status}: ${output}\n${script}`)
  return output
}

/** Waits for a condition; throws with `what` at the deadline. */
export async function until(what: string, condition: () => boolean | Promise<boolean>, deadlineMs = 20_000) {
  const endMs = performance.now() + deadlineMs
  while (!(await condition())) {
    if (performance.now() > endMs) throw new Error(`timed out waiting until ${what}`)
    await new Promise((resolve) => setTimeout(resolve, 10))
  }
}
