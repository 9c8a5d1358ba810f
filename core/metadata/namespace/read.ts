/** Questions to the namespace. Answered from applied state; they change nothing, access times included. */
import { NAME_BYTES_MAX, PATH_BYTES_MAX, ROOT_INODE } from '../../wire/messages/common.ts'
import type { MetadataMethods } from '../../wire/messages/metadata.ts'
import type { ResultOf } from '../../wire/messages/method.ts'
import { type CommandResult, type Refusal, refused } from '../state/result.ts'
import type { InodeRow } from '../state/rows.ts'
import type { MetadataState } from '../state/state.ts'
import { extendedNameRefusal } from './change.ts'
import { attributesOf, findDirectory, findInode, inodeOf, isRefusal } from './inodes.ts'

/** What `name` in `parent` leads to. '.' and '..' are known; '..' of the root is the root. */
export function lookup(state: MetadataState, parent: number, name: string): InodeRow | Refusal {
  const directory = findDirectory(state, parent)
  if (isRefusal(directory)) return directory
  if (name === '.') return directory
  if (name === '..') return findInode(state, directory.parent)
  if (Buffer.byteLength(name) > NAME_BYTES_MAX) {
    return refused('ENAMETOOLONG', `a name has at most ${NAME_BYTES_MAX} bytes`)
  }
  const entry = state.entries.entry(parent, name)
  return entry === undefined ? refused('ENOENT', 'no such name') : inodeOf(state, entry.inode)
}

/** An absolute path; symlinks on the way are not followed, so they are ENOTDIR. */
export function resolvePath(state: MetadataState, path: string): InodeRow | Refusal {
  if (!path.startsWith('/')) return refused('EINVAL', 'the path does not begin at the root of the cluster')
  if (Buffer.byteLength(path) > PATH_BYTES_MAX) {
    return refused('ENAMETOOLONG', `a path has at most ${PATH_BYTES_MAX} bytes`)
  }
  let row: InodeRow | Refusal = inodeOf(state, ROOT_INODE)
  for (const name of path.split('/')) {
    if (name === '') continue
    row = lookup(state, row.inode, name)
    if (isRefusal(row)) return row
  }
  if (path.endsWith('/') && row.type !== 'directory') return refused('ENOTDIR', `is a ${row.type}`)
  return row
}

export interface ReadDirectoryParams {
  readonly inode: number
  readonly cookie: number
  readonly limit: number
  readonly plus: boolean
}

/** Entries behind a cookie. Names made or removed meanwhile make no other name appear twice or not at all. */
export function readDirectory(
  state: MetadataState,
  params: ReadDirectoryParams,
): CommandResult<ResultOf<MetadataMethods, 'fs.readdir'>> {
  const directory = findDirectory(state, params.inode)
  if (isRefusal(directory)) return directory
  const listed = state.entries.get(params.inode)?.list(params.cookie, params.limit)
  const entries = (listed?.entries ?? []).map((entry) => {
    const row = inodeOf(state, entry.inode)
    return {
      name: entry.name,
      inode: entry.inode,
      type: row.type,
      cookie: entry.cookie,
      ...(params.plus ? { attributes: attributesOf(row) } : {}),
    }
  })
  return { ok: { parent: directory.parent, end: listed?.end ?? true, entries } }
}

export function readLink(state: MetadataState, inode: number): CommandResult<{ target: string }> {
  const row = findInode(state, inode)
  if (isRefusal(row)) return row
  return row.target === undefined ? refused('EINVAL', `is a ${row.type}`) : { ok: { target: row.target } }
}

export function getExtended(
  state: MetadataState,
  inode: number,
  name: string,
): CommandResult<{ value: Uint8Array }> {
  const row = findInode(state, inode)
  if (isRefusal(row)) return row
  const refusal = extendedNameRefusal(name)
  if (refusal !== undefined) return refusal
  const value =
    row.extended !== undefined && Object.hasOwn(row.extended, name) ? row.extended[name] : undefined
  if (value === undefined) return refused('ENODATA', 'no such extended attribute')
  return { ok: { value: Buffer.from(value, 'base64') } }
}

export function listExtended(state: MetadataState, inode: number): CommandResult<{ names: string[] }> {
  const row = findInode(state, inode)
  return isRefusal(row) ? row : { ok: { names: Object.keys(row.extended ?? {}).toSorted() } }
}
