// Proves the size rules of a file (rule T1): what shrinking drops and marks, when growing must wait, and
// against a model that no byte beyond the size is ever readable later without having been zeroed.

import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { CHUNK_SIZE_BYTES as CHUNK } from '../../base/units.ts'
import type { ApplyContext } from '../state/apply.ts'
import type { InodeRow } from '../state/rows.ts'
import { clearZeroMark, cutFile, setFileSize, sizeRefusal, unmapChunks } from './file-size.ts'
import { attributesOf } from './inodes.ts'
import { NamespaceBench } from './namespace-bench.ts'

function file(size: number, indexes: readonly number[]) {
  const bench = new NamespaceBench()
  bench.create('f')
  const row = bench.at('f')
  row.size = size
  bench.mapChunks(row.inode, indexes)
  const context: ApplyContext = { state: bench.state, index: 9, wallSeconds: 5_000, wallNanoseconds: 1 }
  return { bench, row, context, truncate: (to: number) => setFileSize(context, row, to, bench.actions) }
}

const indexesOf = (row: InodeRow): number[] => row.chunks.indexes().toSorted((a, b) => a - b)

test('shrinking drops whole chunks and marks the tail of the last one', () => {
  const { bench, row, truncate } = file(4 * CHUNK, [0, 1, 3])
  truncate(CHUNK + 100)
  assert.deepEqual(indexesOf(row), [0, 1])
  assert.deepEqual(bench.dropped, [3])
  assert.deepEqual([row.size, row.zeroFrom, row.modifySeconds], [CHUNK + 100, CHUNK + 100, 5_000])
  truncate(CHUNK)
  assert.deepEqual([indexesOf(row), row.zeroFrom], [[0], undefined])
  truncate(0)
  assert.equal(row.chunks.size, 0)
})

test('a tail in a hole needs no mark', () => {
  const { row, truncate } = file(4 * CHUNK, [0, 3])
  truncate(CHUNK + 100)
  assert.equal(row.zeroFrom, undefined)
})

test('the size grows past a mark only after the tail was zeroed', () => {
  const { row, context, truncate } = file(CHUNK, [0])
  truncate(100)
  assert.equal(sizeRefusal(row, 101)?.error, 'REFUSED')
  assert.equal(sizeRefusal(row, 100), undefined)
  clearZeroMark(context, row, 99)
  assert.equal(row.zeroFrom, 100, 'an older message clears nothing')
  clearZeroMark(context, row, 100)
  assert.equal(sizeRefusal(row, 101), undefined)
})

test('what the holder wrote and has not told is cut as well', () => {
  const { row, truncate } = file(0, [0, 1])
  row.sizeLimit = 2 * CHUNK
  truncate(10)
  assert.deepEqual([indexesOf(row), row.zeroFrom, row.size], [[0], 10, 10])
})

test('F8: cutting the file leaves the limit of what the holder may still write', () => {
  const { bench, row, truncate } = file(3 * CHUNK, [0, 1, 2])
  bench.state.level.raiseTo(2)
  row.sizeLimit = 100
  truncate(10)
  assert.equal(row.sizeLimit, 3 * CHUNK, 'a grant on the first chunk covered all that it had')
})

test('members of feature level 1 and of a later one come to the same row', () => {
  const { row, truncate } = file(3 * CHUNK, [0, 1, 2])
  row.sizeLimit = 100
  truncate(10)
  assert.equal(row.sizeLimit, 100)
})

test('F8: cutting a file that nobody writes sets no limit', () => {
  const { row, truncate } = file(3 * CHUNK, [0, 1, 2])
  truncate(10)
  assert.equal(row.sizeLimit, undefined)
})

test('a truncation in steps comes to the same as one at once', () => {
  const size = fc.integer({ min: 0, max: 4 * 64 }).map((quarters) => (quarters * CHUNK) / 4)
  const shape = {
    size,
    to: size,
    indexes: fc.uniqueArray(fc.nat({ max: 70 }), { maxLength: 70 }),
    sizeLimit: fc.option(size, { nil: undefined }),
    zeroFrom: fc.option(size, { nil: undefined }),
  }
  fc.assert(
    fc.property(fc.record(shape), ({ size: before, to, indexes, sizeLimit, zeroFrom }) => {
      const rows = [true, false].map((isInSteps) => {
        const { bench, row, context, truncate } = file(before, indexes)
        bench.state.level.raiseTo(3)
        row.sizeLimit = sizeLimit
        row.zeroFrom = zeroFrom
        if (sizeRefusal(row, to) !== undefined) return null
        const cuts = isInSteps ? row.chunks.cuts(Math.ceil(to / CHUNK), 32) : []
        for (const index of cuts) {
          const known = row.size
          cutFile(context, row, index * CHUNK, bench.actions)
          assert.ok(
            row.size <= known && row.size >= Math.min(to, known),
            'between what it was and what it becomes',
          )
        }
        truncate(to)
        return [
          indexesOf(row),
          row.size,
          row.sizeLimit,
          row.zeroFrom,
          bench.dropped.toSorted((a, b) => a - b),
        ]
      })
      assert.deepEqual(rows[0], rows[1])
    }),
  )
})

