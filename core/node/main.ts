/**
 * The `cairn` program. The composition root: the only place that knows all rooms. Commands of this room
 * start roles; those of `core/cli` talk to a running cluster; plugins add their own (only the plugin whose
 * manifest names the command being run is imported).
 */
import type { Command } from 'commander'
import { CairnError } from '../base/errors.ts'
import { createProgram, printError, runProgram } from '../cli/program.ts'
import { exitStatusOf } from '../cli/exit.ts'
import { silentLogger } from '../platform/logger.ts'
import { addPluginCommands } from './commands/from-plugins.ts'
import { registerConfigureMetadataServer } from './commands/configure-mds.ts'
import { registerHardwareFlushCheck } from './commands/hwflush-check.ts'
import { registerMakeCommands } from './commands/make.ts'
import { registerRemoveMetadataServer } from './commands/rm-mds.ts'
import { registerPluginCommands } from './commands/plugin.ts'
import { registerRoleCommands } from './commands/roles.ts'
import { registerShutdownCommand } from './commands/shutdown.ts'
import { registerUpCommands } from './commands/up.ts'
import { clientEnvironment } from './client-environment.ts'
import { DISCOVERY_TAPS, DiscoveryHost } from './discovery-plugins.ts'
import type { HostHandle } from './plugins.ts'
import { VERSION } from './version.ts'

/** Options that take a value and may stand before the command. */
const VALUE_OPTIONS = new Set(['-c', '--cluster', '--etc', '--agent', '-b'])

async function main(argv: readonly string[]): Promise<number> {
  const discovery = new DiscoveryHost()
  try {
    return await runWith(discovery, argv)
  } finally {
    await discovery.stop()
  }
}

async function runWith(discovery: DiscoveryHost, argv: readonly string[]): Promise<number> {
  const cairn = createProgram(VERSION, discovery.open)
  const { program } = cairn
  const contextOf: typeof cairn.contextOf = (cluster) => cairn.contextOf(cluster)
  registerUpCommands(program, contextOf)
  registerMakeCommands(program, contextOf)
  registerRemoveMetadataServer(program, contextOf)
  registerConfigureMetadataServer(program, contextOf)
  registerRoleCommands(program, contextOf)
  registerShutdownCommand(program, contextOf)
  registerHardwareFlushCheck(program, contextOf)
  registerPluginCommands(program, contextOf)
  const command = commandIn(argv.slice(2))
  const isOurs = program.commands.some((known) => known.name() === command)
  if (isOurs && command !== 'completion') return runProgram(program, argv)
  return withPluginCommands(program, argv, command, contextOf, discovery)
}

/** Help, completion and unknown words: plugins may know them. A broken configuration must not hide our own help. */
async function withPluginCommands(
  program: Command,
  argv: readonly string[],
  command: string | undefined,
  contextOf: ReturnType<typeof createProgram>['contextOf'],
  discovery: DiscoveryHost,
): Promise<number> {
  const etcOption = optionIn(argv, '--etc')
  if (etcOption !== undefined) process.env['CAIRN_ETC'] = etcOption
  let plugins: HostHandle
  try {
    const { bootPlugins } = await import('./plugins.ts')
    plugins = await bootPlugins({
      role: 'cli',
      command: command ?? '',
      // What a plugin serves (a mount) finds its servers with plugins of the same host: one list, one reload.
      ...(command === undefined || command === 'completion' ? {} : { taps: DISCOVERY_TAPS }),
      etc: contextOf().etc,
      logger: silentLogger,
      services: {
        // Whoever serves a client is listed, like every other process, by `cairn plugin list`.
        clientEnvironment: clientEnvironment(contextOf, (kind) => plugins.listen(`${kind}-${process.pid}`)),
      },
    })
  } catch (error) {
    if (command !== undefined && command !== 'completion' && command !== 'help') throw error
    printError(error)
    return runProgram(program, argv)
  }
  try {
    discovery.share(plugins)
    addPluginCommands(program, plugins, contextOf)
    return await runProgram(program, argv)
  } finally {
    await plugins.stop()
  }
}

/** The first word that is neither an option nor the value of one. */
function commandIn(words: readonly string[]): string | undefined {
  for (let index = 0; index < words.length; index++) {
    const word = words[index]
    if (word === undefined) return undefined
    if (VALUE_OPTIONS.has(word)) index += 1
    else if (!word.startsWith('-')) return word
  }
  return undefined
}

function optionIn(words: readonly string[], option: string): string | undefined {
  const at = words.indexOf(option)
  return at < 0 ? undefined : words[at + 1]
}

// `cairn stat | head`: the reader has seen enough. A supervisor goes on without it.
process.stdout.on('error', () => {
  if (commandIn(process.argv.slice(2)) !== 'up') process.exit(0)
})

try {
  process.exit(await main(process.argv))
} catch (error) {
  printError(error)
  process.exit(error instanceof CairnError ? exitStatusOf(error) : 1)
}
