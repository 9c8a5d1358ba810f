/** Operations on names and attributes. Each answers exactly once; all are namespace calls of the client. */
import type { AttributeUpdate, TimeUpdate } from '@cairn/core/client'
import {
  MODE_GROUP_EXECUTE,
  MODE_PERMISSION_MASK,
  MODE_SETGID,
  MODE_SETUID,
  MODE_TYPE_MASK,
  modeType,
  renameFlag,
  setattrValid,
} from '../protocol/constants.ts'
import type { Context } from './context.ts'
import { EINVAL, codeOf } from '../protocol/errno.ts'
import { OUT_HEADER_BYTES, writeNegativeEntry, writeStatus } from '../protocol/reply.ts'
import { publish } from './open-files.ts'
import type { Request } from '../protocol/request.ts'
import type { Attributes, FileType } from '../protocol/types.ts'

export function lookup(context: Context, request: Request): void {
  const { unique } = request
  const work = context.fileSystem.lookup(request.node, request.name())
  const pending = context.begin(unique)
  work.then(
    (attributes) => {
      if (context.finish(pending)) context.entry(unique, attributes)
    },
    (error: unknown) => {
      if (!context.finish(pending)) return
      const negativeMs = context.settings.negativeTimeoutMs
      if (codeOf(error) !== 'ENOENT' || negativeMs === 0) {
        context.fail(unique, error)
        return
      }
      const timeouts = { entryMs: negativeMs, attributesMs: 0 }
      context.scratchAnswer(unique, writeNegativeEntry(context.scratch, timeouts, OUT_HEADER_BYTES))
    },
  )
}

export function forget(context: Context, request: Request): void {
  context.inodes.forget(request.node, request.uint64())
}

export function batchForget(context: Context, request: Request): void {
  const count = request.uint32()
  request.skip(4)
  for (let index = 0; index < count; index++) context.inodes.forget(request.uint64(), request.uint64())
}

export function getattr(context: Context, request: Request): void {
  const { unique } = request
  const open = context.files.openInode(request.node)
  const { namesChanged } = context
  if (open !== undefined && open.written && !open.invalidated && open.namesSeen === namesChanged) {
    // A file we are writing: its handle knows all there is to know, without asking.
    const own = context.files.anyFileOf(request.node)
    if (own !== undefined) {
      context.attributes(unique, own.file.attributes())
      return
    }
  }
  context.run(unique, context.fileSystem.attributes(request.node), (attributes) => {
    if (open !== undefined) open.namesSeen = namesChanged
    context.attributes(unique, attributes)
  })
}

interface SetattrRequest {
  readonly inode: number
  readonly valid: number
  readonly handle: number
  readonly size: number
  readonly access: TimeUpdate
  readonly modify: TimeUpdate
  readonly mode: number
  readonly uid: number
  readonly gid: number
}

function parseSetattr(request: Request): SetattrRequest {
  const valid = request.uint32()
  request.skip(4)
  const handle = request.uint64()
  const size = (valid & setattrValid.SIZE) === 0 ? (request.skip(8), 0) : request.position64()
  request.skip(8)
  const accessSeconds = request.seconds()
  const modifySeconds = request.seconds()
  request.skip(8)
  const access = { seconds: accessSeconds, nanoseconds: request.uint32() }
  const modify = { seconds: modifySeconds, nanoseconds: request.uint32() }
  request.skip(4)
  const mode = request.uint32() & MODE_PERMISSION_MASK
  request.skip(4)
  return {
    inode: request.node,
    valid,
    handle,
    size,
    access,
    modify,
    mode,
    uid: request.uint32(),
    gid: request.uint32(),
  }
}

export function setattr(context: Context, request: Request): void {
  const { unique } = request
  context.run(unique, applySetattr(context, parseSetattr(request)), (attributes) => {
    context.attributes(unique, attributes)
  })
}

