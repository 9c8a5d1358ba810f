/** Boots the plugin host of one process: its configuration, the hooks it fires, its control socket. */
import path from 'node:path'
import type { ConfigSchema } from '../kernel/config-format.ts'
import { type ControlCommands, pluginCommands } from '../kernel/control.ts'
import { HookRegistry } from '../kernel/hook-registry.ts'
import { kernelHooks } from '../kernel/hooks.ts'
import { PluginHost } from '../kernel/host.ts'
import type { Role } from '../kernel/manifest.ts'
import type { Logger } from '../platform/logger.ts'
import { NodePluginSource } from '../platform/node/plugin-source.ts'
import { nodeClock } from '../platform/node/platform.ts'
import type { EtcDirectory } from '../cli/etc.ts'
import { controlDirectoryOf, type ControlServer, serveControl } from './control-socket.ts'
import { VERSION } from './version.ts'

/** Processes of one configuration root whose repositories have the same last name. */
const SAME_NAME_MAX = 100
const PROJECT = path.join(import.meta.dirname, '..', '..')

/** Keys of cairn.json outside of `plugins`. */
export const coreSchema = {
  log: {
    level: {
      doc: 'Least severity that is logged',
      format: ['debug', 'info', 'warn', 'error'],
      default: 'info',
    },
  },
  cs: {
    port_range: {
      doc: 'Ports from which chunk servers take the first free one',
      format: 'string',
      default: '2520-2619',
    },
  },
} as const satisfies ConfigSchema

export type HostHandle = Awaited<ReturnType<typeof bootPlugins>>

export interface BootOptions {
  readonly role: Role
  /** Role `cli`: the command being run. */
  readonly command?: string
  /** Role `cli`: hooks that will be fired, whatever the command is. */
  readonly taps?: readonly string[]
  readonly etc: EtcDirectory
  readonly logger: Logger
  readonly services?: Readonly<Record<string, unknown>>
  /** Name of the control socket; none without it. */
  readonly socketName?: string
  readonly commands?: ControlCommands
}

/** Throws ConfigError or PLUGIN_BOOT with a message for people. */
export async function bootPlugins(options: BootOptions) {
  const registry = new HookRegistry(kernelHooks, nodeClock)
  const host = new PluginHost({
    role: options.role,
    ...(options.command === undefined ? {} : { command: options.command }),
    ...(options.taps === undefined ? {} : { taps: options.taps }),
    coreVersion: VERSION,
    coreSchema,
    configFile: options.etc.configFile,
    enabledByDefault: ['fuse'],
    environment: process.env,
    builtInDirectory: path.join(PROJECT, 'plugins'),
    baseDirectories: [options.etc.root, PROJECT],
    source: new NodePluginSource(),
    clock: nodeClock,
    logger: options.logger,
    registry,
  })
  const configuration = await host.load()
  host.registerServices(options.services ?? {})
  await host.start()
  let control: ControlServer | null = null
  const listen = async (socketName: string): Promise<void> => {
    const [first = '', ...others] = controlSocketsOf(options.etc, socketName)
    control ??= await serveControl(first, { ...pluginCommands(host), ...options.commands }, others)
  }
  if (options.socketName !== undefined) await listen(options.socketName)
  return {
    host,
    hooks: registry.hooks,
    configuration,
    /** For a command that turns out to stay, such as a mount. */
    listen,
    async stop() {
      control?.close()
      await host.stop()
    },
  }
}

/** NAME.sock, NAME.2.sock, …: the first one that is free. */
function controlSocketsOf(etc: EtcDirectory, name: string): string[] {
  return Array.from({ length: SAME_NAME_MAX }, (_, index) =>
    path.join(controlDirectoryOf(etc), `${name}${index === 0 ? '' : `.${index + 1}`}.sock`),
  )
}
