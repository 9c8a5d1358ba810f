// Proves what is said of a stopped repository: nothing wrong with a good one; each kind of damage by its code,
// several at once, and what can still be read of it.

import assert from 'node:assert/strict'
import { mkdtemp, rm, truncate, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { SqliteStore } from '../../platform/node/sqlite-store.ts'
import {
  SimulatedHardState,
  SimulatedHardStateContents,
} from '../../testing/simulation/simulated-hard-state.ts'
import { encodeEntry } from '../log/codec.ts'
import { examine } from './examination.ts'

const entry = (index: number, term: number) => ({
  index,
  term,
  data: encodeEntry({ index, term, kind: 'empty', data: Buffer.alloc(0) }),
})
const rows = [
  { table: 'meta', key: 'format', value: '1' },
  { table: 'meta', key: 'configuration', value: '[[2,3],[]]' },
  { table: 'config', key: 'cluster.name', value: '"demo"' },
  { table: 'config', key: 'cluster.uuid', value: '"abc"' },
  { table: 'members', key: '3', value: '[3,"h",2510,"n","member"]' },
]

async function withRepository(
  use: (file: string, store: SqliteStore, hardState: SimulatedHardStateContents) => Promise<void>,
): Promise<void> {
  const directory = await mkdtemp(join(tmpdir(), 'cairn-examination-'))
  try {
    const file = join(directory, 'metadata.db')
    const store = await SqliteStore.open(file)
    await store.commit({ entries: [entry(6, 2), entry(7, 3)], rows, appliedIndex: 6 })
    const hardState = new SimulatedHardStateContents()
    await new SimulatedHardState(hardState).save({ member: 2, term: 3, vote: 3 })
    await use(file, store, hardState)
  } finally {
    await rm(directory, { recursive: true })
  }
}

const look = (file: string, hardState: SimulatedHardStateContents) =>
  examine(() => SqliteStore.openExisting(file), new SimulatedHardState(hardState))

test('of a good repository it says who it is and how far it got', async () => {
  await withRepository(async (file, store, hardState) => {
    await store.close()
    const found = await look(file, hardState)
    assert.deepEqual(found.faults, [])
    assert.deepEqual(found.hardState, { member: 2, term: 3, vote: 3 })
    assert.deepEqual(found.cluster, { name: 'demo', uuid: 'abc' })
    assert.deepEqual([found.appliedIndex, found.lastIndex, found.lastTerm, found.rowCount], [6, 7, 3, 3])
    assert.deepEqual(found.configuration, { voters: [2, 3], learners: [] })
    assert.deepEqual(
      found.members.map(({ member }) => member),
      [3],
    )
  })
})

test('each damage has its code', async () => {
  const codesOf = async (
    damage: (file: string, store: SqliteStore, hardState: SimulatedHardStateContents) => Promise<void>,
  ): Promise<string[]> => {
    let codes: string[] = []
    await withRepository(async (file, store, hardState) => {
      await damage(file, store, hardState)
      codes = (await look(file, hardState)).faults.map(({ code }) => code)
    })
    return codes
  }
  const commit = (store: SqliteStore, more: Partial<Parameters<SqliteStore['commit']>[0]>) =>
    store.commit({ entries: [], rows: [], appliedIndex: 6, ...more }).then(() => store.close())
  assert.deepEqual(
    await codesOf((_file, store) => commit(store, { entries: [{ ...entry(9, 3), index: 8 }] })),
    ['LOG_CORRUPT'],
  )
  assert.deepEqual(
    await codesOf((_file, store) => commit(store, { rows: [{ table: 'servers', key: '1', value: '[1]' }] })),
    ['ROW_CORRUPT'],
  )
  assert.deepEqual(
    await codesOf((_file, store) => commit(store, { rows: [{ table: 'meta', key: 'format', value: '99' }] })),
    ['VERSION_TOO_OLD'],
  )
  assert.deepEqual(await codesOf((_file, store) => commit(store, { entries: [entry(8, 9)] })), [
    'RAFT_HARD_STATE_LOST',
  ])
  const emptied = await codesOf(async (file, store) => {
    await store.close()
    await truncate(file, 0)
  })
  assert.deepEqual(emptied, ['STORE_FORMAT'], 'an emptied database is no new one')
  const garbage = await codesOf(async (file, store, hardState) => {
    await store.close()
    await writeFile(file, Buffer.alloc(16_384, 7))
    hardState.state = null
  })
  assert.deepEqual(garbage, ['HARD_STATE_DAMAGED', 'STORE_FORMAT'])
})
