/** `cairn shutdown`: the whole cluster in the guide's order. Refuses while clients other than this one have sessions. */
import type { Command } from 'commander'
import { CairnError } from '../../base/errors.ts'
import type { AdminConnection } from '../../cli/admin.ts'
import type { CommandContext } from '../../cli/context.ts'
import { parseAddress } from '../../cli/etc.ts'
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
        const stopping = servers.map((entry) => `${entry.kind}${entry.id}`)
        if (options.dryRun === true) {
          context.output.document({ stopping, dryRun: true })
          context.output.line(`Would stop ${stopping.join(', ')}`)
          return
        }
        // Metadata first: nothing is repaired because of chunk servers that are stopped.
        await admin.metadata.call('admin.shutdown', {})
        const unanswered = await stopChunkServers(admin, servers)
        context.output.document({ stopping, dryRun: false, unanswered })
        context.output.line(`Stopping ${stopping.join(', ')}`)
        if (unanswered.length === 0) return
        throw new CairnError('FAILED', `${unanswered.join(', ')} did not answer`, {
          next: 'stop these on their hosts, for example: systemctl stop cairn-cs@NAME, or kill -TERM',
        })
      })
    })
}

/** Those that did not answer. */
async function stopChunkServers(admin: AdminConnection, servers: readonly ServiceEntry[]): Promise<string[]> {
  const unanswered: string[] = []
  await Promise.all(
    servers.map(async (entry) => {
      if (entry.kind !== 'cs') return
      try {
        await admin.shutDownChunkServer(parseAddress(entry.address))
      } catch {
        // It may be down already: the administrator is told which.
        unanswered.push(`CS#${entry.id} (${entry.status}, ${entry.address})`)
      }
    }),
  )
  return unanswered
}
