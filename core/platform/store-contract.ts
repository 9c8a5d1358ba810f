/**
 * What every Store must do, as tests over a factory: the SQLite one and the simulator's model pass the
 * same list. `open` is called again for the same place to see what a restart finds.
 */
import { deepEqual, equal, rejects } from 'node:assert/strict'
import { test } from 'node:test'
import type { RowChange, Store, StoreBatch, StoredLogEntry } from './store.ts'

/** One empty place for a store; every test gets its own. */
export interface StorePlace {
  /** Opens what is there. The previous store of the place has been closed. */
  open(): Promise<Store>
  /** Opens a snapshot that `Store.snapshot(path)` wrote; `path` is below the place. */
  openSnapshot(name: string): Promise<Store>
  snapshotPath(name: string): string
  remove(): Promise<void>
}

export interface Contents {
  readonly appliedIndex: number
  readonly rows: Map<string, string>
  readonly entries: StoredLogEntry[]
}

export async function contentsOf(store: Store): Promise<Contents> {
  const rows = new Map<string, string>()
  const entries: StoredLogEntry[] = []
  const { appliedIndex } = await store.load({
    onRows(table, packed) {
      equal(entries.length, 0, 'rows come before entries')
      while (packed.next()) {
        const key = packed.text()
        equal(rows.has(`${table}/${key}`), false, 'a row comes once')
        rows.set(`${table}/${key}`, packed.text())
      }
      equal(packed.isExhausted, true, 'as many as it says')
    },
    onEntry: (entry) => entries.push({ ...entry, data: Buffer.from(entry.data) }),
  })
  return { appliedIndex, rows, entries }
}

function entry(index: number, term = 1, text = `entry ${index}`): StoredLogEntry {
  return { index, term, data: Buffer.from(text) }
}

function batch(appliedIndex: number, rows: RowChange[], more: Partial<StoreBatch> = {}): StoreBatch {
  return { entries: [], appliedIndex, rows, ...more }
}

