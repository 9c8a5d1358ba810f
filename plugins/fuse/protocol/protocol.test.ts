/** The codec: layouts byte for byte, and requests that lie about themselves. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { EFBIG, EILSEQ, EPROTO } from './errno.ts'
import {
  ENTRY_BYTES,
  OUT_HEADER_BYTES,
  encodeInvalidateEntry,
  encodeInvalidateInode,
  writeAttributes,
  writeDirectoryEntry,
  writeEntry,
  writeHeader,
} from './reply.ts'
import { MalformedRequest, Request, readUInt64, writeUInt64 } from './request.ts'
import type { Attributes } from './types.ts'

const attributes: Attributes = {
  inode: 2 ** 40 + 7,
  type: 'file',
  mode: 0o4755,
  uid: 1000,
  gid: 1001,
  links: 3,
  size: 2 ** 45 + 1,
  allocated: 1025,
  device: 0,
  accessSeconds: -1,
  accessNanoseconds: 5,
  modifySeconds: 1_700_000_000,
  modifyNanoseconds: 999_999_999,
  changeSeconds: 2,
  changeNanoseconds: 3,
  generation: 9,
}

function request(opcode: number, body: Buffer, length = 40 + body.length): Buffer {
  const buffer = Buffer.alloc(40 + body.length)
  buffer.writeUInt32LE(length, 0)
  buffer.writeUInt32LE(opcode, 4)
  writeUInt64(buffer, 77, 8)
  writeUInt64(buffer, 5, 16)
  buffer.writeUInt32LE(1000, 24)
  buffer.writeUInt32LE(100, 28)
  body.copy(buffer, 40)
  return buffer
}

function parsed(body: Buffer): Request {
  const bytes = request(1, body)
  const result = new Request(bytes)
  assert.equal(result.parse(bytes, bytes.length), true)
  return result
}

function malformed(errno: number): (error: unknown) => boolean {
  return (error) => error instanceof MalformedRequest && error.errno === errno
}

test('64-bit numbers below 2^53 survive, negative seconds too, larger ones are refused', () => {
  const buffer = Buffer.alloc(8)
  fc.assert(
    fc.property(fc.maxSafeNat(), (value) => {
      writeUInt64(buffer, value, 0)
      assert.equal(readUInt64(buffer, 0), value)
      assert.equal(buffer.readBigUInt64LE(0), BigInt(value))
    }),
  )
  fc.assert(
    fc.property(fc.integer({ min: -(2 ** 40), max: 2 ** 40 }), (seconds) => {
      writeUInt64(buffer, seconds, 0)
      assert.equal(buffer.readBigInt64LE(0), BigInt(seconds))
      assert.equal(parsed(buffer).seconds(), seconds)
    }),
  )
  buffer.writeBigUInt64LE(2n ** 53n, 0)
  assert.equal(readUInt64(buffer, 0), undefined)
  assert.throws(() => parsed(buffer).position64(), malformed(EFBIG))
})

test('attributes and entries have the layout of linux/fuse.h', () => {
  const buffer = Buffer.alloc(ENTRY_BYTES)
  writeAttributes(buffer, attributes, 0)
  assert.equal(buffer.readBigUInt64LE(0), 2n ** 40n + 7n)
  assert.equal(buffer.readBigUInt64LE(8), 2n ** 45n + 1n)
  assert.equal(buffer.readBigUInt64LE(16), 3n) // 1025 bytes are 3 blocks of 512
  assert.equal(buffer.readBigInt64LE(24), -1n)
  assert.equal(buffer.readUInt32LE(52), 999_999_999)
  assert.equal(buffer.readUInt32LE(60), 0o104755)
  assert.deepEqual(
    [64, 68, 72].map((at) => buffer.readUInt32LE(at)),
    [3, 1000, 1001],
  )
  const end = writeEntry(buffer, attributes, { entryMs: 1500, attributesMs: 250 }, 0)
  assert.equal(end, 128)
  assert.deepEqual([buffer.readBigUInt64LE(16), buffer.readUInt32LE(32)], [1n, 500_000_000])
  assert.deepEqual([buffer.readBigUInt64LE(24), buffer.readUInt32LE(36)], [0n, 250_000_000])
  writeHeader(buffer, 16, 2, 77)
  assert.equal(buffer.readInt32LE(4), -2)
})

test('directory entries are padded to 8 bytes and never pass the end', () => {
  fc.assert(
    fc.property(fc.string({ minLength: 1, maxLength: 100, unit: 'grapheme' }), fc.nat(300), (name, room) => {
      const buffer = Buffer.alloc(600, 0xff)
      const entry = { name, inode: 12, type: 'file', offset: 34 } as const
      const end = writeDirectoryEntry(buffer, entry, undefined, 16, 16 + room)
      const bytes = Buffer.byteLength(name)
      const padded = Math.ceil((24 + bytes) / 8) * 8
      if (padded > room) {
        assert.equal(end, -1)
        return
      }
      assert.equal(end, 16 + padded)
      assert.equal(buffer.readUInt32LE(16 + 16), bytes)
      assert.equal(buffer.toString('utf8', 40, 40 + bytes), name)
      assert.equal(
        buffer.subarray(40 + bytes, end).every((byte) => byte === 0),
        true,
      )
      assert.equal(buffer[end], 0xff)
    }),
  )
})

test('notifications carry their own length and end names with NUL', () => {
  const entry = encodeInvalidateEntry(5, 'añ')
  assert.equal(entry.readUInt32LE(0), entry.length)
  assert.equal(entry.readInt32LE(4), 3)
  assert.equal(entry.readUInt32LE(OUT_HEADER_BYTES + 8), 3)
  assert.equal(entry.at(-1), 0)
  const inode = encodeInvalidateInode(9, -1)
  assert.equal(inode.length, 40)
  assert.equal(inode.readBigInt64LE(24), -1n)
})

test('a header that lies about its length cannot be parsed', () => {
  const bytes = request(1, Buffer.from('name\0'))
  const target = new Request(bytes)
  assert.equal(target.parse(bytes, 39), false)
  assert.equal(target.parse(bytes, bytes.length - 1), false)
  assert.equal(target.parse(request(1, Buffer.alloc(8), 4000), 48), false)
  assert.equal(target.parse(bytes, 1_000_000), false)
  const hugeId = request(1, Buffer.alloc(8))
  hugeId.writeBigUInt64LE(2n ** 60n, 16)
  assert.equal(target.parse(hugeId, 48), false)
  const extended = request(1, Buffer.alloc(8))
  extended.writeUInt16LE(100, 36) // extensions longer than the request
  assert.equal(target.parse(extended, 48), false)
})

test('arguments never reach behind the request', () => {
  assert.throws(() => parsed(Buffer.alloc(4)).uint64(), malformed(EPROTO))
  assert.throws(() => parsed(Buffer.from('no end')).name(), malformed(EPROTO))
  assert.throws(() => parsed(Buffer.alloc(0)).uint32(), malformed(EPROTO))
  assert.throws(() => parsed(Buffer.alloc(10)).bytes(11), malformed(EPROTO))
  assert.throws(() => parsed(Buffer.from([0xff, 0xfe, 0])).name(), malformed(EILSEQ))
  assert.throws(() => parsed(Buffer.from(`${'x'.repeat(5000)}\0`)).name(), malformed(EPROTO))
})

test('random bytes are refused or read, never more than there is', () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 200 }), fc.nat(250), (bytes, claimed) => {
      const buffer = Buffer.concat([Buffer.from(bytes), Buffer.alloc(8)])
      if (buffer.length >= 4) buffer.writeUInt32LE(claimed, 0)
      const target = new Request(buffer)
      if (!target.parse(buffer, claimed)) return
      try {
        for (;;) {
          target.name()
          target.uint32()
          target.uint64()
        }
      } catch (error) {
        assert.ok(error instanceof MalformedRequest)
      }
      assert.ok(target.remainingBytes >= 0)
    }),
  )
})
