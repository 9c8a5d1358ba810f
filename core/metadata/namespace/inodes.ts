/**
 * What every namespace command needs: finding inodes and parents with the right refusal, times, new inodes,
 * and inodes as attributes of the wire.
 */
import { present } from '../../base/assert.ts'
import { CHUNK_SIZE_BYTES, PAGE_SIZE_BYTES } from '../../base/units.ts'
import type { Attributes, FileType } from '../../wire/messages/common.ts'
import type { ApplyContext } from '../state/apply.ts'
import { type Refusal, refused } from '../state/result.ts'
import type { InodeRow } from '../state/rows.ts'
import { INODE_COUNT_MAX, type MetadataState } from '../state/state.ts'
import { DIRECTORY_ENTRIES_MAX, DIRECTORY_SIZE_BYTES, MODE_MASK, MODE_SET_GID } from './limits.ts'

export function isRefusal(value: object): value is Refusal {
  return 'error' in value
}

export function findInode(state: MetadataState, inode: number): InodeRow | Refusal {
  return state.inodes.get(inode) ?? refused('ESTALE', `inode ${inode} does not exist`)
}

/** One that its users may change: a snapshot stays what it was, and a clone has no name before it is complete. */
export function findChangeable(state: MetadataState, inode: number): InodeRow | Refusal {
  if (state.snapshots.has(inode)) return refused('EPERM', `inode ${inode} is a snapshot: it is not changed`)
  if (state.copies.get(inode)?.kind === 'clone') return refused('TRY_AGAIN', `inode ${inode} is being made`)
  return findInode(state, inode)
}

export function findDirectory(state: MetadataState, inode: number): InodeRow | Refusal {
  const row = findInode(state, inode)
  if (isRefusal(row)) return row
  return row.type === 'directory' ? row : refused('ENOTDIR', `inode ${inode} is a ${row.type}`)
}

/** A directory that may get a new name: it still has one itself, and room. */
export function findGrowingDirectory(state: MetadataState, inode: number): InodeRow | Refusal {
  const row = findDirectory(state, inode)
  if (isRefusal(row)) return row
  if (row.links === 0) return refused('ENOENT', 'the directory was removed')
  return state.entries.entryCount(inode) < DIRECTORY_ENTRIES_MAX
    ? row
    : refused('ENOSPC', `a directory has at most ${DIRECTORY_ENTRIES_MAX} names`)
}

/** The inode that an entry leads to. Entries without inodes do not exist. */
export function inodeOf(state: MetadataState, inode: number): InodeRow {
  return present(state.inodes.get(inode), `an entry leads to lost inode ${inode}`)
}

export function setChangeTime(context: ApplyContext, row: InodeRow): void {
  row.changeSeconds = context.wallSeconds
  row.changeNanoseconds = context.wallNanoseconds
  context.state.inodes.touch(row.inode)
}

/** Contents changed: names of a directory, bytes of a file. */
export function setModifyTime(context: ApplyContext, row: InodeRow): void {
  row.modifySeconds = context.wallSeconds
  row.modifyNanoseconds = context.wallNanoseconds
  setChangeTime(context, row)
}

export interface NewInode {
  readonly type: FileType
  readonly mode: number
  readonly uid: number
  readonly gid: number
  readonly device?: number
  readonly target?: string
}

export function inodeRoomRefusal(state: MetadataState): Refusal | undefined {
  if (state.inodes.size < INODE_COUNT_MAX) return undefined
  return refused('ENOSPC', `the file system has at most ${INODE_COUNT_MAX} inodes`)
}

/**
 * Makes an inode named `name` in `parent`; everything was checked. A set-gid directory gives its group, and
 * the bit to directories below it. Placement is inherited now, as it is now.
 */
export function addInode(context: ApplyContext, parent: InodeRow, name: string, what: NewInode): InodeRow {
  const { state } = context
  const isDirectory = what.type === 'directory'
  const inheritsGroup = (parent.mode & MODE_SET_GID) !== 0
  const row = state.inodes.add({
    inode: state.counters.take('nextInode'),
    type: what.type,
    mode: (what.mode & MODE_MASK) | (isDirectory && inheritsGroup ? MODE_SET_GID : 0),
    uid: what.uid,
    gid: inheritsGroup ? parent.gid : what.gid,
    links: isDirectory ? 2 : 1,
    size: what.target === undefined ? 0 : Buffer.byteLength(what.target),
    device: what.device ?? 0,
    accessSeconds: context.wallSeconds,
    accessNanoseconds: context.wallNanoseconds,
    modifySeconds: context.wallSeconds,
    modifyNanoseconds: context.wallNanoseconds,
    changeSeconds: context.wallSeconds,
    changeNanoseconds: context.wallNanoseconds,
    generation: 0,
    parent: isDirectory ? parent.inode : 0,
    target: what.target,
    placement: parent.placement,
  })
  state.entries.add(parent.inode, name, row.inode, context.index)
  if (isDirectory) parent.links += 1
  setModifyTime(context, parent)
  return row
}

/** One name of `row` is gone. Without a name it waits for file.collect. */
export function dropLink(context: ApplyContext, row: InodeRow): void {
  row.links = row.type === 'directory' ? 0 : row.links - 1
  setChangeTime(context, row)
  if (row.links === 0) context.state.markOrphan(row)
}

export function attributesOf(row: InodeRow): Attributes {
  return {
    inode: row.inode,
    type: row.type,
    mode: row.mode,
    uid: row.uid,
    gid: row.gid,
    links: row.links,
    size: row.type === 'directory' ? DIRECTORY_SIZE_BYTES : row.size,
    allocated: allocatedBytes(row),
    device: row.device,
    accessSeconds: row.accessSeconds,
    accessNanoseconds: row.accessNanoseconds,
    modifySeconds: row.modifySeconds,
    modifyNanoseconds: row.modifyNanoseconds,
    changeSeconds: row.changeSeconds,
    changeNanoseconds: row.changeNanoseconds,
    generation: row.generation,
  }
}

/** Whole chunks up to the size: holes inside a chunk are known to the chunk servers only. */
function allocatedBytes(row: InodeRow): number {
  const { chunks } = row
  if (chunks.size === 0) return 0
  const sizeInPages = Math.ceil(row.size / PAGE_SIZE_BYTES) * PAGE_SIZE_BYTES
  const tail = sizeInPages % CHUNK_SIZE_BYTES
  const lastIndex = Math.floor(sizeInPages / CHUNK_SIZE_BYTES)
  const hasTail = tail > 0 && chunks.has(lastIndex)
  const bytes = chunks.size * CHUNK_SIZE_BYTES - (hasTail ? CHUNK_SIZE_BYTES - tail : 0)
  return Math.min(bytes, sizeInPages)
}
