/** The `cairn` program: global options, the commands of this room, one way to fail. */
import { Command, CommanderError } from 'commander'
import { CairnError } from '../base/errors.ts'
import { connectAdmin } from './admin.ts'
import { registerAttributeCommands } from './commands/attributes.ts'
import { registerCompletionCommand } from './commands/completion.ts'
import { registerConfigurationCommands } from './commands/configuration.ts'
import { registerFsckCommand } from './commands/fsck.ts'
import { registerStatisticsCommands } from './commands/statistics.ts'
import { type CommandContext, selectCluster } from './context.ts'
import { checkClusterName, ETC_DEFAULT, EtcDirectory } from './etc.ts'
import { ExitStatus, exitStatusOf } from './exit.ts'
import { terminalOutput } from './output.ts'

interface GlobalOptions {
  readonly cluster?: string
  readonly etc?: string
  readonly json?: boolean
}

export interface CairnProgram {
  readonly program: Command
  contextOf(cluster?: string): CommandContext
}

/** Builds the program; the composition root adds the commands that start roles, plugins add theirs. */
export function createProgram(version: string): CairnProgram {
  const program = new Command('cairn')
    .description('one protected, self-healing storage out of ordinary servers and disks')
    .version(version)
    .option('-c, --cluster <name>', 'name of the cluster')
    .option('--etc <dir>', `configuration root (default ${ETC_DEFAULT}, or CAIRN_ETC)`)
    .option('--json', 'one JSON document on standard output')
    .configureOutput({ outputError: () => {} })
    .exitOverride()
  const contextOf = (cluster?: string): CommandContext =>
    createContext(program.opts<GlobalOptions>(), cluster)
  registerStatisticsCommands(program, contextOf)
  registerConfigurationCommands(program, contextOf)
  registerAttributeCommands(program, contextOf)
  registerFsckCommand(program, contextOf)
  registerCompletionCommand(program)
  return { program, contextOf }
}

function createContext(options: GlobalOptions, clusterHint: string | undefined): CommandContext {
  const etc = new EtcDirectory(options.etc ?? process.env['CAIRN_ETC'] ?? ETC_DEFAULT)
  const output = terminalOutput(options.json === true)
  // Also cairn://NAME, as in fstab.
  const given = options.cluster?.replace(/^cairn:\/\/([^/]+)\/?$/, '$1')
  const cluster = (): string => checkClusterName(selectCluster(given ?? clusterHint, etc))
  const metadataServers: CommandContext['metadataServers'] = () => {
    const name = cluster()
    const addresses = etc.bootstrapList(name)
    if (addresses.length > 0) return addresses
    throw new CairnError('UNREACHABLE', `no metadata server of cluster '${name}' is known`, {
      next: `put HOST:PORT of one into ${etc.clusterDirectory(name)}/bs.list`,
    })
  }
  return {
    output,
    etc,
    clusterGiven: given,
    cluster,
    metadataServers,
    async withAdmin(use) {
      const admin = await connectAdmin(cluster(), metadataServers())
      try {
        return await use(admin)
      } finally {
        await admin.close()
      }
    },
  }
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
