/** Limits of the namespace and the checks of names that stand before every change. */
import { KIB } from '../../base/units.ts'
import { NAME_BYTES_MAX, PATH_BYTES_MAX } from '../../wire/messages/common.ts'
import { type Refusal, refused } from '../state/result.ts'

/** Hard links of one file, as in ext4. Directories count their subdirectories without a limit. */
export const LINK_COUNT_MAX = 65_000
/** Names in one directory; V8 maps end at 2^24 entries. */
export const DIRECTORY_ENTRIES_MAX = 16_000_000
/** Names and values of all extended attributes of one inode. */
export const EXTENDED_BYTES_MAX = 64 * KIB
export const EXTENDED_NAME_BYTES_MAX = 255
/** Permission bits, set-id bits and the sticky bit. */
export const MODE_MASK = 0o7777
export const MODE_SET_UID = 0o4000
export const MODE_SET_GID = 0o2000
export const MODE_GROUP_EXECUTE = 0o010
export const ID_MAX = 0xffff_ffff
export const NANOSECONDS_MAX = 999_999_999
/** Largest file: 2^26 chunks. Sizes stay exact as numbers, with room for sums. */
export const FILE_SIZE_BYTES_MAX = 2 ** 52
/** Directories say this size, as most file systems do. */
export const DIRECTORY_SIZE_BYTES = 4 * KIB

/** Undefined: a name that an entry may have. */
export function nameRefusal(name: string): Refusal | undefined {
  if (name === '') return refused('ENOENT', 'the name is empty')
  if (Buffer.byteLength(name) > NAME_BYTES_MAX) {
    return refused('ENAMETOOLONG', `a name has at most ${NAME_BYTES_MAX} bytes`)
  }
  if (name === '.' || name === '..') return refused('EINVAL', `'${name}' is not a name that can change`)
  return isText(name) && !name.includes('/')
    ? undefined
    : refused('EINVAL', 'the name has a character no name has')
}

/** Undefined: a symlink target or path that may be stored. */
export function pathRefusal(path: string): Refusal | undefined {
  if (path === '') return refused('ENOENT', 'the path is empty')
  if (Buffer.byteLength(path) > PATH_BYTES_MAX) {
    return refused('ENAMETOOLONG', `a path has at most ${PATH_BYTES_MAX} bytes`)
  }
  return isText(path) ? undefined : refused('EINVAL', 'the path has a character no path has')
}

/** Half a surrogate pair would come back from the log as another character. */
function isText(text: string): boolean {
  return text.isWellFormed() && !text.includes('\0')
}
