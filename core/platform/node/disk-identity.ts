/**
 * What tells a process crash from a host crash (rule B2): the kernel's boot id, the disk sequence number
 * of the block device (new whenever a medium or loop file is attached) and the mount instance. Mount ids
 * are reused by the kernel, so the instance is the inode number of the file system's directory in sysfs,
 * which is made anew with every mount, plus the errors that the kernel recorded: those of the file system, and
 * those of the disk where its driver counts them. What cannot be told reads as a value that never repeats: it
 * counts as a host crash. A write-back error that nobody counts is seen by the first sync, or by nobody.
 */
import { randomBytes } from 'node:crypto'
import { readFileSync, realpathSync, statSync } from 'node:fs'
import { basename, dirname } from 'node:path'
import type { DiskIdentity } from '../disk.ts'

interface Mount {
  readonly id: string
  readonly device: string
  readonly mountPoint: string
  readonly type: string
  readonly source: string
}

/** `system`: where /proc and /sys are, for tests. */
export function diskIdentity(root: string, system = ''): DiskIdentity {
  const mount = mountOf(root, system)
  const device = mount === null ? null : blockDeviceOf(mount, system)
  return {
    bootId: readText(`${system}/proc/sys/kernel/random/boot_id`) ?? never(),
    deviceSequence: deviceSequenceOf(mount, device),
    mountInstance: mountInstanceOf(mount, device, system),
  }
}

function never(): string {
  return `unknown-${randomBytes(8).toString('hex')}`
}

/** File systems in memory: gone with their mount, nothing to tell apart. */
function isMemory(mount: Mount): boolean {
  return mount.type === 'tmpfs' || mount.type === 'ramfs'
}

function deviceSequenceOf(mount: Mount | null, device: string | null): string {
  if (mount === null) return never()
  if (isMemory(mount)) return 'memory'
  if (device === null) return never()
  // a partition has the number of its disk
  const sequence = readText(`${device}/diskseq`) ?? readText(`${dirname(device)}/diskseq`)
  return sequence === null ? never() : `${basename(device)}:${sequence}`
}

function mountInstanceOf(mount: Mount | null, device: string | null, system: string): string {
  if (mount === null) return never()
  if (isMemory(mount)) return `${mount.type}:${mount.device}:${mount.id}`
  if (device === null) return never()
  const directory = `${system}/sys/fs/${mount.type}/${basename(device)}`
  try {
    const instance = statSync(directory, { bigint: true }).ino
    const errors = fileSystemErrorsOf(mount, directory)
    return errors === null ? never() : `${mount.type}:${instance}:${errors}:${deviceErrorsOf(device)}`
  } catch {
    return never()
  }
}

/**
 * ext4 counts the errors it met, also those after which it went on. XFS counts none: after an error of its own it
 * is shut down, until it is mounted anew. Of others nobody knows: null.
 */
function fileSystemErrorsOf(mount: Mount, directory: string): string | null {
  if (mount.type === 'xfs') return '0'
  return mount.type === 'ext4' ? readText(`${directory}/errors_count`) : null
}

/** Commands that a SCSI or SATA disk has failed. Other drivers do not count them. */
function deviceErrorsOf(device: string): string {
  return readText(`${device}/device/ioerr_cnt`) ?? readText(`${dirname(device)}/device/ioerr_cnt`) ?? '-'
}

/** The sysfs directory of the block device, or null. */
function blockDeviceOf(mount: Mount, system: string): string | null {
  for (const number of [mount.device, numberOfSource(mount.source)]) {
    if (number === null || number.startsWith('0:')) continue
    try {
      return realpathSync(`${system}/sys/dev/block/${number}`)
    } catch {
      // no sysfs: unknown
    }
  }
  return null
}

function numberOfSource(source: string): string | null {
  if (!source.startsWith('/dev/')) return null
  try {
    const number = statSync(source).rdev
    return `${(number >> 8) & 0xfff}:${(number & 0xff) | ((number >> 12) & 0xfff00)}`
  } catch {
    return null
  }
}

/** The mount that `root` (a real path) lies on: the last one with the longest mount point. */
function mountOf(root: string, system: string): Mount | null {
  const table = readText(`${system}/proc/self/mountinfo`)
  if (table === null) return null
  let best: Mount | null = null
  for (const line of table.split('\n')) {
    const mount = parseMount(line)
    if (mount === null) continue
    const point = mount.mountPoint
    const contains = point === '/' || root === point || root.startsWith(`${point}/`)
    if (contains && (best === null || point.length >= best.mountPoint.length)) best = mount
  }
  return best
}

/** id parent major:minor root mountPoint options [optional…] - type source superOptions */
function parseMount(line: string): Mount | null {
  const fields = line.split(' ')
  const separator = fields.indexOf('-')
  const [id, , device, , mountPoint] = fields
  const type = fields[separator + 1]
  const source = fields[separator + 2]
  if (separator < 0 || id === undefined || device === undefined || mountPoint === undefined) return null
  if (type === undefined || source === undefined) return null
  return { id, device, mountPoint: unescaped(mountPoint), type, source: unescaped(source) }
}

/** Space, tab, newline and backslash are octal escapes there. */
function unescaped(text: string): string {
  return text.replace(/\\([0-7]{3})/g, (_, octal: string) => String.fromCharCode(Number.parseInt(octal, 8)))
}

function readText(path: string): string | null {
  try {
    return readFileSync(path, 'utf8').trim()
  } catch {
    return null
  }
}
