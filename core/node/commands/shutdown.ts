/** `cairn shutdown`: the whole cluster in the guide's order. Refuses while clients other than this one have sessions. */
import type { Command } from 'commander'
import { CairnError } from '../../base/errors.ts'
import type { CommandContext } from '../../cli/context.ts'
import type { ServiceEntry } from '../../wire/messages/statistics.ts'

export function registerShutdownCommand(program: Command, contextOf: () => CommandContext): void {
  program
    .command('shutdown')
    .description('stop the whole cluster: refuses while it is mounted or exported somewhere')
    .option('-f', 'although clients are connected: they are cut off')
    .option('--dry-run', 'say what would be stopped')
    .addHelpText('after', '\nExample:\n  cairn -c demo shutdown')
    .action(async (options: { f?: boolean; dryRun?: boolean }) => {
      const context = contextOf()
      await context.withAdmin(async (admin) => {
        const { services } = (await admin.metadata.call('admin.services', {})) as { services: ServiceEntry[] }
        const clients = services.filter((entry) => entry.kind === 'client')
        if (clients.length > 0 && options.f !== true) {
          throw new CairnError(
            'REFUSED',
            `${clients.length} clients are connected: ${clients.map((entry) => entry.host).join(', ')}`,
            {
              next: 'unmount there first (cairn umount DIR), or cut them off with -f',
            },
          )
        }
        const servers = services.filter((entry) => entry.kind !== 'client')
        context.output.document({
          stopping: servers.map((entry) => `${entry.kind}${entry.id}`),
          dryRun: options.dryRun === true,
        })
        context.output.line(
          `${options.dryRun === true ? 'Would stop' : 'Stopping'} ${servers.length} servers`,
        )
        if (options.dryRun !== true) await admin.metadata.call('admin.shutdown', {})
      })
    })
}
