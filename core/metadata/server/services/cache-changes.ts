/** What an applied command made stale in the caches of other clients. */
import type { OutcomeOf } from '../../state/apply.ts'
import type { Command } from '../../state/commands.ts'
import type { CommandResult } from '../../state/result.ts'

export interface CacheChanges {
  readonly inodes: readonly number[]
  readonly entries: readonly { readonly parent: number; readonly name: string }[]
}

const nothing: CacheChanges = { inodes: [], entries: [] }

/** A refused command changed nothing. */
export function cacheChanges(command: Command, result: CommandResult): CacheChanges {
  if ('error' in result) return nothing
  switch (command.type) {
    case 'fs.create': {
      const { created } = result.ok as { created: boolean }
      if (!created) return nothing
      return {
        inodes: [command.parent],
        entries: [{ parent: command.parent, name: command.name }],
      }
    }
    case 'fs.mknod':
    case 'fs.symlink':
      return {
        inodes: [command.parent],
        entries: [{ parent: command.parent, name: command.name }],
      }
    case 'fs.link':
      return {
        inodes: [command.parent, command.inode],
        entries: [{ parent: command.parent, name: command.name }],
      }
    case 'fs.unlink':
    case 'fs.rmdir': {
      const { inode } = result.ok as { inode: number }
      return {
        inodes: [command.parent, inode],
        entries: [{ parent: command.parent, name: command.name }],
      }
    }
    case 'fs.rename': {
      const { inode, replaced } = result.ok as { inode: number; replaced?: number }
      const inodes = new Set([command.parent, command.newParent, inode])
      if (replaced !== undefined) inodes.add(replaced)
      return {
        inodes: [...inodes],
        entries: [
          { parent: command.parent, name: command.name },
          { parent: command.newParent, name: command.newName },
        ],
      }
    }
    case 'snapshot.clone':
      return {
        inodes: [command.parent],
        entries: [{ parent: command.parent, name: command.name }],
      }
    case 'snapshot.rollback':
      return { inodes: [(result.ok as { inode: number }).inode], entries: [] }
    case 'snapshot.step': {
      const { finished, parent, name = '' } = result.ok as OutcomeOf<'snapshot.step'>
      if (!finished) return nothing
      if (parent === undefined) return { inodes: [command.target], entries: [] }
      return { inodes: [parent], entries: [{ parent, name }] }
    }
    case 'fs.setattr':
    case 'fs.setxattr':
    case 'fs.removexattr':
    case 'attr.set':
    case 'lease.update':
    case 'lease.release':
    case 'lease.truncate':
    case 'lease.unmap':
    case 'file.shrink':
    case 'file.recoverSize':
      return { inodes: [command.inode], entries: [] }
    default:
      return nothing
  }
}
