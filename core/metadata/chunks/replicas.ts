/**
 * The end of replicas. Deletion is decided by a command (condemn), carried out after a grace by version
 * (rule E6), and confirmed by a command (rule G1). A stale replica of a living chunk is given up only when
 * the chunk has its normal number of in-sync members (rule G2).
 */
import type { ChunkRow, CondemnedRow, InodeRow } from '../state/rows.ts'
import { condemnedKey } from '../state/state.ts'
import { FORMER_COUNT_MAX } from './chunk-table.ts'
import type { ChunkContext, ChunkHandlers, ChunkState, NamespaceView } from './handlers.ts'

type ReplicaCommandType = 'replica.condemn' | 'replica.deleted' | 'replica.former'

export function replicaHandlers(namespace: NamespaceView): ChunkHandlers<ReplicaCommandType> {
  return {
    'replica.condemn'({ state }, { replicas }) {
      const condemned: CondemnedRow[] = []
      for (const replica of replicas) {
        if (!mayCondemn(state, namespace, replica)) continue
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
      for (const { chunk, server } of replicas) state.condemned.delete(condemnedKey(chunk, server))
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
  }
}

/** Highest version anybody may hold. */
export function committedVersion(row: ChunkRow): number {
  return row.pending?.version ?? row.version
}

export function isMember(row: ChunkRow, server: number): boolean {
  const isHere = (member: { server: number }) => member.server === server
  return row.members.some(isHere) || row.pending?.members.some(isHere) === true
}

function mayCondemn(state: ChunkState, namespace: NamespaceView, replica: CondemnedRow): boolean {
  const row = state.chunks.get(replica.chunk)
  // Rule G1: an id we never gave out means that we lost state.
  if (row === undefined) return replica.chunk < state.counters.get('nextChunk')
  if (isMember(row, replica.server) || row.pending !== null) return false
  // Rule G1: a version above the committed one is never touched.
  if (replica.versionMax > row.version) return false
  const file = state.inodes.get(row.inode)
  if (file === undefined) return false
  const inSyncCount = row.members.filter((member) => member.role === 'in-sync').length
  return inSyncCount >= namespace.placementOf(state, file).replicasNormal && !row.dirtyDead
}

function condemn(state: ChunkState, replica: CondemnedRow): void {
  const { chunk, server, versionMax } = replica
  const key = condemnedKey(chunk, server)
  const before = state.condemned.get(key)?.versionMax ?? 0
  state.condemned.set(key, { chunk, server, versionMax: Math.max(before, versionMax) })
}

/**
 * Takes chunks out of a file for good; every replica that exists or may exist is condemned. The caller
 * makes sure that nobody writes them any more, or that what is written may be lost (rule T2).
 */
export function dropChunks(
  context: Pick<ChunkContext, 'state'>,
  file: InodeRow,
  isDropped: (index: number) => boolean,
): number {
  const { state } = context
  let count = 0
  for (const [index, chunk] of file.chunks ?? []) {
    if (!isDropped(index)) continue
    file.chunks?.delete(index)
    dropChunk(state, chunk)
    count += 1
  }
  if (file.chunks?.size === 0) delete file.chunks
  if (count > 0) state.inodes.touch(file.inode)
  return count
}

function dropChunk(state: ChunkState, chunk: number): void {
  const row = state.chunks.get(chunk)
  if (row === undefined) return
  const versionMax = committedVersion(row)
  const servers = [...row.members, ...(row.pending?.members ?? []), ...row.former].map(({ server }) => server)
  for (const server of new Set(servers)) condemn(state, { chunk, server, versionMax })
  state.chunks.delete(chunk)
}
