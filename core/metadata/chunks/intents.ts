/**
 * New chunks and write intents. An intent says in the quorum "this chunk is being written under lease L";
 * it is granted on chunks with a settled active epoch only, counted per lease, and cleared by its own lease
 * alone (rules L7, L8).
 */
import { assert } from '../../base/assert.ts'
import { effectivePlacement } from '../namespace/placement.ts'
import { refused } from '../state/result.ts'
import type { InodeRow } from '../state/rows.ts'
import { CHUNK_MEMBER_COUNT_MAX } from './chunk-table.ts'
import type { ChunkContext, ChunkHandlers } from './handlers.ts'
import { LEASE_INTENT_COUNT_MAX } from './leases.ts'
import { raiseGeneration } from './sessions.ts'

/** Ids reserved by one command. */
export const RESERVE_COUNT_MAX = 65_536

type IntentCommandType = 'chunk.reserve' | 'chunk.create' | 'intent.grant' | 'intent.clear'

export const intentHandlers: ChunkHandlers<IntentCommandType> = {
  'chunk.reserve'({ state }, { count }) {
    assert(count > 0 && count <= RESERVE_COUNT_MAX, 'the master reserves a bounded number of ids')
    return { ok: { from: state.counters.take('nextChunk', count) } }
  },

  'chunk.create'(context, { lease, inode, chunks }) {
    const file = leasedFile(context, lease, inode)
    if (file === undefined) return refused('NO_LEASE', `lease ${lease} of inode ${inode} has ended`)
    const created: number[] = []
    for (const { chunk, index, members } of chunks) {
      if (createChunk(context, file, lease, chunk, index, members)) created.push(chunk)
    }
    // Readers who saw a hole there must look again (rule E4).
    if (created.length > 0) raiseGeneration(context.state, inode)
    return { ok: { created } }
  },

  'intent.grant'(context, { lease, inode, chunks, sizeLimit }) {
    const { state } = context
    const file = leasedFile(context, lease, inode)
    if (file === undefined) return refused('NO_LEASE', `lease ${lease} of inode ${inode} has ended`)
    const granted: number[] = []
    for (const chunk of chunks) {
      const row = state.chunks.get(chunk)
      if (row === undefined || row.inode !== inode) continue
      const isFree = row.intentLease === 0 || row.intentLease === lease
      // Rules E1, J5: nobody gets what is being reconfigured or waits for reconciliation.
      if (!isFree || row.pending !== null || row.dirtyDead) continue
      if (row.intentLease === 0) {
        if (state.chunks.intentCount(lease) >= LEASE_INTENT_COUNT_MAX) continue
        state.chunks.put({ ...row, intentLease: lease })
      }
      granted.push(chunk)
    }
    if (file.sizeLimit === undefined || sizeLimit > file.sizeLimit) file.sizeLimit = sizeLimit
    raiseGeneration(state, inode)
    return { ok: { granted } }
  },

  'intent.clear'({ state }, { lease, inode, chunks }) {
    const cleared: number[] = []
    for (const chunk of chunks) {
      const row = state.chunks.get(chunk)
      // Rule L7: only the lease that holds it; a dead lease has none (its chunks are dirty instead).
      if (row === undefined || row.inode !== inode || row.intentLease !== lease) continue
      state.chunks.put({ ...row, intentLease: 0 })
      cleared.push(chunk)
    }
    return { ok: { cleared } }
  },
}

function leasedFile(context: ChunkContext, lease: number, inode: number): InodeRow | undefined {
  const { state } = context
  return state.leases.get(lease)?.inode === inode ? state.inodes.get(inode) : undefined
}

function createChunk(
  context: ChunkContext,
  file: InodeRow,
  lease: number,
  chunk: number,
  index: number,
  members: readonly number[],
): boolean {
  const { state } = context
  const isReserved = chunk > 0 && chunk < state.counters.get('nextChunk') && !state.chunks.has(chunk)
  const isFree = !file.chunks.has(index)
  const isPlaced = members.length > 0 && members.length <= CHUNK_MEMBER_COUNT_MAX
  if (!isReserved || !isFree || !isPlaced || new Set(members).size !== members.length) return false
  if (state.chunks.intentCount(lease) >= LEASE_INTENT_COUNT_MAX) return false
  // A condemned id never comes back (rule G1): its replicas may be deleted at any moment.
  if (members.some((server) => state.condemned.has(chunk, server))) return false
  state.chunks.put({
    chunk,
    inode: file.inode,
    index,
    version: 1,
    members: members.map((server) => ({ server, role: 'in-sync', since: 1, attempt: 0 })),
    writable: members.length >= effectivePlacement(file).replicasMinimum,
    pending: null,
    intentLease: lease,
    dirtyDead: false,
    former: [],
  })
  file.chunks.set(index, chunk)
  return true
}
