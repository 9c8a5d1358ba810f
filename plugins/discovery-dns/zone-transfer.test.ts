/** Proves that a zone transfer is read whatever way it is cut, and that nothing a server sends goes beyond the limits. */
import assert from 'node:assert/strict'
import test from 'node:test'
import packet, { type Answer } from 'dns-packet'
import fc from 'fast-check'
import { TRANSFER_BYTES_MAX, TRANSFER_RECORDS_MAX, TransferParser } from './zone-transfer.ts'

const ID = 77
const start: Answer = { type: 'SOA', name: 'pcs.test', data: { mname: 'ns', rname: 'r', serial: 1 } }
const service = (cluster: string): Answer => ({
  type: 'SRV',
  name: `_cairn._tcp.${cluster}.pcs.test`,
  data: { port: 2510, target: 's1.pcs.test' },
})

function message(answers: Answer[], flags = packet.AUTHORITATIVE_ANSWER, id = ID): Buffer {
  return packet.streamEncode({ type: 'response', id, flags, answers })
}

function parse(bytes: Buffer, cuts: readonly number[] = []): { owners: string[]; isComplete: boolean } {
  const owners: string[] = []
  const parser = new TransferParser(ID, (owner) => owners.push(owner))
  let from = 0
  for (const cut of [
    ...cuts.map((share) => Math.floor(share * bytes.length)).sort((a, b) => a - b),
    bytes.length,
  ]) {
    // The parser must not keep what it was lent.
    const lent = Buffer.from(bytes.subarray(from, cut))
    parser.push(lent)
    lent.fill(0xff)
    from = cut
  }
  return { owners, isComplete: parser.isComplete }
}

test('a zone in several messages is read, however it is cut into pieces', () => {
  const zone = Buffer.concat([
    message([start, service('a')]),
    message([service('b'), service('c')]),
    message([start]),
  ])
  const owners = ['a', 'b', 'c'].map((cluster) => `_cairn._tcp.${cluster}.pcs.test`)
  fc.assert(
    fc.property(fc.array(fc.double({ min: 0, max: 1, noNaN: true }), { maxLength: 40 }), (cuts) => {
      assert.deepEqual(parse(zone, cuts), { owners, isComplete: true })
    }),
  )
  assert.equal(parse(zone.subarray(0, -1)).isComplete, false)
})

test('refusals and answers to other questions have messages of their own', () => {
  const refused = (bytes: Buffer, reason: RegExp): void => assert.throws(() => parse(bytes), reason)
  refused(message([], 5), /refuses zone transfers/)
  refused(message([], 9), /not responsible/)
  refused(message([], 12), /error 12/)
  refused(message([]), /empty/)
  refused(message([start], 0, ID + 1), /another question/)
  refused(packet.streamEncode({ type: 'query', id: ID, questions: [] }), /another question/)
  refused(message([service('a'), start]), /does not begin with the SOA/)
  refused(Buffer.from([0, 3, 1, 2, 3]), /cannot be decoded/)
})

test('a zone that is too large is given up', () => {
  const records = Array.from({ length: 1000 }, (_, index) => service(`c${index}`))
  const piece = message(records)
  const parser = new TransferParser(ID, () => {})
  parser.push(message([start]))
  assert.throws(() => {
    for (let count = 0; count <= TRANSFER_RECORDS_MAX / 1000; count++) parser.push(piece)
  }, /more than \d+ (records|bytes)/)
  const silent = new TransferParser(ID, () => {})
  assert.throws(() => silent.push(Buffer.alloc(TRANSFER_BYTES_MAX + 1)), /more than|cannot be decoded|empty/)
})

test('random bytes end in an error or in waiting for more, never in anything else', () => {
  const bytes = fc.oneof(
    fc.uint8Array({ maxLength: 600 }),
    // Well-formed outside, rotten inside.
    fc.tuple(fc.nat(400), fc.uint8Array({ minLength: 1, maxLength: 20 })).map(([at, noise]) => {
      const zone = message([start, service('a'), service('b'), start])
      zone.set(noise.subarray(0, Math.max(0, zone.length - at)), Math.min(at, zone.length - 1))
      return zone
    }),
  )
  fc.assert(
    fc.property(bytes, (raw) => {
      try {
        for (const owner of parse(Buffer.from(raw)).owners) assert.equal(typeof owner, 'string')
      } catch (error) {
        assert.ok(error instanceof Error && error.message.length < 200)
        assert.match(error.message, /^the (answer|server|zone)/)
      }
    }),
    { numRuns: 500 },
  )
})
