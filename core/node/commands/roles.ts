/** `cairn mds -r DIR`, `cairn cs -r DIR`: one role in the foreground, as systemd and `cairn up` start it. */
import path from 'node:path'
import type { Command } from 'commander'
import { CairnError } from '../../base/errors.ts'
import type { CommandContext } from '../../cli/context.ts'
import { createNodeLogger } from '../../platform/node/logger.ts'
import { registerRecover } from './mds-recover.ts'
import { registerBackup, registerCheck } from './mds.ts'
import { type RunningRole, runRole } from '../role-process.ts'
import type { Logger } from '../../platform/logger.ts'

interface RoleOptions {
  readonly r?: string
  readonly log?: string
  readonly supervised?: boolean
}

export function registerRoleCommands(program: Command, contextOf: () => CommandContext): void {
  const mds = addRole(
    program,
    contextOf,
    'mds',
    'run a metadata server in the foreground',
    async (context, repository, logger) => {
      const { startMetadataServer } = await import('../roles/metadata-server.ts')
      return startMetadataServer({ cluster: context.cluster(), repository, etc: context.etc, logger })
    },
  )
  registerCheck(mds, contextOf)
  registerBackup(mds, contextOf)
  registerRecover(mds, contextOf)
  addRole(
    program,
    contextOf,
    'cs',
    'run a chunk server in the foreground',
    async (context, repository, logger) => {
      const { startChunkServer } = await import('../roles/chunk-server.ts')
      return startChunkServer({
        cluster: context.cluster(),
        configuredServers: () => context.configuredServers(),
        repository,
        etc: context.etc,
        logger,
      })
    },
  )
}

function addRole(
  program: Command,
  contextOf: () => CommandContext,
  role: string,
  description: string,
  start: (context: CommandContext, repository: string, logger: Logger) => Promise<RunningRole>,
): Command {
  return program
    .command(role)
    .description(description)
    .option('-r <dir>', 'its repository')
    .option('--log <file>', 'log file (default: standard error)')
    .option('--supervised', 'stop when standard input ends')
    .addHelpText('after', `\nExample:\n  cairn -c demo ${role} -r /cairn/demo-${role}`)
    .action(async (options: RoleOptions) => {
      const context = contextOf()
      // Not demanded by the parser: commands below this one have an option of this name, too.
      if (options.r === undefined)
        throw new CairnError('USAGE', `option '-r <dir>' is missing`, { next: `see: cairn ${role} --help` })
      const repository = path.resolve(options.r)
      const name = `${role} ${path.basename(repository)}`
      const logger = createNodeLogger({
        name,
        ...(options.log === undefined ? {} : { file: path.resolve(options.log) }),
      })
      process.title = `cairn ${name}`
      process.exitCode = await runRole({
        name,
        logger,
        supervised: options.supervised === true,
        start: () => start(context, repository, logger),
      })
      await logger.close()
    })
}
