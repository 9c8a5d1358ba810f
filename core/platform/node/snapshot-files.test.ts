// Proves the copies of a store on real files: read in pieces, written in pieces, opened, put in place of the
// store; and that nothing takes a place while a write-ahead log is left over.

import assert from 'node:assert/strict'
import { existsSync } from 'node:fs'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { contentsOf } from '../store-contract.ts'
import { NodeSnapshotFiles } from './snapshot-files.ts'
import { SqliteStore } from './sqlite-store.ts'

test('a copy travels in pieces and takes the place of another store', async () => {
  const directory = await mkdtemp(join(tmpdir(), 'cairn-snapshot-'))
  try {
    const source = await SqliteStore.open(join(directory, 'a.db'))
    const rows = Array.from({ length: 500 }, (_, row) => ({ table: 't', key: `${row}`, value: `v${row}` }))
    const entries = [3, 4, 5].map((index) => ({ index, term: 2, data: Buffer.from(`e${index}`) }))
    await source.commit({
      entries,
      rows: [...rows, { table: 'meta', key: 'k', value: 'w' }],
      appliedIndex: 4,
    })
    const sender = new NodeSnapshotFiles(join(directory, 'a.db'))
    await source.snapshot(sender.outgoingPath)
    const target = await SqliteStore.open(join(directory, 'b.db'))
    await target.commit({ entries: [], rows: [{ table: 't', key: 'old', value: 'x' }], appliedIndex: 1 })
    const receiver = new NodeSnapshotFiles(join(directory, 'b.db'))
    await receiver.write(0, Buffer.from('left over from one that was broken off'))
    for (let offset = 0; ; ) {
      const piece = await sender.read(offset, 1_000)
      if (piece.length === 0) break
      await receiver.write(offset, piece)
      offset += piece.length
    }
    const copy = await receiver.open('incoming')
    const glance = await copy.glance('meta')
    assert.deepEqual(glance, { appliedIndex: 4, appliedTerm: 2, rows: new Map([['k', 'w']]) })
    await copy.commit({ entries: [], rows: [], truncateFrom: 5, appliedIndex: 4 })
    await copy.close()
    await target.close()
    const installed = await receiver.install()
    const contents = await contentsOf(installed)
    assert.equal(contents.rows.size, 501)
    assert.deepEqual(
      contents.entries.map(({ index }) => index),
      [3, 4],
    )
    assert.ok(!contents.rows.has('t/old'))
    await sender.drop('outgoing')
    assert.ok(!existsSync(sender.outgoingPath))
    await installed.close()
    await source.close()
  } finally {
    await rm(directory, { recursive: true })
  }
})

test('nothing is put in place while a write-ahead log is left over', async () => {
  const directory = await mkdtemp(join(tmpdir(), 'cairn-snapshot-'))
  try {
    const path = join(directory, 'a.db')
    const store = await SqliteStore.open(path)
    await store.close()
    const files = new NodeSnapshotFiles(path)
    await files.write(0, Buffer.from('x'))
    await writeFile(`${path}-wal`, 'frames of another file')
    await assert.rejects(files.install(), { code: 'STORE_FAILED' })
    assert.ok(existsSync(path))
  } finally {
    await rm(directory, { recursive: true })
  }
})
