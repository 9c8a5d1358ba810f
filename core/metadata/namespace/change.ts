/** Changes of one inode that touch no name: attributes and extended attributes. */
import type { ApplyContext, CommandOf, OutcomeOf } from '../state/apply.ts'
import { extendedRecord } from '../state/inode-codec.ts'
import { type CommandResult, type Refusal, refused } from '../state/result.ts'
import type { InodeRow } from '../state/rows.ts'
import { attributesOf, findChangeable, isRefusal, setChangeTime } from './inodes.ts'
import {
  EXTENDED_BYTES_MAX,
  EXTENDED_NAME_BYTES_MAX,
  ID_MAX,
  MODE_GROUP_EXECUTE,
  MODE_MASK,
  MODE_SET_GID,
  MODE_SET_UID,
  NANOSECONDS_MAX,
} from './limits.ts'

type SetAttributes = CommandOf<'fs.setattr'>

export function setAttributes(
  context: ApplyContext,
  command: SetAttributes,
): CommandResult<OutcomeOf<'fs.setattr'>> {
  const row = findChangeable(context.state, command.inode)
  if (isRefusal(row)) return row
  const refusal = attributesRefusal(command)
  if (refusal !== undefined) return refusal
  setOwnerAndMode(row, command)
  setAccessTime(context, row, command)
  setModifyTimes(context, row, command)
  setChangeTime(context, row)
  return { ok: { attributes: attributesOf(row) } }
}

function attributesRefusal(command: SetAttributes): Refusal | undefined {
  const { uid = 0, gid = 0, accessNanoseconds = 0, modifyNanoseconds = 0 } = command
  if (uid > ID_MAX || gid > ID_MAX) return refused('EINVAL', 'an owner is a number of 32 bits')
  return accessNanoseconds > NANOSECONDS_MAX || modifyNanoseconds > NANOSECONDS_MAX
    ? refused('EINVAL', 'nanoseconds are below a second')
    : undefined
}

/** A new owner takes the set-id bits off a file, as Linux does for everybody, unless a mode comes along. */
function setOwnerAndMode(row: InodeRow, command: SetAttributes): void {
  const hasOwner = command.uid !== undefined || command.gid !== undefined
  if (hasOwner && row.type !== 'directory') {
    row.mode &= ~MODE_SET_UID
    if ((row.mode & MODE_GROUP_EXECUTE) !== 0) row.mode &= ~MODE_SET_GID
  }
  row.uid = command.uid ?? row.uid
  row.gid = command.gid ?? row.gid
  if (command.mode !== undefined) row.mode = command.mode & MODE_MASK
}

function setAccessTime(context: ApplyContext, row: InodeRow, command: SetAttributes): void {
  if (command.accessNow === true) {
    row.accessSeconds = context.wallSeconds
    row.accessNanoseconds = context.wallNanoseconds
  } else if (command.accessSeconds !== undefined) {
    row.accessSeconds = command.accessSeconds
    row.accessNanoseconds = command.accessNanoseconds ?? 0
  }
}

function setModifyTimes(context: ApplyContext, row: InodeRow, command: SetAttributes): void {
  if (command.modifyNow === true) {
    row.modifySeconds = context.wallSeconds
    row.modifyNanoseconds = context.wallNanoseconds
  } else if (command.modifySeconds !== undefined) {
    row.modifySeconds = command.modifySeconds
    row.modifyNanoseconds = command.modifyNanoseconds ?? 0
  }
}

export function setExtended(
  context: ApplyContext,
  command: CommandOf<'fs.setxattr'>,
): CommandResult<OutcomeOf<'fs.setxattr'>> {
  const row = findChangeable(context.state, command.inode)
  if (isRefusal(row)) return row
  const refusal = extendedNameRefusal(command.name) ?? extendedModeRefusal(row, command)
  if (refusal !== undefined) return refusal
  const value = Buffer.from(command.value).toString('base64')
  const extended = extendedRecord(Object.entries(row.extended ?? {}))
  extended[command.name] = value
  if (extendedBytes(extended) > EXTENDED_BYTES_MAX) {
    return refused('E2BIG', `extended attributes of an inode have at most ${EXTENDED_BYTES_MAX} bytes in all`)
  }
  row.extended = extended
  setChangeTime(context, row)
  return { ok: {} }
}

export function removeExtended(
  context: ApplyContext,
  command: CommandOf<'fs.removexattr'>,
): CommandResult<OutcomeOf<'fs.removexattr'>> {
  const row = findChangeable(context.state, command.inode)
  if (isRefusal(row)) return row
  const refusal = extendedNameRefusal(command.name)
  if (refusal !== undefined) return refusal
  if (row.extended === undefined || !Object.hasOwn(row.extended, command.name)) {
    return refused('ENODATA', 'no such extended attribute')
  }
  const left = Object.entries(row.extended).filter(([name]) => name !== command.name)
  if (left.length > 0) row.extended = extendedRecord(left)
  else row.extended = undefined
  setChangeTime(context, row)
  return { ok: {} }
}

export function extendedNameRefusal(name: string): Refusal | undefined {
  if (name === '' || name.includes('\0') || !name.isWellFormed()) {
    return refused('EINVAL', 'not the name of an extended attribute')
  }
  return Buffer.byteLength(name) > EXTENDED_NAME_BYTES_MAX
    ? refused('ENAMETOOLONG', `the name has at most ${EXTENDED_NAME_BYTES_MAX} bytes`)
    : undefined
}

function extendedModeRefusal(row: InodeRow, command: CommandOf<'fs.setxattr'>): Refusal | undefined {
  const exists = row.extended !== undefined && Object.hasOwn(row.extended, command.name)
  if (command.mode === 'create' && exists) return refused('EEXIST', 'the extended attribute exists already')
  if (command.mode === 'replace' && !exists) return refused('ENODATA', 'no such extended attribute')
  return undefined
}

function extendedBytes(extended: Record<string, string>): number {
  let bytes = 0
  for (const [name, value] of Object.entries(extended)) {
    bytes += Buffer.byteLength(name) + Buffer.byteLength(value, 'base64')
  }
  return bytes
}
