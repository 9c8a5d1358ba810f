/**
 * Snapshots, clones and rollbacks inside `apply` (docs/formats/snapshots.md). All three take over a chunk list: the
 * chunks get one holder more. A short list is taken over by the command itself, a longer one in steps that the
 * master proposes, while neither of the two inodes changes (`MetadataState.isFrozen`).
 */
import type { ChunkContext, ChunkHandlers, ChunkState } from '../chunks/handlers.ts'
import { HOLDER_COUNT_MAX } from '../chunks/chunk-table.ts'
import { hasDirtyChunk } from '../chunks/leases.ts'
import { hold, raiseGeneration, release } from '../chunks/sharing.ts'
import { frozen } from '../chunks/sizes.ts'
import { findGrowingDirectory, inodeRoomRefusal, isRefusal, setModifyTime } from '../namespace/inodes.ts'
import { nameRefusal } from '../namespace/limits.ts'
import { setFileSize } from '../namespace/file-size.ts'
import { chunkActions } from '../chunks/replicas.ts'
import { type Refusal, refused } from '../state/result.ts'
import type { CopyRow, InodeRow } from '../state/rows.ts'
import {
  COPY_COUNT_MAX,
  COPY_STEP_INDEXES_MAX,
  SNAPSHOT_COUNT_MAX,
  SNAPSHOTS_PER_FILE_MAX,
} from './limits.ts'

type SnapshotCommandType =
  | 'snapshot.create'
  | 'snapshot.delete'
  | 'snapshot.clone'
  | 'snapshot.rollback'
  | 'snapshot.step'

export const snapshotHandlers: ChunkHandlers<SnapshotCommandType> = {
  'snapshot.create'(context, { inode, name, path }) {
    const { state } = context
    const file = pausedFile(state, inode)
    if (isRefusal(file)) return file
    const refusal = snapshotNameRefusal(state, inode, name) ?? roomRefusal(state, file)
    if (refusal !== undefined) return refusal
    if (state.snapshots.size >= SNAPSHOT_COUNT_MAX)
      return refused('QUOTA', `there are ${SNAPSHOT_COUNT_MAX} snapshots: delete some first`)
    const target = addNamelessInode(context, file)
    const { wallSeconds: seconds, wallNanoseconds: nanoseconds } = context
    const row = { snapshot: target.inode, source: inode, name, path, seconds, nanoseconds }
    state.snapshots.set(target.inode, row)
    begin(context, { target: target.inode, source: inode, kind: 'snapshot', parent: 0, name: '' })
    return { ok: { snapshot: target.inode } }
  },

  'snapshot.delete'({ state }, { snapshot }) {
    const row = state.snapshots.get(snapshot)
    if (row === undefined) return refused('NOT_FOUND', `there is no snapshot ${snapshot}`)
    if (state.isFrozen(snapshot)) return frozen(snapshot)
    state.snapshots.delete(snapshot)
    const inode = state.inodes.get(snapshot)
    if (inode !== undefined) loseName(state, inode)
    return { ok: {} }
  },

  'snapshot.clone'(context, { source, parent, name, uid, gid }) {
    const { state } = context
    const from = state.snapshots.has(source) ? snapshotInode(state, source) : pausedFile(state, source)
    if (isRefusal(from)) return from
    const directory = findGrowingDirectory(state, parent)
    if (isRefusal(directory)) return directory
    const refusal = nameRefusal(name) ?? roomRefusal(state, from)
    if (refusal !== undefined) return refusal
    if (state.entries.entry(parent, name) !== undefined) return refused('EEXIST', 'the name exists already')
    const target = addNamelessInode(context, from)
    target.uid = uid
    target.gid = gid
    target.placement = directory.placement
    begin(context, { target: target.inode, source, kind: 'clone', parent, name })
    return { ok: { inode: target.inode } }
  },

  'snapshot.rollback'(context, { snapshot }) {
    const { state } = context
    const row = state.snapshots.get(snapshot)
    if (row === undefined) return refused('NOT_FOUND', `there is no snapshot ${snapshot}`)
    const from = snapshotInode(state, snapshot)
    if (isRefusal(from)) return from
    const file = pausedFile(state, row.source)
    if (isRefusal(file)) return file
    // Rule T2: size and list change under nobody's hands.
    if (state.leaseByInode.has(file.inode)) return refused('TRY_AGAIN', `inode ${file.inode} has a lease`)
    if (state.copies.size >= COPY_COUNT_MAX) return tooManyCopies()
    begin(context, { target: file.inode, source: snapshot, kind: 'rollback', parent: 0, name: '' })
    return { ok: { inode: file.inode } }
  },

  'snapshot.step'(context, { target, indexes, finish }) {
    const { state } = context
    const copy = state.copies.get(target)
    if (copy === undefined) return { ok: { finished: true } }
    if (!takeOver(state, copy, indexes)) giveUp(state, copy)
    else if (finish && isComplete(state, copy)) end(context, copy)
    const finished = !state.copies.has(target)
    const { kind, parent, name } = copy
    return { ok: finished && kind === 'clone' ? { finished, parent, name } : { finished } }
  },
}

