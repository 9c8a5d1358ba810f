/** Lease commands that change size or chunk list, and the size after a take-over (rules T1, T2, F8). */
import { mark } from '../../base/coverage.ts'
import { clearZeroMark, cutFile, setFileSize, sizeRefusal, unmapChunks } from '../namespace/file-size.ts'
import { attributesOf, setChangeTime } from '../namespace/inodes.ts'
import { type Refusal, refused } from '../state/result.ts'
import type { ChunkHandlers } from './handlers.ts'
import { heldFile, isRefusal } from './leases.ts'
import { chunkActions } from './replicas.ts'
import { raiseGeneration } from './sharing.ts'

/** Its chunk list is being taken over (docs/formats/snapshots.md). */
export function frozen(inode: number): Refusal {
  return refused('TRY_AGAIN', `the chunks of inode ${inode} are being shared`)
}

type SizeCommandType = 'lease.truncate' | 'lease.zeroed' | 'lease.unmap' | 'file.shrink' | 'file.recoverSize'

export const sizeHandlers: ChunkHandlers<SizeCommandType> = {
  'lease.truncate'(context, { session, lease, inode, size }) {
    const { state } = context
    const file = heldFile(state, session, lease, inode)
    if (isRefusal(file)) return file
    if (state.isFrozen(inode)) return frozen(inode)
    const refusal = sizeRefusal(file, size)
    if (refusal !== undefined) return refusal
    setFileSize(context, file, size, chunkActions)
    raiseGeneration(state, inode)
    return {
      ok: {
        attributes: attributesOf(file),
        ...(file.zeroFrom === undefined ? {} : { zeroFrom: file.zeroFrom }),
      },
    }
  },

  'lease.zeroed'(context, { session, lease, inode, zeroFrom }) {
    const file = heldFile(context.state, session, lease, inode)
    if (isRefusal(file)) return file
    // A later truncate has put its own mark: then this message is old (rule E6).
    clearZeroMark(context, file, zeroFrom)
    return { ok: {} }
  },

  'lease.unmap'(context, { session, lease, inode, indexes }) {
    const { state } = context
    const file = heldFile(state, session, lease, inode)
    if (isRefusal(file)) return file
    if (state.isFrozen(inode)) return frozen(inode)
    if (unmapChunks(context, file, indexes, chunkActions) > 0) raiseGeneration(state, inode)
    return { ok: {} }
  },

  'file.shrink'(context, { session, lease, inode, size, truncation }) {
    const { state } = context
    const file = heldFile(state, session, lease, inode)
    if (isRefusal(file)) return file
    if (state.isFrozen(inode)) return frozen(inode)
    if (state.replies.earlier(session, truncation) !== undefined)
      return refused('REFUSED', 'the truncation that this is a step of is over')
    cutFile(context, file, size, chunkActions)
    raiseGeneration(state, inode)
    return { ok: {} }
  },

  'file.recoverSize'(context, { inode, size, chunk, version }) {
    const { state } = context
    const file = state.inodes.get(inode)
    if (file === undefined) return { ok: { size: 0 } }
    // rule E6: the new holder has truncated meanwhile, or another epoch looks again
    const pending = chunk === undefined ? undefined : state.chunks.get(chunk)?.pending?.version
    if (chunk !== undefined && pending !== version) return { ok: { size: file.size } }
    // Never past what the dead holder was allowed, nor past a tail it had still to zero (rule T1).
    const bound = Math.min(file.sizeLimit ?? file.size, file.zeroFrom ?? Number.MAX_SAFE_INTEGER)
    const recovered = Math.min(size, bound)
    if (recovered > file.size) {
      mark('the size of a dead writer is recovered')
      file.size = recovered
      setChangeTime(context, file)
      raiseGeneration(state, inode)
    }
    return { ok: { size: file.size } }
  },
}
