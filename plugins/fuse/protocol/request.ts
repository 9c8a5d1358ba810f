/**
 * Requests of the FUSE protocol, kernel to us: cursors over one request in a borrowed buffer.
 * Promises: no length in the bytes is trusted; anything that does not fit throws MalformedRequest,
 * which the session turns into EIO for that one request. Numbers are exact (below 2^53) or refused.
 * Little-endian: the protocol is in host order and both supported architectures are little-endian.
 */
import { isUtf8 } from 'node:buffer'
import { EFBIG, EILSEQ, EINVAL, EPROTO } from './errno.ts'

export const IN_HEADER_BYTES = 40
const HIGH_WORD = 0x1_0000_0000
/** Names longer than this never reach the client library (the state machine answers ENAMETOOLONG itself). */
const NAME_BYTES_MAX = 4096

/** The bytes are not what the protocol says; `errno` is what the program gets. */
export class MalformedRequest extends Error {
  override readonly name = 'MalformedRequest'
  readonly errno: number
  constructor(errno: number, message: string) {
    super(message)
    this.errno = errno
  }
}

/** An unsigned 64-bit number; undefined when it is 2^53 or more. */
export function readUInt64(buffer: Buffer, offset: number): number | undefined {
  const high = buffer.readUInt32LE(offset + 4)
  if (high >= 0x20_0000) return undefined
  return high * HIGH_WORD + buffer.readUInt32LE(offset)
}

export function writeUInt64(buffer: Buffer, value: number, offset: number): void {
  const high = Math.floor(value / HIGH_WORD)
  buffer.writeUInt32LE(value - high * HIGH_WORD, offset)
  // Negative values (times before 1970) come out as two's complement: the low word is positive already.
  buffer.writeInt32LE(high | 0, offset + 4)
}

/** One request. Re-used for every request of a read buffer: fields are valid until the next `parse`. */
export class Request {
  buffer: Buffer
  length = 0
  opcode = 0
  unique = 0
  node = 0
  uid = 0
  gid = 0
  #position = 0

  constructor(buffer: Buffer) {
    this.buffer = buffer
  }

  /** False: not even the header is usable, so nobody can be answered. */
  parse(buffer: Buffer, length: number): boolean {
    if (length < IN_HEADER_BYTES || length > buffer.length || buffer.readUInt32LE(0) !== length) return false
    const unique = readUInt64(buffer, 8)
    const node = readUInt64(buffer, 16)
    if (unique === undefined || node === undefined) return false
    this.buffer = buffer
    this.opcode = buffer.readUInt32LE(4)
    this.unique = unique
    this.node = node
    this.uid = buffer.readUInt32LE(24)
    this.gid = buffer.readUInt32LE(28)
    // Extensions (7.38) follow the arguments; none is asked for, so they are cut off unread.
    const extensionBytes = buffer.readUInt16LE(36) * 8
    this.length = length - extensionBytes
    this.#position = IN_HEADER_BYTES
    return this.length >= IN_HEADER_BYTES
  }

  #take(byteCount: number): number {
    const start = this.#position
    if (byteCount > this.length - start) {
      throw new MalformedRequest(EPROTO, `request of ${this.length} bytes ends at its argument at ${start}`)
    }
    this.#position = start + byteCount
    return start
  }

  get remainingBytes(): number {
    return this.length - this.#position
  }

  skip(byteCount: number): void {
    this.#take(byteCount)
  }

  uint32(): number {
    return this.buffer.readUInt32LE(this.#take(4))
  }

  /** Ids and counts. */
  uint64(): number {
    const value = readUInt64(this.buffer, this.#take(8))
    if (value === undefined) throw new MalformedRequest(EINVAL, 'a number is above 2^53')
    return value
  }

  /** Offsets and sizes: what lies behind 2^53 is a file too large, not a broken request. */
  position64(): number {
    const value = readUInt64(this.buffer, this.#take(8))
    if (value === undefined) throw new MalformedRequest(EFBIG, 'an offset is above 2^53')
    return value
  }

  /** Seconds: signed. */
  seconds(): number {
    const at = this.#take(8)
    const value = this.buffer.readInt32LE(at + 4) * HIGH_WORD + this.buffer.readUInt32LE(at)
    if (!Number.isSafeInteger(value)) throw new MalformedRequest(EINVAL, 'a time is out of range')
    return value
  }

  /** A name ended by NUL. Names that are not UTF-8 are refused: the cluster keeps text. */
  name(): string {
    const start = this.#position
    const end = this.buffer.indexOf(0, start)
    if (end < 0 || end >= this.length) throw new MalformedRequest(EPROTO, 'a name has no end')
    this.#position = end + 1
    if (end - start > NAME_BYTES_MAX)
      throw new MalformedRequest(EPROTO, 'a name is longer than the kernel allows')
    const bytes = this.buffer.subarray(start, end)
    if (!isUtf8(bytes)) throw new MalformedRequest(EILSEQ, 'a name is not UTF-8')
    return bytes.toString('utf8')
  }

  /** Borrowed: shares memory with the request. */
  bytes(byteCount: number): Buffer {
    const start = this.#take(byteCount)
    return this.buffer.subarray(start, start + byteCount)
  }
}
