// Proves that the model of the store keeps the contract of the real one, and what a crash leaves.

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { contentsOf, storeContract } from '../../platform/store-contract.ts'
import type { StoreBatch } from '../../platform/store.ts'
import { type CommitFate, SimulatedStore, SimulatedStoreContents } from './simulated-store.ts'

storeContract('SimulatedStore', () => {
  const contents = new SimulatedStoreContents()
  const snapshots = new Map<string, SimulatedStoreContents>()
  const snapshotOf = (name: string) => snapshots.get(name) ?? new SimulatedStoreContents()
  return Promise.resolve({
    open: () => Promise.resolve(new SimulatedStore(contents, { snapshots })),
    openSnapshot: (name) => Promise.resolve(new SimulatedStore(snapshotOf(name))),
    snapshotPath: (name) => name,
    remove: () => Promise.resolve(),
  })
})

const batch: StoreBatch = {
  entries: [{ index: 1, term: 1, data: Buffer.from('x') }],
  rows: [{ table: 't', key: 'a', value: '1' }],
  appliedIndex: 0,
}

for (const [fate, rowCount] of [
  ['crash-before', 0],
  ['crash-after', 1],
] as const satisfies [CommitFate, number][]) {
  test(`${fate}: the commit is there as a whole or not at all, and nobody hears of it`, async () => {
    const contents = new SimulatedStoreContents()
    const store = new SimulatedStore(contents, { fateOf: () => fate })
    let isSettled = false
    void store.commit(batch).finally(() => {
      isSettled = true
    })
    const after = await contentsOf(new SimulatedStore(contents))
    assert.equal(isSettled, false)
    assert.equal(store.isCrashed, true)
    assert.deepEqual([after.rows.size, after.entries.length], [rowCount, rowCount])
  })
}

test('a crash of the handle loses the commit in flight', async () => {
  const contents = new SimulatedStoreContents()
  const store = new SimulatedStore(contents)
  void store.commit(batch)
  store.crash()
  const after = await contentsOf(new SimulatedStore(contents))
  assert.deepEqual([after.rows.size, after.entries.length], [0, 0])
})
