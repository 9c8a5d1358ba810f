/** Names that go: unlink, rmdir, and at last the inodes that lost them all. */
import type { ApplyContext, CommandOf, OutcomeOf } from '../state/apply.ts'
import { type CommandResult, type Refusal, refused } from '../state/result.ts'
import type { InodeRow } from '../state/rows.ts'
import type { ChunkActions } from './chunk-actions.ts'
import { takeChunks } from './file-size.ts'
import { dropLink, findDirectory, inodeOf, isRefusal, setModifyTime } from './inodes.ts'
import { nameRefusal } from './limits.ts'

export function unlink(
  context: ApplyContext,
  command: CommandOf<'fs.unlink'>,
): CommandResult<OutcomeOf<'fs.unlink'>> {
  const { state } = context
  const parent = findDirectory(state, command.parent)
  if (isRefusal(parent)) return parent
  if (command.name === '.' || command.name === '..') return refused('EISDIR', 'is a directory')
  const refusal = nameRefusal(command.name)
  if (refusal !== undefined) return refusal
  const entry = state.entries.entry(parent.inode, command.name)
  if (entry === undefined) return refused('ENOENT', 'no such name')
  const row = inodeOf(state, entry.inode)
  if (row.type === 'directory') return refused('EISDIR', 'is a directory')
  state.entries.remove(parent.inode, entry)
  setModifyTime(context, parent)
  dropLink(context, row)
  return { ok: { inode: row.inode, links: row.links } }
}

export function removeDirectory(
  context: ApplyContext,
  command: CommandOf<'fs.rmdir'>,
): CommandResult<OutcomeOf<'fs.rmdir'>> {
  const { state } = context
  const parent = findDirectory(state, command.parent)
  if (isRefusal(parent)) return parent
  const refusal = removedNameRefusal(command.name)
  if (refusal !== undefined) return refusal
  const entry = state.entries.entry(parent.inode, command.name)
  if (entry === undefined) return refused('ENOENT', 'no such name')
  const row = inodeOf(state, entry.inode)
  if (row.type !== 'directory') return refused('ENOTDIR', `is a ${row.type}`)
  if (state.entries.entryCount(row.inode) > 0) return refused('ENOTEMPTY', 'directory is not empty')
  state.entries.remove(parent.inode, entry)
  parent.links -= 1
  setModifyTime(context, parent)
  dropLink(context, row)
  return { ok: { inode: row.inode } }
}

/** POSIX: EINVAL for '.', ENOTEMPTY for '..'. */
function removedNameRefusal(name: string): Refusal | undefined {
  return name === '..' ? refused('ENOTEMPTY', 'directory is not empty') : nameRefusal(name)
}

/**
 * Ends inodes without a name. One that got a lease meanwhile stays: its chunks are freed after the last
 * session that held it ended (rule T2); the master proposes only what no session has open.
 */
export function collectFiles(
  context: ApplyContext,
  command: CommandOf<'file.collect'>,
  chunkActions: ChunkActions,
): CommandResult<OutcomeOf<'file.collect'>> {
  const { state } = context
  const collected: number[] = []
  const orphan = (inode: number): InodeRow | undefined => {
    const row = state.inodes.get(inode)
    if (row === undefined || row.links > 0) return undefined
    return state.leaseByInode.has(inode) || state.isFrozen(inode) ? undefined : row
  }
  if (command.partly !== undefined) {
    const row = orphan(command.partly.inode)
    // The master named them: a list has no order of its own, and all members must drop the same.
    if (row !== undefined)
      chunkActions.dropChunks(context, row.inode, takeChunks(row, command.partly.indexes))
  }
  for (const inode of command.inodes) {
    const row = orphan(inode)
    if (row === undefined) continue
    dropAllChunks(context, row, chunkActions)
    state.inodes.delete(inode)
    collected.push(inode)
  }
  return { ok: { collected } }
}

function dropAllChunks(context: ApplyContext, row: InodeRow, chunkActions: ChunkActions): void {
  const chunks = row.chunks.ids()
  if (chunks.length === 0) return
  row.chunks.clear()
  chunkActions.dropChunks(context, row.inode, chunks)
}
