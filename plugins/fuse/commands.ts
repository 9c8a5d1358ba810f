/**
 * `cairn mount` and `cairn umount`. What they need from the program (how to reach a cluster, how to
 * start itself, where to log) comes in as a ClientEnvironment from the composition root.
 */
import { realpath } from 'node:fs/promises'
import { resolve } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import type { Client } from '@cairn/core/client'
import type { CliCommand, CliInvocation, Logger } from '@cairn/core/plugin'
import { reportReady, startInBackground } from './mount/launcher.ts'
import { mountFuse } from './mount/mount.ts'
import { type MountSettings, parseMountOptions, parseSource } from './options.ts'
import { isAlive, readRecord } from './mount/runtime-record.ts'
import {
  FILE_SYSTEM_TYPE,
  type MountEntry,
  findMount,
  mountError,
  systemUnmount,
} from './mount/system-mount.ts'

/** Service of the composition root, found by this name. */
export const CLIENT_ENVIRONMENT = 'clientEnvironment'

export interface ClientEnvironment {
  /** The cluster of this invocation: the name given, or the only one configured. Throws for people. */
  cluster(given: string | undefined): string
  connect(options: {
    readonly cluster: string
    readonly kind: string
    readonly name: string
    readonly holdTimeoutMs: number
    readonly preferredServer: number
    readonly logger: Logger
  }): Promise<Client>
  /** The command line that starts this program with the same global options. */
  command(parameters: readonly string[]): readonly string[]
  /** Rotating file, or standard error when none is named. */
  logger(file: string | undefined): Logger
}

const READY_DEADLINE_MS = 120_000
const SERVING_END_DEADLINE_MS = 60_000
const POLL_MS = 50

const text = (value: unknown): string | undefined => (typeof value === 'string' ? value : undefined)

function required(value: unknown, name: string): string {
  if (typeof value !== 'string' || value === '')
    throw mountError('USAGE', `${name} is missing`, 'see: cairn mount --help')
  return value
}

export function mountCommand(environment: () => ClientEnvironment): CliCommand {
  return {
    name: 'mount',
    description: 'Mount a cluster as a file system; returns when it is usable',
    example: 'cairn mount -c demo -o nosuid,nodev /mnt/demo',
    arguments: [{ name: 'directory', description: 'An existing directory' }],
    options: [
      { flags: '-c, --cluster <name>', description: 'name of the cluster, or cairn://NAME' },
      {
        flags: '-o, --options <list>',
        description:
          'ro,nosuid,nodev,noexec,hold_timeout=S (fail what is held longer),prefer_cs=ID (read from this chunk server first),entry_timeout=S,attr_timeout=S; allow_other and default_permissions are always on',
      },
      { flags: '--fail-on-nospace', description: 'answer "no space" when the cluster is full (the default)' },
      { flags: '--hold-on-nospace', description: 'wait for space instead' },
      { flags: '-f, --foreground', description: 'serve in this process until unmounted' },
      { flags: '--log <file>', description: 'log file of the serving process' },
      { flags: '--supervised', description: 'end when standard input ends' },
    ],
    run: (invocation) => runMount(invocation, environment()),
  }
}

function settingsOf(options: Readonly<Record<string, unknown>>): MountSettings {
  const settings = parseMountOptions([text(options['options']) ?? ''])
  const holds = options['holdOnNospace'] === true
  if (holds && options['failOnNospace'] === true) {
    throw mountError(
      'USAGE',
      '--fail-on-nospace and --hold-on-nospace exclude each other',
      'give one of them',
    )
  }
  return { ...settings, holdOnNoSpace: holds }
}

async function runMount(invocation: CliInvocation, environment: ClientEnvironment): Promise<number> {
  const { options, output } = invocation
  const given = text(options['cluster'])
  const cluster = environment.cluster(given === undefined ? undefined : parseSource(given))
  const directory = resolve(required(invocation.arguments[0], 'the directory'))
  const settings = settingsOf(options)
  if (options['foreground'] === true) {
    return serve({ cluster, directory, settings, invocation, environment })
  }
  const logFile = text(options['log']) ?? `/var/log/cairn/mount-${cluster}.log`
  const parameters = ['-c', cluster, 'mount', directory, '--foreground', '--log', logFile]
  const list = text(options['options'])
  if (list !== undefined) parameters.push('-o', list)
  if (settings.holdOnNoSpace) parameters.push('--hold-on-nospace')
  const command = environment.command(parameters)
  const processId = await startInBackground({ command, logFile, deadlineMs: READY_DEADLINE_MS })
  output.document({ cluster, directory, processId, logFile }, [
    `cluster ${cluster} is mounted on ${directory} (process ${processId}, log ${logFile})`,
  ])
  return 0
}

