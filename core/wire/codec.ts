/**
 * Control messages: msgpack through msgpackr, kept to the plain part of the format. Received bytes are
 * scanned before they are decoded: no extension types (so no dates, regular expressions, records or
 * shared structures), no `__proto__` keys, bounded depth and number of containers, integers below 2^53,
 * nothing behind the value. Shape is checked afterwards by the method's schema.
 */
import type { TSchema } from '@sinclair/typebox'
import { type TypeCheck, TypeCompiler } from '@sinclair/typebox/compiler'
import { Packr } from 'msgpackr'
import { CairnError } from '../base/errors.ts'

const DEPTH_MAX = 32
const CONTAINER_COUNT_MAX = 65_536

const settings: ConstructorParameters<typeof Packr>[0] & { skipValues: unknown[] } = {
  useRecords: false,
  mapsAsObjects: true,
  moreTypes: false,
  structuredClone: false,
  bundleStrings: false,
  copyBuffers: true,
  variableMapSize: true,
  int64AsType: 'number',
  // an absent optional field and one that is undefined are the same message
  skipValues: [undefined],
}
const packr = new Packr(settings)

export function encodeMessage(value: unknown): Buffer {
  return packr.pack(value)
}

/** Throws CairnError BAD_MESSAGE. The result shares no memory with `borrowed`. */
export function decodeMessage(borrowed: Buffer): unknown {
  const fault = messageFault(borrowed)
  if (fault !== null) throw new CairnError('BAD_MESSAGE', fault)
  try {
    return packr.unpack(borrowed)
  } catch (error) {
    throw new CairnError('BAD_MESSAGE', 'message cannot be decoded', { cause: error })
  }
}

const compiled = new WeakMap<TSchema, TypeCheck<TSchema>>()

/** The compiled form of a schema; compiled at first use, once. */
export function checkerOf(schema: TSchema): TypeCheck<TSchema> {
  let checker = compiled.get(schema)
  if (checker === undefined) {
    checker = TypeCompiler.Compile(schema)
    compiled.set(schema, checker)
  }
  return checker
}

/** Null when `value` fits, else what is wrong, in one line. */
export function shapeFault(schema: TSchema, value: unknown): string | null {
  const checker = checkerOf(schema)
  if (checker.Check(value)) return null
  const first = checker.Errors(value).First()
  return first === undefined ? 'wrong shape' : `${first.path === '' ? '/' : first.path}: ${first.message}`
}

/** Bytes that follow a length field of 1, 2 or 4 bytes. */
function lengthAt(bytes: Buffer, at: number, width: number): number {
  if (at + width > bytes.length) return Number.POSITIVE_INFINITY
  if (width === 1) return bytes[at] as number
  return width === 2 ? bytes.readUInt16BE(at) : bytes.readUInt32BE(at)
}

/** One value's head: how many bytes it takes, and how many values it announces. Reused. */
const head = { sizeBytes: 0, children: 0, isContainer: false, isMap: false, isString: false, bodyBytes: 0 }

/** Reads the head at `at` into `head`; a text when it is not allowed. */
function readHead(bytes: Buffer, at: number): string | null {
  const type = bytes[at] as number
  head.children = 0
  head.isContainer = false
  head.isMap = false
  head.isString = false
  head.bodyBytes = 0
  head.sizeBytes = 1
  if (type < 0x80 || type >= 0xe0 || type === 0xc0 || type === 0xc2 || type === 0xc3) return null
  if (type < 0xa0) {
    head.isContainer = true
    head.isMap = type < 0x90
    head.children = (type & 15) * (head.isMap ? 2 : 1)
  } else if (type < 0xc0) {
    head.isString = true
    head.bodyBytes = type & 31
  } else if (type >= 0xc4 && type <= 0xc6) return readBody(bytes, at, 1 << (type - 0xc4), false)
  else if (type >= 0xd9 && type <= 0xdb) return readBody(bytes, at, 1 << (type - 0xd9), true)
  else if (type === 0xca || type === 0xcb) head.sizeBytes = type === 0xca ? 5 : 9
  else if (type >= 0xcc && type <= 0xd3) return readInteger(bytes, at, type)
  else if (type >= 0xdc && type <= 0xdf) {
    const width = type % 2 === 0 ? 2 : 4
    head.isContainer = true
    head.isMap = type >= 0xde
    head.children = lengthAt(bytes, at + 1, width) * (head.isMap ? 2 : 1)
    head.sizeBytes = 1 + width
  } else return `extension or unknown type 0x${type.toString(16)}`
  head.sizeBytes += head.bodyBytes
  return null
}

function readBody(bytes: Buffer, at: number, width: number, isString: boolean): null {
  head.isString = isString
  head.bodyBytes = lengthAt(bytes, at + 1, width)
  head.sizeBytes = 1 + width + head.bodyBytes
  return null
}

function readInteger(bytes: Buffer, at: number, type: number): string | null {
  head.sizeBytes = 1 + (1 << ((type - 0xcc) & 3))
  if ((type !== 0xcf && type !== 0xd3) || at + 9 > bytes.length) return null
  const value = type === 0xcf ? bytes.readBigUInt64BE(at + 1) : bytes.readBigInt64BE(at + 1)
  const magnitude = value < 0n ? -value : value
  return magnitude > BigInt(Number.MAX_SAFE_INTEGER) ? 'integer beyond 2^53' : null
}

/** Of `messageFault`, for each depth: values left, and whether they are those of a map. Reused. */
const remaining = new Array<number>(DEPTH_MAX).fill(0)
const maps = new Array<boolean>(DEPTH_MAX).fill(false)

/** Null when the bytes are one plain msgpack value within bounds. No recursion, one pass. */
function messageFault(bytes: Buffer): string | null {
  let depth = 0
  let at = 0
  let containers = 0
  remaining[0] = 1
  maps[0] = false
  while (depth >= 0) {
    const left = remaining[depth] as number
    if (left === 0) {
      depth--
      continue
    }
    remaining[depth] = left - 1
    if (at >= bytes.length) return 'message is cut short'
    const fault = readHead(bytes, at)
    if (fault !== null) return fault
    const end = at + head.sizeBytes
    // every announced value takes a byte at least
    if (end + head.children > bytes.length) return 'message is cut short'
    if (maps[depth] === true && left % 2 === 0) {
      if (!head.isString) return 'a key that is not a string'
      if (head.bodyBytes === 9 && bytes.toString('latin1', end - 9, end) === '__proto__')
        return 'a key named __proto__'
    }
    at = end
    if (head.isContainer && ++containers > CONTAINER_COUNT_MAX) return 'too many lists and maps'
    if (head.children > 0) {
      if (++depth === DEPTH_MAX) return 'nested too deeply'
      remaining[depth] = head.children
      maps[depth] = head.isMap
    }
  }
  return at === bytes.length ? null : 'bytes behind the message'
}
