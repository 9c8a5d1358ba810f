/**
 * The metadata store on SQLite: one file in WAL mode, synchronous=FULL. A commit is one statement
 * (sqlite-commit.ts), so it is atomic by itself, takes one trip through the thread pool and ends in one sync.
 * After a commit has failed nothing more is committed: the process has to start again.
 */
import { open, rename, rm, stat, statfs } from 'node:fs/promises'
import { dirname } from 'node:path'
import sqlite3 from 'sqlite3'
import { assert } from '../../base/assert.ts'
import { CairnError } from '../../base/errors.ts'
import { NUL, PackedRows } from '../packed-rows.ts'
import type { Store, StoreBatch, StoreGlance, StoreLoadHandler } from '../store.ts'
import {
  APPEND,
  appendParameters,
  COMMIT,
  COMMIT_SCHEMA,
  commitParameters,
  isAppend,
} from './sqlite-commit.ts'

const FORMAT_VERSION = 1
/** Taken in at once: a few milliseconds, also when the machine is busy. */
const ROWS_PER_PAGE = 1024
const ENTRIES_PER_PAGE = 256
const BUSY_TIMEOUT_MS = 10_000
/** Stays free when a copy is made: for what is committed meanwhile. */
const COPY_SPARE_BYTES = 32 * 1024 * 1024
/** How every SQLite file begins. */
const HEADER_TEXT = 'SQLite format 3\0'
/** The state is in memory; commits touch few pages, and the system has those that have left this cache. */
const CACHE_KIB = 4096

const SCHEMA = `
  CREATE TABLE row (tab TEXT NOT NULL, key TEXT NOT NULL, value TEXT NOT NULL, PRIMARY KEY (tab, key))
    WITHOUT ROWID;
  CREATE TABLE log (idx INTEGER PRIMARY KEY, term INTEGER NOT NULL, data BLOB NOT NULL);
  CREATE TABLE state (id INTEGER PRIMARY KEY CHECK (id = 1), applied INTEGER NOT NULL);
  INSERT INTO state VALUES (1, 0);
  CREATE VIEW batch AS SELECT 0 AS applied, 0 AS truncate_from, 0 AS trim_through, '' AS entries,
    x'' AS data, '' AS rows, '' AS gone;
  CREATE TRIGGER batch_commit INSTEAD OF INSERT ON batch BEGIN
    DELETE FROM log WHERE NEW.truncate_from IS NOT NULL AND idx >= NEW.truncate_from;
    INSERT INTO log (idx, term, data)
      SELECT value ->> 0, value ->> 1, substr(NEW.data, 1 + (value ->> 2), value ->> 3)
      FROM json_each(NEW.entries);
    INSERT OR REPLACE INTO row (tab, key, value)
      SELECT value ->> 0, value ->> 1, value ->> 2 FROM json_each(NEW.rows);
    DELETE FROM row WHERE (tab, key) IN (SELECT value ->> 0, value ->> 1 FROM json_each(NEW.gone));
    DELETE FROM log WHERE NEW.trim_through IS NOT NULL AND idx <= NEW.trim_through;
    UPDATE state SET applied = NEW.applied;
  END;
  PRAGMA user_version = ${FORMAT_VERSION};
`
/** Rows of one table as PackedRows, made by SQLite's thread: an object for each would cost this one seven times as much. */
const pageOf = (condition: string): string => `
  SELECT count(*) AS count, CAST(group_concat(key || NUL || value, NUL) || NUL AS BLOB) AS bytes
  FROM (SELECT key, value, CAST(x'00' AS TEXT) AS NUL FROM row WHERE ${condition}
    ORDER BY key LIMIT ${ROWS_PER_PAGE})`
const FIRST_PAGE = pageOf('tab = ?')
const NEXT_PAGE = pageOf('tab = ? AND key > ?')

interface RowPage {
  readonly count: number
  readonly bytes: Buffer
}

/** Of a page that is not empty. */
function lastKey(bytes: Buffer): string {
  const valueAt = bytes.lastIndexOf(NUL, bytes.length - 2)
  return bytes.toString('utf8', bytes.lastIndexOf(NUL, valueAt - 1) + 1, valueAt)
}

interface RowRecord {
  readonly key: string
  readonly value: string
}
interface EntryRecord {
  readonly idx: number
  readonly term: number
  readonly data: Buffer
}

export class SqliteStore implements Store {
  readonly #path: string
  readonly #database: sqlite3.Database
  /** Entries behind the log and nothing else; whatever there is. */
  readonly #append: sqlite3.Statement
  readonly #commit: sqlite3.Statement
  #appliedIndex: number
  #committing = false
  #failure: CairnError | null = null

