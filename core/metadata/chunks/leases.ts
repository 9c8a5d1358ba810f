/**
 * The write lease of a file: at most one, numbered by the log index of its grant, so that numbers only rise
 * (rule E3). Every command names the lease and is refused when it has ended or belongs to another session.
 */
import { mark } from '../../base/coverage.ts'
import { attributesOf } from '../namespace/inodes.ts'
import { refused, type Refusal } from '../state/result.ts'
import type { InodeRow } from '../state/rows.ts'
import type { ChunkContext, ChunkHandlers, ChunkState } from './handlers.ts'
import { endLease } from './sessions.ts'
import { isHeldBy, raiseGeneration } from './sharing.ts'

/** Rule L8: the coldest intents are flushed and given back beyond this. */
export const LEASE_INTENT_COUNT_MAX = 1024

type LeaseCommandType = 'lease.acquire' | 'lease.update' | 'lease.release' | 'lease.return'

/** The inode of a living lease of this session, or why not. */
export function heldFile(
  state: ChunkState,
  session: number,
  lease: number,
  inode: number,
): InodeRow | Refusal {
  const row = state.leases.get(lease)
  if (row === undefined || row.inode !== inode || row.session !== session) {
    return refused('NO_LEASE', `lease ${lease} of inode ${inode} has ended`)
  }
  const file = state.inodes.get(inode)
  return file ?? refused('ESTALE', `inode ${inode} no longer exists`)
}

export function isRefusal(value: object): value is Refusal {
  return 'error' in value
}

export const leaseHandlers: ChunkHandlers<LeaseCommandType> = {
  'lease.acquire'(context, { session, inode, pinned }) {
    const { state, index } = context
    const file = state.inodes.get(inode)
    if (file === undefined) return refused('ESTALE', `inode ${inode} no longer exists`)
    if (file.type !== 'file') return refused(file.type === 'directory' ? 'EISDIR' : 'EINVAL', 'not a file')
    if (state.snapshots.has(inode)) return refused('EPERM', 'a snapshot is not written: clone it')
    // Its size and contents are about to be others.
    if (state.copies.has(inode)) return refused('TRY_AGAIN', `inode ${inode} gets other contents`)
    const dirty = dirtyIndexes(state, file)
    const answer = (lease: number) => ({
      ok: {
        lease,
        attributes: attributesOf(file),
        ...(file.zeroFrom === undefined ? {} : { zeroFrom: file.zeroFrom }),
        ...(dirty.length === 0 ? {} : { dirty }),
      },
    })
    const current = state.leaseByInode.get(inode)
    const holder = current === undefined ? undefined : state.leases.get(current)
    if (holder !== undefined) {
      if (holder.session !== session) return refused('EBUSY', `inode ${inode} is being written elsewhere`)
      if (pinned && !holder.pinned) state.leases.set(holder.lease, { ...holder, pinned })
      return answer(holder.lease)
    }
    state.leases.set(index, { lease: index, inode, session, pinned })
    return answer(index)
  },

  'lease.update'(context, command) {
    const { state } = context
    const file = heldFile(state, command.session, command.lease, command.inode)
    if (isRefusal(file)) return file
    const refusal = applyUpdate(context, file, command)
    return refusal ?? { ok: { attributes: attributesOf(file) } }
  },

  'lease.release'(context, command) {
    const { state } = context
    const file = heldFile(state, command.session, command.lease, command.inode)
    if (isRefusal(file)) return file
    const refusal = applyUpdate(context, file, command)
    if (refusal !== null) return refusal
    release(context, file, command.lease)
    return { ok: {} }
  },

  'lease.return'(context, { session, leases }) {
    for (const { inode, lease } of leases) {
      const file = heldFile(context.state, session, lease, inode)
      if (!isRefusal(file)) release(context, file, lease)
    }
    return { ok: {} }
  },
}

function release(context: ChunkContext, file: InodeRow, lease: number): void {
  const { state } = context
  const dirty = endLease(context, lease)
  // While something is dirty the size may still have to be recovered up to this bound (rule F8).
  if (dirty.length > 0 || file.sizeLimit === undefined || hasDirtyChunk(state, file)) return
  file.sizeLimit = undefined
  state.inodes.touch(file.inode)
}

interface FileUpdate {
  readonly size?: number
  readonly modifySeconds?: number
  readonly modifyNanoseconds?: number
}

/** Size only grows this way (shrinking is lease.truncate), and never past a tail that must be zeroed (rule T1). */
function applyUpdate(context: ChunkContext, file: InodeRow, update: FileUpdate): Refusal | null {
  const { size, modifySeconds, modifyNanoseconds } = update
  if (size !== undefined && file.zeroFrom !== undefined && size > file.zeroFrom) {
    mark('a size may not grow past a tail that is to be zeroed')
    return refused('REFUSED', `the tail from ${file.zeroFrom} must be zeroed first (rule T1)`)
  }
  const grows = size !== undefined && size > file.size
  if (!grows && modifySeconds === undefined) return null
  if (grows) file.size = size
  if (modifySeconds !== undefined) {
    file.modifySeconds = modifySeconds
    file.modifyNanoseconds = Math.min(modifyNanoseconds ?? 0, 999_999_999)
  }
  file.changeSeconds = context.wallSeconds
  file.changeNanoseconds = context.wallNanoseconds
  raiseGeneration(context.state, file.inode)
  return null
}

/** Rule F4: where acknowledged writes of a dead holder may be unsynced. */
export function dirtyIndexes(state: ChunkState, file: InodeRow): number[] {
  const indexes: number[] = []
  forEachDirty(state, file, (index) => indexes.push(index))
  // Sorted: this is an answer, and every member keeps the same.
  return indexes.toSorted((a, b) => a - b)
}

export function hasDirtyChunk(state: ChunkState, file: InodeRow): boolean {
  let count = 0
  forEachDirty(state, file, () => (count += 1))
  return count > 0
}

/** Through whichever is shorter: all that is dirty, or the chunks of the file. */
function forEachDirty(state: ChunkState, file: InodeRow, visit: (index: number) => void): void {
  const { chunks } = state
  if (chunks.dirtyDeadCount < file.chunks.size) {
    for (const chunk of chunks.dirtyDeadChunks()) {
      const row = chunks.get(chunk)
      if (row !== undefined && isHeldBy(row, file.inode)) visit(row.index)
    }
  } else if (chunks.dirtyDeadCount > 0) {
    for (const index of file.chunks.indexes())
      if (chunks.isDirtyDead(file.chunks.get(index) ?? 0)) visit(index)
  }
}
