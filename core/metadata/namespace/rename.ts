/**
 * rename(2) with its three modes. All checks stand before the first change. A directory never moves below
 * itself; '..', link counts and times follow the move.
 */
import { assert } from '../../base/assert.ts'
import { ROOT_INODE } from '../../wire/messages/common.ts'
import type { ApplyContext, CommandOf, OutcomeOf } from '../state/apply.ts'
import type { DirectoryEntry } from '../state/directories.ts'
import { type CommandResult, type Refusal, refused } from '../state/result.ts'
import type { InodeRow } from '../state/rows.ts'
import type { MetadataState } from '../state/state.ts'
import {
  dropLink,
  findDirectory,
  findGrowingDirectory,
  inodeOf,
  isRefusal,
  setChangeTime,
  setModifyTime,
} from './inodes.ts'
import { nameRefusal } from './limits.ts'

interface Move {
  readonly from: InodeRow
  readonly to: InodeRow
  readonly entry: DirectoryEntry
  readonly row: InodeRow
  readonly newName: string
  readonly target: DirectoryEntry | undefined
}

type RenameResult = CommandResult<OutcomeOf<'fs.rename'>>

export function rename(context: ApplyContext, command: CommandOf<'fs.rename'>): RenameResult {
  const move = findMove(context.state, command)
  if (isRefusal(move)) return move
  const { target, row } = move
  if (command.mode === 'no-replace' && target !== undefined)
    return refused('EEXIST', 'the name exists already')
  if (command.mode === 'exchange') {
    if (target === undefined) return refused('ENOENT', 'no such name to exchange with')
    return exchange(context, move, target)
  }
  if (isBelow(context.state, move.to, row)) return refused('EINVAL', 'a directory cannot move below itself')
  if (target === undefined) return moveToNewName(context, move)
  // Two names of one file, or the same name: nothing happens, says POSIX.
  if (target.inode === row.inode) return { ok: { inode: row.inode } }
  const replaced = inodeOf(context.state, target.inode)
  return replaceRefusal(context.state, row, replaced) ?? replaceTarget(context, move, target, replaced)
}

function findMove(state: MetadataState, command: CommandOf<'fs.rename'>): Move | Refusal {
  const from = findDirectory(state, command.parent)
  if (isRefusal(from)) return from
  const sourceRefusal = nameRefusal(command.name)
  if (sourceRefusal !== undefined) return sourceRefusal
  const to = findDirectory(state, command.newParent)
  if (isRefusal(to)) return to
  const targetRefusal = nameRefusal(command.newName)
  if (targetRefusal !== undefined) return targetRefusal
  const entry = state.entries.entry(from.inode, command.name)
  if (entry === undefined) return refused('ENOENT', 'no such name')
  const target = state.entries.entry(to.inode, command.newName)
  if (target === undefined && command.mode !== 'exchange') {
    const growing = findGrowingDirectory(state, to.inode)
    if (isRefusal(growing)) return growing
  }
  return { from, to, entry, row: inodeOf(state, entry.inode), newName: command.newName, target }
}

/** Is `directory` the inode `top`, or somewhere below it? */
function isBelow(state: MetadataState, directory: InodeRow, top: InodeRow): boolean {
  if (top.type !== 'directory') return false
  let current = directory
  for (let depth = 0; depth <= state.inodes.size; depth++) {
    if (current.inode === top.inode) return true
    if (current.inode === ROOT_INODE) return false
    current = inodeOf(state, current.parent)
  }
  assert(false, 'the parents of a directory end at the root')
}

function replaceRefusal(state: MetadataState, row: InodeRow, replaced: InodeRow): Refusal | undefined {
  if (row.type === 'directory') {
    if (replaced.type !== 'directory') return refused('ENOTDIR', 'a directory replaces only a directory')
    const isEmpty = state.entries.entryCount(replaced.inode) === 0
    return isEmpty ? undefined : refused('ENOTEMPTY', 'the directory to replace is not empty')
  }
  return replaced.type === 'directory' ? refused('EISDIR', 'the name is a directory') : undefined
}

function moveToNewName(context: ApplyContext, move: Move): RenameResult {
  const { state, index } = context
  state.entries.remove(move.from.inode, move.entry)
  state.entries.add(move.to.inode, move.newName, move.row.inode, index)
  reparent(move.row, move.from, move.to)
  setTimes(context, move, [move.row])
  return { ok: { inode: move.row.inode } }
}

function replaceTarget(
  context: ApplyContext,
  move: Move,
  target: DirectoryEntry,
  replaced: InodeRow,
): RenameResult {
  const { state } = context
  state.entries.remove(move.from.inode, move.entry)
  state.entries.replace(move.to.inode, target, move.row.inode)
  if (replaced.type === 'directory') move.to.links -= 1
  reparent(move.row, move.from, move.to)
  dropLink(context, replaced)
  setTimes(context, move, [move.row])
  return { ok: { inode: move.row.inode, replaced: replaced.inode } }
}

function exchange(context: ApplyContext, move: Move, target: DirectoryEntry): RenameResult {
  const { state } = context
  const { from, to, entry, row } = move
  const other = inodeOf(state, target.inode)
  if (isBelow(state, to, row) || isBelow(state, from, other)) {
    return refused('EINVAL', 'a directory cannot move below itself')
  }
  if (other.inode === row.inode) return { ok: { inode: row.inode } }
  state.entries.replace(from.inode, entry, other.inode)
  state.entries.replace(to.inode, target, row.inode)
  reparent(row, from, to)
  reparent(other, to, from)
  setTimes(context, move, [row, other])
  return { ok: { inode: row.inode } }
}

function reparent(row: InodeRow, from: InodeRow, to: InodeRow): void {
  if (row.type !== 'directory' || from.inode === to.inode) return
  row.parent = to.inode
  from.links -= 1
  to.links += 1
}

function setTimes(context: ApplyContext, move: Move, moved: readonly InodeRow[]): void {
  setModifyTime(context, move.from)
  setModifyTime(context, move.to)
  for (const row of moved) setChangeTime(context, row)
}