/** A file that nobody writes at this moment, or why not (rule S1). */
function pausedFile(state: ChunkState, inode: number): InodeRow | Refusal {
  const file = state.inodes.get(inode)
  if (file === undefined) return refused('ESTALE', `inode ${inode} no longer exists`)
  if (file.type !== 'file') return refused('EINVAL', `inode ${inode} is a ${file.type}, not a file`)
  if (state.snapshots.has(inode)) return refused('EINVAL', `inode ${inode} is a snapshot`)
  if (state.isFrozen(inode)) return frozen(inode)
  const lease = state.leaseByInode.get(inode)
  if (lease !== undefined && state.chunks.intentCount(lease) > 0)
    return refused('TRY_AGAIN', `inode ${inode} is being written`)
  if (hasDirtyChunk(state, file))
    return refused('TRY_AGAIN', `what a dead writer left of inode ${inode} is being reconciled`)
  return file
}

function snapshotInode(state: ChunkState, snapshot: number): InodeRow | Refusal {
  // Complete, that is: it is nobody's target.
  if (state.copies.has(snapshot)) return frozen(snapshot)
  return state.inodes.get(snapshot) ?? refused('NOT_FOUND', `there is no snapshot ${snapshot}`)
}

function snapshotNameRefusal(state: ChunkState, source: number, name: string): Refusal | undefined {
  const refusal = nameRefusal(name)
  if (refusal !== undefined)
    return refused(refusal.error === 'ENOENT' ? 'EINVAL' : refusal.error, refusal.message)
  const others = state.snapshotsBySource.get(source) ?? new Set<number>()
  if (others.size >= SNAPSHOTS_PER_FILE_MAX)
    return refused('QUOTA', `a file has at most ${SNAPSHOTS_PER_FILE_MAX} snapshots: delete one first`)
  for (const snapshot of others)
    if (state.snapshots.get(snapshot)?.name === name)
      return refused('EEXIST', `the file has a snapshot ${name} already`)
  return undefined
}

function roomRefusal(state: ChunkState, from: InodeRow): Refusal | undefined {
  if (state.copies.size >= COPY_COUNT_MAX) return tooManyCopies()
  const isShort = from.chunks.size <= COPY_STEP_INDEXES_MAX
  if (isShort && from.chunks.ids().some((chunk) => isFull(state, chunk))) {
    return refused('QUOTA', `a chunk is shared by at most ${HOLDER_COUNT_MAX} files and snapshots`)
  }
  return inodeRoomRefusal(state)
}

function isFull(state: ChunkState, chunk: number): boolean {
  return state.chunks.sharing.holders(chunk).length + 1 >= HOLDER_COUNT_MAX
}

