/**
 * Answers the namespace methods of a session. Mutations go through the log; questions are answered from
 * applied state, which holds nothing that a crash could take back. Parameters have the form of their schema
 * already. Who the session is, and that it lives, is checked by session handling before.
 */
import type { namespaceMethods } from '../../../wire/messages/metadata.ts'
import type { ParamsOf, ResultOf } from '../../../wire/messages/method.ts'
import { NAME_BYTES_MAX, ROOT_INODE } from '../../../wire/messages/common.ts'
import { wireError } from '../../errors.ts'
import type { ReplicatedLog } from '../../log/replicated-log.ts'
import { attributesOf, findInode } from '../../namespace/inodes.ts'
import { defaultPlacement, effectivePlacement } from '../../namespace/placement.ts'
import {
  getExtended,
  listExtended,
  lookup,
  readDirectory,
  readLink,
  resolvePath,
} from '../../namespace/read.ts'
import { type Refusal, valueOf } from '../../state/result.ts'
import type { InodeRow } from '../../state/rows.ts'
import { INODE_COUNT_MAX, type MetadataState } from '../../state/state.ts'
import type { OpenFiles } from './open-files.ts'

type NamespaceMethods = typeof namespaceMethods
export type NamespaceMethodName = keyof NamespaceMethods

/** One handler per method. Throws or rejects with a CairnError whose code is a WireCode. */
export type FileSystemHandlers = {
  readonly [N in NamespaceMethodName]: (
    session: number,
    params: ParamsOf<NamespaceMethods, N>,
  ) => ResultOf<NamespaceMethods, N> | Promise<ResultOf<NamespaceMethods, N>>
}

export interface LeasePublisher {
  /**
   * Close-to-open: when another session holds the write lease, resolves after that holder has published
   * size and times, or could not. At once when nobody does.
   */
  publish(inode: number, session: number): Promise<void>
}

export interface SpaceSource {
  /** Bytes for user data at the placement of the root: raw bytes divided by the normal number of replicas. */
  fileSystemSpace(replicasNormal: number): {
    readonly totalBytes: number
    readonly freeBytes: number
    readonly availableBytes: number
  }
}

export interface FileSystemServiceOptions {
  readonly state: MetadataState
  readonly log: ReplicatedLog
  readonly openFiles: OpenFiles
  readonly leases: LeasePublisher
  readonly space: SpaceSource
}

export function fileSystemHandlers(options: FileSystemServiceOptions): FileSystemHandlers {
  return { ...questionHandlers(options), ...mutationHandlers(options), ...openHandlers(options) }
}

type QuestionName =
  | 'fs.lookup'
  | 'fs.resolve'
  | 'fs.getattr'
  | 'fs.readlink'
  | 'fs.readdir'
  | 'fs.statfs'
  | 'fs.getxattr'
  | 'fs.listxattr'
  | 'attr.get'
type OpenName = 'fs.create' | 'fs.open' | 'fs.close'
type MutationName = Exclude<NamespaceMethodName, QuestionName | OpenName>

function rowOf(found: InodeRow | Refusal): InodeRow {
  if ('error' in found) throw wireError(found.error, found.message)
  return found
}

function nodeOf(found: InodeRow | Refusal): ResultOf<NamespaceMethods, 'fs.getattr'> {
  return { attributes: attributesOf(rowOf(found)) }
}

