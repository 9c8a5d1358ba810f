/**
 * `cairn mds recover`: the end of the recovery of metadata that have begun anew (mds restore, make-mds
 * --force-new-quorum): what the chunk servers hold becomes the state of every chunk. Until then nobody is served.
 */
import type { Command } from 'commander'
import { CairnError, codeOf } from '../../base/errors.ts'
import type { AdminConnection } from '../../cli/admin.ts'
import type { CommandContext } from '../../cli/context.ts'
import type { adminMethods } from '../../wire/messages/metadata.ts'
import type { ResultOf } from '../../wire/messages/method.ts'
import { nodeClock } from '../../platform/node/platform.ts'
import { pause } from '../self.ts'

type Status = ResultOf<typeof adminMethods, 'mds.recovery'>

const DEADLINE_MS = 60_000
const POLL_MS = 250
const END_TIMEOUT_MS = 600_000

interface RecoverOptions {
  readonly withoutMissing?: boolean
  readonly discardUnknown?: boolean
  readonly acknowledge?: boolean
  readonly dryRun?: boolean
}

export function registerRecover(mds: Command, contextOf: () => CommandContext): void {
  mds
    .command('recover')
    .description('end the recovery of metadata that have begun anew: first look with --dry-run')
    .option('--without-missing', 'although chunk servers have not reported: what only they have is lost')
    .option('--discard-unknown', 'afterwards: replicas that the metadata do not know may be deleted')
    .option(
      '--acknowledge',
      'of the alarm METADATA_BEHIND: replicas that are known not to be needed may be deleted',
    )
    .option('--dry-run', 'only say what is there')
    .addHelpText('after', '\nExample:\n  cairn -c demo mds recover --dry-run')
    .action(async (options: RecoverOptions) => {
      const context = contextOf()
      await context.withAdmin((admin) => recover(context, admin, options))
    })
}

async function recover(
  context: CommandContext,
  admin: AdminConnection,
  options: RecoverOptions,
): Promise<void> {
  const { output } = context
  const status = await admin.metadata.call('mds.recovery', {}, { timeoutMs: END_TIMEOUT_MS })
  if (options.dryRun === true) {
    output.document({ ...status, dryRun: true })
    for (const line of describe(status)) output.line(line)
    return
  }
  if (options.discardUnknown === true) {
    if (status.isWaiting) throw notEnded('the recovery has not ended')
    const discard = () => admin.metadata.call('mds.discardUnknown', {})
    await untilDone(context, discard, ({ keepsUnknown }) => !keepsUnknown)
    output.document({ discardUnknown: true })
    output.line('Replicas that the metadata do not know are deleted as their chunk servers report.')
    return
  }
  if (options.acknowledge === true) {
    if (status.alarm === undefined) throw notEnded('there is no alarm')
    const acknowledge = () => admin.metadata.call('mds.acknowledge', {})
    await untilDone(context, acknowledge, ({ alarm }) => alarm === undefined)
    output.document({ acknowledged: true })
    output.line(
      'Deletion goes on; what the metadata do not know is kept. Reported again, it is an alarm again.',
    )
    return
  }
  if (!status.isWaiting)
    throw new CairnError('REFUSED', 'the metadata are not being recovered', { next: 'see: cairn stat' })
  for (const line of describe(status)) output.line(line)
  const missing = status.missingServers.map((id) => `CS#${id}`).join(', ')
  if (missing !== '' && options.withoutMissing !== true)
    throw new CairnError('REFUSED', `${missing} have not reported`, {
      next: 'start them; when they are gone for good add --without-missing: what only they have is lost',
    })
  const params = { withoutMissing: options.withoutMissing === true }
  const end = () => admin.metadata.call('mds.recover', params, { timeoutMs: END_TIMEOUT_MS })
  await untilDone(context, end, ({ isWaiting }) => !isWaiting)
  output.document({ ...status, recovered: true })
  output.line(
    'The recovery has ended: chunks are compared before they are used; see: cairn stat, cairn fsck.',
  )
}

/** The master begins once more with it, so that the answer may not come. */
async function untilDone(
  context: CommandContext,
  order: () => Promise<unknown>,
  isDone: (status: Status) => boolean,
): Promise<void> {
  try {
    await order()
  } catch (error) {
    if (codeOf(error) !== 'DISCONNECTED' && codeOf(error) !== 'NOT_MASTER') throw error
  }
  const endMs = nodeClock.nowMs() + DEADLINE_MS
  while (nodeClock.nowMs() < endMs) {
    if (isDone(await context.withAdmin((again) => again.metadata.call('mds.recovery', {})))) return
    await pause(POLL_MS)
  }
  throw notEnded(`it has not happened within ${DEADLINE_MS / 1000} s`)
}

function notEnded(message: string): CairnError {
  return new CairnError('REFUSED', message, { next: 'see: cairn mds recover --dry-run' })
}

function describe({ isWaiting, keepsUnknown, missingServers, summary, alarm }: Status): string[] {
  if (!isWaiting || summary === undefined) {
    const kept = keepsUnknown ? 'kept; --discard-unknown ends that' : 'deleted'
    const lines = [`The metadata are not being recovered. Replicas that they do not know are ${kept}.`]
    if (alarm === undefined) return lines
    return [
      ...lines,
      `ALARM: ${alarm}, which they never gave out. No replica is deleted until --acknowledge.`,
    ]
  }
  const { chunkCount, foundCount, newerCount, doubtfulCount, missingCount, unknownCount } = summary
  const absent = missingServers.map((id) => `CS#${id}`).join(', ')
  return [
    `${foundCount} of ${chunkCount} chunks are on chunk servers that have reported; ${newerCount} of them newer than the metadata.`,
    `${missingCount} chunks were not found; of ${doubtfulCount} a newer replica must be elsewhere.`,
    `${unknownCount} chunks on chunk servers are not in the metadata; they are kept.`,
    `Chunk servers that have not reported: ${absent === '' ? 'none' : absent}.`,
  ]
}

/** What to do after a quorum was made anew. */
export function tellRecovery(context: CommandContext, cluster: string, repository: string): void {
  const { output } = context
  output.line(`Start it with: cairn -c ${cluster} mds -r ${repository}`)
  output.line('Nobody is served before you have looked at what the chunk servers hold:')
  output.line(
    `  cairn -c ${cluster} mds recover --dry-run     and, when all that can come is there, without --dry-run`,
  )
  output.line('Other metadata servers are made with make-mds, as in a new cluster.')
}
