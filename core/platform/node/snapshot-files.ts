/**
 * SnapshotFiles beside the SQLite file of a store. A write-ahead log belongs to the file that it was written
 * for: before one file takes another's place neither may have one, else SQLite would play one into the other.
 */
import { existsSync } from 'node:fs'
import { type FileHandle, open, rename, rm } from 'node:fs/promises'
import { dirname } from 'node:path'
import { CairnError } from '../../base/errors.ts'
import type { SnapshotFiles, SnapshotSide } from '../snapshot-files.ts'
import type { Store } from '../store.ts'
import { SqliteStore } from './sqlite-store.ts'

export class NodeSnapshotFiles implements SnapshotFiles {
  readonly #databasePath: string

  constructor(databasePath: string) {
    this.#databasePath = databasePath
  }

  get outgoingPath(): string {
    return this.#pathOf('outgoing')
  }

  open(side: SnapshotSide): Promise<Store> {
    return SqliteStore.open(this.#pathOf(side))
  }

  async read(offset: number, length: number): Promise<Buffer> {
    return await this.#with('outgoing', 'r', async (handle) => {
      const bytes = Buffer.allocUnsafe(length)
      const { bytesRead } = await handle.read(bytes, 0, length, offset)
      return bytes.subarray(0, bytesRead)
    })
  }

  async write(offset: number, borrowedBytes: Buffer): Promise<void> {
    if (offset === 0) await this.drop('incoming')
    await this.#with('incoming', offset === 0 ? 'wx' : 'r+', async (handle) => {
      const { bytesWritten } = await handle.write(borrowedBytes, 0, borrowedBytes.length, offset)
      // The last blocks of a disk take a part.
      if (bytesWritten !== borrowedBytes.length) throw new Error('ENOSPC: the disk took only a part of it')
    })
  }

  async sync(): Promise<void> {
    await this.#with('incoming', 'r+', (handle) => handle.sync())
  }

  async install(): Promise<Store> {
    const incoming = this.#pathOf('incoming')
    for (const file of [incoming, this.#databasePath]) {
      if (!existsSync(`${file}-wal`)) continue
      throw new CairnError(
        'STORE_FAILED',
        `${file} was not closed in order: its write-ahead log is still there`,
      )
    }
    await this.sync()
    await rename(incoming, this.#databasePath)
    const directory = await open(dirname(this.#databasePath), 'r')
    try {
      await directory.sync()
    } finally {
      await directory.close()
    }
    return await SqliteStore.open(this.#databasePath)
  }

  async drop(side: SnapshotSide): Promise<void> {
    const path = this.#pathOf(side)
    for (const file of [path, `${path}-wal`, `${path}-shm`, `${path}.partial`])
      await rm(file, { force: true })
  }

  #pathOf(side: SnapshotSide): string {
    return `${this.#databasePath}.${side}`
  }

  async #with<T>(side: SnapshotSide, flags: string, use: (handle: FileHandle) => Promise<T>): Promise<T> {
    const path = this.#pathOf(side)
    try {
      const handle = await open(path, flags, 0o600)
      try {
        return await use(handle)
      } finally {
        await handle.close()
      }
    } catch (error) {
      const text = error instanceof Error ? error.message : String(error)
      throw new CairnError('STORE_FAILED', `cannot copy by way of ${path}: ${text}`, { cause: error })
    }
  }
}