/** Size first (it needs the lease), then everything else in one step, so that given times win. */
async function applySetattr(context: Context, change: SetattrRequest): Promise<Attributes> {
  const { valid } = change
  let attributes: Attributes | undefined
  if ((valid & setattrValid.SIZE) !== 0) attributes = await truncate(context, change)
  const update = await attributeUpdate(context, change)
  if (update !== undefined) {
    // Times that a publish of earlier writes would overwrite: publish those first.
    if (update.modify !== undefined) await publishWrites(context, change.inode)
    attributes = await context.fileSystem.setAttributes(change.inode, update)
  }
  return attributes ?? context.fileSystem.attributes(change.inode)
}

function publishWrites(context: Context, inode: number): Promise<void> {
  const open = context.files.anyFileOf(inode)
  if (open === undefined || !open.state.unpublished) return Promise.resolve()
  return new Promise((resolve, reject) => {
    publish(open, (error) => (error === null ? resolve() : reject(error)))
  })
}

async function truncate(context: Context, change: SetattrRequest): Promise<Attributes> {
  const byHandle = (change.valid & setattrValid.FH) === 0 ? undefined : context.files.file(change.handle)
  const open = byHandle ?? context.files.anyFileOf(change.inode)
  if (open !== undefined) {
    open.state.written = true
    const attributes = await open.file.truncate(change.size)
    open.state.unpublished = true
    return attributes
  }
  const file = await context.fileSystem.open(change.inode)
  try {
    return await file.truncate(change.size)
  } finally {
    file.close()
  }
}

/** What is left for `setAttributes`; undefined when there is nothing. */
async function attributeUpdate(
  context: Context,
  change: SetattrRequest,
): Promise<AttributeUpdate | undefined> {
  const { valid } = change
  const isTruncation = (valid & setattrValid.SIZE) !== 0
  const update: { -readonly [Key in keyof AttributeUpdate]: AttributeUpdate[Key] } = {}
  if ((valid & setattrValid.MODE) !== 0) update.mode = change.mode
  if ((valid & setattrValid.UID) !== 0) update.uid = change.uid
  if ((valid & setattrValid.GID) !== 0) update.gid = change.gid
  if ((valid & setattrValid.ATIME) !== 0) {
    update.access = (valid & setattrValid.ATIME_NOW) === 0 ? change.access : 'now'
  }
  if ((valid & setattrValid.MTIME) !== 0) {
    if ((valid & setattrValid.MTIME_NOW) === 0) update.modify = change.modify
    else if (!isTruncation) update.modify = 'now' // truncating sets it already
  }
  const isOwnerChange = update.uid !== undefined || update.gid !== undefined
  if (isOwnerChange || (valid & setattrValid.KILL_SUIDGID) !== 0) {
    const current = await context.fileSystem.attributes(change.inode)
    const mode = modeWithoutPrivileges(current.type, update.mode ?? current.mode)
    if (mode !== current.mode) update.mode = mode
  }
  return Object.keys(update).length === 0 ? undefined : update
}

/** POSIX: a write, truncation or change of owner takes set-user-id, and set-group-id of executables. */
export function modeWithoutPrivileges(type: FileType, mode: number): number {
  if (type === 'directory') return mode
  const withoutUser = mode & ~MODE_SETUID
  return (withoutUser & MODE_GROUP_EXECUTE) === 0 ? withoutUser : withoutUser & ~MODE_SETGID
}

export function readlink(context: Context, request: Request): void {
  const { unique } = request
  context.run(unique, context.fileSystem.readlink(request.node), (target) => {
    context.data(unique, Buffer.from(target, 'utf8'))
  })
}

export function symlink(context: Context, request: Request): void {
  const { unique, node } = request
  const name = request.name()
  const target = request.name()
  const work = context.ownerOf(request).then((owner) => context.fileSystem.symlink(node, name, target, owner))
  context.run(unique, work, (attributes) => context.entry(unique, attributes))
}

