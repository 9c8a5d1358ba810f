/** Proves that packed rows give back what was packed, read numbers as JavaScript writes them, and tell what is not whole. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { NUL, PackedRows } from './packed-rows.ts'

const text = fc.string({ unit: 'grapheme', maxLength: 12 }).map((value) => value.replaceAll('\0', ''))

test('texts come back, also of a row that was begun otherwise', () => {
  fc.assert(
    fc.property(fc.array(fc.tuple(text, text), { maxLength: 8 }), (expected) => {
      const rows = PackedRows.of(expected)
      const found: [string, string][] = []
      while (rows.next()) {
        rows.integer()
        rows.takes(NUL)
        rows.bytes(Buffer.alloc(64))
        rows.rewind()
        found.push([rows.text(), rows.text()])
      }
      assert.deepEqual(found, expected)
      assert.ok(rows.isExhausted)
    }),
  )
})

test('a number is read when it is whole, safe and canonical', () => {
  const read = (value: string): number => {
    const rows = PackedRows.of([[value, '']])
    rows.next()
    const number = rows.integer()
    return number >= 0 && rows.takes(NUL) ? number : -1
  }
  fc.assert(fc.property(fc.nat({ max: 999_999_999_999_999 }), (number) => read(String(number)) === number))
  for (const other of ['', '-1', '01', '00', '1.5', '1e3', ' 1', '9007199254740993', 'x'])
    assert.equal(read(other), -1, other)
})

test('a row with a NUL, or one too few, is not the end of what was promised', () => {
  const readAll = (rows: PackedRows): boolean => {
    while (rows.next()) {
      rows.text()
      rows.text()
    }
    return rows.isExhausted
  }
  assert.ok(readAll(PackedRows.of([['a', 'b']])))
  assert.ok(!readAll(PackedRows.of([['a\0', 'b']])))
  assert.ok(!readAll(PackedRows.of([['a', 'b\0c']])))
  assert.ok(!readAll(new PackedRows(Buffer.from('a\0b\0'), 2)))
  assert.ok(!readAll(new PackedRows(Buffer.from('a\0b'), 1)))
})
