/**
 * One log entry as bytes (docs/formats/metadata.md), all integers little-endian:
 *
 *     0      1      2        6            14
 *     +------+------+--------+------------+----------------------------+
 *     | vers | zero | crc32c | index u64  | msgpack of the LogCommand  |
 *     +------+------+--------+------------+----------------------------+
 *                            <----------- the checksum covers --------->
 *
 * The index is inside the checksum, so that an entry read from another's place does not verify.
 */
import { crc32c } from '@node-rs/crc32'
import { Packr } from 'msgpackr'
import { metadataError } from '../errors.ts'
import type { Command, LogCommand } from '../state/commands.ts'

export const LOG_FORMAT_VERSION = 1
const HEADER_BYTES = 14
const CHECKED_FROM = 6

// Plain maps and arrays: readable by any msgpack reader, and no shared structures to keep.
const packr = new Packr({ useRecords: false, variableMapSize: true })

export function encodeLogEntry(entry: LogCommand, index: number): Buffer {
  const payload = packr.pack(entry)
  const bytes = Buffer.allocUnsafe(HEADER_BYTES + payload.length)
  bytes[0] = LOG_FORMAT_VERSION
  bytes[1] = 0
  bytes.writeBigUInt64LE(BigInt(index), CHECKED_FROM)
  payload.copy(bytes, HEADER_BYTES)
  bytes.writeUInt32LE(crc32c(bytes.subarray(CHECKED_FROM)), 2)
  return bytes
}

/** Throws LOG_CORRUPT. */
export function decodeLogEntry(borrowedBytes: Buffer, index: number): LogCommand {
  if (borrowedBytes.length <= HEADER_BYTES) throw metadataError('LOG_CORRUPT', `entry ${index} is too short`)
  const version = borrowedBytes[0]
  if (version !== LOG_FORMAT_VERSION || borrowedBytes[1] !== 0) {
    throw metadataError(
      'LOG_CORRUPT',
      `entry ${index} has format ${version}, this version reads ${LOG_FORMAT_VERSION}`,
    )
  }
  if (borrowedBytes.readUInt32LE(2) !== crc32c(borrowedBytes.subarray(CHECKED_FROM))) {
    throw metadataError('LOG_CORRUPT', `entry ${index} does not match its checksum`)
  }
  if (borrowedBytes.readBigUInt64LE(CHECKED_FROM) !== BigInt(index)) {
    throw metadataError('LOG_CORRUPT', `entry ${index} was written for another place`)
  }
  try {
    return packr.unpack(borrowedBytes.subarray(HEADER_BYTES)) as LogCommand
  } catch (error) {
    throw metadataError('LOG_CORRUPT', `entry ${index} cannot be decoded`, error)
  }
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