function typeOfMode(mode: number): FileType | undefined {
  const bits = mode & MODE_TYPE_MASK
  if (bits === 0) return 'file'
  for (const [type, value] of Object.entries(modeType)) if (value === bits) return type as FileType
  return undefined
}

export function mknod(context: Context, request: Request): void {
  const { unique, node } = request
  const mode = request.uint32()
  const device = request.uint32()
  request.skip(8)
  const name = request.name()
  const type = typeOfMode(mode)
  if (type === undefined || type === 'directory' || type === 'symlink') {
    context.error(unique, EINVAL)
    return
  }
  const work = context
    .ownerOf(request)
    .then((owner) =>
      context.fileSystem.makeNode(node, name, type, mode & MODE_PERMISSION_MASK, device, owner),
    )
  context.run(unique, work, (attributes) => context.entry(unique, attributes))
}

export function mkdir(context: Context, request: Request): void {
  const { unique, node } = request
  const mode = request.uint32() & MODE_PERMISSION_MASK
  request.skip(4)
  const name = request.name()
  context.run(unique, makeDirectory(context, node, name, mode, request), (attributes) => {
    context.entry(unique, attributes)
  })
}

async function makeDirectory(
  context: Context,
  parent: number,
  name: string,
  mode: number,
  request: Request,
): Promise<Attributes> {
  const caller = { uid: request.uid, gid: request.gid, parent }
  const inherited = context.inodes.inheritedGroup(parent) ?? {
    group: groupOf(await context.fileSystem.attributes(parent)),
  }
  const owner = { uid: caller.uid, gid: inherited.group ?? caller.gid }
  // A set-group-id directory passes the bit on to its sub-directories.
  const inheritedMode = inherited.group === null ? mode : mode | MODE_SETGID
  return context.fileSystem.makeDirectory(parent, name, inheritedMode, owner)
}

function groupOf(directory: Attributes): number | null {
  return (directory.mode & MODE_SETGID) === 0 ? null : directory.gid
}

export function unlink(context: Context, request: Request): void {
  const { unique } = request
  context.run(unique, context.fileSystem.unlink(request.node, request.name()), () => {
    context.namesChanged++
    context.ok(unique)
  })
}

export function rmdir(context: Context, request: Request): void {
  const { unique } = request
  context.run(unique, context.fileSystem.removeDirectory(request.node, request.name()), () =>
    context.ok(unique),
  )
}

export function rename(context: Context, request: Request): void {
  renameWith(context, request, request.uint64(), 0)
}

export function rename2(context: Context, request: Request): void {
  const newParent = request.uint64()
  const flags = request.uint32()
  request.skip(4)
  renameWith(context, request, newParent, flags)
}

function renameWith(context: Context, request: Request, newParent: number, flags: number): void {
  const { unique } = request
  const name = request.name()
  const newName = request.name()
  const known = renameFlag.NOREPLACE | renameFlag.EXCHANGE
  if ((flags & ~known) !== 0 || flags === known) {
    context.error(unique, EINVAL)
    return
  }
  const mode = flags === 0 ? 'replace' : flags === renameFlag.EXCHANGE ? 'exchange' : 'no-replace'
  context.run(unique, context.fileSystem.rename(request.node, name, newParent, newName, mode), () => {
    context.namesChanged++
    context.ok(unique)
  })
}

export function link(context: Context, request: Request): void {
  const { unique } = request
  const inode = request.uint64()
  context.run(unique, context.fileSystem.link(inode, request.node, request.name()), (attributes) => {
    context.namesChanged++
    context.entry(unique, attributes)
  })
}

export function statfs(context: Context, request: Request): void {
  const { unique } = request
  context.run(unique, context.fileSystem.status(), (status) => {
    context.scratchAnswer(unique, writeStatus(context.scratch, status, OUT_HEADER_BYTES))
  })
}
