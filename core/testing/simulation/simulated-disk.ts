/**
 * A disk in memory with the crash contract of a real one, for crash tests and the cluster simulator.
 *
 * Model: every file has what the page cache shows and what the platters hold. A write changes the cache
 * and marks 512-byte sectors; a sync copies them. Names are durable only after a sync of their directory.
 * `crashProcess` keeps the cache; `losePower` keeps, for each unsynced sector, size and name, the old or
 * the new one as the seed says: so writes are lost, torn and reordered. Faults on demand: errors, full
 * disk, slow and hanging I/O, lost and misdirected writes, flipped bits, stop after the Nth operation.
 *
 * Not modelled: hard links, permissions, sectors that hold an intermediate version of several unsynced
 * writes. Callbacks run before the call returns, unless `delayMs` or `hanging` is set.
 */
import { CairnError } from '../../base/errors.ts'
import { Prng } from '../../base/prng.ts'
import { PAGE_SIZE_BYTES } from '../../base/units.ts'
import type { Clock } from '../../platform/clock.ts'
import type { Disk, DiskCallback, DiskErrorCode, DiskFile, DiskIdentity } from '../../platform/disk.ts'
import { type DiskFaults, noDiskFaults } from './disk-faults.ts'
import { SimulatedFile } from './simulated-file.ts'
import {
  copySectors,
  durableCopy,
  freeInode,
  Inode,
  keepOld,
  newPages,
  pageOf,
  SECTORS_PER_PAGE,
  truncateInode,
  writeInto,
} from './simulated-inode.ts'

export interface SimulatedDiskOptions {
  readonly seed: number
  /** Needed for `delayMs`. */
  readonly clock?: Clock
  readonly capacityBytes?: number
}

/** What a disk held at a moment. */
export interface DiskImage {
  readonly names: ReadonlyMap<string, Inode>
  readonly directories: ReadonlySet<string>
}

function diskError(code: DiskErrorCode, message: string): CairnError {
  return new CairnError(code, message)
}

export class SimulatedDisk implements Disk {
  readonly faults: DiskFaults = noDiskFaults()
  /** Writes, syncs and directory syncs so far. */
  operationCount = 0
  writeCount = 0
  syncCount = 0
  stopped = false
  /** For `undoWrite`. */
  keepsHistory = false
  capacityBytes: number
  readonly #prng: Prng
  readonly #clock: Clock | null
  #names = new Map<string, Inode>()
  #durableNames = new Map<string, Inode>()
  #directories = new Set<string>(['.'])
  #durableDirectories = new Set<string>(['.'])
  #boot = 1
  #mount = 1
  /** Handles of a life that ended do nothing. */
  #life = 1
  #hanging: (() => void)[] = []

  constructor(options: SimulatedDiskOptions) {
    this.#prng = new Prng(options.seed)
    this.#clock = options.clock ?? null
    this.capacityBytes = options.capacityBytes ?? Number.MAX_SAFE_INTEGER
  }

  // ---------------------------------------------------------------- Disk

