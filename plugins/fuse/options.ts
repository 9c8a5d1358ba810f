/**
 * Options of a mount: the comma list of `mount -o` and /etc/fstab, checked before anything starts.
 * Unknown options are refused by name. Generic ones go to the kernel, `hold_timeout`, `prefer_cs`
 * and the cache times to us; what only fstab and systemd understand (_netdev, nofail, x-…) is accepted and dropped.
 */
import { CairnError } from '@cairn/core/plugin'

/** As the command line spells them: every flag has its opposite. */
const GENERIC_FLAGS = new Set([
  'ro',
  'rw',
  'suid',
  'nosuid',
  'dev',
  'nodev',
  'exec',
  'noexec',
  'sync',
  'async',
  'dirsync',
  'atime',
  'noatime',
  'nodiratime',
  'relatime',
])
/** allow_other and default_permissions are always on: the kernel checks POSIX permissions for everybody. */
const IGNORED = new Set([
  'allow_other',
  'default_permissions',
  'defaults',
  '_netdev',
  'auto',
  'noauto',
  'nofail',
  'user',
  'nouser',
  'users',
  'group',
])
const NAME_PATTERN = /^[A-Za-z0-9_-]+$/
const SECONDS_MAX = 365 * 24 * 3600

export const CACHE_TIMEOUT_MS_DEFAULT = 1000

export interface MountSettings {
  /** Flags for the kernel, as given. */
  readonly flags: readonly string[]
  readonly readOnly: boolean
  /** Held operations fail after this long; 0: never. For `ConnectOptions.holdTimeoutMs`. */
  readonly holdTimeoutMs: number
  /** Wait for space instead of answering ENOSPC (the guide's behaviour). */
  readonly holdOnNoSpace: boolean
  /** Chunk server whose replicas are read first; 0: none. For `ConnectOptions.preferredServer`. */
  readonly preferredServer: number
  readonly entryTimeoutMs: number
  readonly attributesTimeoutMs: number
  /** Names known not to exist; 0 asks every time, since nobody announces the creation of a name nobody holds. */
  readonly negativeTimeoutMs: number
}

export const defaultSettings: MountSettings = {
  flags: ['nosuid', 'nodev'],
  readOnly: false,
  holdTimeoutMs: 0,
  holdOnNoSpace: false,
  preferredServer: 0,
  entryTimeoutMs: CACHE_TIMEOUT_MS_DEFAULT,
  attributesTimeoutMs: CACHE_TIMEOUT_MS_DEFAULT,
  negativeTimeoutMs: 0,
}

function optionError(message: string): CairnError {
  return new CairnError('USAGE', message, { next: 'see: cairn mount --help' })
}

function seconds(name: string, value: string | undefined): number {
  if (value === undefined || !/^\d+(\.\d{1,3})?$/.test(value) || Number(value) > SECONDS_MAX) {
    throw optionError(`mount option ${name} needs a number of seconds, like ${name}=30`)
  }
  return Math.round(Number(value) * 1000)
}

function serverId(name: string, value: string | undefined): number {
  if (value === undefined || !/^[1-9]\d{0,8}$/.test(value)) {
    throw optionError(`mount option ${name} needs the id of a chunk server, like ${name}=1025`)
  }
  return Number(value)
}

/** Later options win. Throws USAGE. */
export function parseMountOptions(
  lists: readonly string[],
  base: MountSettings = { ...defaultSettings, flags: [] },
): MountSettings {
  const flags: string[] = [...base.flags]
  const settings = { ...base }
  for (const option of lists.join(',').split(',')) {
    if (option === '') continue
    const equals = option.indexOf('=')
    const name = equals < 0 ? option : option.slice(0, equals)
    const value = equals < 0 ? undefined : option.slice(equals + 1)
    if (IGNORED.has(name) || name.startsWith('x-') || name === 'comment') continue
    if (name === 'hold_timeout') settings.holdTimeoutMs = seconds(name, value)
    else if (name === 'prefer_cs') settings.preferredServer = serverId(name, value)
    else if (name === 'entry_timeout') settings.entryTimeoutMs = seconds(name, value)
    else if (name === 'attr_timeout') settings.attributesTimeoutMs = seconds(name, value)
    else if (name === 'negative_timeout') settings.negativeTimeoutMs = seconds(name, value)
    else if (value !== undefined) throw optionError(`mount option ${name} takes no value, or is not known`)
    else if (GENERIC_FLAGS.has(name)) flags.push(name)
    else throw optionError(`mount option ${name} is not known`)
  }
  const readOnly = flags.lastIndexOf('ro') > flags.lastIndexOf('rw')
  return { ...settings, flags, readOnly }
}

/** "cairn://NAME" (as in fstab) or "NAME" to NAME. */
export function parseSource(source: string): string {
  const name = source.startsWith('cairn://') ? source.slice('cairn://'.length).replace(/\/$/, '') : source
  if (!NAME_PATTERN.test(name)) {
    throw optionError(`"${source}" is not a cluster: expected cairn://NAME with letters, digits, - and _`)
  }
  return name
}
