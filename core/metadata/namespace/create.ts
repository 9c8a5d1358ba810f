/** New names: files, directories, special files, symlinks, hard links. */
import type { FileType } from '../../wire/messages/common.ts'
import type { ApplyContext, CommandOf, OutcomeOf } from '../state/apply.ts'
import { type CommandResult, type Refusal, refused } from '../state/result.ts'
import type { InodeRow } from '../state/rows.ts'
import type { ChunkActions } from './chunk-actions.ts'
import {
  addInode,
  attributesOf,
  findGrowingDirectory,
  findChangeable,
  inodeOf,
  inodeRoomRefusal,
  isRefusal,
  setChangeTime,
  setModifyTime,
} from './inodes.ts'
import { ID_MAX, LINK_COUNT_MAX, nameRefusal, pathRefusal } from './limits.ts'

interface Owned {
  readonly uid: number
  readonly gid: number
}

function ownerRefusal(owned: Owned): Refusal | undefined {
  const isGood = owned.uid <= ID_MAX && owned.gid <= ID_MAX
  return isGood ? undefined : refused('EINVAL', 'an owner is a number of 32 bits')
}

/** The directory in which `name` may be made, or why not. */
function placeFor(
  context: ApplyContext,
  command: { parent: number; name: string } & Owned,
): InodeRow | Refusal {
  const { state } = context
  const parent = findGrowingDirectory(state, command.parent)
  if (isRefusal(parent)) return parent
  const refusal = newNameRefusal(command.name) ?? ownerRefusal(command)
  if (refusal !== undefined) return refusal
  if (state.entries.entry(parent.inode, command.name) !== undefined) {
    return refused('EEXIST', 'the name exists already')
  }
  return inodeRoomRefusal(state) ?? parent
}

/** '.' and '..' exist in every directory. */
function newNameRefusal(name: string): Refusal | undefined {
  return name === '.' || name === '..' ? refused('EEXIST', 'the name exists already') : nameRefusal(name)
}

export function createFile(
  context: ApplyContext,
  command: CommandOf<'fs.create'>,
  chunkActions: ChunkActions,
): CommandResult<OutcomeOf<'fs.create'>> {
  const existing = context.state.entries.entry(command.parent, command.name)
  if (existing !== undefined && !command.exclusive) {
    const row = inodeOf(context.state, existing.inode)
    if (row.type === 'directory') return refused('EISDIR', 'the name is a directory')
    // Only the caller can follow it.
    if (row.type === 'symlink') return refused('EEXIST', 'the name is a symlink')
    return { ok: { attributes: attributesOf(row), created: false } }
  }
  const parent = placeFor(context, command)
  if (isRefusal(parent)) return parent
  const row = addInode(context, parent, command.name, { ...command, type: 'file' })
  const lease = command.lease ? chunkActions.grantLease(context, row.inode, command.session) : undefined
  return {
    ok: { attributes: attributesOf(row), created: true, ...(lease === undefined ? {} : { lease }) },
  }
}

const deviceTypes: ReadonlySet<FileType> = new Set<FileType>(['block-device', 'character-device'])

export function makeNode(
  context: ApplyContext,
  command: CommandOf<'fs.mknod'>,
): CommandResult<OutcomeOf<'fs.mknod'>> {
  if (command.fileType === 'symlink') return refused('EINVAL', 'symlinks are made by fs.symlink')
  const parent = placeFor(context, command)
  if (isRefusal(parent)) return parent
  const device = deviceTypes.has(command.fileType) ? command.device : 0
  const row = addInode(context, parent, command.name, { ...command, type: command.fileType, device })
  return { ok: { attributes: attributesOf(row) } }
}

export function makeSymlink(
  context: ApplyContext,
  command: CommandOf<'fs.symlink'>,
): CommandResult<OutcomeOf<'fs.symlink'>> {
  const parent = placeFor(context, command)
  if (isRefusal(parent)) return parent
  const refusal = pathRefusal(command.target)
  if (refusal !== undefined) return refusal
  const { uid, gid, target } = command
  const row = addInode(context, parent, command.name, { type: 'symlink', mode: 0o777, uid, gid, target })
  return { ok: { attributes: attributesOf(row) } }
}

export function makeLink(
  context: ApplyContext,
  command: CommandOf<'fs.link'>,
): CommandResult<OutcomeOf<'fs.link'>> {
  const { state } = context
  const row = findChangeable(state, command.inode)
  if (isRefusal(row)) return row
  if (row.type === 'directory') return refused('EPERM', 'a directory has one name')
  if (row.links === 0) return refused('ENOENT', 'the file was removed')
  const parent = placeFor(context, { ...command, uid: row.uid, gid: row.gid })
  if (isRefusal(parent)) return parent
  if (row.links >= LINK_COUNT_MAX) return refused('EMLINK', `a file has at most ${LINK_COUNT_MAX} names`)
  state.entries.add(parent.inode, command.name, row.inode, context.index)
  row.links += 1
  setChangeTime(context, row)
  setModifyTime(context, parent)
  return { ok: { attributes: attributesOf(row) } }
}
