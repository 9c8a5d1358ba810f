/** What an administrator should know about a number of metadata servers. Guide: Configuring MDS Servers. */
import type { MetadataServerStatistics } from '../wire/messages/statistics.ts'
import type { Output } from './output.ts'

type Member = Pick<MetadataServerStatistics, 'id' | 'status'>

/** Null when all is well. */
export function evenQuorumWarning(count: number): string | null {
  if (count % 2 === 1) return null
  return `${count} metadata servers survive no more failures than ${count - 1}; have 1, 3 or 5`
}

export function quorumWarnings(members: readonly Member[]): string[] {
  const warnings: string[] = []
  const even = members.length === 0 ? null : evenQuorumWarning(members.length)
  if (even !== null) warnings.push(even)
  const absent = members.filter(({ status }) => status === 'inactive').map(({ id }) => `MDS#${id}`)
  if (absent.length > 0)
    warnings.push(`${absent.join(', ')} does not answer and still counts: start it, or remove it with rm-mds`)
  return warnings
}

export function warnOfQuorum(output: Output, members: readonly Member[]): void {
  for (const warning of quorumWarnings(members)) output.note(`cairn: warning: ${warning}`)
}
