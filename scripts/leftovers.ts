// What a test file left behind: processes and mounts. Every process a test file starts inherits a marker in
// its environment, so that even one in a session of its own (`cairn up --detach`) is found. Linux only: it
// reads /proc. Used by scripts/test.ts; it kills and unmounts, it does not judge.

import { spawnSync } from 'node:child_process'
import { readdirSync, readFileSync } from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'

export const markerVariable = 'CAIRN_TEST_FILE_MARKER'

// A process that was told to end may need a moment for it.
const graceMs = 3000
const pollIntervalMs = 50

export interface Leftover {
  processId: number
  command: string
}

function readProcessFile(processId: number, name: string): string {
  try {
    return readFileSync(`/proc/${processId}/${name}`, 'latin1')
  } catch {
    return '' // it ended, or belongs to somebody else
  }
}

function isZombie(processId: number): boolean {
  const status = readProcessFile(processId, 'stat')
  // The state follows the command's name, which stands in brackets and may contain anything.
  return status === '' || status.slice(status.lastIndexOf(')') + 2).startsWith('Z')
}

export function findProcesses(marker: string): Leftover[] {
  return readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name))
    .map(Number)
    .filter(
      (processId) =>
        processId !== process.pid &&
        readProcessFile(processId, 'environ').split('\0').includes(`${markerVariable}=${marker}`) &&
        !isZombie(processId),
    )
    .map((processId) => ({
      processId,
      command: readProcessFile(processId, 'cmdline').replaceAll('\0', ' ').trim().slice(0, 120),
    }))
}

export function killProcesses(marker: string): void {
  for (const { processId } of findProcesses(marker)) {
    try {
      process.kill(processId, 'SIGKILL')
    } catch {
      // it ended by itself in between
    }
  }
}

/** Waits for the marked processes to end by themselves; those that do not are killed and returned. */
export async function collectProcesses(marker: string): Promise<Leftover[]> {
  let leftovers = findProcesses(marker)
  for (let waitedMs = 0; leftovers.length > 0 && waitedMs < graceMs; waitedMs += pollIntervalMs) {
    await sleep(pollIntervalMs)
    leftovers = findProcesses(marker)
  }
  if (leftovers.length > 0) killProcesses(marker)
  return leftovers
}

/** Unmounts whatever is mounted below `directory`, and returns it. Mounts of others are none of its business. */
export function collectMounts(directory: string): string[] {
  const mounts = readFileSync('/proc/self/mounts', 'utf8')
    .split('\n')
    .map((line) => (line.split(' ')[1] ?? '').replaceAll('\\040', ' '))
    .filter((mountPoint) => mountPoint.startsWith(`${directory}/`))
  for (const mountPoint of mounts.toReversed()) spawnSync('umount', ['-l', mountPoint])
  return mounts
}
