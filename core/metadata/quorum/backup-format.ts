/**
 * The file of `cairn mds backup`: a header that says of what it is a copy, then the copy of the store in pieces,
 * then an end that says that it is whole. Written and read from the first byte to the last, so that it fits a
 * pipe. Little-endian; docs/formats/metadata.md.
 *
 *     "CRBK"  u32 CRC32C of what follows up to the first piece  u32 version  u32 length  header (JSON)
 *     u32 length  u32 CRC32C of all bytes of the copy up to the end of this piece  the bytes       as often as needed
 *     u32 0       u32 CRC32C of the whole copy                                     u64 its length
 *
 * The checksum runs on from piece to piece: one that is missing, doubled or in another's place does not verify.
 */
import { crc32c } from '@node-rs/crc32'
import { type Static, Type } from '@sinclair/typebox'
import { Value } from '@sinclair/typebox/value'
import { assert } from '../../base/assert.ts'
import { CairnError } from '../../base/errors.ts'

export const BACKUP_FORMAT_VERSION = 1
export const BACKUP_PIECE_BYTES = 256 * 1024
const MAGIC = 0x4b425243
const FIXED_BYTES = 16
const HEADER_BYTES_MAX = 64 * 1024
const PIECE_BYTES_MAX = 4 * 1024 * 1024
const CHECKED_FROM = 8

const UInt = Type.Integer({ minimum: 0, maximum: Number.MAX_SAFE_INTEGER })
const Header = Type.Object({
  cluster: Type.String({ minLength: 1, maxLength: 64 }),
  clusterUuid: Type.String({ minLength: 1, maxLength: 64 }),
  /** The rows are the state after this log entry; the log in the copy may go further. */
  index: UInt,
  term: UInt,
  generation: UInt,
  timeMs: UInt,
})
export type BackupHeader = Static<typeof Header>

export class BackupEncoder {
  #checksum = 0
  #sizeBytes = 0

  header(header: BackupHeader): Buffer {
    const { cluster, clusterUuid, index, term, generation, timeMs } = header
    const text = Buffer.from(JSON.stringify({ cluster, clusterUuid, index, term, generation, timeMs }))
    const bytes = Buffer.alloc(FIXED_BYTES + text.length)
    bytes.writeUInt32LE(MAGIC, 0)
    bytes.writeUInt32LE(BACKUP_FORMAT_VERSION, 8)
    bytes.writeUInt32LE(text.length, 12)
    text.copy(bytes, FIXED_BYTES)
    bytes.writeUInt32LE(crc32c(bytes.subarray(CHECKED_FROM)), 4)
    return bytes
  }

  /** What comes before the bytes of a piece. */
  piece(borrowedBytes: Buffer): Buffer {
    assert(borrowedBytes.length > 0 && borrowedBytes.length <= PIECE_BYTES_MAX, 'a piece is bounded')
    this.#checksum = crc32c(borrowedBytes, this.#checksum)
    this.#sizeBytes += borrowedBytes.length
    const bytes = Buffer.alloc(8)
    bytes.writeUInt32LE(borrowedBytes.length, 0)
    bytes.writeUInt32LE(this.#checksum, 4)
    return bytes
  }

  end(): Buffer {
    const bytes = Buffer.alloc(16)
    bytes.writeUInt32LE(this.#checksum, 4)
    bytes.writeBigUInt64LE(BigInt(this.#sizeBytes), 8)
    return bytes
  }
}

/** Fed with bytes as they come; gives back what is complete and verified. Throws BACKUP_DAMAGED. */
export class BackupDecoder {
  #waiting: Buffer = Buffer.alloc(0)
  #header: BackupHeader | null = null
  #checksum = 0
  #sizeBytes = 0
  #isEnded = false

  get header(): BackupHeader | null {
    return this.#header
  }

  /** Pieces of the copy, in order. They share memory with what was given. */
  push(bytes: Buffer): Buffer[] {
    this.#waiting = this.#waiting.length === 0 ? bytes : Buffer.concat([this.#waiting, bytes])
    const pieces: Buffer[] = []
    for (;;) {
      const used = this.#header === null ? this.#takeHeader() : this.#takePiece(pieces)
      if (used === 0) return pieces
      this.#waiting = this.#waiting.subarray(used)
    }
  }

  /** Nothing follows: was that all of it? */
  finish(): BackupHeader {
    if (this.#header === null || !this.#isEnded) throw damaged('its end is missing')
    return this.#header
  }

  #takeHeader(): number {
    const bytes = this.#waiting
    if (bytes.length < FIXED_BYTES) return 0
    if (bytes.readUInt32LE(0) !== MAGIC) throw damaged('it does not begin as a copy of metadata does')
    const length = bytes.readUInt32LE(12)
    if (length > HEADER_BYTES_MAX) throw damaged('its header is too long')
    if (bytes.length < FIXED_BYTES + length) return 0
    const header = bytes.subarray(0, FIXED_BYTES + length)
    if (header.readUInt32LE(4) !== crc32c(header.subarray(CHECKED_FROM)))
      throw damaged('its header does not match its checksum')
    const version = header.readUInt32LE(8)
    if (version !== BACKUP_FORMAT_VERSION)
      throw new CairnError(
        'STORE_FORMAT',
        `the copy has format version ${version}, known is ${BACKUP_FORMAT_VERSION}`,
        { next: 'use the version of Cairn that wrote it, or a newer one' },
      )
    this.#header = parseHeader(header.subarray(FIXED_BYTES))
    return header.length
  }

  #takePiece(pieces: Buffer[]): number {
    const bytes = this.#waiting
    if (this.#isEnded && bytes.length > 0) throw damaged('something follows its end')
    if (bytes.length < 8) return 0
    const length = bytes.readUInt32LE(0)
    if (length > PIECE_BYTES_MAX) throw damaged('a piece is too long')
    if (length === 0) return this.#takeEnd(bytes)
    if (bytes.length < 8 + length) return 0
    const piece = bytes.subarray(8, 8 + length)
    this.#checksum = crc32c(piece, this.#checksum)
    if (this.#checksum !== bytes.readUInt32LE(4))
      throw damaged(`the bytes from ${this.#sizeBytes} on do not match their checksum`)
    this.#sizeBytes += length
    pieces.push(piece)
    return 8 + length
  }

  #takeEnd(bytes: Buffer): number {
    if (bytes.length < 16) return 0
    const isWhole =
      bytes.readUInt32LE(4) === this.#checksum && bytes.readBigUInt64LE(8) === BigInt(this.#sizeBytes)
    if (!isWhole) throw damaged('it is not whole')
    this.#isEnded = true
    return 16
  }
}

function parseHeader(text: Buffer): BackupHeader {
  let value: unknown
  try {
    value = JSON.parse(text.toString('utf8'))
  } catch (error) {
    throw damaged(`its header cannot be read: ${String(error)}`)
  }
  if (!Value.Check(Header, value)) throw damaged('its header does not say of what it is a copy')
  return value
}

function damaged(why: string): CairnError {
  return new CairnError('BACKUP_DAMAGED', `this copy of the metadata cannot be used: ${why}`, {
    next: 'take another copy',
  })
}
