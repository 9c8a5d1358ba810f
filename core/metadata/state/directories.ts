/**
 * The names of all directories. Each entry carries a cookie: the log index of the command that made it, so
 * cookies rise, are never used twice, and need no counter of their own. Entries of a directory are also
 * kept in cookie order, so that a listing continues by binary search and sorts nothing.
 */
import { assert } from '../../base/assert.ts'
import type { RowChange } from '../../platform/store.ts'
import { metadataError } from '../errors.ts'
import type { ChangeTracked } from './table.ts'

export interface DirectoryEntry {
  readonly name: string
  inode: number
  /** Position in a listing. 0 after removal. */
  cookie: number
}

/** Removed entries stay as gaps in the order until they are this share of it. */
const GAP_SHARE_MAX = 0.5
const GAPS_MIN = 32

export class Directory {
  private readonly names = new Map<string, DirectoryEntry>()
  private order: DirectoryEntry[] = []
  private gapCount = 0
  /** Rows of the Store come in the order of names. */
  private isOrdered = true

  get size(): number {
    return this.names.size
  }

  get(name: string): DirectoryEntry | undefined {
    return this.names.get(name)
  }

  add(name: string, inode: number, cookie: number): void {
    const entry: DirectoryEntry = { name, inode, cookie }
    this.names.set(name, entry)
    const last = this.order.at(-1)
    if (last !== undefined && last.cookie >= cookie) this.isOrdered = false
    this.order.push(entry)
  }

  remove(entry: DirectoryEntry): void {
    this.names.delete(entry.name)
    // A gap keeps its place by the cookie of its neighbours only, so the order must stand before.
    this.ensureOrder()
    const position = this.positionAfter(entry.cookie - 1)
    assert(this.order[position] === entry, 'a directory entry must be in the order of its directory')
    this.gapCount += 1
    this.order[position] = { name: '', inode: 0, cookie: entry.cookie }
    entry.cookie = 0
    if (this.gapCount >= GAPS_MIN && this.gapCount >= this.order.length * GAP_SHARE_MAX) this.closeGaps()
  }

  /** Up to `limit` entries behind `cookie`, and whether these were the last. */
  list(cookie: number, limit: number): { entries: DirectoryEntry[]; end: boolean } {
    this.ensureOrder()
    const entries: DirectoryEntry[] = []
    for (let position = this.positionAfter(cookie); position < this.order.length; position++) {
      const entry = this.order[position]
      if (entry === undefined || entry.inode === 0) continue
      if (entries.length === limit) return { entries, end: false }
      entries.push(entry)
    }
    return { entries, end: true }
  }

  entries(): MapIterator<DirectoryEntry> {
    return this.names.values()
  }

  private ensureOrder(): void {
    if (this.isOrdered) return
    this.order.sort((left, right) => left.cookie - right.cookie)
    this.isOrdered = true
  }

  /** Position of the first entry whose cookie is above `cookie`. */
  private positionAfter(cookie: number): number {
    let low = 0
    let high = this.order.length
    while (low < high) {
      const middle = (low + high) >>> 1
      if ((this.order[middle]?.cookie ?? 0) <= cookie) low = middle + 1
      else high = middle
    }
    return low
  }

  private closeGaps(): void {
    this.order = this.order.filter((entry) => entry.inode !== 0)
    this.gapCount = 0
  }
}

export class DirectoryTable implements ChangeTracked {
  readonly name = 'entries'
  private readonly directories = new Map<number, Directory>()
  /** Row keys: parent/name. A name holds no slash. */
  private readonly dirty = new Set<string>()

  /** Undefined also for a directory that never had an entry. */
  get(parent: number): Directory | undefined {
    return this.directories.get(parent)
  }

  entry(parent: number, name: string): DirectoryEntry | undefined {
    return this.directories.get(parent)?.get(name)
  }

  entryCount(parent: number): number {
    return this.directories.get(parent)?.size ?? 0
  }

  add(parent: number, name: string, inode: number, cookie: number): void {
    let directory = this.directories.get(parent)
    if (directory === undefined) {
      directory = new Directory()
      this.directories.set(parent, directory)
    }
    assert(directory.get(name) === undefined, 'a name is added once')
    directory.add(name, inode, cookie)
    this.dirty.add(`${parent}/${name}`)
  }

  /** The name stays in its place and leads to another inode. */
  replace(parent: number, entry: DirectoryEntry, inode: number): void {
    entry.inode = inode
    this.dirty.add(`${parent}/${entry.name}`)
  }

  remove(parent: number, entry: DirectoryEntry): void {
    const directory = this.directories.get(parent)
    assert(directory !== undefined, 'a directory with entries must exist')
    directory.remove(entry)
    if (directory.size === 0) this.directories.delete(parent)
    this.dirty.add(`${parent}/${entry.name}`)
  }

  loadRow(key: string, value: string): void {
    const slash = key.indexOf('/')
    const parent = Number(key.slice(0, slash))
    const [inode, cookie] = value.split(' ').map(Number)
    const isGood =
      slash > 0 &&
      Number.isSafeInteger(parent) &&
      inode !== undefined &&
      Number.isSafeInteger(inode) &&
      cookie !== undefined &&
      Number.isSafeInteger(cookie)
    if (!isGood) throw metadataError('ROW_CORRUPT', `${this.name}/${key}`)
    this.add(parent, key.slice(slash + 1), inode, cookie)
    this.dirty.delete(key)
  }

  collectChanges(into: RowChange[]): void {
    for (const key of this.dirty) {
      const slash = key.indexOf('/')
      const entry = this.entry(Number(key.slice(0, slash)), key.slice(slash + 1))
      const value = entry === undefined ? null : `${entry.inode} ${entry.cookie}`
      into.push({ table: this.name, key, value })
    }
    this.dirty.clear()
  }

  *rows(): Iterable<readonly [string, string]> {
    for (const [parent, directory] of this.directories) {
      for (const entry of directory.entries()) {
        yield [`${parent}/${entry.name}`, `${entry.inode} ${entry.cookie}`]
      }
    }
  }
}
