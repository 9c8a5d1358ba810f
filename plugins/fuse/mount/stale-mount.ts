/**
 * A mount whose client died ("Transport endpoint is not connected") is removed before a new one takes
 * its place. Its watcher is stopped first: device numbers are used again at once, so a late watcher
 * could take the new mount for the dead one.
 */
import { readFile, stat } from 'node:fs/promises'
import { resolve } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { codeOf } from '../protocol/errno.ts'
import { readRecord, removeRecord } from './runtime-record.ts'
import { FILE_SYSTEM_TYPE, findMount, mountError, systemUnmount } from './system-mount.ts'
import type { MountLogger } from '../protocol/types.ts'

/** Layers of dead mounts on one directory that are removed before giving up. */
const LAYERS_MAX = 16
const ANSWER_DEADLINE_MS = 5000

/** Throws EBUSY when a living Cairn mount is there already. */
export async function removeStaleMount(given: string, log: MountLogger): Promise<void> {
  const directory = resolve(given)
  for (let layer = 0; layer < LAYERS_MAX; layer++) {
    const entry = await findMount(directory)
    if (entry?.type !== FILE_SYSTEM_TYPE) return
    if (!(await isDisconnected(directory))) {
      throw mountError(
        'EBUSY',
        `${directory} is mounted already (${entry.source})`,
        `run: cairn umount ${directory}`,
      )
    }
    const record = await readRecord(entry)
    if (record !== undefined) await stopWatcher(record.watcherProcess)
    log.warn('removing a mount whose client died', { directory })
    await systemUnmount(directory, 'lazy')
    await removeRecord(entry)
  }
}

/** A mount that does not answer in time is not dead: its cluster may be away. */
async function isDisconnected(directory: string): Promise<boolean> {
  try {
    await Promise.race([stat(directory), delay(ANSWER_DEADLINE_MS, undefined, { ref: false })])
    return false
  } catch (error) {
    return codeOf(error) === 'ENOTCONN' || codeOf(error) === 'ECONNABORTED'
  }
}

async function stopWatcher(processId: number): Promise<void> {
  if (processId <= 1) return
  try {
    const commandLine = await readFile(`/proc/${processId}/cmdline`, 'utf8')
    if (commandLine.includes('cairn-mount-watcher')) process.kill(processId, 'SIGKILL')
  } catch {
    // It is gone already: what it had to do is done.
  }
}
