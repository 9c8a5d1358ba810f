/** Who should lead instead: of the voters that can be reached the one that has most of the log. */
import type { MemberId, RaftStatus } from '../../raft/index.ts'

export function successorOf(
  { members, configuration }: Pick<RaftStatus, 'members' | 'configuration'>,
  isReachable: (member: MemberId) => boolean,
): MemberId | null {
  const best = members
    .filter(({ member }) => configuration.voters.includes(member) && isReachable(member))
    .toSorted((a, b) => b.matchIndex - a.matchIndex)[0]
  return best?.member ?? null
}
