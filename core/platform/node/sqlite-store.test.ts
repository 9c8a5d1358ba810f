/** Proves that the SQLite store keeps the store contract, and refuses files that are not its own. */
import { rejects } from 'node:assert/strict'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import sqlite3 from 'sqlite3'
import { storeContract } from '../store-contract.ts'
import { SqliteStore } from './sqlite-store.ts'

storeContract('SqliteStore', async () => {
  const directory = await mkdtemp(join(tmpdir(), 'cairn-store-'))
  return {
    open: () => SqliteStore.open(join(directory, 'main.sqlite')),
    openSnapshot: (name) => SqliteStore.open(join(directory, name)),
    snapshotPath: (name) => join(directory, name),
    remove: () => rm(directory, { recursive: true }),
  }
})

test('a file of another format version, or no database at all, is refused with a code', async () => {
  const directory = await mkdtemp(join(tmpdir(), 'cairn-store-'))
  try {
    const other = join(directory, 'other.sqlite')
    await new Promise<void>((resolve, reject) => {
      const database = new sqlite3.Database(other)
      database.exec('PRAGMA user_version = 77', (error) => (error === null ? undefined : reject(error)))
      database.close((error) => (error === null ? resolve() : reject(error)))
    })
    await rejects(SqliteStore.open(other), { code: 'STORE_FORMAT' })
    const garbage = join(directory, 'garbage.sqlite')
    await writeFile(garbage, 'this is no database, '.repeat(500))
    await rejects(SqliteStore.open(garbage), { code: 'STORE_FAILED' })
  } finally {
    await rm(directory, { recursive: true })
  }
})
