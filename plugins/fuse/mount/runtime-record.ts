/**
 * /run/cairn/mounts: which process serves a mount and which one watches it, so that `cairn umount` can
 * wait until the first has given everything back, and a new mount can take the place of a dead one
 * without racing its watcher. A help, not a truth: a missing or old record costs only a wait.
 */
import { mkdir, readFile, rm, writeFile } from 'node:fs/promises'
import { codeOf } from '../protocol/errno.ts'
import type { MountEntry } from './system-mount.ts'
import type { MountLogger } from '../protocol/types.ts'

const DIRECTORY = '/run/cairn/mounts'

export interface MountRecord {
  readonly servingProcess: number
  readonly watcherProcess: number
}

function pathOf(entry: MountEntry): string {
  return `${DIRECTORY}/${entry.device.replace(':', '-')}`
}

export async function recordMount(
  entry: MountEntry,
  watcherProcess: number,
  log: MountLogger,
): Promise<void> {
  try {
    await mkdir(DIRECTORY, { recursive: true, mode: 0o755 })
    await writeFile(pathOf(entry), `${process.pid} ${watcherProcess}\n`)
  } catch (error) {
    log.debug('the mount could not be recorded', { code: codeOf(error) })
  }
}

export async function removeRecord(entry: MountEntry): Promise<void> {
  await rm(pathOf(entry), { force: true })
}

export async function readRecord(entry: MountEntry): Promise<MountRecord | undefined> {
  try {
    const [serving, watcher] = (await readFile(pathOf(entry), 'utf8')).trim().split(' ').map(Number)
    if (!Number.isInteger(serving) || !Number.isInteger(watcher)) return undefined
    return { servingProcess: serving ?? 0, watcherProcess: watcher ?? 0 }
  } catch {
    return undefined // no record: an older version, or /run is not writable
  }
}

export function isAlive(processId: number): boolean {
  if (processId <= 1) return false
  try {
    process.kill(processId, 0)
    return true
  } catch {
    return false
  }
}
