/**
 * `cairn promote-replica [CHUNK SERVER]`: chunks whose replicas in sync are gone, and the last resort for one of them: a
 * stale replica becomes the only one that counts (rule G2). What was written since is lost, so the number of the chunk
 * must be typed.
 */
import type { Command } from 'commander'
import { CairnError } from '../../base/errors.ts'
import { CHUNK_SIZE_BYTES } from '../../base/units.ts'
import type { StrandedChunk } from '../../wire/messages/promotion.ts'
import type { AdminConnection } from '../admin.ts'
import type { CommandContext } from '../context.ts'
import { readTyped } from '../typed.ts'

const ASK_TIMEOUT_MS = 60_000

interface PromoteOptions {
  readonly dryRun?: boolean
  readonly yesLoseData?: string
}

export function registerPromoteReplicaCommand(program: Command, contextOf: () => CommandContext): void {
  program
    .command('promote-replica')
    .description('last resort: of a chunk without a replica in sync, a stale one becomes the one that counts')
    .argument('[chunk]', 'id of the chunk; without it such chunks are listed')
    .argument('[server]', 'id of the chunk server that has the stale replica')
    .option('--dry-run', 'only say what would be lost')
    .option('--yes-lose-data <chunk>', 'instead of typing the id of the chunk when asked')
    .addHelpText(
      'after',
      '\nExample:\n  cairn -c demo promote-replica\n  cairn -c demo promote-replica 4711 1027',
    )
    .action(async (chunk: string | undefined, server: string | undefined, options: PromoteOptions) => {
      const context = contextOf()
      if (chunk === undefined) return context.withAdmin((admin) => list(context, admin))
      if (server === undefined)
        throw new CairnError('USAGE', 'a chunk server is missing', { next: 'see: cairn promote-replica' })
      const choice = { chunk: numberOf(chunk), server: numberOf(server) }
      await context.withAdmin((admin) => promote(context, admin, choice, options))
    })
}

function numberOf(text: string): number {
  if (/^\d{1,15}$/.test(text) && Number(text) > 0) return Number(text)
  throw new CairnError('USAGE', `'${text}' is no id`, { next: 'see: cairn promote-replica' })
}

async function list({ output }: CommandContext, admin: AdminConnection): Promise<void> {
  const found = await admin.metadata.call('admin.stranded', { chunk: 0 }, { timeoutMs: ASK_TIMEOUT_MS })
  output.document(found)
  for (const chunk of found.chunks) for (const line of describe(chunk)) output.line(line)
  if (found.total === 0) output.line('Every chunk with stale replicas has one in sync that answers.')
  if (found.total > found.chunks.length)
    output.line(`${found.total} such chunks; the first ${found.chunks.length} are listed.`)
}

async function promote(
  { output }: CommandContext,
  admin: AdminConnection,
  { chunk, server }: { chunk: number; server: number },
  options: PromoteOptions,
): Promise<void> {
  const { chunks } = await admin.metadata.call('admin.stranded', { chunk }, { timeoutMs: ASK_TIMEOUT_MS })
  const found = chunks[0]
  const stale = found?.stale.find((one) => one.server === server)
  if (found === undefined || stale === undefined)
    throw new CairnError(
      'REFUSED',
      `chunk ${chunk} has a replica in sync that answers, or none on CS#${server}`,
      {
        next: 'see which chunks have none: cairn promote-replica',
      },
    )
  for (const line of [...describe(found), '', ...explanation(found, server)]) output.note(line)
  if (stale.obstacle !== '') throw new CairnError('REFUSED', `CS#${server}: ${stale.obstacle}`)
  if (options.dryRun === true) {
    output.document({ ...found, server, dryRun: true })
    output.line(`Would make the replica on CS#${server} the only one of chunk ${chunk}`)
    return
  }
  const typed = options.yesLoseData ?? (await readTyped('Type the id of the chunk to go on: '))
  if (typed !== String(chunk))
    throw new CairnError('REFUSED', 'nothing was changed: the id of the chunk was not given', {
      next: `type ${chunk} when asked, or give it with --yes-lose-data ${chunk}`,
    })
  const { version } = found
  await admin.metadata.call('admin.promote', { chunk, version, server }, { timeoutMs: ASK_TIMEOUT_MS })
  output.document({ chunk, server, version, promoted: true })
  output.line(`The replica on CS#${server} is the one that counts; others are made from it. See: cairn fsck`)
}

function describe({ chunk, inode, index, version, inSync, stale }: StrandedChunk): string[] {
  const holders = inSync.map(({ server, state }) => `CS#${server} (${state})`).join(', ')
  return [
    `chunk ${chunk}: inode ${inode}, bytes ${index * CHUNK_SIZE_BYTES} on, version ${version}; in sync on ${holders}`,
    ...stale.map(({ server, state, inSyncVersion, crashed, obstacle }) => {
      const since = obstacle === '' ? `complete up to version ${inSyncVersion}` : obstacle
      return `  stale on CS#${server} (${state}): ${since}${crashed ? '; its host crashed since' : ''}`
    }),
  ]
}

function explanation({ inode, inSync, version, stale }: StrandedChunk, server: number): string[] {
  const { inSyncVersion = 0, crashed = false } = stale.find((one) => one.server === server) ?? {}
  const holders = inSync.map((one) => `CS#${one.server}`).join(', ')
  return [
    `Everything that was written to this part of the file after version ${inSyncVersion} of ${version} is lost,`,
    'although programs were told that it is safe; what is next to it in the file may be newer.',
    ...(crashed ? ['Its host crashed: some pages may be older than that.'] : []),
    `If ${holders} can come back in any way, start that instead: then nothing is lost. After this it is too late:`,
    'what they have is replaced by what this replica has.',
    `The file is found with: find MOUNT -inum ${inode}`,
    '',
  ]
}