  private constructor(
    path: string,
    database: sqlite3.Database,
    statements: { readonly append: sqlite3.Statement; readonly commit: sqlite3.Statement },
    appliedIndex: number,
  ) {
    this.#path = path
    this.#database = database
    this.#append = statements.append
    this.#commit = statements.commit
    this.#appliedIndex = appliedIndex
  }

  /** As `open`, of a file that has been one before: an emptied or lost one is damage, not a new store. */
  static openExisting(path: string): Promise<SqliteStore> {
    return SqliteStore.open(path, false)
  }

  /** Opens or creates the file. Rejects with STORE_FAILED, or STORE_FORMAT for another format version. */
  static async open(path: string, mayCreate = true): Promise<SqliteStore> {
    if (!mayCreate) await checkIsDatabase(path)
    const database = await openDatabase(path)
    try {
      await execute(
        database,
        `PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA cache_size = -${CACHE_KIB};`,
      )
      const version = (await all<{ user_version: number }>(database, 'PRAGMA user_version'))[0]?.user_version
      if (version === 0 && mayCreate) await execute(database, `BEGIN IMMEDIATE; ${SCHEMA} COMMIT;`)
      else if (version !== FORMAT_VERSION)
        throw new CairnError(
          'STORE_FORMAT',
          `${path} has format version ${version}, known is ${FORMAT_VERSION}`,
        )
      const applied = (await all<{ applied: number }>(database, 'SELECT applied FROM state'))[0]?.applied ?? 0
      await execute(database, COMMIT_SCHEMA)
      const statements = { append: await prepare(database, APPEND), commit: await prepare(database, COMMIT) }
      return new SqliteStore(path, database, statements, applied)
    } catch (error) {
      await closeDatabase(database)
      throw error
    }
  }

