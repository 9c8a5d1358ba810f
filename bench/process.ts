/** Running other programs: to the end, or in the background until stopped. */
import { type ChildProcess, spawn } from 'node:child_process'
import fs from 'node:fs'
import { setTimeout as pause } from 'node:timers/promises'

export interface RunOptions {
  readonly timeoutMs?: number
  /** Statuses other than 0 that are fine. */
  readonly accept?: readonly number[]
}

/** Standard output of a command. Rejects with its standard error when it fails. */
export function run(
  command: string,
  parameters: readonly string[],
  options: RunOptions = {},
): Promise<string> {
  return new Promise((resolve, reject) => {
    const child = spawn(command, parameters, {
      stdio: ['ignore', 'pipe', 'pipe'],
      timeout: options.timeoutMs ?? 600_000,
    })
    let output = ''
    let errors = ''
    child.stdout.on('data', (data) => {
      output += String(data)
    })
    child.stderr.on('data', (data) => {
      errors += String(data)
    })
    child.once('error', (error) => reject(new Error(`${command}: ${error.message}`)))
    child.once('close', (status, signal) => {
      if (status === 0 || (status !== null && options.accept?.includes(status))) resolve(output)
      else
        reject(
          new Error(
            `${command} ${parameters.join(' ')}: ${signal ?? `status ${status}`}\n${(errors || output).slice(-2000)}`,
          ),
        )
    })
  })
}

/** User and system time so far of the process whose command line names `words`, and of all it started, in ms. */
export function processorMs(words: readonly string[]): number {
  const processes = fs
    .readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name))
    .flatMap((name) => readProcess(Number(name)) ?? [])
  const isMeant = ({ command }: { command: string }) => words.every((word) => command.includes(word))
  const tree = new Set(processes.filter(isMeant).map(({ pid }) => pid))
  for (let size = 0; size < tree.size; ) {
    size = tree.size
    for (const { pid, parent } of processes) if (tree.has(parent)) tree.add(pid)
  }
  return processes.filter(({ pid }) => tree.has(pid)).reduce((sum, { usedMs }) => sum + usedMs, 0)
}

/** Null: it has ended meanwhile. */
function readProcess(pid: number): { pid: number; parent: number; command: string; usedMs: number } | null {
  try {
    const command = fs.readFileSync(`/proc/${pid}/cmdline`, 'utf8').replaceAll('\0', ' ')
    const stat = fs.readFileSync(`/proc/${pid}/stat`, 'utf8')
    // The name in parentheses may contain anything. Behind it field 4 is the parent; 14 and 15 are user and system
    // time in hundredths of a second.
    const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ')
    return { pid, parent: Number(fields[1]), command, usedMs: (Number(fields[11]) + Number(fields[12])) * 10 }
  } catch {
    return null
  }
}

/** Starts a daemon with its output in a file. */
export function spawnDaemon(command: string, parameters: readonly string[], logFile: string): ChildProcess {
  const log = fs.openSync(logFile, 'a')
  const child = spawn(command, parameters, { stdio: ['ignore', log, log], detached: true })
  fs.closeSync(log)
  return child
}

export async function stopDaemon(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return
  const gone = new Promise((resolve) => child.once('exit', resolve))
  child.kill('SIGTERM')
  const killer = setTimeout(() => child.kill('SIGKILL'), 10_000)
  await gone
  clearTimeout(killer)
}

export async function waitFor(
  what: string,
  timeoutMs: number,
  check: () => boolean | Promise<boolean>,
): Promise<void> {
  const endMs = performance.now() + timeoutMs
  while (!(await check())) {
    if (performance.now() > endMs) throw new Error(`${what}: not within ${timeoutMs / 1000} s`)
    await pause(100)
  }
}
