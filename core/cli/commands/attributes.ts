/**
 * `cairn get-attr PATH`, `set-attr [-R] PATH replicas=N[:M] failure-domain=… tier=…`. PATH is on a mount,
 * or with -p inside the cluster. Guide: Managing Cluster Parameters.
 */
import type { Command } from 'commander'
import { CairnError } from '../../base/errors.ts'
import type { PlacementAttributes } from '../../wire/messages/common.ts'
import type { CommandContext } from '../context.ts'
import { inodeOf, locate, type PathOptions } from '../paths.ts'
import { parseAssignment } from './configuration.ts'

const FAILURE_DOMAINS = ['disk', 'host', 'rack', 'row', 'room'] as const
const REPLICAS_MAX = 15
const TIER_MAX = 3

export function registerAttributeCommands(
  program: Command,
  contextOf: (cluster?: string) => CommandContext,
): void {
  program
    .command('get-attr')
    .argument('<path>', 'file or directory on a mount, or with -p inside the cluster')
    .option('-p', 'the path is a path inside the cluster')
    .description('replicas, failure domain and tier of a file or directory')
    .addHelpText('after', '\nExample:\n  cairn get-attr /mnt/demo/vm\n  cairn -c demo get-attr -p /vm')
    .action(async (target: string, options: PathOptions) => {
      const located = locate(target, options)
      const context = contextOf(located.cluster)
      await context.withAdmin(async (admin) => {
        const inode = await inodeOf(admin, located)
        const placement = await admin.metadata.call('attr.get', { inode })
        context.output.document({ path: target, ...placement })
        context.output.line(`connected to MDS#${admin.metadataServer}`)
        context.output.line(`File: '${target}'`)
        context.output.line('Attributes:')
        const { effective, own } = placement
        const origin = (set: boolean): string => (set ? '' : '  (inherited)')
        context.output.line(
          `  replicas=${effective.replicasNormal}:${effective.replicasMinimum}${origin(own.replicasNormal !== undefined)}`,
        )
        context.output.line(
          `  failure-domain=${effective.failureDomain}${origin(own.failureDomain !== undefined)}`,
        )
        context.output.line(`  tier=${effective.tier}${origin(own.tier !== undefined)}`)
      })
    })

  program
    .command('set-attr')
    .argument('<path>', 'file or directory on a mount, or with -p inside the cluster')
    .argument('<attributes...>', 'replicas=N[:M]  failure-domain=disk|host|rack|row|room  tier=0..3')
    .option('-R', 'everything below as well, as it is now (new files inherit anyway)')
    .option('-p', 'the path is a path inside the cluster')
    .description('change replicas, failure domain or tier of a file or directory')
    .addHelpText(
      'after',
      '\nExample:\n  cairn set-attr -R /mnt/demo replicas=3:2\n  cairn -c demo set-attr -R -p / failure-domain=rack',
    )
    .action(async (target: string, assignments: string[], options: PathOptions & { R?: boolean }) => {
      const attributes = parsePlacement(assignments)
      const located = locate(target, options)
      const context = contextOf(located.cluster)
      await context.withAdmin(async (admin) => {
        const inode = await inodeOf(admin, located)
        const { changed } = await admin.metadata.call('attr.set', {
          mutation: admin.mutation(),
          inode,
          recursive: options.R === true,
          attributes,
        })
        context.output.document({ path: target, changed })
        context.output.line(
          `${changed} ${changed === 1 ? 'entry' : 'entries'} changed; chunks follow in the background (cairn stat)`,
        )
      })
    })
}

/** replicas=N[:M], failure-domain=D, tier=T. Throws USAGE. */
export function parsePlacement(assignments: readonly string[]): PlacementAttributes {
  const attributes: PlacementAttributes = {}
  for (const text of assignments) {
    const [key, value] = parseAssignment(text)
    switch (key) {
      case 'replicas':
        Object.assign(attributes, parseReplicas(value))
        break
      case 'failure-domain': {
        const domain = FAILURE_DOMAINS.find((name) => name === value)
        if (domain === undefined)
          throw new CairnError('USAGE', `'${value}' is no failure domain`, {
            next: `use ${FAILURE_DOMAINS.join(', ')}`,
          })
        attributes.failureDomain = domain
        break
      }
      case 'tier':
        attributes.tier = integer(value, 0, TIER_MAX, 'tier')
        break
      default:
        throw new CairnError('USAGE', `'${key}' is no attribute`, {
          next: 'use replicas, failure-domain or tier',
        })
    }
  }
  return attributes
}

/** "N" or "N:M". Throws USAGE. */
export function parseReplicas(text: string): { replicasNormal: number; replicasMinimum?: number } {
  const [normalText = '', minimumText, ...rest] = text.split(':')
  const replicasNormal = integer(normalText, 1, REPLICAS_MAX, 'replicas')
  if (minimumText === undefined) return { replicasNormal }
  const replicasMinimum = integer(minimumText, 1, REPLICAS_MAX, 'minimum of replicas')
  if (rest.length > 0 || replicasMinimum > replicasNormal) {
    throw new CairnError('USAGE', `replicas=${text} is not possible`, {
      next: 'write replicas=NORMAL[:MINIMUM] with MINIMUM ≤ NORMAL, for example 3:2',
    })
  }
  return { replicasNormal, replicasMinimum }
}

function integer(text: string, minimum: number, maximum: number, what: string): number {
  const value = /^\d{1,4}$/.test(text) ? Number(text) : Number.NaN
  if (value >= minimum && value <= maximum) return value
  throw new CairnError('USAGE', `'${text}' is no ${what}`, {
    next: `give a number from ${minimum} to ${maximum}`,
  })
}