  async load(handler: StoreLoadHandler): Promise<{ readonly appliedIndex: number }> {
    for (let table = await this.#tableAfter(''); table !== null; table = await this.#tableAfter(table))
      await this.#loadTable(table, handler)
    let after = -1
    for (;;) {
      const page = await all<EntryRecord>(
        this.#database,
        `SELECT idx, term, data FROM log WHERE idx > ? ORDER BY idx LIMIT ${ENTRIES_PER_PAGE}`,
        [after],
      )
      for (const { idx, term, data } of page) handler.onEntry({ index: idx, term, data })
      const last = page.at(-1)
      if (last === undefined || page.length < ENTRIES_PER_PAGE) break
      after = last.idx
    }
    return { appliedIndex: this.#appliedIndex }
  }

  async #tableAfter(table: string): Promise<string | null> {
    const sql = 'SELECT tab FROM row WHERE tab > ? ORDER BY tab LIMIT 1'
    return (await all<{ tab: string }>(this.#database, sql, [table]))[0]?.tab ?? null
  }

  async #loadTable(table: string, handler: StoreLoadHandler): Promise<void> {
    let reading: Promise<RowPage> | null = this.#rowsAfter(table, null)
    while (reading !== null) {
      const { count, bytes }: RowPage = await reading
      // A thread reads on while this one takes in what came.
      reading = count < ROWS_PER_PAGE ? null : this.#rowsAfter(table, lastKey(bytes))
      // What fails here ends the load; the page that is being read then tells nobody anything.
      reading?.catch(() => {})
      const rows = new PackedRows(bytes, count)
      handler.onRows(table, rows)
      if (rows.isExhausted) continue
      throw new CairnError('STORE_FORMAT', `${this.#path}: a row of table ${table} holds a NUL`)
    }
  }

  async #rowsAfter(table: string, key: string | null): Promise<RowPage> {
    const [page] = await all<{ count: number; bytes: Buffer | null }>(
      this.#database,
      key === null ? FIRST_PAGE : NEXT_PAGE,
      key === null ? [table] : [table, key],
    )
    return { count: page?.count ?? 0, bytes: page?.bytes ?? Buffer.alloc(0) }
  }

  async commit(batch: StoreBatch): Promise<void> {
    assert(!this.#committing, 'one commit at a time')
    assert(batch.appliedIndex >= this.#appliedIndex, 'the applied index never goes backward')
    if (this.#failure !== null) throw this.#failure
    this.#committing = true
    try {
      if (isAppend(batch, this.#appliedIndex)) await run(this.#append, appendParameters(batch))
      else await run(this.#commit, commitParameters(batch))
      this.#appliedIndex = batch.appliedIndex
    } catch (error) {
      this.#failure = storeError('commit to', this.#path, error)
      throw this.#failure
    } finally {
      this.#committing = false
    }
  }

  async glance(table: string): Promise<StoreGlance> {
    const database = this.#database
    const applied = await all<{ applied: number; term: number | null }>(
      database,
      'SELECT applied, (SELECT term FROM log WHERE idx = applied) AS term FROM state',
    )
    const rows = await all<RowRecord>(database, 'SELECT key, value FROM row WHERE tab = ?', [table])
    return {
      appliedIndex: applied[0]?.applied ?? 0,
      appliedTerm: applied[0]?.term ?? 0,
      rows: new Map(rows.map(({ key, value }) => [key, value])),
    }
  }

  /** Written beside `path` first; the name appears when all of it is on the disk. */
  async snapshot(path: string): Promise<void> {
    await this.#checkRoomForCopy(path)
    const partial = `${path}.partial`
    await rm(partial, { force: true })
    // a connection of its own: commits go on in the WAL meanwhile
    const reader = await openDatabase(this.#path)
    try {
      await execute(reader, `VACUUM INTO '${partial.replaceAll("'", "''")}'`)
    } finally {
      await closeDatabase(reader)
    }
    await syncPath(partial)
    await rename(partial, path)
    await syncPath(dirname(path))
  }

  /** A copy for others must not take the last blocks from our own commits. */
  async #checkRoomForCopy(path: string): Promise<void> {
    const [{ size }, { bavail, bsize }] = await Promise.all([stat(this.#path), statfs(dirname(path))])
    const needed = size + COPY_SPARE_BYTES
    if (bavail * bsize >= needed) return
    const text = `${bavail * bsize} bytes are free, and ${needed} needed`
    throw new CairnError('NO_SPACE_FOR_COPY', `no copy of the metadata is made beside ${path}: ${text}`, {
      next: `free space on the disk below ${dirname(path)}`,
    })
  }

  /** What is wrong with the pages of the file, at most 20 findings; empty when nothing is. Reads all of it. */
  async problems(): Promise<string[]> {
    const found = await all<{ integrity_check: string }>(this.#database, 'PRAGMA integrity_check(20)')
    return found.map((row) => row.integrity_check).filter((text) => text !== 'ok')
  }

  async close(): Promise<void> {
    for (const statement of [this.#append, this.#commit])
      await new Promise<void>((resolve) => statement.finalize(() => resolve()))
    await closeDatabase(this.#database)
  }
}

/** Looked at before SQLite does: it takes an empty file for a new database, and plays any log into it. */
async function checkIsDatabase(path: string): Promise<void> {
  const head = Buffer.alloc(HEADER_TEXT.length)
  try {
    const handle = await open(path, 'r')
    try {
      await handle.read(head, 0, head.length, 0)
    } finally {
      await handle.close()
    }
  } catch (error) {
    throw storeError('read', path, error)
  }
  if (head.toString('latin1') === HEADER_TEXT) return
  throw new CairnError('STORE_FORMAT', `${path} is no metadata database any more: its beginning is lost`)
}

function storeError(action: string, path: string, error: unknown): CairnError {
  const text = error instanceof Error ? error.message : String(error)
  return new CairnError('STORE_FAILED', `cannot ${action} ${path}: ${text}`, { cause: error })
}

function openDatabase(path: string): Promise<sqlite3.Database> {
  return new Promise((resolve, reject) => {
    const database = new sqlite3.Database(path, (error) => {
      if (error !== null) {
        reject(storeError('open', path, error))
        return
      }
      database.configure('busyTimeout', BUSY_TIMEOUT_MS)
      resolve(database)
    })
  })
}

function closeDatabase(database: sqlite3.Database): Promise<void> {
  return new Promise((resolve, reject) => {
    database.close((error) => (error === null ? resolve() : reject(storeError('close', 'the store', error))))
  })
}

function execute(database: sqlite3.Database, sql: string): Promise<void> {
  return new Promise((resolve, reject) => {
    database.exec(sql, (error) =>
      error === null ? resolve() : reject(storeError('use', 'the store', error)),
    )
  })
}

function prepare(database: sqlite3.Database, sql: string): Promise<sqlite3.Statement> {
  return new Promise((resolve, reject) => {
    const statement = database.prepare(sql, (error: Error | null) =>
      error === null ? resolve(statement) : reject(storeError('prepare', 'the store', error)),
    )
  })
}

function run(statement: sqlite3.Statement, parameters: unknown[]): Promise<void> {
  return new Promise((resolve, reject) => {
    statement.run(parameters, (error: Error | null) => (error === null ? resolve() : reject(error)))
  })
}

function all<T>(database: sqlite3.Database, sql: string, parameters: unknown[] = []): Promise<T[]> {
  return new Promise((resolve, reject) => {
    database.all(sql, parameters, (error: Error | null, rows: T[]) =>
      error === null ? resolve(rows) : reject(storeError('read', 'the store', error)),
    )
  })
}

async function syncPath(path: string): Promise<void> {
  const handle = await open(path, 'r')
  try {
    await handle.sync()
  } finally {
    await handle.close()
  }
}