function tooManyCopies(): Refusal {
  return refused('TRY_AGAIN', 'too many chunk lists are being taken over at once')
}

/** With everything of `from` but its name and its chunks. Its link is the snapshot, or the name that it gets. */
function addNamelessInode({ state }: ChunkContext, from: InodeRow): InodeRow {
  return state.inodes.add({
    inode: state.counters.take('nextInode'),
    type: 'file',
    mode: from.mode,
    uid: from.uid,
    gid: from.gid,
    links: 1,
    size: from.size,
    device: 0,
    accessSeconds: from.accessSeconds,
    accessNanoseconds: from.accessNanoseconds,
    modifySeconds: from.modifySeconds,
    modifyNanoseconds: from.modifyNanoseconds,
    changeSeconds: from.changeSeconds,
    changeNanoseconds: from.changeNanoseconds,
    generation: 0,
    parent: 0,
    placement: from.placement,
    zeroFrom: from.zeroFrom,
  })
}

function loseName(state: ChunkState, row: InodeRow): void {
  row.links = 0
  state.markOrphan(row)
}

function begin(context: ChunkContext, copy: CopyRow): void {
  const { state } = context
  const from = state.inodes.get(copy.source)?.chunks
  const to = state.inodes.get(copy.target)?.chunks
  if (from === undefined || to === undefined) return
  state.copies.set(copy.target, copy)
  if (from.size + to.size > COPY_STEP_INDEXES_MAX) return
  takeOver(state, copy, [...from.indexes(), ...to.indexes()])
  end(context, copy)
}

/** False: a chunk has too many holders. A rollback may add its file to them: it has a snapshot among them. */
function takeOver(state: ChunkState, { source, target, kind }: CopyRow, indexes: readonly number[]): boolean {
  const from = state.inodes.get(source)
  const to = state.inodes.get(target)
  if (from === undefined || to === undefined) return false
  for (const index of indexes) {
    const wanted = from.chunks.get(index)
    const present = to.chunks.get(index)
    if (wanted === present) continue
    if (wanted !== undefined && kind !== 'rollback' && isFull(state, wanted)) return false
    if (present !== undefined) {
      to.chunks.delete(index)
      release(state, present, target)
    }
    const row = wanted === undefined ? undefined : state.chunks.get(wanted)
    if (row !== undefined) hold(state, to, row)
  }
  return true
}

/** As far as can be seen without looking at both lists: the master has looked. */
function isComplete(state: ChunkState, { source, target }: CopyRow): boolean {
  return state.inodes.get(source)?.chunks.size === state.inodes.get(target)?.chunks.size
}

/** What was begun goes as if it were unlinked. */
function giveUp(state: ChunkState, { target }: CopyRow): void {
  state.copies.delete(target)
  state.snapshots.delete(target)
  const inode = state.inodes.get(target)
  if (inode !== undefined) loseName(state, inode)
}

function end(context: ChunkContext, copy: CopyRow): void {
  const { state } = context
  state.copies.delete(copy.target)
  const source = state.inodes.get(copy.source)
  const target = state.inodes.get(copy.target)
  if (source === undefined || target === undefined) return
  if (copy.kind === 'clone') return nameClone(context, copy, target)
  if (copy.kind === 'snapshot') return
  target.sizeLimit = undefined
  setFileSize(context, target, source.size, chunkActions)
  target.zeroFrom = source.zeroFrom
  raiseGeneration(state, copy.target)
}

/** Whether the name was taken meanwhile is told by the inode: then it goes. */
function nameClone(context: ChunkContext, { parent, name }: CopyRow, target: InodeRow): void {
  const { state } = context
  const directory = findGrowingDirectory(state, parent)
  if (isRefusal(directory) || state.entries.entry(parent, name) !== undefined) return loseName(state, target)
  state.entries.add(parent, name, target.inode, context.index)
  setModifyTime(context, directory)
  setModifyTime(context, target)
}
