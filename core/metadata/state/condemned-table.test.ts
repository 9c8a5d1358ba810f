/** Proves that the table of replicas that wait for deletion answers as a plain map does, also after the Store. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { PackedRows } from '../../platform/packed-rows.ts'
import type { RowChange } from '../../platform/store.ts'
import { IdSet } from './columns/id-set.ts'
import { CondemnedTable } from './condemned-table.ts'

const replica = fc.record({
  chunk: fc.constantFrom(0, 1, 2, 2 ** 40),
  server: fc.constantFrom(0, 1, 1025, 0xffff_ffff),
  versionMax: fc.constantFrom(0, 1, 7, 2 ** 40),
})

function contentsOf(table: CondemnedTable): Map<string, number> {
  const found = new Map<string, number>()
  for (let slot = 0; slot >= 0; )
    slot = table.scan(slot, 2, (chunk, server, versionMax) => {
      assert.ok(!found.has(`${chunk}/${server}`), 'none is seen twice')
      found.set(`${chunk}/${server}`, versionMax)
    })
  return found
}

test('answers as a plain map does, also after rows went and came, and after the Store', () => {
  const step = fc.tuple(fc.boolean(), replica)
  fc.assert(
    fc.property(fc.array(step, { maxLength: 60 }), (steps) => {
      const table = new CondemnedTable()
      const model = new Map<string, number>()
      const stored = new Map<string, string>()
      for (const [isSet, row] of steps) {
        const key = `${row.chunk}/${row.server}`
        if (isSet) {
          table.set(row)
          model.set(key, row.versionMax)
        } else {
          table.delete(row.chunk, row.server)
          model.delete(key)
        }
        assert.equal(table.has(row.chunk, row.server), isSet)
        assert.equal(table.versionMaxOf(row.chunk, row.server), isSet ? row.versionMax : 0)
        assert.ok(table.changedCount > 0 || !isSet)
        const changes: RowChange[] = []
        table.collectChanges(changes)
        for (const { key: rowKey, value } of changes) {
          if (value === null) stored.delete(rowKey)
          else stored.set(rowKey, value)
        }
      }
      assert.deepEqual(contentsOf(table), model)
      assert.equal(table.size, model.size)
      const fromTexts = new CondemnedTable()
      for (const [key, value] of stored) fromTexts.loadRow(key, value)
      assert.deepEqual(contentsOf(fromTexts), model)
      const fromBytes = new CondemnedTable()
      const rows = PackedRows.of([...stored])
      while (rows.next()) assert.ok(fromBytes.loadPacked(rows))
      assert.ok(rows.isExhausted)
      assert.deepEqual(contentsOf(fromBytes), model)
      assert.deepEqual(new Map(table.rows()), stored)
    }),
  )
})

test('a serial number rises with each that is condemned, and stays while it waits', () => {
  const table = new CondemnedTable()
  table.set({ chunk: 1, server: 1, versionMax: 1 })
  table.set({ chunk: 2, server: 1, versionMax: 1 })
  table.set({ chunk: 1, server: 1, versionMax: 5 })
  table.delete(2, 1)
  table.set({ chunk: 3, server: 1, versionMax: 1 })
  const serials = new Map<number, number>()
  table.scan(0, 10, (chunk, _server, _versionMax, serial) => void serials.set(chunk, serial))
  assert.deepEqual(
    serials,
    new Map([
      [1, 1],
      [3, 3],
    ]),
  )
  assert.equal(table.lastSerial, 3)
})

test('damaged rows are refused with a code', () => {
  for (const [key, value] of [
    ['1/2', '[1,3,1]'],
    ['1/2', '[1,2]'],
    ['1/2', '[1,2,-1]'],
    ['1', '[1,2,3]'],
    ['01/2', '[1,2,3]'],
    ['1/4294967296', '[1,4294967296,3]'],
    ['1/2', 'no json'],
  ] as const) {
    assert.throws(() => new CondemnedTable().loadRow(key, value), { code: 'ROW_CORRUPT' })
    const rows = PackedRows.of([[key, value]])
    rows.next()
    assert.ok(!new CondemnedTable().loadPacked(rows))
  }
})

test('a replica that waits for deletion takes at most 45 bytes', () => {
  const table = new CondemnedTable()
  const count = 60_000
  for (let chunk = 1; chunk <= count; chunk++) table.set({ chunk, server: 1025, versionMax: 1 })
  assert.ok(table.byteLength / count <= 45, `${table.byteLength / count} bytes`)
})

test('a set of ids has what was added', () => {
  fc.assert(
    fc.property(fc.array(fc.nat({ max: 50 })), (added) => {
      const ids = new IdSet()
      for (const id of added) ids.add(id * 2 ** 33 + 1)
      assert.equal(ids.size, new Set(added).size)
      for (let id = 0; id <= 50; id++) assert.equal(ids.has(id * 2 ** 33 + 1), added.includes(id))
    }),
  )
})
