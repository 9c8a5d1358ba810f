/**
 * The end of replicas. Deletion is decided by a command (condemn), carried out after a grace by version
 * (rule E6), and confirmed by a command (rule G1). A stale replica of a living chunk is given up only when
 * the chunk has its normal number of in-sync members (rule G2).
 */
import type { ChunkActions } from '../namespace/chunk-actions.ts'
import type { ChunkRow, CondemnedRow } from '../state/rows.ts'
import { FORMER_COUNT_MAX } from './chunk-table.ts'
import { isAlarmed, isKeptUnknown } from './administration.ts'
import { committedVersion, condemn } from './condemning.ts'
import type { ChunkContext, ChunkHandlers, ChunkState } from './handlers.ts'
import { placementOf, putWithOverlays, release } from './sharing.ts'

type ReplicaCommandType = 'replica.condemn' | 'replica.deleted' | 'replica.former' | 'replica.parent'

export const replicaHandlers: ChunkHandlers<ReplicaCommandType> = {
  'replica.condemn'({ state }, { replicas }) {
    const condemned: CondemnedRow[] = []
    for (const replica of replicas) {
      if (!mayCondemn(state, replica)) continue
      const row = state.chunks.get(replica.chunk)
      if (row !== undefined) {
        const former = row.former.filter((entry) => entry.server !== replica.server)
        state.chunks.put({ ...row, former })
      }
      condemned.push(replica)
      condemn(state, replica)
    }
    return { ok: { condemned } }
  },

  'replica.deleted'({ state }, { replicas }) {
    for (const { chunk, server } of replicas) state.condemned.delete(chunk, server)
    return { ok: {} }
  },

  'replica.former'({ state }, { replicas }) {
    for (const { chunk, server, version, exists } of replicas) {
      const row = state.chunks.get(chunk)
      if (row === undefined || isMember(row, server)) continue
      const others = row.former.filter((entry) => entry.server !== server)
      const mayAdd = exists && others.length < FORMER_COUNT_MAX && version <= committedVersion(row)
      const former = mayAdd
        ? [...others, { server, version }].toSorted((a, b) => a.server - b.server)
        : others
      state.chunks.put({ ...row, former })
    }
    return { ok: {} }
  },

  'replica.parent'({ state }, { replicas }) {
    for (const { chunk, server, parent } of replicas) setParent(state, chunk, server, parent)
    return { ok: {} }
  },
}

/** Rule S3: only a parent that still exists can be kept. Ids of parents are lower: chains end. */
function setParent(state: ChunkState, chunk: number, server: number, parent: number): void {
  const row = state.chunks.get(chunk)
  if (row === undefined || !row.members.some((member) => member.server === server)) return
  if (parent !== 0 && (parent >= chunk || !state.chunks.has(parent))) return
  const others = (row.overlays ?? []).filter((entry) => entry.server !== server)
  const overlays = parent === 0 ? others : [...others, { server, parent }]
  putWithOverlays(
    state,
    row,
    overlays.toSorted((a, b) => a.server - b.server),
  )
}

export function isMember(row: ChunkRow, server: number): boolean {
  const isHere = (member: { server: number }) => member.server === server
  return row.members.some(isHere) || row.pending?.members.some(isHere) === true
}

function mayCondemn(state: ChunkState, replica: CondemnedRow & { damaged?: boolean }): boolean {
  // Rule G1: what these metadata know may be old.
  if (isAlarmed(state)) return false
  const row = state.chunks.get(replica.chunk)
  // Rule G1: an id we never gave out means that we lost state.
  if (row === undefined)
    return replica.chunk < state.counters.get('nextChunk') && !isKeptUnknown(state, replica.chunk)
  if (isMember(row, replica.server) || row.pending !== null) return false
  // Rule G1: a version above the committed one is never touched.
  if (replica.versionMax > row.version) return false
  const placement = placementOf(state, row)
  if (placement === undefined) return false
  const inSyncCount = row.members.filter((member) => member.role === 'in-sync').length
  const neededCount = replica.damaged === true ? 1 : placement.replicasNormal
  return inSyncCount >= neededCount && !row.dirtyDead
}

/**
 * For the namespace: chunks that left the list of `inode` for good. Those that nobody else needs end. The caller
 * makes sure that what is being written there may be lost (rule T2).
 */
function dropChunks({ state }: ChunkContext, inode: number, chunks: readonly number[]): void {
  for (const chunk of chunks) release(state, chunk, inode)
}

export const chunkActions: ChunkActions = {
  dropChunks: dropChunks as ChunkActions['dropChunks'],
  grantLease({ state, index }, inode, session) {
    if (state.leaseByInode.has(inode)) return undefined
    state.leases.set(index, { lease: index, inode, session, pinned: false })
    return index
  },
}
