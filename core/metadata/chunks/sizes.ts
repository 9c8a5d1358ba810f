/** Size and chunk list of a file: truncate, unmap, the size after a take-over (rules T1, T2, F8). */
import { CHUNK_SIZE_BYTES } from '../../base/units.ts'
import { refused } from '../state/result.ts'
import type { InodeRow } from '../state/rows.ts'
import type { ChunkContext, ChunkHandlers, NamespaceView } from './handlers.ts'
import { heldFile, isRefusal } from './leases.ts'
import { dropChunks } from './replicas.ts'
import { raiseGeneration } from './sessions.ts'

/** Chunk indexes fit 32 bits with room; sizes stay below 2^53. */
export const FILE_SIZE_BYTES_MAX = 2 ** 50

type SizeCommandType = 'lease.truncate' | 'lease.unmap' | 'file.recoverSize'

export function sizeHandlers(namespace: NamespaceView): ChunkHandlers<SizeCommandType> {
  return {
    'lease.truncate'(context, { session, lease, inode, size }) {
      const { state } = context
      const file = heldFile(state, session, lease, inode)
      if (isRefusal(file)) return file
      if (size > FILE_SIZE_BYTES_MAX) return refused('EFBIG', `files end at ${FILE_SIZE_BYTES_MAX} bytes`)
      if (file.zeroFrom !== undefined && size > file.zeroFrom) {
        return refused('REFUSED', `the tail from ${file.zeroFrom} must be zeroed first (rule T1)`)
      }
      truncateFile(context, file, size)
      return {
        ok: {
          attributes: namespace.attributesOf(state, file),
          ...(file.zeroFrom === undefined ? {} : { zeroFrom: file.zeroFrom }),
        },
      }
    },

    'lease.unmap'(context, { session, lease, inode, indexes }) {
      const { state } = context
      const file = heldFile(state, session, lease, inode)
      if (isRefusal(file)) return file
      dropChunks(context, file, (index) => indexes.includes(index))
      setTimes(context, file)
      raiseGeneration(state, inode)
      return { ok: {} }
    },

    'file.recoverSize'(context, { inode, size }) {
      const { state } = context
      const file = state.inodes.get(inode)
      if (file === undefined) return { ok: { size: 0 } }
      // Never past what the dead holder was allowed, nor past a tail it had still to zero (rule T1).
      const bound = Math.min(file.sizeLimit ?? file.size, file.zeroFrom ?? Number.MAX_SAFE_INTEGER)
      const recovered = Math.min(size, bound)
      if (recovered > file.size) {
        file.size = recovered
        setTimes(context, file)
        raiseGeneration(state, inode)
      }
      return { ok: { size: file.size } }
    },
  }
}

/** Rule T1: new size, whole chunks dropped and the tail marked, all in one command. */
export function truncateFile(context: ChunkContext, file: InodeRow, size: number): void {
  const { state } = context
  const isShrinking = size < file.size
  const keepCount = Math.ceil(size / CHUNK_SIZE_BYTES)
  // Also when the size stays: a dead holder may have written chunks beyond it.
  dropChunks(context, file, (index) => index >= keepCount)
  const lastChunk = file.chunks?.get(keepCount - 1)
  const hasTail = size % CHUNK_SIZE_BYTES !== 0 && lastChunk !== undefined
  if (hasTail && (isShrinking || file.zeroFrom !== undefined))
    file.zeroFrom = Math.min(size, file.zeroFrom ?? size)
  else if (!hasTail) delete file.zeroFrom
  file.size = size
  setTimes(context, file)
  file.modifySeconds = context.wallSeconds
  file.modifyNanoseconds = context.wallNanoseconds
  raiseGeneration(state, file.inode)
}

function setTimes(context: ChunkContext, file: InodeRow): void {
  file.changeSeconds = context.wallSeconds
  file.changeNanoseconds = context.wallNanoseconds
  context.state.inodes.touch(file.inode)
}
