/**
 * The commands below `cairn mds` that work on directories and copies of metadata. What they do is in mds-check.ts and
 * mds-backup.ts, loaded by whoever runs them: other commands start without the code of the servers.
 */
import path from 'node:path'
import type { Command } from 'commander'
import { CairnError } from '../../base/errors.ts'
import type { CommandContext } from '../../cli/context.ts'

export function registerCheck(mds: Command, contextOf: () => CommandContext): void {
  mds
    .command('check')
    .description('verify the directory of a metadata server that is stopped')
    .option('-r <dir>', 'its repository')
    .addHelpText('after', '\nExample:\n  cairn mds check -r /cairn/demo-mds')
    .action(async (_options: unknown, command: Command) => {
      const { check } = await import('./mds-check.ts')
      await check(contextOf(), repositoryOf(command))
    })
}

export function registerBackup(mds: Command, contextOf: () => CommandContext): void {
  mds
    .command('backup')
    .description('write a copy of the metadata of the cluster, or of a stopped directory (-r), to a file')
    .argument('<file>', 'where to; - for standard output')
    .option('-r <dir>', 'of the directory of a stopped metadata server')
    .addHelpText('after', '\nExample:\n  cairn -c demo mds backup /backup/demo-$(date +%F).cairn')
    .action(async (file: string, _options: unknown, command: Command) => {
      const { backup } = await import('./mds-backup.ts')
      await backup(contextOf(), file, maybeRepositoryOf(command))
    })
  mds
    .command('restore')
    .description('make a new metadata server, the only one of its cluster, out of a copy')
    .argument('<file>', 'the copy; - for standard input')
    .requiredOption('-a <address>', 'address of the new server: IP[:PORT]; PORT and PORT + 1 are used')
    .option('-r <dir>', 'repository: a directory that does not exist yet, or an empty one')
    .addHelpText(
      'after',
      '\nExample:\n  cairn -c demo mds restore /backup/demo.cairn -a 10.30.100.101 -r /cairn/demo-mds',
    )
    .action(async (file: string, options: { a: string }, command: Command) => {
      const { restore } = await import('./mds-backup.ts')
      await restore(contextOf(), file, options.a, repositoryOf(command))
    })
}

/** `-r` of a command below `mds`: the parser gives it to the command above, which has an option of this name. */
function repositoryOf(command: Command): string {
  const repository = maybeRepositoryOf(command)
  if (repository !== undefined) return repository
  throw new CairnError('USAGE', `option '-r <dir>' is missing`, {
    next: `see: cairn mds ${command.name()} --help`,
  })
}

function maybeRepositoryOf(command: Command): string | undefined {
  const { r } = command.optsWithGlobals<{ r?: string }>()
  return r === undefined ? undefined : path.resolve(r)
}
