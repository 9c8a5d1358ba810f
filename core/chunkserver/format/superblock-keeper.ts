/** The superblock of a store that is open. Changes are made durable one at a time: its slots take turns (rule P2). */
import type { Disk } from '../../platform/disk.ts'
import {
  type LoadedSuperblock,
  saveSuperblock,
  STORE_FORMAT_OVERLAYS,
  type Superblock,
} from './superblock.ts'

export class SuperblockKeeper {
  readonly #disk: Disk
  #superblock: Superblock
  #sequence: number
  #format: number
  #saving: Promise<void> = Promise.resolve()

  constructor(disk: Disk, loaded: LoadedSuperblock) {
    this.#disk = disk
    this.#superblock = loaded.superblock
    this.#sequence = loaded.sequence
    this.#format = loaded.format
  }

  get superblock(): Superblock {
    return this.#superblock
  }

  /** Durable when it resolves; what failed is not in force. */
  change(fields: Partial<Superblock>): Promise<void> {
    return this.#save(fields, this.#format)
  }

  /** Before the first overlay: a program that does not know them must not take its pages for holes. */
  async allowOverlays(): Promise<void> {
    if (this.#format < STORE_FORMAT_OVERLAYS) await this.#save({}, STORE_FORMAT_OVERLAYS)
  }

  #save(fields: Partial<Superblock>, format: number): Promise<void> {
    const saved = this.#saving.then(async () => {
      const next = { ...this.#superblock, ...fields }
      const nextFormat = Math.max(format, this.#format)
      await saveSuperblock(this.#disk, next, this.#sequence + 1, nextFormat)
      this.#superblock = next
      this.#sequence++
      this.#format = nextFormat
    })
    this.#saving = saved.catch(() => undefined)
    return saved
  }
}
