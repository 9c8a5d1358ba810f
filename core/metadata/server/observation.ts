/**
 * What one metadata server says of itself to an observer: its place in consensus, whom it reaches, and what its
 * own state holds. Answered without a majority, so it may be old; nothing is decided by it.
 */
import { formatAddress } from '../../platform/network.ts'
import type { ParamsOf, ResultOf } from '../../wire/messages/method.ts'
import { type ObserverMethods, SERVERS_LISTED_MAX } from '../../wire/messages/quorum.ts'
import type { Handlers } from '../../wire/types.ts'
import type { ChunkState } from '../chunks/handlers.ts'
import type { RaftLog } from '../quorum/raft-log.ts'

export interface Observed {
  readonly state: ChunkState
  readonly log: RaftLog
  readonly isConnected: (member: number) => boolean
}

type Look = ResultOf<ObserverMethods, 'mds.look'>

export function observerHandlers(observed: Observed): Handlers<ObserverMethods> {
  return { 'mds.look': (_params: ParamsOf<ObserverMethods, 'mds.look'>) => look(observed) }
}

function look({ state, log, isConnected }: Observed): Look {
  const { id, role, term, leader, lastIndex, configuration } = log.status
  const { voters, learners } = configuration
  return {
    ...{ member: id, role, term, leader, lastIndex },
    isReady: log.isReady,
    members: [...voters, ...learners]
      .toSorted((a, b) => a - b)
      .map((member) => {
        const row = state.members.get(member)
        return {
          id: member,
          address: row === undefined ? '' : formatAddress(row),
          host: row?.name ?? '',
          isVoter: voters.includes(member),
          isConnected: member === id || isConnected(member),
        }
      }),
    chunkServers: [...state.servers.values()]
      .filter((row) => row.state !== 'dropped')
      .slice(0, SERVERS_LISTED_MAX)
      .map((row) => ({
        id: row.server,
        address: formatAddress(row),
        host: row.hostName,
        hostId: row.hostId,
      })),
    inodes: state.inodes.size,
    chunks: state.chunks.size,
  }
}
