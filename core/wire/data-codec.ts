/** The fixed layouts of data.ts to and from bytes. Decoding fills an object of the caller: no allocation. */
import type { DataAnswer, DataOp, DataRequest } from './data.ts'
import { DATA_ANSWER_BYTES, DATA_REQUEST_BYTES } from './data.ts'
import { isWireCode, wireCodes, type WireCode } from './codes.ts'

const TWO_32 = 0x1_0000_0000
const HIGH_MAX = 0x20_0000
const OP_MAX = 6
const FLAGS_MASK = 15

/**
 * Codes travel as a number: their place in this list, from 1. New codes go to the end of wireCodes;
 * a number this side does not know reads as INTERNAL.
 */
const codeNames = Object.keys(wireCodes) as WireCode[]
const codeNumbers = new Map(codeNames.map((name, index) => [name, index + 1]))

export function codeNumberOf(code: string): number {
  if (code === '') return 0
  return codeNumbers.get(isWireCode(code) ? code : 'INTERNAL') ?? 0
}

export function codeNameOf(number: number): string {
  return number === 0 ? '' : (codeNames[number - 1] ?? 'INTERNAL')
}

export function emptyDataRequest(): DataRequest {
  return { op: 2, flags: 0, version: 0, chunk: 0, lease: 0, session: 0, incarnation: 0, offset: 0, length: 0 }
}

export function emptyDataAnswer(): DataAnswer {
  return { op: 2, flags: 0, code: '', version: 0, incarnation: 0, crashes: 0, offset: 0, length: 0 }
}

function writeU64(target: Buffer, at: number, value: number): void {
  target.writeUInt32LE(value % TWO_32, at)
  target.writeUInt32LE(Math.floor(value / TWO_32), at + 4)
}

/** NaN when it is not below 2^53. */
function readU64(source: Buffer, at: number): number {
  const high = source.readUInt32LE(at + 4)
  return high < HIGH_MAX ? high * TWO_32 + source.readUInt32LE(at) : Number.NaN
}

export function writeDataRequest(target: Buffer, at: number, request: DataRequest): void {
  target.writeUInt32LE(request.op | (request.flags << 8), at)
  target.writeUInt32LE(request.version, at + 4)
  writeU64(target, at + 8, request.chunk)
  writeU64(target, at + 16, request.lease)
  writeU64(target, at + 24, request.session)
  writeU64(target, at + 32, request.incarnation)
  target.writeUInt32LE(request.offset, at + 40)
  target.writeUInt32LE(request.length, at + 44)
}

/** False when the bytes are not a request. */
export function readDataRequest(source: Buffer, into: DataRequest): boolean {
  if (source.length < DATA_REQUEST_BYTES) return false
  const op = source[0] as number
  const flags = source[1] as number
  if (op === 0 || op > OP_MAX || (flags & ~FLAGS_MASK) !== 0 || source.readUInt16LE(2) !== 0) return false
  into.op = op as DataOp
  into.flags = flags
  into.version = source.readUInt32LE(4)
  into.chunk = readU64(source, 8)
  into.lease = readU64(source, 16)
  into.session = readU64(source, 24)
  into.incarnation = readU64(source, 32)
  into.offset = source.readUInt32LE(40)
  into.length = source.readUInt32LE(44)
  return !Number.isNaN(into.chunk + into.lease + into.session + into.incarnation)
}

export function writeDataAnswer(target: Buffer, at: number, answer: DataAnswer): void {
  target.writeUInt32LE(answer.op | (answer.flags << 8) | (codeNumberOf(answer.code) << 16), at)
  target.writeUInt32LE(answer.version, at + 4)
  writeU64(target, at + 8, answer.incarnation)
  target.writeUInt32LE(answer.crashes, at + 16)
  target.writeUInt32LE(0, at + 20)
  target.writeUInt32LE(answer.offset, at + 24)
  target.writeUInt32LE(answer.length, at + 28)
}

/** False when the bytes are not an answer. */
export function readDataAnswer(source: Buffer, into: DataAnswer): boolean {
  if (source.length < DATA_ANSWER_BYTES) return false
  const op = source[0] as number
  const flags = source[1] as number
  if (op === 0 || op > OP_MAX || (flags & ~FLAGS_MASK) !== 0 || source.readUInt32LE(20) !== 0) return false
  into.op = op as DataOp
  into.flags = flags
  into.code = codeNameOf(source.readUInt16LE(2))
  into.version = source.readUInt32LE(4)
  into.incarnation = readU64(source, 8)
  into.crashes = source.readUInt32LE(16)
  into.offset = source.readUInt32LE(24)
  into.length = source.readUInt32LE(28)
  return !Number.isNaN(into.incarnation)
}

/** Puts a checksum table behind a layout. A Uint32Array is little-endian on x86-64 and arm64, where Cairn runs. */
export function writeTable(target: Buffer, at: number, table: Uint32Array | Buffer | null): void {
  if (table === null) return
  if (table.length === 1 && table instanceof Uint32Array) target.writeUInt32LE(table[0] as number, at)
  else target.set(new Uint8Array(table.buffer, table.byteOffset, table.byteLength), at)
}
