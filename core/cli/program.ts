/** The `cairn` program: global options, the commands of this room, one way to fail. */
import { Command, CommanderError, Option } from 'commander'
import { CairnError } from '../base/errors.ts'
import { Discovery } from '../discovery/discovery.ts'
import type { MetadataServers } from '../discovery/metadata-servers.ts'
import type { Collected } from '../kernel/hook.ts'
import type { ResolveReport } from '../kernel/hooks.ts'
import { silentLogger } from '../platform/logger.ts'
import type { Address } from '../platform/network.ts'
import { nodeClock, nodeRandom } from '../platform/node/platform.ts'
import { connectAdmin } from './admin.ts'
import { registerAttributeCommands } from './commands/attributes.ts'
import { registerAuthenticationCommands } from './commands/authentication.ts'
import { registerCompletionCommand } from './commands/completion.ts'
import { registerConfigurationCommands } from './commands/configuration.ts'
import { registerDiscoverCommand } from './commands/discover.ts'
import { registerFsckCommand } from './commands/fsck.ts'
import { registerPromoteReplicaCommand } from './commands/promote-replica.ts'
import { registerSnapshotCommands } from './commands/snapshots.ts'
import { registerStatisticsCommands } from './commands/statistics.ts'
import { type CommandContext, type DiscoveryPlugins, type OpenDiscovery, selectCluster } from './context.ts'
import { checkClusterName, ETC_DEFAULT, EtcDirectory, parseAddress } from './etc.ts'
import { ExitStatus, exitStatusOf } from './exit.ts'
import { terminalOutput } from './output.ts'

interface GlobalOptions {
  readonly cluster?: string
  readonly etc?: string
  readonly b?: readonly string[]
  readonly json?: boolean
}

export interface CairnProgram {
  readonly program: Command
  contextOf(cluster?: string): CommandContext
}

/** Builds the program; the composition root adds the commands that start roles, plugins add theirs. */
export function createProgram(version: string, openDiscovery: OpenDiscovery): CairnProgram {
  const program = new Command('cairn')
    .description('one protected, self-healing storage out of ordinary servers and disks')
    .version(version)
    .option('-c, --cluster <name>', 'name of the cluster')
    .option('--etc <dir>', `configuration root (default ${ETC_DEFAULT}, or CAIRN_ETC)`)
    .addOption(
      new Option(
        '-b <address>',
        'base addresses of metadata servers, HOST[:PORT], asked before all others; may be repeated',
      ).argParser((addresses: string, given: readonly string[] | undefined) => [
        ...(given ?? []),
        ...addresses.split(','),
      ]),
    )
    .option('--json', 'one JSON document on standard output')
    .configureOutput({ outputError: () => {} })
    .exitOverride()
  const contextOf = (cluster?: string): CommandContext =>
    createContext(program.opts<GlobalOptions>(), cluster, openDiscovery)
  registerStatisticsCommands(program, contextOf)
  registerConfigurationCommands(program, contextOf)
  registerAttributeCommands(program, contextOf)
  registerSnapshotCommands(program, contextOf)
  registerFsckCommand(program, contextOf)
  registerPromoteReplicaCommand(program, contextOf)
  registerAuthenticationCommands(program, contextOf)
  registerCompletionCommand(program)
  registerDiscoverCommand(program, contextOf, openDiscovery)
  return { program, contextOf }
}

function createContext(
  options: GlobalOptions,
  clusterHint: string | undefined,
  openDiscovery: OpenDiscovery,
): CommandContext {
  const etc = new EtcDirectory(options.etc ?? process.env['CAIRN_ETC'] ?? ETC_DEFAULT)
  const output = terminalOutput(options.json === true)
  // Also cairn://NAME, as in fstab.
  const clusterGiven = options.cluster?.replace(/^cairn:\/\/([^/]+)\/?$/, '$1')
  const cluster = (): string => checkClusterName(selectCluster(clusterGiven ?? clusterHint, etc))
  const given = (options.b ?? []).map((text) => parseAddress(text))
  const configuredServers = (): readonly Address[] => [...given, ...etc.bootstrapList(cluster())]
  const metadataServers = (): MetadataServers =>
    new Discovery({
      cluster: cluster(),
      configured: configuredServers,
      resolve: (name) => resolveWith(openDiscovery(etc), name),
      clock: nodeClock,
      random: nodeRandom,
      logger: silentLogger,
    })
  return contextWith({ output, etc, clusterGiven, cluster, configuredServers, metadataServers })
}

function contextWith(parts: Omit<CommandContext, 'withServers' | 'withAdmin'>): CommandContext {
  const { output, etc, cluster, metadataServers } = parts
  return {
    ...parts,
    withServers: (change) => contextWith({ ...parts, metadataServers: () => change(metadataServers()) }),
    async withAdmin(use) {
      const onSkip = (message: string): void => output.note(`cairn: ${message}`)
      const admin = await connectAdmin(cluster(), metadataServers(), etc, undefined, onSkip)
      try {
        return await use(admin)
      } finally {
        await admin.close()
      }
    },
  }
}

/** A plugin that does not work is an answer too: it says why nobody was found. */
async function resolveWith(
  opening: Promise<DiscoveryPlugins>,
  cluster: string,
): Promise<readonly Collected<readonly ResolveReport[]>[]> {
  const plugins = await opening
  const answers = await plugins.hooks.resolve.call(cluster)
  const broken = plugins.failures().map(({ plugin, reason }) => ({
    plugin,
    value: [{ method: `plugin ${plugin}`, problem: reason, servers: [] }],
  }))
  return [...answers, ...broken]
}

/** Runs the program and returns the exit status. Never throws. */
export async function runProgram(program: Command, argv: readonly string[]): Promise<number> {
  try {
    await program.parseAsync(argv as string[])
    return Number(process.exitCode ?? ExitStatus.done)
  } catch (error) {
    if (error instanceof CommanderError) {
      if (error.exitCode === 0) return ExitStatus.done
      // No command was given: the help that was printed says it all.
      if (error.code === 'commander.help') return ExitStatus.usage
      process.stderr.write(`cairn: ${error.message.replace(/^error: /, '')}\ncairn: see: cairn --help\n`)
      return ExitStatus.usage
    }
    printError(error)
    return exitStatusOf(error)
  }
}

/** One line that says what happened, one that says what to do. */
export function printError(error: unknown): void {
  const message = error instanceof Error ? error.message : String(error)
  process.stderr.write(`cairn: ${message}\n`)
  if (error instanceof CairnError && error.next !== undefined) process.stderr.write(`cairn: ${error.next}\n`)
  if (process.env['CAIRN_DEBUG'] !== undefined && error instanceof Error)
    process.stderr.write(`${error.stack}\n`)
}