const cases: Readonly<Record<string, (place: StorePlace) => Promise<void>>> = {
  'a new store is empty': async (place) => {
    const store = await place.open()
    deepEqual(await contentsOf(store), { appliedIndex: 0, rows: new Map(), entries: [] })
    await store.close()
  },

  'what was committed is there after opening again': async (place) => {
    const store = await place.open()
    const hard = 'quote \' " \\ ; line\nbreak, é, 漢, 😀, \u2028'
    await store.commit(
      batch(
        2,
        [
          { table: 'inode', key: '1', value: hard },
          { table: 'chunk', key: hard, value: '' },
          { table: 'inode', key: '10', value: '{"a":[1,null]}' },
          { table: 'inode', key: '2', value: '12345678901234567890' },
        ],
        { entries: [entry(1), entry(2), { index: 3, term: 2, data: Buffer.from([0, 255, 0, 128]) }] },
      ),
    )
    await store.close()
    const again = await place.open()
    const { appliedIndex, rows, entries } = await contentsOf(again)
    equal(appliedIndex, 2)
    deepEqual(
      rows,
      new Map([
        [`chunk/${hard}`, ''],
        ['inode/1', hard],
        ['inode/10', '{"a":[1,null]}'],
        ['inode/2', '12345678901234567890'],
      ]),
    )
    deepEqual(entries, [entry(1), entry(2), { index: 3, term: 2, data: Buffer.from([0, 255, 0, 128]) }])
    await again.close()
  },

  'rows are replaced and deleted; of several changes of one key the last counts': async (place) => {
    const store = await place.open()
    await store.commit(
      batch(1, [
        { table: 't', key: 'a', value: '1' },
        { table: 't', key: 'b', value: '1' },
        { table: 'u', key: 'a', value: 'other table' },
      ]),
    )
    await store.commit(
      batch(2, [
        { table: 't', key: 'a', value: '2' },
        { table: 't', key: 'a', value: null },
        { table: 't', key: 'b', value: null },
        { table: 't', key: 'b', value: '3' },
        { table: 't', key: 'never there', value: null },
        { table: 't', key: 'c', value: '1' },
        { table: 't', key: 'c', value: '2' },
      ]),
    )
    deepEqual(
      (await contentsOf(store)).rows,
      new Map([
        ['t/b', '3'],
        ['t/c', '2'],
        ['u/a', 'other table'],
      ]),
    )
    await store.close()
  },

  'the log is truncated before new entries are added, and trimmed behind': async (place) => {
    const store = await place.open()
    await store.commit(batch(0, [], { entries: [entry(1), entry(2), entry(3), entry(4)] }))
    await store.commit(batch(0, [], { truncateFrom: 3, entries: [entry(3, 2, 'new')] }))
    deepEqual((await contentsOf(store)).entries, [entry(1), entry(2), entry(3, 2, 'new')])
    await store.commit(batch(2, [], { trimThrough: 1, entries: [entry(4, 2), entry(5, 2, '')] }))
    deepEqual((await contentsOf(store)).entries, [entry(2), entry(3, 2, 'new'), entry(4, 2), entry(5, 2, '')])
    await store.close()
  },

  'many rows and entries, more than any page of loading': async (place) => {
    const store = await place.open()
    const rows: RowChange[] = []
    for (let i = 0; i < 10_000; i++) rows.push({ table: `t${i % 3}`, key: `${i}`, value: `value ${i}` })
    await store.commit(batch(1, rows, { entries: Array.from({ length: 700 }, (_, i) => entry(i + 1)) }))
    const { rows: found, entries } = await contentsOf(store)
    equal(found.size, 10_000)
    for (const row of rows) equal(found.get(`${row.table}/${row.key}`), row.value)
    deepEqual(
      entries.map(({ index }) => index),
      Array.from({ length: 700 }, (_, i) => i + 1),
    )
    await store.close()
  },

  'a batch with an index that is taken leaves nothing of itself, and ends commits': async (place) => {
    const store = await place.open()
    await store.commit(batch(1, [{ table: 't', key: 'a', value: '1' }], { entries: [entry(1)] }))
    const bad = batch(2, [{ table: 't', key: 'a', value: '2' }], { entries: [entry(2), entry(1)] })
    await rejects(store.commit(bad), { code: 'STORE_FAILED' })
    await rejects(store.commit(batch(2, [])), { code: 'STORE_FAILED' })
    await store.close()
    const again = await place.open()
    const { appliedIndex, rows, entries } = await contentsOf(again)
    deepEqual([appliedIndex, [...rows], entries], [1, [['t/a', '1']], [entry(1)]])
    await again.close()
  },

  'a glance tells what the store is of': async (place) => {
    const store = await place.open()
    deepEqual(await store.glance('meta'), { appliedIndex: 0, appliedTerm: 0, rows: new Map() })
    const rows = [
      { table: 'meta', key: 'a', value: '1' },
      { table: 'other', key: 'b', value: '2' },
    ]
    await store.commit(batch(2, rows, { entries: [entry(1), entry(2, 4), entry(3, 5)] }))
    deepEqual(await store.glance('meta'), { appliedIndex: 2, appliedTerm: 4, rows: new Map([['a', '1']]) })
    await store.close()
  },

  'a snapshot is a store of its own with one commit as its end, while commits go on': async (place) => {
    const store = await place.open()
    for (let i = 1; i <= 20; i++)
      await store.commit(batch(i, [{ table: 't', key: `${i}`, value: 'x' }], { entries: [entry(i)] }))
    const snapshot = store.snapshot(place.snapshotPath('copy'))
    for (let i = 21; i <= 40; i++)
      await store.commit(batch(i, [{ table: 't', key: `${i}`, value: 'x' }], { entries: [entry(i)] }))
    await snapshot
    const copy = await place.openSnapshot('copy')
    const { appliedIndex, rows, entries } = await contentsOf(copy)
    equal(appliedIndex >= 20, true, 'holds what was committed before it was asked for')
    equal(rows.size, appliedIndex)
    equal(entries.at(-1)?.index, appliedIndex)
    await copy.close()
    equal((await contentsOf(store)).appliedIndex, 40)
    await store.close()
  },
}

export function storeContract(name: string, makePlace: () => Promise<StorePlace>): void {
  for (const [title, body] of Object.entries(cases))
    test(`${name}: ${title}`, async () => {
      const place = await makePlace()
      try {
        await body(place)
      } finally {
        await place.remove()
      }
    })
}