interface Serving {
  readonly cluster: string
  readonly directory: string
  readonly settings: MountSettings
  readonly invocation: CliInvocation
  readonly environment: ClientEnvironment
}

/** The serving process: from connecting to the last release of a lease. */
async function serve(serving: Serving): Promise<number> {
  const { cluster, directory, settings, invocation, environment } = serving
  const logger = environment.logger(text(invocation.options['log']))
  try {
    const client = await environment.connect({
      cluster,
      kind: 'fuse',
      name: directory,
      holdTimeoutMs: settings.holdTimeoutMs,
      preferredServer: settings.preferredServer,
      logger,
    })
    try {
      return await serveWith(client, serving, logger)
    } finally {
      await client.close()
    }
  } catch (error) {
    reportReady(error)
    throw error
  }
}

async function serveWith(client: Client, serving: Serving, logger: Logger): Promise<number> {
  const { cluster, directory, settings, invocation } = serving
  const mount = await mountFuse({ client, directory, source: `cairn://${cluster}`, settings, logger })
  const stop = () => {
    mount.unmount().catch((error: unknown) => logger.error('unmounting failed', { message: String(error) }))
  }
  process.on('SIGTERM', stop)
  process.on('SIGHUP', stop)
  invocation.signal.addEventListener('abort', stop)
  if (invocation.options['supervised'] === true) process.stdin.on('end', stop).resume()
  reportReady()
  const isChild = invocation.options['foreground'] === true
  if (isChild && process.stdout.isTTY)
    invocation.output.line(`cluster ${cluster} is mounted on ${directory}; Ctrl-C unmounts`)
  const reason = await mount.closed
  process.off('SIGTERM', stop)
  process.off('SIGHUP', stop)
  return reason === 'unmounted' ? 0 : 1
}

export const unmountCommand: CliCommand = {
  name: 'umount',
  description: 'Unmount; returns when the client has given everything back',
  example: 'cairn umount /mnt/demo',
  arguments: [{ name: 'directory', description: 'Where a cluster is mounted' }],
  options: [
    {
      flags: '-f, --force',
      description: 'Also while programs use it, or hang in it: they get errors from now on',
    },
  ],
  async run(invocation) {
    const given = required(invocation.arguments[0], 'the directory')
    const entry = await findCairnMount(given)
    await unmount(entry, invocation.options['force'] === true)
    invocation.output.document({ directory: entry.directory, source: entry.source }, [
      `${entry.source} is no longer mounted on ${entry.directory}`,
    ])
  },
}

/** By name first: resolving links would ask a mount that may be dead. */
async function findCairnMount(given: string): Promise<MountEntry> {
  const found =
    (await findMount(resolve(given))) ?? (await findMount(await realpath(given).catch(() => given)))
  if (found?.type !== FILE_SYSTEM_TYPE) {
    throw mountError(
      'NOT_FOUND',
      `no cluster is mounted on ${given}`,
      'list mounts with: findmnt -t fuse.cairn',
    )
  }
  return found
}

/** Throws EBUSY when programs still use it, unless it is forced. */
export async function unmount(entry: MountEntry, isForced = false): Promise<void> {
  const record = await readRecord(entry)
  let result = await systemUnmount(entry.directory, isForced ? 'force' : 'normal')
  // Its connection has ended; somebody has it open still. Its process sees the end, too, and may be first.
  if (isForced && result.status !== 0) result = await systemUnmount(entry.directory, 'lazy')
  const isGone = isForced && (await findMount(entry.directory))?.device !== entry.device
  if (result.status !== 0 && !isGone) {
    throw mountError(
      'EBUSY',
      `${entry.directory} cannot be unmounted: ${result.message}`,
      `see who uses it: fuser -vm ${entry.directory}; -f ends their access`,
    )
  }
  if (record === undefined || record.servingProcess === process.pid) return
  const deadlineMs = performance.now() + SERVING_END_DEADLINE_MS
  while (isAlive(record.servingProcess) && performance.now() < deadlineMs) await delay(POLL_MS)
}
