/**
 * `cairn make-mds --force-new-quorum -r DIR`: the last resort when a majority of the metadata servers is lost for
 * good. One survivor becomes a quorum of its own. What the lost majority had acknowledged and this one never
 * received is lost; so the name of the cluster must be typed. The members left behind can not take part in it,
 * and end when they meet it (generation).
 */
import path from 'node:path'
import { CairnError, codeOf } from '../../base/errors.ts'
import { connectAdmin } from '../../cli/admin.ts'
import type { CommandContext } from '../../cli/context.ts'
import type { Examination } from '../../metadata/quorum/examination.ts'
import type { Address } from '../../platform/network.ts'
import { readTyped } from '../../cli/typed.ts'
import { emptyDraft, writeRenewed } from '../renewed-repository.ts'
import { addressOfRepository, checkIsRepository, examineRepository } from '../repository-examination.ts'
import { lockRepository } from '../repository-lock.ts'
import { METADATA_DATABASE } from '../repository-files.ts'
import { setAside } from '../set-aside.ts'
import { putInPlace } from './join-mds.ts'
import { HARD_STATE_CODES } from './mds-backup.ts'
import { describeExamination } from './mds-check.ts'
import { tellRecovery } from './mds-recover.ts'

/** Somebody who answers that he is the master does so within this. */
const MASTER_DEADLINE_MS = 6_000

export interface ForceNewQuorum {
  readonly repository: string
  readonly address: Address | null
  /** The name given with --yes-lose-data; undefined: it is asked for. */
  readonly confirmed: string | undefined
  readonly isDryRun: boolean
}

export async function forceNewQuorum(context: CommandContext, options: ForceNewQuorum): Promise<void> {
  const { repository } = options
  const { output } = context
  checkIsRepository(repository)
  const lock = lockRepository(repository)
  let isSetAside = false
  try {
    const found = await examineRepository(repository)
    const name = checkUsable(context, found, repository)
    const address = options.address ?? addressOfRepository(repository)
    if (address === null)
      throw new CairnError('USAGE', 'the directory does not say where this server was any more', {
        next: 'name its address with -a IP[:PORT]',
      })
    await refuseLivingQuorum(context, name)
    for (const line of explanation(found, repository)) output.note(line)
    if (options.isDryRun) {
      output.document({ ...found, repository, dryRun: true })
      output.line(`Would make ${repository} the only metadata server of '${name}'`)
      return
    }
    await confirm(name, options.confirmed)
    const draft = emptyDraft(repository)
    const renewed = await writeRenewed({
      ...{ draft, address, cluster: name, database: path.join(repository, METADATA_DATABASE) },
      memberKnown: found.hardState?.member ?? 0,
      termKnown: found.hardState?.term ?? 0,
      message:
        `A new quorum was forced from ${who(found)}, entry ${found.lastIndex} of term ${found.lastTerm}: ` +
        'what only the others had is lost',
    })
    const aside = setAside(repository, 'survivor')
    isSetAside = true
    putInPlace(draft, repository)
    output.document({ ...renewed, repository, setAside: aside })
    output.line(
      `MDS#${renewed.member} is the only metadata server of '${name}' now. What was here is ${aside}.`,
    )
    tellRecovery(context, name, repository)
  } finally {
    if (!isSetAside) lock.release()
  }
}

function checkUsable(context: CommandContext, { faults, cluster }: Examination, repository: string): string {
  const fault = faults.find(({ code }) => !HARD_STATE_CODES.includes(code))
  if (fault !== undefined)
    throw new CairnError('REFUSED', `${repository} is damaged itself: ${fault.code}: ${fault.message}`, {
      next: 'take another survivor, or a copy: cairn mds restore',
    })
  if (cluster === null)
    throw new CairnError('REFUSED', `${repository} holds no cluster: it never got the metadata`, {
      next: 'take another survivor, or a copy: cairn mds restore',
    })
  const name = context.cluster()
  if (cluster.name === name) return name
  throw new CairnError('WRONG_CLUSTER', `${repository} is of cluster '${cluster.name}', not of '${name}'`, {
    next: 'check -r and -c',
  })
}

/** Two quorums of one cluster: the one thing that must not be. */
async function refuseLivingQuorum(context: CommandContext, name: string): Promise<void> {
  try {
    const admin = await connectAdmin(name, context.metadataServers(), context.etc, MASTER_DEADLINE_MS)
    await admin.close()
  } catch (error) {
    if (codeOf(error) === 'UNREACHABLE') return
    throw error
  }
  throw new CairnError('REFUSED', `cluster '${name}' has a master: its quorum is not lost`, {
    next: 'build this member again from the others: cairn make-mds --rebuild -f -r DIR',
  })
}

async function confirm(name: string, given: string | undefined): Promise<void> {
  const typed = given ?? (await readTyped(`Type the name of the cluster to go on: `))
  if (typed === name) return
  throw new CairnError('REFUSED', 'nothing was changed: the name of the cluster was not given', {
    next: `type ${name} when asked, or give it with --yes-lose-data ${name}`,
  })
}

function who({ hardState }: Examination): string {
  return hardState === null ? 'a member' : `MDS#${hardState.member}`
}

function explanation(found: Examination, repository: string): string[] {
  return [
    ...describeExamination(found, repository),
    '',
    'This makes a new quorum out of this one member. Everything that the others had decided and that this one',
    'never received is lost, although clients were told that it is safe: files made, renamed, deleted or grown,',
    'attributes, targets, users. Before you go on:',
    '  * start the other metadata servers if there is any way: a majority of them loses nothing;',
    '  * else compare all survivors (cairn mds check -r DIR): the highest term of the log wins, then the',
    '    highest entry; force only that one;',
    '  * do not start the others again: they would serve the old state until they meet this one, and then end.',
    'When it serves again, build them anew with make-mds --rebuild -f.',
    '',
  ]
}
