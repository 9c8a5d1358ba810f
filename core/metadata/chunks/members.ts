/**
 * The register of metadata servers: their ids and where they are. Who takes part in decisions is decided by
 * consensus' own configuration (raft/configuration.ts); the master keeps both in step (quorum/formation.ts).
 */
import { refused } from '../state/result.ts'
import type { MemberState } from '../state/rows.ts'
import type { ChunkHandlers, ChunkState } from './handlers.ts'

/** Ids given out in the life of a cluster. */
const MEMBER_ID_MAX = 10_000

const orderOfStates: readonly MemberState[] = ['member', 'leaving', 'replaced', 'removed']

export const memberHandlers: ChunkHandlers<'mds.add' | 'mds.member' | 'mds.state'> = {
  'mds.add'({ state }, { host, port, name }) {
    const other = memberAt(state, host, port)
    if (other !== undefined) return refused('REFUSED', `MDS#${other} has the address ${host}:${port}`)
    // Member 1 founded the cluster, whether it has its row yet or not.
    let member = 2
    for (const id of state.members.keys()) member = Math.max(member, id + 1)
    if (member > MEMBER_ID_MAX)
      return refused('REFUSED', 'this cluster has used up its ids of metadata servers')
    state.members.set(member, { member, host, port, name, state: 'member' })
    return { ok: { member } }
  },

  'mds.member'({ state }, { member, host, port, name, listens }) {
    const row = state.members.get(member)
    if (row === undefined && member !== 1) return refused('NOT_FOUND', `there is no MDS#${member}`)
    if (row !== undefined && row.state !== 'member')
      return refused('REFUSED', `MDS#${member} has left the cluster`)
    const other = memberAt(state, host, port)
    // Another row with the address of one that listens there is old, and its member will say where it is now:
    // two that have changed places could not both be written otherwise.
    if (listens !== true && other !== undefined && other !== member)
      return refused('REFUSED', `MDS#${other} has the address ${host}:${port}`)
    state.members.set(member, { member, host, port, name, state: 'member' })
    return { ok: {} }
  },

  'mds.state'({ state }, { member, state: next }) {
    const row = state.members.get(member)
    if (row === undefined) return refused('NOT_FOUND', `there is no MDS#${member}`)
    if (orderOfStates.indexOf(next) < orderOfStates.indexOf(row.state))
      return refused('REFUSED', `MDS#${member} has left the cluster`)
    state.members.set(member, { ...row, state: next })
    return { ok: {} }
  },
}

function memberAt(state: ChunkState, host: string, port: number): number | undefined {
  for (const row of state.members.values())
    if (row.state !== 'removed' && row.state !== 'replaced' && row.host === host && row.port === port)
      return row.member
  return undefined
}
