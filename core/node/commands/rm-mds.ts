/** `cairn rm-mds ID`: takes a metadata server out of the cluster. Refuses to lose the majority. */
import type { Command } from 'commander'
import { CairnError, codeOf } from '../../base/errors.ts'
import type { CommandContext } from '../../cli/context.ts'
import { warnOfQuorum } from '../../cli/quorum.ts'
import { nodeClock } from '../../platform/node/platform.ts'
import type { ClusterStatistics } from '../../wire/messages/statistics.ts'
import { pause } from '../self.ts'

const DEADLINE_MS = 30_000
const POLL_MS = 250
/** The master moves, or a change of the members is under way. */
const AGAIN_CODES: readonly string[] = ['TRY_AGAIN', 'NOT_MASTER', 'DISCONNECTED', 'TIMED_OUT', 'OVERLOADED']

export function registerRemoveMetadataServer(program: Command, contextOf: () => CommandContext): void {
  program
    .command('rm-mds')
    .description('take a metadata server out of the cluster')
    .argument('<id>', 'its id, as stat and list-services show it')
    .option('--dry-run', 'say what it would mean')
    .addHelpText('after', '\nExample:\n  cairn -c demo rm-mds 3')
    .action(async (text: string, options: { dryRun?: boolean }) => {
      const context = contextOf()
      const member = /^\d{1,6}$/.test(text) ? Number(text) : 0
      if (member === 0)
        throw new CairnError('USAGE', `'${text}' is no id`, { next: 'give a number, as stat shows it' })
      if (options.dryRun === true) {
        await tell(context, member)
        return
      }
      await removeMember(context, member)
      context.output.document({ member, removed: true })
      context.output.line(
        `MDS#${member} is removed. Its process ends by itself; its directory is of no more use.`,
      )
      await context.withAdmin(async (admin) => {
        const { mds } = (await admin.metadata.call('admin.stat', {})) as ClusterStatistics
        warnOfQuorum(context.output, mds)
      })
    })
}

async function tell(context: CommandContext, member: number): Promise<void> {
  await context.withAdmin(async (admin) => {
    const { mds } = (await admin.metadata.call('admin.stat', {})) as ClusterStatistics
    if (!mds.some(({ id }) => id === member)) throw new CairnError('NOT_FOUND', `there is no MDS#${member}`)
    const left = mds.filter(({ id }) => id !== member)
    if (left.length === 0) throw new CairnError('REFUSED', `MDS#${member} is the only metadata server`)
    const spare = Math.floor((left.length - 1) / 2)
    context.output.document({ member, left: left.map(({ id }) => id), mayFail: spare, dryRun: true })
    context.output.line(
      `Would remove MDS#${member}: ${left.length} metadata servers are left, of which ${spare} may fail`,
    )
    warnOfQuorum(context.output, left)
  })
}

/** Until it is out: the master hands over first when it is the one, so that it may take several calls. */
export async function removeMember(context: CommandContext, member: number): Promise<void> {
  const endMs = nodeClock.nowMs() + DEADLINE_MS
  let last: unknown = null
  while (nodeClock.nowMs() < endMs) {
    try {
      const isGone = await context.withAdmin(
        async (admin) => (await admin.metadata.call('mds.remove', { member })).gone,
      )
      if (isGone) return
    } catch (error) {
      if (!AGAIN_CODES.includes(codeOf(error))) throw error
      last = error
    }
    await pause(POLL_MS)
  }
  const reason = last instanceof Error ? `: ${last.message}` : ''
  throw new CairnError('TIMED_OUT', `MDS#${member} is not out after ${DEADLINE_MS / 1000} s${reason}`, {
    next: 'it goes on in the background; see with: cairn stat',
  })
}