  open(path: string, options: { readonly create?: boolean; readonly exclusive?: boolean } = {}): DiskFile {
    this.#mayThrow()
    let inode = this.#names.get(path)
    if (inode !== undefined && options.exclusive === true) throw diskError('DISK_EXISTS', path)
    if (inode === undefined) {
      if (options.create !== true) throw diskError('DISK_NOT_FOUND', path)
      if (!this.#directories.has(parentOf(path))) throw diskError('DISK_NOT_FOUND', parentOf(path))
      inode = new Inode()
      this.#names.set(path, inode)
    }
    return new SimulatedFile(this, inode, this.#life)
  }

  exists(path: string): boolean {
    this.#mayThrow()
    return this.#names.has(path) || this.#directories.has(path)
  }

  list(path: string): string[] {
    this.#mayThrow()
    if (!this.#directories.has(path)) throw diskError('DISK_NOT_FOUND', path)
    const names: string[] = []
    for (const name of [...this.#names.keys(), ...this.#directories]) {
      if (name !== '.' && parentOf(name) === path) names.push(name.slice(name.lastIndexOf('/') + 1))
    }
    return names.sort()
  }

  makeDirectory(path: string): void {
    this.#mayThrow()
    this.#directories.add(path)
    addParents(this.#directories, path)
  }

  rename(from: string, to: string): void {
    this.#mayThrow()
    const inode = this.#names.get(from)
    if (inode === undefined) throw diskError('DISK_NOT_FOUND', from)
    this.#names.delete(from)
    this.#names.set(to, inode)
  }

  remove(path: string): void {
    this.#mayThrow()
    if (!this.#names.delete(path)) throw diskError('DISK_NOT_FOUND', path)
  }

  syncDirectory(path: string, callback: DiskCallback): void {
    this.perform('sync', callback, () => {
      for (const directory of this.#directories) {
        if (parentOf(directory) === path) this.#durableDirectories.add(directory)
      }
      for (const name of this.#namesIn(path)) {
        const inode = this.#names.get(name)
        if (inode === undefined) this.#durableNames.delete(name)
        else this.#durableNames.set(name, inode)
      }
      return null
    })
  }

  space(): { readonly totalBytes: number; readonly freeBytes: number } {
    return { totalBytes: this.capacityBytes, freeBytes: Math.max(0, this.capacityBytes - this.usedBytes) }
  }

  identity(): DiskIdentity {
    return { bootId: `boot-${this.#boot}`, deviceSequence: '1', mountInstance: `mount-${this.#mount}` }
  }

  // ---------------------------------------------------------------- crashes

  /** kill -9: files are as the cache has them. */
  crashProcess(): void {
    this.#life++
    this.#hanging = []
    this.stopped = false
    this.faults.stopAfter = -1
  }

  /**
   * The host loses power. `kept` is the share of unsynced sectors, sizes and names that had reached the
   * platters by chance: 0 all lost, 1 all kept; default: drawn by the seed.
   */
  losePower(kept: number = this.#prng.below(5) / 4): void {
    this.crashProcess()
    this.#boot++
    this.#mount++
    for (const name of new Set([...this.#names.keys(), ...this.#durableNames.keys()])) {
      const cached = this.#names.get(name)
      if (cached === this.#durableNames.get(name) || this.#prng.float() >= kept) continue
      if (cached === undefined) this.#durableNames.delete(name)
      else this.#durableNames.set(name, cached)
    }
    for (const name of this.#durableNames.keys()) addParents(this.#durableDirectories, name)
    for (const inode of new Set(this.#durableNames.values())) this.#settle(inode, kept)
    this.#names = new Map(this.#durableNames)
    this.#directories = new Set(this.#durableDirectories)
  }

  #settle(inode: Inode, kept: number): void {
    if (inode.size !== inode.durableSize && this.#prng.float() < kept) inode.durableSize = inode.size
    for (const [page, sectors] of inode.dirty) {
      let reached = 0
      for (let sector = 0; sector < SECTORS_PER_PAGE; sector++) {
        if ((sectors & (1 << sector)) !== 0 && this.#prng.float() < kept) reached |= 1 << sector
      }
      copySectors(inode, page, reached)
    }
    inode.dirty.clear()
    inode.size = inode.durableSize
    for (const page of inode.cached.keys()) if (!inode.durable.has(page)) inode.cached.delete(page)
    for (const [page, content] of inode.durable) {
      if (page * PAGE_SIZE_BYTES >= inode.size) {
        inode.durable.delete(page)
        inode.cached.delete(page)
      } else content.copy(pageOf(inode.cached, page))
    }
  }

  /** What the platters hold now: of a snapshot of the machine, or a backup of its disk. */
  capture(): DiskImage {
    const copies = new Map<Inode, Inode>()
    for (const inode of this.#durableNames.values()) copies.set(inode, durableCopy(inode))
    const names = [...this.#durableNames].map(([name, inode]) => [name, copies.get(inode) as Inode] as const)
    return { names: new Map(names), directories: new Set(this.#durableDirectories) }
  }

  /** After `losePower`: the disk is as it was then, once for each image. */
  restore(image: DiskImage): void {
    this.#names = new Map(image.names)
    this.#durableNames = new Map(image.names)
    this.#directories = new Set(image.directories)
    this.#durableDirectories = new Set(image.directories)
  }

  /** Nobody uses the disk again: its memory goes to the next one. */
  dispose(): void {
    this.crashProcess()
    for (const inode of new Set([...this.#names.values(), ...this.#durableNames.values()])) freeInode(inode)
    this.#names.clear()
    this.#durableNames.clear()
  }

  releaseHanging(): void {
    this.faults.hanging = false
    for (const run of this.#hanging.splice(0)) run()
  }

  // ---------------------------------------------------------------- damage on demand

  /** Rot: one bit, in the cache and on the platters. */
  flipBit(path: string, position: number, bit: number): void {
    const inode = this.#inode(path)
    const page = Math.floor(position / PAGE_SIZE_BYTES)
    for (const image of [pageOf(inode.cached, page), pageOf(inode.durable, page)]) {
      const at = position % PAGE_SIZE_BYTES
      image[at] = (image[at] ?? 0) ^ (1 << bit)
    }
  }

  /** The last write that a sync covered never reached that page. False: none is known. */
  undoWrite(path: string, page: number): boolean {
    const inode = this.#inode(path)
    const old = inode.old?.get(page)
    if (old === undefined) return false
    this.overwrite(path, page * PAGE_SIZE_BYTES, old)
    return true
  }

  overwrite(path: string, position: number, bytes: Buffer): void {
    const inode = this.#inode(path)
    inode.size = Math.max(inode.size, position + bytes.length)
    writeInto(inode, position, bytes)
    this.syncInode(inode)
  }

  contents(path: string): Buffer {
    const inode = this.#inode(path)
    const bytes = Buffer.alloc(inode.size)
    for (const [page, content] of inode.cached) content.copy(bytes, page * PAGE_SIZE_BYTES)
    return bytes
  }

  resize(path: string, sizeBytes: number): void {
    const inode = this.#inode(path)
    truncateInode(inode, sizeBytes)
    this.syncInode(inode)
  }

  get usedBytes(): number {
    let pages = 0
    for (const inode of new Set(this.#names.values())) pages += inode.cached.size
    return pages * PAGE_SIZE_BYTES
  }

  get paths(): string[] {
    return [...this.#names.keys()].sort()
  }

  // ---------------------------------------------------------------- for files

  get life(): number {
    return this.#life
  }

  /** Runs one operation under the faults, and its callback now or later. */
  perform(kind: 'read' | 'write' | 'sync', callback: DiskCallback, work: () => CairnError | null): void {
    if (this.stopped) return
    if (kind !== 'read') {
      this.operationCount++
      if (kind === 'write') this.writeCount++
      else this.syncCount++
      if (this.faults.stopAfter === 0) {
        this.stopped = true
        return
      }
      if (this.faults.stopAfter > 0) this.faults.stopAfter--
    }
    const life = this.#life
    const run = (): void => {
      if (life !== this.#life || this.stopped) return
      callback(this.#fault(kind) ?? work())
    }
    const delayMs = Math.max(this.faults.delayMs, kind === 'sync' ? this.faults.syncDelayMs : 0)
    if (this.faults.hanging) this.#hanging.push(run)
    else if (delayMs > 0 && this.#clock !== null) this.#clock.setTimer(delayMs, run)
    else run()
  }

  #fault(kind: 'read' | 'write' | 'sync'): CairnError | null {
    const { faults } = this
    if (faults.dead) return diskError('DISK_IO', 'the disk is dead')
    if (kind === 'read' && faults.failReads > 0) {
      faults.failReads--
      return diskError('DISK_IO', 'read error')
    }
    if (kind === 'write' && faults.failWrites > 0) {
      faults.failWrites--
      return diskError('DISK_IO', 'write error')
    }
    if (kind === 'sync' && faults.failSyncs > 0) {
      faults.failSyncs--
      return diskError('DISK_IO', 'sync error')
    }
    if (kind === 'sync' && faults.failSyncsFull > 0) {
      faults.failSyncsFull--
      return diskError('DISK_NO_SPACE', 'no room for what was written')
    }
    return null
  }

  write(inode: Inode, position: number, buffers: readonly Buffer[]): CairnError | null {
    if (this.faults.loseWrites > 0) {
      this.faults.loseWrites--
      return null
    }
    let at = position
    if (this.faults.misdirectWrites > 0) {
      this.faults.misdirectWrites--
      at += PAGE_SIZE_BYTES
    }
    if (this.capacityBytes < Number.MAX_SAFE_INTEGER) {
      const sizeBytes = buffers.reduce((sum, { length }) => sum + length, 0)
      const needed = newPages(inode, at, sizeBytes) * PAGE_SIZE_BYTES
      if (needed > 0 && this.usedBytes + needed > this.capacityBytes) {
        return diskError('DISK_NO_SPACE', 'the simulated disk is full')
      }
    }
    for (const bytes of buffers) {
      writeInto(inode, at, bytes)
      at += bytes.length
    }
    inode.size = Math.max(inode.size, at)
    return null
  }

  syncInode(inode: Inode): void {
    if (this.keepsHistory) for (const page of inode.dirty.keys()) keepOld(inode, page)
    for (const [page, sectors] of inode.dirty) copySectors(inode, page, sectors)
    inode.dirty.clear()
    inode.durableSize = inode.size
  }

  #mayThrow(): void {
    if (this.stopped || this.faults.dead) throw diskError('DISK_IO', 'the disk is dead')
  }

  #inode(path: string): Inode {
    const inode = this.#names.get(path)
    if (inode === undefined) throw diskError('DISK_NOT_FOUND', path)
    return inode
  }

  #namesIn(path: string): Set<string> {
    const names = new Set<string>()
    for (const name of [...this.#names.keys(), ...this.#durableNames.keys()]) {
      if (parentOf(name) === path) names.add(name)
    }
    return names
  }
}

function parentOf(path: string): string {
  const slash = path.lastIndexOf('/')
  return slash < 0 ? '.' : path.slice(0, slash)
}

function addParents(directories: Set<string>, path: string): void {
  for (let parent = parentOf(path); parent !== '.'; parent = parentOf(parent)) directories.add(parent)
}
