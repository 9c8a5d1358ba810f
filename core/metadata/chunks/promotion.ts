/**
 * The last resort of a chunk whose replicas in sync are all gone (rule G2): an administrator makes a stale one the
 * only one in sync. What was written to the chunk since that one left is lost; nobody but an administrator decides that.
 * Replicas that were in sync count as former from then on: when they return they join, and take what this one has.
 */
import { CHUNK_SIZE_BYTES } from '../../base/units.ts'
import { refused } from '../state/result.ts'
import type { InodeRow } from '../state/rows.ts'
import { FORMER_COUNT_MAX } from './chunk-table.ts'
import { nextVersion } from './administration.ts'
import type { ChunkHandlers } from './handlers.ts'
import { holdersOf } from './sharing.ts'
import { committedVersion } from './condemning.ts'

export const promotionHandlers: ChunkHandlers<'replica.promote'> = {
  'replica.promote'({ state }, { chunk, from, server, rolledBack = false }) {
    const row = state.chunks.get(chunk)
    if (row === undefined) return refused('NOT_FOUND', `there is no chunk ${chunk}`)
    const committed = committedVersion(row)
    // Rule E6: what the administrator was told is old.
    if (committed !== from) return refused('REFUSED', `chunk ${chunk} has changed: look again`)
    // Rule B3: the master knows of a member whose disk went back in time.
    const stale = rolledBack ? row.members : row.former
    if (!stale.some((entry) => entry.server === server))
      return refused('REFUSED', `CS#${server} has no stale replica of chunk ${chunk}`)
    const others = [...row.members, ...(row.pending?.members ?? [])].map((member) => member.server)
    const former = new Map(row.former.map((entry) => [entry.server, entry.version]))
    for (const other of others) former.set(other, committed)
    former.delete(server)
    if (former.size > FORMER_COUNT_MAX) return refused('REFUSED', `chunk ${chunk} has too many replicas`)
    const version = nextVersion(state, committed)
    for (const inode of holdersOf(row)) {
      const file = state.inodes.get(inode)
      if (file !== undefined) markTail(file, row.index)
      state.inodes.touch(inode)
    }
    state.chunks.put({
      ...row,
      former: [...former]
        .toSorted(([a], [b]) => a - b)
        .map(([holder, highest]) => ({ server: holder, version: highest })),
      // Reconciled, although it is alone: nobody has looked at it since it left.
      pending: {
        version,
        members: [{ server, role: 'in-sync', since: version, attempt: 0 }],
        reconcile: true,
      },
    })
    return { ok: { proposed: [{ chunk, version }] } }
  },
}

/** It missed the zeroing of what was cut off since: the tail is zeroed again before the file may grow (rule T1). */
function markTail(file: InodeRow, index: number): void {
  const begin = index * CHUNK_SIZE_BYTES
  if (file.size <= begin || file.size >= begin + CHUNK_SIZE_BYTES) return
  file.zeroFrom = Math.min(file.size, file.zeroFrom ?? Number.MAX_SAFE_INTEGER)
}
