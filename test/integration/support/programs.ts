/** Programs that tests start, conditions they wait for, and what Linux says of processes and mounts. */
import { spawn } from 'node:child_process'
import fs from 'node:fs'
import { setTimeout as pause } from 'node:timers/promises'

/** Only against hanging: a busy machine may need minutes for what an idle one does in seconds. */
const PROGRAM_TIMEOUT_MS = 240_000

export interface Finished {
  readonly status: number | null
  readonly stdout: string
  readonly stderr: string
}

/** Runs a program to its end, whatever its status. */
export function runProgram(
  command: string,
  parameters: readonly string[],
  options: {
    readonly cwd?: string
    readonly input?: string
    readonly timeoutMs?: number
    readonly env?: Record<string, string>
  } = {},
): Promise<Finished> {
  return new Promise((resolve, reject) => {
    const child = spawn(command, parameters, {
      stdio: ['pipe', 'pipe', 'pipe'],
      timeout: options.timeoutMs ?? PROGRAM_TIMEOUT_MS,
      ...(options.cwd === undefined ? {} : { cwd: options.cwd }),
      env: { ...process.env, ...options.env },
    })
    let stdout = ''
    let stderr = ''
    child.stdout.on('data', (data) => {
      stdout += String(data)
    })
    child.stderr.on('data', (data) => {
      stderr += String(data)
    })
    child.once('error', reject)
    child.once('close', (status, signal) => {
      resolve({ status, stdout, stderr: signal === null ? stderr : `${stderr}\n(ended by ${signal})` })
    })
    // A program that ends without reading its input is no error of ours.
    child.stdin.on('error', () => {})
    child.stdin.end(options.input ?? '')
  })
}

/** Runs a program that must succeed; returns its standard output. */
export async function must(
  command: string,
  parameters: readonly string[],
  options: Parameters<typeof runProgram>[2] = {},
): Promise<string> {
  const finished = await runProgram(command, parameters, options)
  if (finished.status !== 0) {
    throw new Error(
      `${command} ${parameters.join(' ')}: status ${finished.status}\n${finished.stdout.slice(-2000)}\n${finished.stderr.slice(-4000)}`,
    )
  }
  return finished.stdout
}

/** Waits for a condition with a deadline; says what it waited for, and what was last seen. */
export async function until(
  what: string,
  check: () => Promise<boolean | string> | boolean | string,
  timeoutMs = 60_000,
): Promise<void> {
  const endMs = performance.now() + timeoutMs
  let last = ''
  for (;;) {
    const seen = await check()
    if (seen === true) return
    if (typeof seen === 'string') last = seen
    if (performance.now() > endMs)
      throw new Error(`${what}: not within ${timeoutMs / 1000} s${last === '' ? '' : ` (last: ${last})`}`)
    await pause(100)
  }
}

export function isAlive(pid: number): boolean {
  try {
    // A zombie is gone for our purposes.
    return !/^State:\s+Z/m.test(fs.readFileSync(`/proc/${pid}/status`, 'utf8'))
  } catch {
    return false
  }
}

/** Is anything mounted exactly there? Never asks the mount itself. */
export function isMounted(directory: string): boolean {
  return fs
    .readFileSync('/proc/self/mounts', 'utf8')
    .split('\n')
    .some((line) => line.split(' ')[1] === directory.replaceAll(' ', '\\040'))
}
