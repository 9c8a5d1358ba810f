/**
 * New chunks and write intents. An intent says in the quorum "this chunk is being written under lease L";
 * it is granted on chunks with a settled active epoch only, counted per lease, and cleared by its own lease
 * alone (rules L7, L8).
 */
import { mark } from '../../base/coverage.ts'
import { assert } from '../../base/assert.ts'
import { effectivePlacement } from '../namespace/placement.ts'
import { refused } from '../state/result.ts'
import type { ChunkRow, InodeRow } from '../state/rows.ts'
import { CHUNK_MEMBER_COUNT_MAX } from './chunk-table.ts'
import type { ChunkContext, ChunkHandlers } from './handlers.ts'
import { nextVersion } from './administration.ts'
import { LEASE_INTENT_COUNT_MAX } from './leases.ts'
import { unsettle } from './servers.ts'
import { isHeldBy, isShared, placementOf, raiseGeneration, release } from './sharing.ts'
import { frozen } from './sizes.ts'

/** Ids reserved by one command. */
export const RESERVE_COUNT_MAX = 65_536

type IntentCommandType = 'chunk.reserve' | 'chunk.create' | 'chunk.branch' | 'intent.grant' | 'intent.clear'

export const intentHandlers: ChunkHandlers<IntentCommandType> = {
  'chunk.reserve'({ state }, { count }) {
    assert(count > 0 && count <= RESERVE_COUNT_MAX, 'the master reserves a bounded number of ids')
    return { ok: { from: state.counters.take('nextChunk', count) } }
  },

  'chunk.create'(context, { lease, inode, chunks }) {
    const file = leasedFile(context, lease, inode)
    if (file === undefined) return refused('NO_LEASE', `lease ${lease} of inode ${inode} has ended`)
    if (context.state.isFrozen(inode)) return frozen(inode)
    const created: number[] = []
    for (const { chunk, index, members } of chunks) {
      if (createChunk(context, file, lease, chunk, index, members)) created.push(chunk)
    }
    // Readers who saw a hole there must look again (rule E4).
    if (created.length > 0) raiseGeneration(context.state, inode)
    return { ok: { created } }
  },

  'chunk.branch'(context, { lease, inode, chunks }) {
    const file = leasedFile(context, lease, inode)
    if (file === undefined) return refused('NO_LEASE', `lease ${lease} of inode ${inode} has ended`)
    if (context.state.isFrozen(inode)) return frozen(inode)
    const branched: number[] = []
    for (const branch of chunks) if (branchChunk(context, file, lease, branch)) branched.push(branch.chunk)
    if (branched.length > 0) raiseGeneration(context.state, inode)
    return { ok: { branched } }
  },

  'intent.grant'(context, { lease, inode, chunks, sizeLimit }) {
    const { state } = context
    const file = leasedFile(context, lease, inode)
    if (file === undefined) return refused('NO_LEASE', `lease ${lease} of inode ${inode} has ended`)
    // Rule S1: what is being shared gets no writer.
    if (state.isFrozen(inode)) return frozen(inode)
    const granted: number[] = []
    for (const chunk of chunks) {
      const row = state.chunks.get(chunk)
      if (row === undefined || !isHeldBy(row, inode) || isShared(state, row)) continue
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

  'intent.clear'({ state, index }, { lease, inode, chunks }) {
    const cleared: number[] = []
    for (const chunk of chunks) {
      const row = state.chunks.get(chunk)
      // Rule L7: only the lease that holds it; a dead lease has none (its chunks are dirty instead).
      if (row === undefined || row.inode !== inode || row.intentLease !== lease) continue
      // Rule F5: its flush, which came before, has told it.
      const { lossVersion: _told, ...settled } = row
      state.chunks.put({ ...settled, intentLease: 0 })
      unsettle(state, chunk, index)
      cleared.push(chunk)
    }
    return { ok: { cleared } }
  },
}

function leasedFile(context: ChunkContext, lease: number, inode: number): InodeRow | undefined {
  const { state } = context
  return state.leases.get(lease)?.inode === inode ? state.inodes.get(inode) : undefined
}

/** A new id, on servers that may have it, with room among the intents of the lease. */
function mayBecome(
  { state }: ChunkContext,
  lease: number,
  chunk: number,
  members: readonly number[],
): boolean {
  const isReserved = chunk > 0 && chunk < state.counters.get('nextChunk') && !state.chunks.has(chunk)
  const isPlaced = members.length > 0 && members.length <= CHUNK_MEMBER_COUNT_MAX
  if (!isReserved || !isPlaced || new Set(members).size !== members.length) return false
  if (state.chunks.intentCount(lease) >= LEASE_INTENT_COUNT_MAX) return false
  // A condemned id never comes back (rule G1): its replicas may be deleted at any moment.
  return !members.some((server) => state.condemned.has(chunk, server))
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
  if (file.chunks.has(index) || !mayBecome(context, lease, chunk, members)) return false
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

interface Branch {
  readonly chunk: number
  readonly parent: number
  readonly version: number
  readonly members: readonly number[]
}

/** The child of a settled chunk takes its place in this one list; overlays on members in sync (rule S3). */
function branchChunk(context: ChunkContext, file: InodeRow, lease: number, branch: Branch): boolean {
  const { state } = context
  const { chunk, version, members } = branch
  const parent = state.chunks.get(branch.parent)
  if (parent === undefined || !mayBranch(context, file, parent, branch)) return false
  if (!mayBecome(context, lease, chunk, members)) return false
  const { index } = parent
  const minimum = placementOf(state, { inode: file.inode })?.replicasMinimum ?? 1
  state.chunks.put({
    chunk,
    inode: file.inode,
    index,
    version,
    members: members.map((server) => ({ server, role: 'in-sync', since: version, attempt: 0 })),
    writable: members.length >= minimum,
    pending: null,
    intentLease: lease,
    dirtyDead: false,
    former: [],
    overlays: members.toSorted((a, b) => a - b).map((server) => ({ server, parent: parent.chunk })),
  })
  file.chunks.set(index, chunk)
  mark('a first write branches a shared chunk')
  release(state, parent.chunk, file.inode)
  return true
}

function mayBranch({ state }: ChunkContext, file: InodeRow, parent: ChunkRow, branch: Branch): boolean {
  // Rules E6, S1: somebody else branched or dropped it meanwhile, or it is being written or reconfigured.
  if (file.chunks.get(parent.index) !== parent.chunk || parent.intentLease !== 0) return false
  if (parent.pending !== null || parent.dirtyDead) return false
  // Rule S4: what the child has is newer than what its parent has. Ids rise with depth.
  if (branch.chunk <= parent.chunk || branch.version !== nextVersion(state, parent.version)) return false
  const inSync = parent.members.filter(({ role }) => role === 'in-sync').map(({ server }) => server)
  return branch.members.every((server) => inSync.includes(server))
}