function questionHandlers({
  state,
  log,
  space,
}: FileSystemServiceOptions): Pick<FileSystemHandlers, QuestionName> {
  /** State is behind while loading. */
  const checkReady = (): void => {
    if (!log.isReady) throw wireError('STARTING', 'the metadata server is loading its state')
  }
  return {
    'fs.lookup'(_session, { parent, name }) {
      checkReady()
      return nodeOf(lookup(state, parent, name))
    },
    'fs.resolve'(_session, { path }) {
      checkReady()
      return nodeOf(resolvePath(state, path))
    },
    'fs.getattr'(_session, { inode }) {
      checkReady()
      return nodeOf(findInode(state, inode))
    },
    'fs.readlink'(_session, { inode }) {
      checkReady()
      return valueOf(readLink(state, inode))
    },
    'fs.readdir'(_session, params) {
      checkReady()
      return valueOf(readDirectory(state, params))
    },
    'fs.statfs'() {
      checkReady()
      const root = state.inodes.get(ROOT_INODE)
      const { replicasNormal } = root === undefined ? defaultPlacement : effectivePlacement(root)
      return {
        ...space.fileSystemSpace(replicasNormal),
        files: state.inodes.size,
        filesFree: Math.max(0, INODE_COUNT_MAX - state.inodes.size),
        nameBytesMax: NAME_BYTES_MAX,
      }
    },
    'fs.getxattr'(_session, { inode, name }) {
      checkReady()
      return valueOf(getExtended(state, inode, name))
    },
    'fs.listxattr'(_session, { inode }) {
      checkReady()
      return valueOf(listExtended(state, inode))
    },
    'attr.get'(_session, { inode }) {
      checkReady()
      const row = rowOf(findInode(state, inode))
      return { own: row.placement ?? {}, effective: effectivePlacement(row) }
    },
  }
}

function mutationHandlers({ log }: FileSystemServiceOptions): Pick<FileSystemHandlers, MutationName> {
  return {
    async 'fs.setattr'(session, params) {
      return valueOf(await log.propose({ type: 'fs.setattr', session, ...params }))
    },
    async 'fs.mknod'(session, { type: fileType, ...params }) {
      return valueOf(await log.propose({ type: 'fs.mknod', session, fileType, ...params }))
    },
    async 'fs.symlink'(session, params) {
      return valueOf(await log.propose({ type: 'fs.symlink', session, ...params }))
    },
    async 'fs.link'(session, params) {
      return valueOf(await log.propose({ type: 'fs.link', session, ...params }))
    },
    async 'fs.unlink'(session, params) {
      return valueOf(await log.propose({ type: 'fs.unlink', session, ...params }))
    },
    async 'fs.rmdir'(session, params) {
      return valueOf(await log.propose({ type: 'fs.rmdir', session, ...params }))
    },
    async 'fs.rename'(session, params) {
      return valueOf(await log.propose({ type: 'fs.rename', session, ...params }))
    },
    async 'fs.setxattr'(session, params) {
      return valueOf(await log.propose({ type: 'fs.setxattr', session, ...params }))
    },
    async 'fs.removexattr'(session, params) {
      return valueOf(await log.propose({ type: 'fs.removexattr', session, ...params }))
    },
    async 'attr.set'(session, params) {
      return valueOf(await log.propose({ type: 'attr.set', session, ...params }))
    },
  }
}

function openHandlers(options: FileSystemServiceOptions): Pick<FileSystemHandlers, OpenName> {
  const { state, log, openFiles, leases } = options
  return {
    async 'fs.create'(session, params) {
      const created = valueOf(await log.propose({ type: 'fs.create', session, ...params }))
      const { inode } = created.attributes
      const undoOpen = openFiles.openOnce(session, inode, params.mutation)
      if (undoOpen === null) throw tooManyOpen()
      if (created.created) return created
      try {
        await leases.publish(inode, session)
        return { ...created, ...nodeOf(findInode(state, inode)) }
      } catch (error) {
        undoOpen()
        throw error
      }
    },
    async 'fs.open'(session, { inode, truncate }) {
      if (!log.isReady) throw wireError('STARTING', 'the metadata server is loading its state')
      rowOf(findInode(state, inode))
      // Counted first: while the holder publishes, the inode must stay.
      const undoOpen = openFiles.open(session, inode)
      if (undoOpen === null) throw tooManyOpen()
      try {
        // Who truncates needs no size; it takes the lease next, which recalls the holder (rule T2).
        if (!truncate) await leases.publish(inode, session)
        return nodeOf(findInode(state, inode))
      } catch (error) {
        undoOpen()
        throw error
      }
    },
    'fs.close'(session, { inodes }) {
      openFiles.close(session, inodes)
      return {}
    },
  }
}

function tooManyOpen(): Error {
  return wireError('OVERLOADED', 'the session has too many files open')
}
