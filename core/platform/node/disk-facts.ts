/**
 * Facts about the disk below a directory, from /proc and /sys: what make-cs decides its warnings on.
 * What cannot be found out reads as harmless: a warning is only worth something when it is true.
 */
import { readdirSync, readFileSync, realpathSync, statfsSync, statSync } from 'node:fs'
import { basename, dirname } from 'node:path'

const SECTOR_BYTES = 512
const DEVICE_DEPTH_MAX = 8

export interface NodeDiskFacts {
  readonly device: string
  readonly fileSystem: string
  readonly partitionStartBytes: number | null
  readonly isSystemDisk: boolean
  readonly holdsSwap: boolean
  readonly isMemory: boolean
  readonly totalBytes: number
  readonly freeBytes: number
}

/** `directory` need not exist: the nearest one above it that does is looked at. */
export function gatherDiskFacts(directory: string): NodeDiskFacts {
  const existing = nearestExisting(directory)
  const space = statfsSync(existing)
  const mount = mountOf(existing)
  const device = mount === null ? null : sysfsOf(mount.device)
  const disks = device === null ? new Set<string>() : wholeDisksOf(device)
  return {
    device: device === null ? '' : basename(device),
    fileSystem: mount?.type ?? '',
    partitionStartBytes: device === null ? null : partitionStartOf(device),
    isSystemDisk: sharesDisk(disks, systemDevices()),
    holdsSwap: sharesDisk(disks, swapDevices()),
    isMemory: mount?.type === 'tmpfs' || mount?.type === 'ramfs',
    totalBytes: space.blocks * space.bsize,
    freeBytes: space.bavail * space.bsize,
  }
}

function nearestExisting(directory: string): string {
  for (let path = directory; ; path = dirname(path)) {
    try {
      return realpathSync(path)
    } catch (error) {
      if (path === dirname(path)) throw error
    }
  }
}

interface Mount {
  /** 'major:minor'. */
  readonly device: string
  readonly mountPoint: string
  readonly type: string
}

function mounts(): Mount[] {
  const found: Mount[] = []
  for (const line of (readText('/proc/self/mountinfo') ?? '').split('\n')) {
    const [before, after] = line.split(' - ')
    const fields = before?.split(' ') ?? []
    const device = fields[2]
    const mountPoint = fields[4]
    const type = after?.split(' ')[0]
    if (device === undefined || mountPoint === undefined || type === undefined) continue
    found.push({ device, mountPoint: unescapeOctal(mountPoint), type })
  }
  return found
}

/** The last mount whose mount point is the longest prefix: later ones cover earlier ones. */
function mountOf(path: string): Mount | null {
  let best: Mount | null = null
  for (const mount of mounts()) {
    const { mountPoint } = mount
    const below = mountPoint === '/' || path === mountPoint || path.startsWith(`${mountPoint}/`)
    if (below && mountPoint.length >= (best?.mountPoint.length ?? 0)) best = mount
  }
  return best
}

function unescapeOctal(text: string): string {
  return text.replaceAll(/\\(\d{3})/g, (_, digits: string) => String.fromCharCode(Number.parseInt(digits, 8)))
}

/** /sys/devices/…/sdb/sdb1, or null for file systems without a block device. */
function sysfsOf(majorMinor: string): string | null {
  try {
    return realpathSync(`/sys/dev/block/${majorMinor}`)
  } catch {
    return null
  }
}

function partitionStartOf(device: string): number | null {
  if (readText(`${device}/partition`) === null) return null
  const start = Number(readText(`${device}/start`) ?? 'NaN')
  return Number.isSafeInteger(start) ? start * SECTOR_BYTES : null
}

/** The disks a partition, RAID or device-mapper volume lies on. */
function wholeDisksOf(device: string, depth = 0): Set<string> {
  const disks = new Set<string>()
  if (depth > DEVICE_DEPTH_MAX) return disks
  const whole = readText(`${device}/partition`) === null ? device : dirname(device)
  const below = listOrEmpty(`${whole}/slaves`)
  if (below.length === 0) disks.add(whole)
  for (const name of below) {
    for (const disk of wholeDisksOf(realpathSync(`${whole}/slaves/${name}`), depth + 1)) disks.add(disk)
  }
  return disks
}

function systemDevices(): string[] {
  const found: string[] = []
  for (const { mountPoint, device } of mounts()) {
    if (mountPoint !== '/' && mountPoint !== '/boot' && mountPoint !== '/usr') continue
    const path = sysfsOf(device)
    if (path !== null) found.push(path)
  }
  return found
}

function swapDevices(): string[] {
  const found: string[] = []
  for (const line of (readText('/proc/swaps') ?? '').split('\n').slice(1)) {
    const [name, type] = line.split(/\s+/)
    if (name === undefined || name === '' || type === undefined) continue
    const path = type === 'partition' ? deviceOf(name) : sysfsOf(mountOf(unescapeOctal(name))?.device ?? '')
    if (path !== null) found.push(path)
  }
  return found
}

function deviceOf(node: string): string | null {
  try {
    const { rdev } = statSync(node)
    // Linux: 12 bits of major above 8 low bits of minor, the rest of the minor above that
    const major = (rdev >> 8) & 0xfff
    const minor = (rdev & 0xff) | ((rdev >> 12) & 0xfff00)
    return sysfsOf(`${major}:${minor}`)
  } catch {
    return null
  }
}

function sharesDisk(disks: ReadonlySet<string>, devices: readonly string[]): boolean {
  return devices.some((device) => [...wholeDisksOf(device)].some((disk) => disks.has(disk)))
}

function listOrEmpty(path: string): string[] {
  try {
    return readdirSync(path)
  } catch {
    return []
  }
}

function readText(path: string): string | null {
  try {
    return readFileSync(path, 'utf8').trim()
  } catch {
    return null
  }
}
