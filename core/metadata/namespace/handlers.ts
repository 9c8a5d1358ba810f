/** The commands of the namespace, for the state machine (state/apply.ts). */
import type { Handlers } from '../state/apply.ts'
import { setAttributes, setExtended, removeExtended } from './change.ts'
import type { ChunkActions } from './chunk-actions.ts'
import { createFile, makeLink, makeNode, makeSymlink } from './create.ts'
import { setPlacement } from './placement.ts'
import { collectFiles, removeDirectory, unlink } from './remove.ts'
import { rename } from './rename.ts'

export type NamespaceCommandType =
  | 'fs.setattr'
  | 'fs.create'
  | 'fs.mknod'
  | 'fs.symlink'
  | 'fs.link'
  | 'fs.unlink'
  | 'fs.rmdir'
  | 'fs.rename'
  | 'fs.setxattr'
  | 'fs.removexattr'
  | 'attr.set'
  | 'file.collect'

export function namespaceHandlers(chunkActions: ChunkActions): Handlers<NamespaceCommandType> {
  return {
    'fs.setattr': setAttributes,
    'fs.create': (context, command) => createFile(context, command, chunkActions),
    'fs.mknod': makeNode,
    'fs.symlink': makeSymlink,
    'fs.link': makeLink,
    'fs.unlink': unlink,
    'fs.rmdir': removeDirectory,
    'fs.rename': rename,
    'fs.setxattr': setExtended,
    'fs.removexattr': removeExtended,
    'attr.set': setPlacement,
    'file.collect': (context, command) => collectFiles(context, command, chunkActions),
  }
}
