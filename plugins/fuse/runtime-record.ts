/**
 * /run/cairn/mounts: which process serves which mount, so that `cairn umount` can wait until that
 * process has given everything back. A help, not a truth: a missing or old record costs only that wait.
 */
import { mkdir, readFile, rm, writeFile } from 'node:fs/promises'
import { codeOf } from './errno.ts'
import type { MountEntry } from './system-mount.ts'
import type { MountLogger } from './types.ts'

const DIRECTORY = '/run/cairn/mounts'

function pathOf(entry: MountEntry): string {
  return `${DIRECTORY}/${entry.device.replace(':', '-')}`
}

export async function recordMount(entry: MountEntry, log: MountLogger): Promise<void> {
  try {
    await mkdir(DIRECTORY, { recursive: true, mode: 0o755 })
    await writeFile(pathOf(entry), `${process.pid}\n`)
  } catch (error) {
    log.debug('the mount could not be recorded', { code: codeOf(error) })
  }
}

export async function removeRecord(entry: MountEntry): Promise<void> {
  await rm(pathOf(entry), { force: true })
}

/** The process that serves a mount, when it is known and alive. */
export async function servingProcess(entry: MountEntry): Promise<number | undefined> {
  try {
    const processId = Number((await readFile(pathOf(entry), 'utf8')).trim())
    if (!Number.isInteger(processId) || processId <= 1) return undefined
    process.kill(processId, 0)
    return processId
  } catch {
    return undefined // no record, or nobody there any more
  }
}
