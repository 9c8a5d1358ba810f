/** The three ways to a CRC32C (the processor's instruction, the package, page by page) give the same answers. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { crc32c as packageCrc32c } from '@node-rs/crc32'
import { Prng } from '../base/prng.ts'
import { PAGE_SIZE_BYTES } from '../base/units.ts'
import {
  crc32c,
  fillByPage,
  fillPageChecksums,
  pageChecksums,
  verifyByPage,
  verifyPageChecksums,
} from './checksum.ts'
import { nativeChecksums } from './native-checksums.ts'

const random = new Prng(1)
const bytes = Buffer.from(Array.from({ length: 64 * 1024 }, () => random.below(256)))

/** Any begin and length, many of them near the bounds of pages and of the lanes of the native one. */
function somePiece(): Buffer {
  const begin = random.below(64)
  const lengths = [random.below(64), 1360 * random.below(8), 4096 * random.below(4) + random.below(9), 4080]
  const length = lengths[random.below(lengths.length)] ?? 0
  return bytes.subarray(begin, begin + length + random.below(3))
}

test('the native module is compiled', () => {
  assert.notEqual(nativeChecksums, null, 'run: sh scripts/bootstrap.sh start')
})

test('the check value of CRC32C', () => {
  assert.equal(crc32c(Buffer.from('123456789')), 0xe3069283)
  assert.equal(crc32c(Buffer.alloc(0)), 0)
})

test('native checksums are those of the package, whatever the length, the alignment and the seed', () => {
  for (let round = 0; round < 5000; round++) {
    const piece = somePiece()
    const seed = random.below(2 ** 32)
    assert.equal(crc32c(piece, seed), packageCrc32c(piece, seed), `${piece.length} bytes, seed ${seed}`)
    const cut = random.below(piece.length + 1)
    assert.equal(crc32c(piece.subarray(cut), crc32c(piece.subarray(0, cut))), crc32c(piece))
  }
})

test('tables of pages are those made page by page, and verify at any alignment', () => {
  const unaligned = Buffer.alloc(64 * 1024)
  for (let round = 0; round < 1000; round++) {
    const piece = bytes.subarray(random.below(100), random.below(40_000) + 100)
    const offset = random.below(3 * PAGE_SIZE_BYTES)
    const table = pageChecksums(piece, offset)
    const expected = new Uint32Array(table.length)
    assert.equal(fillByPage(piece, offset, expected), table.length)
    assert.deepEqual(table, expected)
    const at = random.below(4)
    const received = unaligned.subarray(at, at + table.byteLength)
    Buffer.from(table.buffer).copy(received)
    assert.equal(verifyPageChecksums(piece, offset, received), -1)
    if (table.length === 0) continue
    const wrong = random.below(table.length)
    received.writeUInt8(received.readUInt8(wrong * 4) ^ 1, wrong * 4)
    assert.equal(verifyPageChecksums(piece, offset, received), wrong)
    assert.equal(verifyByPage(piece, offset, received), wrong)
  }
})

test('a table of another size is refused, and nothing is written beyond one that is too small', () => {
  const piece = bytes.subarray(0, 3 * PAGE_SIZE_BYTES)
  const table = Buffer.from(pageChecksums(piece, 0).buffer)
  assert.equal(verifyPageChecksums(piece, 0, table.subarray(4)), 3)
  assert.equal(verifyPageChecksums(piece, 1, table), 4)
  const tooSmall = new Uint32Array(2)
  if (nativeChecksums !== null) assert.throws(() => fillPageChecksums(piece, 0, tooSmall), TypeError)
})
