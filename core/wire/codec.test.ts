/** Proves that messages come back as they were, and that nothing but plain values is ever decoded. */
import { deepEqual, equal, ok, throws } from 'node:assert/strict'
import { test } from 'node:test'
import { Type } from '@sinclair/typebox'
import fc from 'fast-check'
import { Packr } from 'msgpackr'
import { Prng } from '../base/prng.ts'
import { decodeMessage, encodeMessage, shapeFault } from './codec.ts'

const scalar = fc.oneof(
  fc.string({ unit: 'grapheme', maxLength: 50 }),
  fc.maxSafeInteger(),
  fc.double({ noNaN: true }).filter((value) => !Object.is(value, -0)),
  fc.boolean(),
  fc.constant(null),
  fc.uint8Array({ maxLength: 300 }).map((bytes) => Buffer.from(bytes)),
)
const key = fc.string({ maxLength: 12 }).filter((text) => text !== '__proto__')
const value = fc.letrec((tie) => ({
  node: fc.oneof(
    { maxDepth: 5 },
    scalar,
    fc.array(tie('node'), { maxLength: 20 }),
    fc.dictionary(key, tie('node'), { maxKeys: 20, noNullPrototype: true }),
  ),
})).node

test('plain values come back as they were', () => {
  fc.assert(
    fc.property(value, (original) => {
      deepEqual(decodeMessage(Buffer.from(encodeMessage(original))), original)
    }),
    { numRuns: 1000 },
  )
})

test('an undefined field is an absent field; binary stays binary and is a copy', () => {
  const bytes = Buffer.from(encodeMessage({ a: undefined, b: new Uint8Array([1, 2, 3]) }))
  const decoded = decodeMessage(bytes) as { b: Uint8Array }
  deepEqual(Object.keys(decoded), ['b'])
  bytes.fill(0)
  ok(decoded.b instanceof Uint8Array)
  deepEqual([...decoded.b], [1, 2, 3])
})

const badMessages: Record<string, Buffer> = {
  'nothing at all': Buffer.alloc(0),
  'a date': new Packr({ useRecords: false }).pack({ at: new Date(0) }),
  'a set': new Packr({ useRecords: false, moreTypes: true }).pack(new Set([1])),
  'a record definition': new Packr({ useRecords: true }).pack({ a: 1 }),
  'a key named __proto__': Buffer.concat([
    Buffer.from([0x81, 0xa9]),
    Buffer.from('__proto__'),
    Buffer.from([0x80]),
  ]),
  'a key that is a number': Buffer.from([0x81, 0x01, 0x02]),
  'a key that is a list': Buffer.from([0x81, 0x90, 0x02]),
  'an integer beyond 2^53': Buffer.from([0xcf, 0, 0x20, 0, 0, 0, 0, 0, 1]),
  'a negative integer beyond 2^53': Buffer.from([0xd3, 0x80, 0, 0, 0, 0, 0, 0, 0]),
  'a list longer than the message': Buffer.from([0xdd, 0xff, 0xff, 0xff, 0xff, 0]),
  'a map longer than the message': Buffer.from([0xdf, 0xff, 0xff, 0xff, 0xff, 0]),
  'a string longer than the message': Buffer.from([0xdb, 0xff, 0xff, 0xff, 0xff, 65]),
  'bytes behind the value': Buffer.from([1, 2]),
  'the byte that is never used': Buffer.from([0xc1]),
  'deep nesting': Buffer.concat([Buffer.alloc(100_000, 0x91), Buffer.from([1])]),
  'a great many containers': Buffer.concat([
    Buffer.from([0xdd, 0, 3, 0, 0]),
    Buffer.alloc(0x30000, 0x90 + 1),
  ]),
  'empty maps without end': Buffer.concat([Buffer.from([0xdd, 0, 3, 0, 0]), Buffer.alloc(0x30000, 0x80)]),
  'empty lists without end': Buffer.concat([Buffer.from([0xdd, 0, 3, 0, 0]), Buffer.alloc(0x30000, 0x90)]),
}
for (const [what, bytes] of Object.entries(badMessages))
  test(`refused: ${what}`, () => {
    throws(() => decodeMessage(bytes), { code: 'BAD_MESSAGE' })
  })

test('every prefix of a message is refused', () => {
  const bytes = Buffer.from(
    encodeMessage({ list: [1, 'two', 3.5, null, Buffer.from('abc')], big: 2 ** 40, t: true }),
  )
  for (let length = 0; length < bytes.length; length++)
    throws(() => decodeMessage(bytes.subarray(0, length)), { code: 'BAD_MESSAGE' }, `${length} bytes`)
})

test('100,000 random changes of a message: a plain value or BAD_MESSAGE, never anything else', () => {
  const random = new Prng(4711)
  const original = Buffer.from(
    encodeMessage([
      'fs.create',
      { parent: 77, name: 'a file', mode: 420, at: 1.5, more: [{ x: 2 ** 41 }, null] },
    ]),
  )
  let decoded = 0
  for (let i = 0; i < 100_000; i++) {
    const bytes = Buffer.from(original)
    for (let change = random.below(3); change >= 0; change--)
      bytes[random.below(bytes.length)] = random.below(256)
    try {
      assertPlain(decodeMessage(bytes))
      decoded++
    } catch (error) {
      equal((error as { code?: string }).code, 'BAD_MESSAGE', String(error))
    }
  }
  ok(decoded > 1000)
})

function assertPlain(root: unknown): void {
  const left = [root]
  for (let next = left.pop(); left.length > 0 || next !== undefined; next = left.pop()) {
    if (typeof next !== 'object' || next === null || next instanceof Uint8Array) continue
    ok(Array.isArray(next) || Object.getPrototypeOf(next) === Object.prototype)
    left.push(...Object.values(next))
  }
}

test('a wrong shape is told with its place', () => {
  const schema = Type.Object({ list: Type.Array(Type.Object({ n: Type.Integer({ minimum: 0 }) })) })
  equal(shapeFault(schema, { list: [{ n: 1 }] }), null)
  equal(
    shapeFault(schema, { list: [{ n: 1 }, { n: -1 }] }),
    '/list/1/n: Expected integer to be greater or equal to 0',
  )
})
