/** `cairn mds check -r DIR`: reads all of a stopped metadata server's directory and says what to do with it. */
import { CairnError } from '../../base/errors.ts'
import type { CommandContext } from '../../cli/context.ts'
import type { Examination } from '../../metadata/quorum/examination.ts'
import { formatAddress } from '../../platform/network.ts'
import { addressOfRepository, checkIsRepository, examineRepository } from '../repository-examination.ts'
import { lockRepository } from '../repository-lock.ts'

export async function check(context: CommandContext, repository: string): Promise<void> {
  checkIsRepository(repository)
  const lock = lockRepository(repository)
  let found: Examination
  try {
    found = await examineRepository(repository)
  } finally {
    lock.release()
  }
  const { output } = context
  output.document({ repository, ...found })
  for (const line of describeExamination(found, repository)) output.line(line)
  if (found.faults.length === 0) {
    output.line('Nothing is wrong with it.')
    return
  }
  for (const { code, message } of found.faults) output.line(`${code}: ${message}`)
  const name = found.cluster?.name ?? 'NAME'
  throw new CairnError(
    'FAILED',
    `${repository} is damaged: ${found.faults.map(({ code }) => code).join(', ')}`,
    {
      next: `build this member again from the others: cairn -c ${name} make-mds --rebuild -r ${repository}`,
    },
  )
}

/** Who it is and how far it got, for people. */
export function describeExamination(found: Examination, repository: string): string[] {
  const { hardState, cluster, lastIndex, lastTerm, appliedIndex, rowCount, configuration, members } = found
  const address = addressOfRepository(repository)
  const placeOf = new Map(members.map((row) => [row.member, formatAddress(row)]))
  const others = [...configuration.voters, ...configuration.learners].filter((id) => id !== hardState?.member)
  const who = hardState === null ? 'unknown member' : `MDS#${hardState.member}`
  const where = address === null ? 'unknown address' : formatAddress(address)
  return [
    `${who} at ${where} of cluster ${cluster === null ? 'unknown' : `'${cluster.name}' (${cluster.uuid})`}`,
    `term ${hardState?.term ?? 'unknown'}; log to entry ${lastIndex} of term ${lastTerm}; state of entry ${appliedIndex}, ${rowCount} rows`,
    `other members: ${others.map((id) => `MDS#${id} at ${placeOf.get(id) ?? 'unknown'}`).join(', ') || 'none'}`,
  ]
}