test('only files have a size, and a bounded one', () => {
  const { bench, row } = file(0, [])
  assert.equal(sizeRefusal(row, Number.MAX_SAFE_INTEGER)?.error, 'EFBIG')
  assert.equal(sizeRefusal(bench.at('/'), 0)?.error, 'EINVAL')
})

test('unmapping takes chunks out, and a mark with its chunk', () => {
  const { bench, row, context, truncate } = file(4 * CHUNK, [0, 1, 2])
  truncate(2 * CHUNK + 5)
  assert.equal(unmapChunks(context, row, [2, 7], bench.actions), 1)
  assert.deepEqual([indexesOf(row), row.zeroFrom, row.size], [[0, 1], undefined, 2 * CHUNK + 5])
})

test('allocated bytes: whole chunks up to the size', () => {
  const allocated = (size: number, indexes: readonly number[]) =>
    attributesOf(file(size, indexes).row).allocated
  assert.equal(allocated(0, [0]), 0)
  assert.equal(allocated(1, [0]), 4096)
  assert.equal(allocated(CHUNK, [0]), CHUNK)
  assert.equal(allocated(20 * CHUNK, [3]), CHUNK)
  assert.equal(allocated(3 * CHUNK + 5000, [0, 3]), CHUNK + 8192)
})

test('no old byte comes back, whatever the holder does', () => {
  const position = fc.integer({ min: 0, max: 3 * CHUNK })
  const step = fc.oneof(
    fc.record({ do: fc.constant('write' as const), position }),
    fc.record({ do: fc.constant('truncate' as const), position }),
    fc.record({ do: fc.constant('zero' as const), position }),
  )
  fc.assert(
    fc.property(fc.array(step, { maxLength: 40, size: 'max' }), (steps) => {
      const { bench, row, context, truncate } = file(0, [])
      /** Offsets with bytes in a chunk that exists. */
      const written = new Set<number>()
      for (const action of steps) {
        if (action.do === 'zero' && row.zeroFrom !== undefined) {
          const chunkEnd = (Math.floor(row.zeroFrom / CHUNK) + 1) * CHUNK
          for (const at of written) if (at >= row.zeroFrom && at < chunkEnd) written.delete(at)
          clearZeroMark(context, row, row.zeroFrom)
        } else if (action.do === 'write' && sizeRefusal(row, action.position + 1) === undefined) {
          const index = Math.floor(action.position / CHUNK)
          if (!row.chunks.has(index)) bench.mapChunks(row.inode, [index])
          for (const at of written) assert.ok(at < row.size || at >= action.position, `byte ${at} is back`)
          written.add(action.position)
          row.size = Math.max(row.size, action.position + 1)
        } else if (action.do === 'truncate' && sizeRefusal(row, action.position) === undefined) {
          const before = row.size
          truncate(action.position)
          for (const at of written) if (!row.chunks.has(Math.floor(at / CHUNK))) written.delete(at)
          // What became readable by growing is zeros.
          for (const at of written) assert.ok(at < before || at >= action.position, `byte ${at} is back`)
        }
      }
    }),
    { numRuns: 300 },
  )
})

test('a directory of 200,000 names is made, listed and emptied without sorting or copying each time', () => {
  const bench = new NamespaceBench()
  const count = 200_000
  const { entries } = bench.state
  for (let name = 0; name < count; name++) entries.add(1, `n${name}`, 1, name + 1)
  let seen = 0
  for (let cookie = 0, end = false; !end; ) {
    const listed = entries.get(1)?.list(cookie, 1_000)
    assert.ok(listed !== undefined)
    seen += listed.entries.length
    cookie = listed.entries.at(-1)?.cookie ?? 0
    end = listed.end
  }
  assert.equal(seen, count)
  for (let name = 0; name < count; name++) {
    const entry = entries.entry(1, `n${name}`)
    assert.ok(entry !== undefined)
    entries.remove(1, entry)
  }
  assert.equal(entries.get(1), undefined)
})
