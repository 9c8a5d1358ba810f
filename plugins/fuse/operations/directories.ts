/**
 * Directory listings. Offsets: 0 is '.', 1 is '..', everything else is the client's cookie plus
 * DOT_OFFSETS, which stays valid while names come and go. What was fetched and did not fit stays with
 * the handle for the next request; a seek (another offset) drops it.
 */
import type { DirectoryEntry } from '@cairn/core/client'
import { type Context, SCRATCH_BYTES } from './context.ts'
import { EBADF, EINVAL, ENFILE } from '../protocol/errno.ts'
import type { OpenDirectory } from './open-files.ts'
import {
  ENTRY_BYTES,
  type ListedEntry,
  OUT_HEADER_BYTES,
  writeDirectoryEntry,
  writeOpenAnswer,
} from '../protocol/reply.ts'
import type { Request } from '../protocol/request.ts'

const DOT_OFFSETS = 2
/** Most entries asked for at once. */
const LIMIT_MAX = 1024
const LIMIT_MIN = 16
/** Header of an entry and a short name. */
const ENTRY_BYTES_TYPICAL = 40

export function opendir(context: Context, request: Request): void {
  if (context.files.full) {
    context.error(request.unique, ENFILE)
    return
  }
  const handle = context.files.openDirectory(request.node)
  const end = writeOpenAnswer(context.scratch, handle, 0, OUT_HEADER_BYTES)
  context.scratchAnswer(request.unique, end)
}

export function releasedir(context: Context, request: Request): void {
  context.files.releaseDirectory(request.uint64())
  context.ok(request.unique)
}

export function readdir(context: Context, request: Request): void {
  list(context, request, false)
}

export function readdirplus(context: Context, request: Request): void {
  list(context, request, true)
}

function list(context: Context, request: Request, plus: boolean): void {
  const { unique } = request
  const directory = context.files.directory(request.uint64())
  const offset = request.uint64()
  const byteCount = Math.min(request.uint32(), SCRATCH_BYTES - OUT_HEADER_BYTES)
  if (directory === undefined) {
    context.error(unique, EBADF)
    return
  }
  if (offset !== directory.offset || offset <= DOT_OFFSETS) directory.leftover = []
  if (directory.leftover.length > 0) {
    answerList(context, unique, directory, offset, byteCount, plus)
    return
  }
  const perEntry = plus ? ENTRY_BYTES + ENTRY_BYTES_TYPICAL : ENTRY_BYTES_TYPICAL
  const limit = Math.max(LIMIT_MIN, Math.min(LIMIT_MAX, Math.ceil(byteCount / perEntry)))
  const cookie = Math.max(0, offset - DOT_OFFSETS)
  context.run(unique, context.fileSystem.readDirectory(directory.inode, cookie, limit, plus), (result) => {
    directory.parent = result.parent
    directory.leftover = result.entries
    answerList(context, unique, directory, offset, byteCount, plus)
  })
}

/** Encodes what fits; what does not stays for the next request. */
function answerList(
  context: Context,
  unique: number,
  directory: OpenDirectory,
  offset: number,
  byteCount: number,
  plus: boolean,
): void {
  const end = OUT_HEADER_BYTES + byteCount
  let position = OUT_HEADER_BYTES
  let next = offset
  for (const dot of dotsFrom(directory, offset)) {
    const unknown = plus ? { attributes: undefined, timeouts: context.timeouts } : undefined
    const after = writeDirectoryEntry(context.scratch, dot, unknown, position, end)
    if (after < 0) break
    position = after
    next = dot.offset
  }
  let taken = 0
  if (next >= DOT_OFFSETS) {
    for (const entry of directory.leftover) {
      const after = writeEntryOf(context, entry, plus, position, end)
      if (after < 0) break
      position = after
      next = entry.cookie + DOT_OFFSETS
      taken++
    }
  }
  if (position === OUT_HEADER_BYTES && directory.leftover.length > 0) {
    context.error(unique, EINVAL) // not even one entry fits: getdents(2) says EINVAL
    return
  }
  directory.leftover = taken === 0 ? directory.leftover : directory.leftover.slice(taken)
  directory.offset = next
  context.scratchAnswer(unique, position)
}

function dotsFrom(directory: OpenDirectory, offset: number): ListedEntry[] {
  const dots: ListedEntry[] = [
    { name: '.', inode: directory.inode, type: 'directory', offset: 1 },
    { name: '..', inode: directory.parent, type: 'directory', offset: 2 },
  ]
  return dots.slice(Math.min(offset, DOT_OFFSETS))
}

function writeEntryOf(
  context: Context,
  entry: DirectoryEntry,
  plus: boolean,
  position: number,
  end: number,
): number {
  const listed = {
    name: entry.name,
    inode: entry.inode,
    type: entry.type,
    offset: entry.cookie + DOT_OFFSETS,
  }
  if (!plus) return writeDirectoryEntry(context.scratch, listed, undefined, position, end)
  const attributes = entry.attributes === undefined ? undefined : context.current(entry.attributes)
  const encoded = { attributes, timeouts: context.timeouts }
  const after = writeDirectoryEntry(context.scratch, listed, encoded, position, end)
  // The kernel counts an entry with attributes as a lookup.
  if (after >= 0 && attributes !== undefined) context.inodes.told(attributes, true)
  return after
}
