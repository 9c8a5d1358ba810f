/**
 * One process a repository. The lock names its holder by process id, start time and boot, so that a lock
 * left by a crash or an earlier boot is recognised as stale. Node has no flock; the file is created
 * exclusively, and a stale one is replaced by rename, which only one contender wins.
 */
import fs from 'node:fs'
import path from 'node:path'
import { CairnError } from '../base/errors.ts'
import { isMissing } from '../cli/etc.ts'

export const LOCK_NAME = 'lock'
const ATTEMPTS_MAX = 5

export interface RepositoryLock {
  release(): void
}

/** Throws REFUSED when another live process holds it. */
export function lockRepository(repository: string): RepositoryLock {
  const file = path.join(repository, LOCK_NAME)
  const mine = identityOf(process.pid) ?? `${process.pid} 0 0`
  for (let attempt = 0; attempt < ATTEMPTS_MAX; attempt++) {
    try {
      fs.writeFileSync(file, `${mine}\n`, { flag: 'wx', mode: 0o600 })
      return { release: () => release(file) }
    } catch (error) {
      if (!(error instanceof Error && 'code' in error && error.code === 'EEXIST')) throw error
    }
    const holder = holderOf(file)
    if (holder !== null && holder === identityOf(Number(holder.split(' ')[0]))) {
      throw new CairnError('REFUSED', `${repository} is in use by process ${holder.split(' ')[0]}`, {
        next: 'stop that process first',
      })
    }
    const stale = `${file}.stale.${process.pid}`
    try {
      fs.renameSync(file, stale)
      fs.rmSync(stale, { force: true })
    } catch (error) {
      if (!isMissing(error)) throw error
    }
  }
  throw new CairnError('REFUSED', `${repository} is being taken by several processes at once`, {
    next: 'start only one',
  })
}

/** On a disk that does not answer it stays: its holder is gone then, and it counts as stale. */
function release(file: string): void {
  try {
    fs.rmSync(file, { force: true })
  } catch (error) {
    if (!(error instanceof Error && 'syscall' in error)) throw error
  }
}

function holderOf(file: string): string | null {
  try {
    return fs.readFileSync(file, 'utf8').trim()
  } catch (error) {
    if (isMissing(error)) return null
    throw error
  }
}

/**
 * "PID STARTTIME BOOTID"; null when there is no such process (proc(5): field 3 is its state, field 22 the start
 * time). One that has ended and that nobody has waited for holds nothing any more.
 */
function identityOf(pid: number): string | null {
  try {
    const stat = fs.readFileSync(`/proc/${pid}/stat`, 'utf8')
    const [state, ...others] = stat.slice(stat.lastIndexOf(')') + 2).split(' ')
    if (state === 'Z' || state === 'X') return null
    const started = others[18] ?? '0'
    const boot = fs.readFileSync('/proc/sys/kernel/random/boot_id', 'utf8').trim()
    return `${pid} ${started} ${boot}`
  } catch (error) {
    if (isMissing(error)) return null
    throw error
  }
}
