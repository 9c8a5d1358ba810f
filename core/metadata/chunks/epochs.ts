/**
 * Epochs of chunks: pending, then active (rule E1). These handlers are the last word on who holds a chunk:
 * whatever the master proposes is checked against the committed row, and what is stale is ignored (rule E6).
 *
 *     propose: any non-empty subset of the in-sync members of the last ACTIVE epoch, plus joiners
 *     activate: exactly the pending version; join.complete: exactly that version and attempt
 */
import { mark } from '../../base/coverage.ts'
import { CHUNK_MEMBER_COUNT_MAX, FORMER_COUNT_MAX } from './chunk-table.ts'
import type { EpochProposal } from '../state/commands.ts'
import type { ChunkMember, ChunkRow } from '../state/rows.ts'
import type { ChunkContext, ChunkHandlers, ChunkState } from './handlers.ts'
import { nextVersion } from './administration.ts'
import { placementOf, putWithOverlays, raiseGenerations } from './sharing.ts'

type EpochCommandType = 'epoch.propose' | 'epoch.activate' | 'join.complete'

export const epochHandlers: ChunkHandlers<EpochCommandType> = {
  'epoch.propose'({ state }, { epochs }) {
    const proposed: { chunk: number; version: number }[] = []
    for (const epoch of epochs) {
      const version = propose(state, epoch)
      if (version > 0) proposed.push({ chunk: epoch.chunk, version })
    }
    return { ok: { proposed } }
  },

  'epoch.activate'(context, { epochs, losses }) {
    const activated: number[] = []
    const lossy = new Set(losses)
    for (const { chunk, version } of epochs) {
      if (activate(context, chunk, version, lossy.has(chunk))) activated.push(chunk)
    }
    return { ok: { activated } }
  },

  'join.complete'({ state }, { joins }) {
    const completed: { chunk: number; server: number; version: number }[] = []
    for (const { chunk, version, server, attempt } of joins) {
      const row = state.chunks.get(chunk)
      // Rule E6: another version, attempt or a reconfiguration under way: the comparison starts again.
      if (row === undefined || row.version !== version || row.pending !== null || row.dirtyDead) continue
      const member = row.members.find((candidate) => candidate.server === server)
      if (member === undefined || member.role !== 'joining' || member.attempt !== attempt) continue
      const members = row.members.map((candidate) =>
        candidate === member ? inSyncMember(server, version) : candidate,
      )
      state.chunks.put({ ...row, members, writable: isWritable(state, row, members) })
      completed.push({ chunk, server, version })
    }
    return { ok: { completed } }
  },
}

function inSyncMember(server: number, since: number): ChunkMember {
  return { server, role: 'in-sync', since, attempt: 0 }
}

/** The version that is now pending, or 0. */
function propose(state: ChunkState, epoch: EpochProposal): number {
  const row = state.chunks.get(epoch.chunk)
  if (row === undefined) return 0
  const committed = row.pending?.version ?? row.version
  // Rule E6. This also keeps J8: the in-sync set the proposer counted is the one that is changed.
  if (epoch.from !== committed) {
    mark('a proposal that starts from an older epoch is ignored')
    return 0
  }
  // Rule J5: nothing but reconciliation may follow a dead writer.
  if (row.dirtyDead && !epoch.reconcile) {
    mark('only a reconciliation may follow a dead writer')
    return 0
  }
  const version = nextVersion(state, committed)
  const members = checkedMembers(state, row, epoch, version)
  if (members === null) return 0
  const former = formerAfter(row, epoch, members, committed)
  if (former.length > FORMER_COUNT_MAX) return 0
  if (row.pending !== null) mark('a pending epoch is superseded')
  state.chunks.put({ ...row, former, pending: { version, members, reconcile: epoch.reconcile } })
  return version
}

/** Null when the proposal is not allowed. */
function checkedMembers(
  state: ChunkState,
  row: ChunkRow,
  epoch: EpochProposal,
  version: number,
): ChunkMember[] | null {
  const members: ChunkMember[] = []
  const seen = new Set<number>()
  for (const { server, role } of epoch.members) {
    if (seen.has(server) || !state.servers.has(server)) return null
    seen.add(server)
    if (role === 'joining') {
      // What waits for deletion there ends first (rule E6).
      if (state.condemned.has(row.chunk, server)) return null
      // An in-sync replica may be demoted only by leaving and joining again, which bumps (rule E7).
      members.push({ server, role: 'joining', since: 0, attempt: version })
      continue
    }
    const current = row.members.find((member) => member.server === server && member.role === 'in-sync')
    // Rule E1: in-sync members come from the last active epoch, never from a pending one.
    if (current === undefined) return null
    members.push({ ...current })
  }
  // Rule G2: the last in-sync member is never removed.
  if (!members.some((member) => member.role === 'in-sync')) return null
  return members.length <= CHUNK_MEMBER_COUNT_MAX ? members : null
}

/** Who left and may still exist, with the highest version it may have. */
function formerAfter(
  row: ChunkRow,
  epoch: EpochProposal,
  members: readonly ChunkMember[],
  version: number,
): ChunkRow['former'] {
  const staying = new Set(members.map((member) => member.server))
  const gone = new Set(epoch.leaving.filter((entry) => !entry.exists).map((entry) => entry.server))
  const former = new Map(row.former.map((entry) => [entry.server, entry.version]))
  for (const { server } of [...row.members, ...(row.pending?.members ?? [])]) former.set(server, version)
  return [...former]
    .filter(([server]) => !staying.has(server) && !gone.has(server))
    .toSorted(([a], [b]) => a - b)
    .map(([server, highest]) => ({ server, version: highest }))
}

function activate(context: ChunkContext, chunk: number, version: number, isLossy: boolean): boolean {
  const { state } = context
  const row = state.chunks.get(chunk)
  if (row === undefined || row.pending === null || row.pending.version !== version) return false
  const { reconcile } = row.pending
  // Reconciled members became equal at this version: an older one on their disk would not be (rule E8).
  const members = row.pending.members.map((member) =>
    reconcile && member.role === 'in-sync' ? inSyncMember(member.server, version) : member,
  )
  // A replica that left is protected by its server as long as it is an overlay (rule S3).
  const overlays = (row.overlays ?? []).filter(({ server }) =>
    members.some((member) => member.server === server),
  )
  const dirtyDead = row.dirtyDead && !reconcile
  const writable = isWritable(state, row, members)
  const loss = isLossy ? { lossVersion: version } : {}
  putWithOverlays(state, { ...row, version, members, pending: null, dirtyDead, writable, ...loss }, overlays)
  raiseGenerations(state, row)
  return true
}

/** Rule A4: decided here and nowhere else. */
function isWritable(state: ChunkState, row: ChunkRow, members: readonly ChunkMember[]): boolean {
  const placement = placementOf(state, row)
  if (placement === undefined) return false
  const inSyncCount = members.filter((member) => member.role === 'in-sync').length
  return inSyncCount >= placement.replicasMinimum
}
