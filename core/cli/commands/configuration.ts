/** `cairn get-config`, `set-config KEY=VALUE`: cluster parameters, kept by the quorum. Guide: mds.wd.*, mds.alloc.*. */
import type { Command } from 'commander'
import { CairnError, codeOf } from '../../base/errors.ts'
import type { AdminConnection } from '../admin.ts'
import type { CommandContext } from '../context.ts'
import { formatTable } from '../output.ts'

export function registerConfigurationCommands(program: Command, contextOf: () => CommandContext): void {
  program
    .command('get-config')
    .argument('[key]', 'one parameter')
    .description('cluster parameters')
    .addHelpText('after', '\nExample:\n  cairn -c demo get-config mds.wd.offline_tout')
    .action(async (key: string | undefined) => {
      const context = contextOf()
      await context.withAdmin(async (admin) => {
        const { values } = await admin.metadata.call('admin.getConfig', {})
        const chosen = Object.entries(values).filter(([name]) => key === undefined || name === key)
        if (key !== undefined && chosen.length === 0) {
          throw new CairnError('NOT_FOUND', `no parameter is called '${key}'`, {
            next: 'see them all with: cairn get-config',
          })
        }
        context.output.document({ values: Object.fromEntries(chosen) })
        const rows = chosen.sort(([a], [b]) => (a < b ? -1 : 1)).map(([name, value]) => [name, String(value)])
        for (const line of formatTable(['PARAMETER', 'VALUE'], rows)) context.output.line(line)
      })
    })

  program
    .command('set-config')
    .argument('<assignments...>', 'KEY=VALUE')
    .description('change cluster parameters')
    .addHelpText('after', '\nExample:\n  cairn -c demo set-config mds.wd.offline_tout=15min')
    .action(async (assignments: string[]) => {
      const context = contextOf()
      const pairs = assignments.map(parseAssignment)
      await context.withAdmin(async (admin) => {
        for (const [key, value] of pairs) {
          await setParameter(admin, key, value)
          context.output.line(`${key} = ${value}`)
        }
        context.output.document({ values: Object.fromEntries(pairs) })
      })
    })
}

async function setParameter(admin: AdminConnection, key: string, value: string): Promise<void> {
  try {
    await admin.metadata.call('admin.setConfig', { mutation: admin.mutation(), key, value })
  } catch (error) {
    const code = codeOf(error)
    if (code !== 'EINVAL' && code !== 'NOT_FOUND') throw error
    throw new CairnError(code, (error as Error).message, {
      next: 'see the parameters and their values with: cairn get-config',
      cause: error,
    })
  }
}

/** KEY=VALUE, both not empty. Throws USAGE. */
export function parseAssignment(text: string): [string, string] {
  const at = text.indexOf('=')
  if (at <= 0 || at === text.length - 1) {
    throw new CairnError('USAGE', `'${text}' is no assignment`, { next: 'write KEY=VALUE' })
  }
  return [text.slice(0, at), text.slice(at + 1)]
}
