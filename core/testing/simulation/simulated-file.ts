/** An open file of a simulated disk: every operation goes through the faults of its disk. */
import type { CairnError } from '../../base/errors.ts'
import type { DiskCallback, DiskFile, DiskReadCallback } from '../../platform/disk.ts'
import { type Inode, readFrom, truncateInode } from './simulated-inode.ts'

/** What a file needs of its disk. */
export interface FileHost {
  readonly stopped: boolean
  readonly life: number
  perform(kind: 'read' | 'write' | 'sync', callback: DiskCallback, work: () => CairnError | null): void
  write(inode: Inode, position: number, buffers: readonly Buffer[]): CairnError | null
  syncInode(inode: Inode): void
}

export class SimulatedFile implements DiskFile {
  readonly #disk: FileHost
  readonly #inode: Inode
  readonly #life: number
  #closed = false

  constructor(disk: FileHost, inode: Inode, life: number) {
    this.#disk = disk
    this.#inode = inode
    this.#life = life
  }

  sizeBytes(): number {
    return this.#inode.size
  }

  read(borrowedBuffer: Buffer, position: number, callback: DiskReadCallback): void {
    this.#check()
    let count = 0
    this.#disk.perform(
      'read',
      (error) => callback(error, count),
      () => {
        count = Math.max(0, Math.min(borrowedBuffer.length, this.#inode.size - position))
        readFrom(this.#inode, position, borrowedBuffer, count)
        return null
      },
    )
  }

  write(borrowedBuffers: readonly Buffer[], position: number, callback: DiskCallback): void {
    this.#check()
    this.#disk.perform('write', callback, () => this.#disk.write(this.#inode, position, borrowedBuffers))
  }

  sync(callback: DiskCallback): void {
    this.#check()
    const settle = (error: CairnError | null): void => {
      // as Linux does: after an error the pages count as clean, and are lost (rule F7)
      if (error !== null) this.#inode.dirty.clear()
      callback(error)
    }
    this.#disk.perform('sync', settle, () => {
      this.#disk.syncInode(this.#inode)
      return null
    })
  }

  truncate(sizeBytes: number): void {
    this.#check()
    if (!this.#disk.stopped && this.#life === this.#disk.life) truncateInode(this.#inode, sizeBytes)
  }

  close(): void {
    this.#closed = true
  }

  #check(): void {
    if (this.#closed) throw new Error('a closed file is used')
  }
}
