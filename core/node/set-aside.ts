/** A directory that is replaced is kept beside its place under another name: nothing of it is deleted. */
import fs from 'node:fs'
import path from 'node:path'
import { CairnError, codeOf } from '../base/errors.ts'
import { nodeClock } from '../platform/node/platform.ts'
import { LOCK_NAME } from './repository-lock.ts'

/** The caller holds its lock, which ends with this. Returns the new name. Throws REFUSED for a mount point. */
export function setAside(repository: string, why: string): string {
  const stamp = new Date(nodeClock.wall().seconds * 1000).toISOString().replace(/[-:]|\.\d+/g, '')
  let aside = `${repository}.${why}-${stamp}`
  for (let count = 2; fs.existsSync(aside); count++) aside = `${repository}.${why}-${stamp}-${count}`
  try {
    fs.renameSync(repository, aside)
  } catch (error) {
    throw new CairnError('REFUSED', `${repository} cannot be renamed to ${aside}: ${codeOf(error)}`, {
      next: 'when it is a mount point: move what is in it into a directory below, and name that one with -r',
      cause: error,
    })
  }
  fs.rmSync(path.join(aside, LOCK_NAME), { force: true })
  syncDirectory(path.dirname(aside))
  return aside
}

export function syncDirectory(directory: string): void {
  const handle = fs.openSync(path.resolve(directory), 'r')
  fs.fsyncSync(handle)
  fs.closeSync(handle)
}
