/** The chunk table: same answers as a plain map, rows that survive the Store, and the memory it takes. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { PackedRows } from '../../platform/packed-rows.ts'
import type { RowChange } from '../../platform/store.ts'
import type { ChunkMember, ChunkRow } from '../state/rows.ts'
import { ChunkTable } from './chunk-table.ts'

const anyMember: fc.Arbitrary<Omit<ChunkMember, 'server'>> = fc.oneof(
  fc.record({
    role: fc.constant('in-sync' as const),
    since: fc.integer({ min: 1, max: 9 }),
    attempt: fc.constant(0),
  }),
  fc.record({
    role: fc.constant('joining' as const),
    since: fc.constant(0),
    attempt: fc.integer({ min: 1, max: 9 }),
  }),
)
const anyMembers: fc.Arbitrary<ChunkMember[]> = fc
  .uniqueArray(fc.integer({ min: 1025, max: 1032 }), { minLength: 1, maxLength: 6 })
  .chain((servers) =>
    fc
      .array(anyMember, { minLength: servers.length, maxLength: servers.length })
      .map((all) => all.map((member, index) => ({ ...member, server: servers[index] ?? 0 }))),
  )
const anyRow: fc.Arbitrary<ChunkRow> = fc.record({
  chunk: fc.integer({ min: 1, max: 40 }).map((id) => id * 4_294_967_311),
  inode: fc.integer({ min: 2, max: 2 ** 50 }),
  index: fc.nat(1_000_000),
  version: fc.integer({ min: 1, max: 0xfffffffe }),
  members: anyMembers,
  writable: fc.boolean(),
  pending: fc.option(
    fc.record({ version: fc.integer({ min: 1, max: 99 }), members: anyMembers, reconcile: fc.boolean() }),
  ),
  intentLease: fc.nat(5),
  dirtyDead: fc.boolean(),
  former: fc.uniqueArray(fc.record({ server: fc.integer({ min: 1040, max: 1050 }), version: fc.nat(9) }), {
    maxLength: 3,
    selector: (entry) => entry.server,
  }),
})

function check(table: ChunkTable, model: ReadonlyMap<number, ChunkRow>): void {
  assert.equal(table.size, model.size)
  assert.deepEqual(
    [...table.ids()].toSorted((a, b) => a - b),
    [...model.keys()].toSorted((a, b) => a - b),
  )
  for (const [chunk, row] of model) assert.deepEqual(table.get(chunk), row)
  for (let server = 1025; server <= 1032; server++) {
    const expected = [...model.values()].filter((row) =>
      row.members.some((member) => member.server === server),
    )
    const found: number[] = []
    for (let slot = 0; slot >= 0; )
      slot = table.scanServer(server, slot, 7, (chunk) => void found.push(chunk))
    assert.deepEqual(
      found.toSorted((a, b) => a - b),
      expected.map((row) => row.chunk).toSorted((a, b) => a - b),
    )
    assert.equal(table.replicaCount(server), expected.length)
  }
  const joining = [...model.values()].filter(({ members }) => members.some(({ role }) => role === 'joining'))
  assert.deepEqual(new Set(table.joiningChunks()), new Set(joining.map((row) => row.chunk)))
  for (let lease = 1; lease <= 5; lease++) {
    const expected = [...model.values()].filter((row) => row.intentLease === lease)
    assert.deepEqual(
      table.chunksWithIntent(lease),
      expected.map((row) => row.chunk).toSorted((a, b) => a - b),
    )
  }
}

test('answers as a plain map does, also after rows went and came, and after the Store', () => {
  const step = fc.oneof(
    { weight: 3, arbitrary: anyRow },
    { weight: 1, arbitrary: fc.integer({ min: 1, max: 40 }) },
  )
  fc.assert(
    fc.property(fc.array(step, { maxLength: 60 }), (steps) => {
      const table = new ChunkTable()
      const model = new Map<number, ChunkRow>()
      const stored = new Map<string, string>()
      for (const next of steps) {
        if (typeof next === 'number') {
          table.delete(next * 4_294_967_311)
          model.delete(next * 4_294_967_311)
        } else {
          table.put(next)
          model.set(next.chunk, structuredClone(next))
        }
        const changes: RowChange[] = []
        table.collectChanges(changes)
        for (const { key, value } of changes) {
          if (value === null) stored.delete(key)
          else stored.set(key, value)
        }
      }
      check(table, model)
      const loaded = new ChunkTable()
      for (const [key, value] of stored) loaded.loadRow(key, value)
      check(loaded, model)
      assert.deepEqual(new Map(loaded.rows()), new Map(table.rows()))
      // From the bytes, as the store has them, what is plain; the rest as texts.
      const fromBytes = new ChunkTable()
      const rows = PackedRows.of([...stored])
      while (rows.next()) {
        if (fromBytes.loadPacked(rows)) continue
        rows.rewind()
        fromBytes.loadRow(rows.text(), rows.text())
      }
      assert.ok(rows.isExhausted)
      check(fromBytes, model)
      assert.deepEqual(new Map(fromBytes.rows()), new Map(table.rows()))
    }),
  )
})

test('nearly all rows are read from the bytes, and no damaged one', () => {
  const isPlain = (value: string): boolean => {
    const rows = PackedRows.of([['7', value]])
    return rows.next() && new ChunkTable().loadPacked(rows) && rows.isExhausted
  }
  assert.ok(isPlain('[2,0,1,1,0,[[1025,0,1],[1026,0,1],[1027,0,1]],0,[]]'))
  assert.ok(isPlain('[2,4294967294,4294967294,0,0,[[1025,0,4294967294]],0,[]]'))
  for (const value of [
    '[2,0,1,1,0,[],0,[]]',
    '[2,0,1,1,0,[[1,0,1],[2,0,1],[3,0,1],[4,0,1]],0,[]]',
    '[2,0,1,1,9,[[1,0,1]],0,[]]',
    '[2,0,1,3,0,[[1,0,1]],0,[]]',
    '[2,0,1,1,0,[[1,1,1]],0,[]]',
    '[2,0,1,1,0,[[1,0,1]],[2,0,[[1,0,1]]],[]]',
    '[2,0,1,1,0,[[1,0,1]],0,[[2,1]]]',
    '[0,0,1,1,0,[[1,0,1]],0,[]]',
    '[2,0,1,1,0,[[1,0,1]],0,[],[3],[]]',
    '[2,0,1,1,0,[[1,0,1]],0,[],[],[[1,5]]]',
    '[2,0,4294967295,1,0,[[1,0,1]],0,[]]',
    '[02,0,1,1,0,[[1,0,1]],0,[]]',
    '[2,0,1,1,0,[[1,0,1]],0,[]] ',
    '[2,0,1,1,0,[[1,0,1',
    '',
  ])
    assert.ok(!isPlain(value), value)
})

test('what is read is a copy: changing it changes nothing', () => {
  const table = new ChunkTable()
  const row = structuredClone(fc.sample(anyRow, { numRuns: 1, seed: 1 })[0])
  assert.ok(row !== undefined)
  table.put(row)
  const copy = table.get(row.chunk)
  copy?.members.pop()
  copy?.former.push({ server: 1, version: 1 })
  assert.deepEqual(table.get(row.chunk), row)
})

test('damaged rows are refused with a code', () => {
  const table = new ChunkTable()
  for (const [key, value] of [
    ['x', '[]'],
    ['07', '[2,0,1,1,0,[[1,0,1]],0,[]]'],
    ['7', '[1,2,3]'],
    ['7', 'no json'],
    ['7', '[1,0,1,0,0,[[1025,0,-4]],0,[]]'],
  ]) {
    assert.throws(() => table.loadRow(key ?? '', value ?? ''), { code: 'ROW_CORRUPT' })
  }
})

test('a chunk with three replicas takes at most 65 bytes in its table', () => {
  const table = new ChunkTable()
  const count = 60_000
  for (let chunk = 1; chunk <= count; chunk++) {
    const members = [1025, 1026, 1027].map(
      (server): ChunkMember => ({ server, role: 'in-sync', since: 1, attempt: 0 }),
    )
    const rest = { pending: null, intentLease: 0, dirtyDead: false, former: [], writable: true }
    table.put({ chunk, inode: chunk, index: 0, version: 1, members, ...rest })
  }
  assert.ok(table.byteLength / count <= 65, `${table.byteLength / count} bytes`)
})

test('a scan in slices sees every row once', () => {
  const table = new ChunkTable()
  const members: ChunkMember[] = [{ server: 1025, role: 'in-sync', since: 1, attempt: 0 }]
  for (let chunk = 1; chunk <= 1000; chunk++) {
    const rest = { pending: null, intentLease: 0, dirtyDead: false, former: [], writable: true }
    table.put({ chunk, inode: 2, index: chunk, version: 1, members, ...rest })
  }
  table.delete(500)
  const seen = new Set<number>()
  let slot = 0
  while (slot >= 0) slot = table.scan(slot, 64, (row) => void seen.add(row.chunk))
  assert.equal(seen.size, 999)
})
