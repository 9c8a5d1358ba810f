/**
 * One log entry as bytes (docs/formats/metadata.md), all integers little-endian:
 *
 *     0      1      2        6            14
 *     +------+------+--------+------------+---------------------------------------------+
 *     | vers | kind | crc32c | index u64  | msgpack of the LogCommand, members, nothing |
 *     +------+------+--------+------------+---------------------------------------------+
 *                            <------------------ the checksum covers ------------------->
 *
 * The index is inside the checksum, so that an entry read from another's place does not verify. Consensus
 * keeps commands in this form and never looks into them; of the other kinds it keeps what is behind the header.
 * The version of a command is the feature level that it needs (state/feature-levels.ts).
 */
import { crc32c } from '@node-rs/crc32'
import { Packr } from 'msgpackr'
import { metadataError } from '../errors.ts'
import type { Entry, EntryKind } from '../../raft/index.ts'
import type { StoredLogEntry } from '../../platform/store.ts'
import type { Command, LogCommand } from '../state/commands.ts'
import { BASE_LEVEL, HIGHEST_LEVEL, levelOf, tooOld, withoutFieldsAbove } from '../state/feature-levels.ts'

const HEADER_BYTES = 14
const CHECKED_FROM = 6
/** In the order of their numbers. */
const kinds: readonly EntryKind[] = ['command', 'configuration', 'empty']

// Plain maps and arrays: readable by any msgpack reader, and no shared structures to keep.
const packr = new Packr({ useRecords: false, variableMapSize: true })

export function encodeLogEntry(entry: LogCommand, index: number): Buffer {
  return seal('command', packr.pack(entry), index, levelOf(entry.command))
}

/** With what its level knew, and nothing that came later. Throws LOG_CORRUPT, VERSION_TOO_OLD. */
export function decodeLogEntry(borrowedBytes: Buffer, index: number): LogCommand {
  if (kindOf(borrowedBytes, index) !== 'command')
    throw metadataError('LOG_CORRUPT', `entry ${index} is no command`)
  try {
    const entry = packr.unpack(borrowedBytes.subarray(HEADER_BYTES)) as LogCommand
    const command = withoutFieldsAbove(entry.command, borrowedBytes[0] as number)
    return command === entry.command ? entry : { ...entry, command }
  } catch (error) {
    throw metadataError('LOG_CORRUPT', `entry ${index} cannot be decoded`, error)
  }
}

/** The bytes of an entry as they are stored and as they travel. Of a command: the very buffer. */
export function encodeEntry(entry: Entry): Buffer {
  return entry.kind === 'command' ? entry.data : seal(entry.kind, entry.data, entry.index)
}

/** Shares memory with the bytes. Throws LOG_CORRUPT when they do not verify, VERSION_TOO_OLD. */
export function decodeEntry({ index, term, data: bytes }: StoredLogEntry): Entry {
  const kind = kindOf(bytes, index)
  return { index, term, kind, data: kind === 'command' ? bytes : bytes.subarray(HEADER_BYTES) }
}

function seal(kind: EntryKind, payload: Buffer, index: number, version = BASE_LEVEL): Buffer {
  const bytes = Buffer.allocUnsafe(HEADER_BYTES + payload.length)
  bytes[0] = version
  bytes[1] = kinds.indexOf(kind)
  bytes.writeBigUInt64LE(BigInt(index), CHECKED_FROM)
  payload.copy(bytes, HEADER_BYTES)
  bytes.writeUInt32LE(checksumOf(bytes), 2)
  return bytes
}

/** After the first version the bytes of version and kind are under it, too: one flipped bit makes 3 of 2. */
function checksumOf(bytes: Buffer): number {
  const version = bytes[0] as number
  const head = version === BASE_LEVEL ? undefined : crc32c(bytes.subarray(0, 2))
  return crc32c(bytes.subarray(CHECKED_FROM), head)
}

/** Verifies the bytes. The kind lies outside of the checksum, so each kind has a form that the others have not. */
function kindOf(bytes: Buffer, index: number): EntryKind {
  if (bytes.length < HEADER_BYTES) throw metadataError('LOG_CORRUPT', `entry ${index} is too short`)
  const version = bytes[0] as number
  const kind = kinds[bytes[1] as number]
  if (version < BASE_LEVEL || kind === undefined) {
    throw metadataError('LOG_CORRUPT', `entry ${index} has format ${version}, kind ${bytes[1]}`)
  }
  if (bytes.readUInt32LE(2) !== checksumOf(bytes)) {
    throw metadataError('LOG_CORRUPT', `entry ${index} does not match its checksum`)
  }
  if (bytes.readBigUInt64LE(CHECKED_FROM) !== BigInt(index)) {
    throw metadataError('LOG_CORRUPT', `entry ${index} was written for another place`)
  }
  if (version > HIGHEST_LEVEL) throw tooOld(`entry ${index} is`, version)
  // A command is a map, a configuration a JSON list ("["), an empty entry nothing.
  const first = bytes[HEADER_BYTES]
  const isConfiguration = first === 0x5b
  if ((kind === 'empty') !== (first === undefined) || (kind === 'configuration') !== isConfiguration)
    throw metadataError('LOG_CORRUPT', `entry ${index} is of another kind than its bytes`)
  return kind
}

/**
 * Would the command come back from the log as it went in? Half a surrogate pair would not, and a replay would
 * then differ from what was applied. Every log asks before it takes a command.
 */
export function isEncodable(command: Command): boolean {
  for (const value of Object.values(command)) {
    if (typeof value === 'string' && !value.isWellFormed()) return false
  }
  if (command.type !== 'kv.transact') return true
  return [...command.guards, ...command.writes].every(({ key }) => key.isWellFormed())
}
