/**
 * The system side of mounting: mount(8) and umount(8) as child processes, and /proc/self/mountinfo.
 * Never touches the mounted directory itself from this process: our own event loop would have to answer.
 */
import { spawn } from 'node:child_process'
import { readFile } from 'node:fs/promises'
import { CairnError } from '@cairn/core/plugin'
import { REQUEST_PAYLOAD_BYTES_MAX } from '../protocol/constants.ts'

export const FILE_SYSTEM_TYPE = 'fuse.cairn'
const COMMAND_DEADLINE_MS = 60_000
const MESSAGE_BYTES_MAX = 4096

/** An error for a person: what happened, and what to do next. The code decides the exit status. */
export function mountError(code: MountErrorCode, message: string, next: string, cause?: unknown): CairnError {
  return new CairnError(code, message, { next, cause })
}

/** Codes that the command line maps to its exit statuses. */
export type MountErrorCode = 'USAGE' | 'EPERM' | 'EBUSY' | 'NOT_FOUND' | 'TIMED_OUT' | 'MOUNT_FAILED'

export interface CommandResult {
  readonly status: number
  readonly message: string
}

/** Runs a program without a shell; `descriptor` becomes its descriptor 3. Killed at the deadline. */
export function runCommand(
  command: string,
  parameters: readonly string[],
  descriptor?: number,
): Promise<CommandResult> {
  return new Promise((resolve, reject) => {
    const extra = descriptor === undefined ? [] : [descriptor]
    const child = spawn(command, parameters, {
      stdio: ['ignore', 'pipe', 'pipe', ...extra],
      timeout: COMMAND_DEADLINE_MS,
      env: { ...process.env, LC_ALL: 'C' },
    })
    let message = ''
    const collect = (data: Buffer) => {
      if (message.length < MESSAGE_BYTES_MAX) message += data.toString('utf8')
    }
    child.stdout?.on('data', collect)
    child.stderr?.on('data', collect)
    child.on('error', reject)
    child.on('close', (status) => resolve({ status: status ?? -1, message: message.trim() }))
  })
}

export interface MountRequest {
  readonly descriptor: number
  readonly source: string
  readonly directory: string
  readonly flags: readonly string[]
}

/** mount(8) gives the kernel our descriptor; -i: not through our own mount.fuse.cairn helper. */
export async function systemMount(request: MountRequest): Promise<void> {
  const options = [
    'fd=3',
    'rootmode=40000',
    'user_id=0',
    'group_id=0',
    'allow_other',
    'default_permissions',
    `max_read=${REQUEST_PAYLOAD_BYTES_MAX}`,
    ...request.flags,
  ]
  const parameters = [
    '-i',
    '-t',
    FILE_SYSTEM_TYPE,
    '-o',
    options.join(','),
    request.source,
    request.directory,
  ]
  const result = await runCommand('mount', parameters, request.descriptor)
  if (result.status !== 0) {
    throw mountError(
      'MOUNT_FAILED',
      `mounting on ${request.directory} failed: ${result.message}`,
      'check that you are root and that the kernel has FUSE',
    )
  }
}

export type UnmountMode = 'normal' | 'force' | 'lazy'

/** umount(8). 'force' ends the connection: waiting programs get an error. 'lazy' detaches at once. */
export async function systemUnmount(directory: string, mode: UnmountMode): Promise<CommandResult> {
  const flags = mode === 'normal' ? ['-i'] : mode === 'force' ? ['-i', '-f'] : ['-i', '-l']
  return runCommand('umount', [...flags, directory])
}

export interface MountEntry {
  /** "major:minor", as in /sys/class/bdi. */
  readonly device: string
  readonly directory: string
  /** As it stands in mountinfo (blanks as \040), for scripts that compare. */
  readonly escapedDirectory: string
  readonly type: string
  readonly source: string
}

export function unescapeField(field: string): string {
  const bytes: number[] = []
  const raw = Buffer.from(field, 'utf8')
  for (let index = 0; index < raw.length; index++) {
    const digits = raw[index] === 0x5c ? raw.toString('latin1', index + 1, index + 4) : ''
    if (/^[0-7]{3}$/.test(digits)) {
      bytes.push(Number.parseInt(digits, 8))
      index += 3
    } else bytes.push(raw[index] ?? 0)
  }
  return Buffer.from(bytes).toString('utf8')
}

export function parseMountInfo(text: string): MountEntry[] {
  const entries: MountEntry[] = []
  for (const line of text.split('\n')) {
    const [left, right] = line.split(' - ')
    const fields = left?.split(' ') ?? []
    const [type, source] = right?.split(' ') ?? []
    const [, , device, , escapedDirectory] = fields
    if (device === undefined || escapedDirectory === undefined || type === undefined) continue
    entries.push({
      device,
      directory: unescapeField(escapedDirectory),
      escapedDirectory,
      type,
      source: unescapeField(source ?? ''),
    })
  }
  return entries
}

/** What is mounted on top of `directory` (an absolute path without symbolic links), if anything. */
export async function findMount(directory: string): Promise<MountEntry | undefined> {
  const entries = parseMountInfo(await readFile('/proc/self/mountinfo', 'utf8'))
  return entries.findLast((entry) => entry.directory === directory)
}
