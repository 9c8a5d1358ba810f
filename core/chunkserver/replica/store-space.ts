/** Free space of the disk, less what is kept for logs, page records and deletion (rule A2). */
import { codeOf } from '../../base/errors.ts'
import { MIB } from '../../base/units.ts'
import type { Disk } from '../../platform/disk.ts'
import type { Logger } from '../../platform/logger.ts'

const RESERVE_BYTES_MIN = 4 * MIB
const RESERVE_BYTES_MAX = 256 * MIB
/** Written bytes after which the disk is asked again. */
const CHECK_BYTES = 16 * MIB

export class StoreSpace {
  readonly #disk: Disk
  readonly #logger: Logger
  #totalBytes = 0
  #freeBytes = 0
  #bytesSinceCheck = 0
  /** Down to the reserve: what needs new room is refused. */
  isFull = false

  constructor(disk: Disk, logger: Logger) {
    this.#disk = disk
    this.#logger = logger
    this.refresh()
  }

  wrote(bytes: number): void {
    this.#bytesSinceCheck += bytes
    if (this.#bytesSinceCheck >= CHECK_BYTES) this.refresh()
  }

  refresh(): void {
    this.#bytesSinceCheck = 0
    try {
      const { totalBytes, freeBytes } = this.#disk.space()
      this.#totalBytes = totalBytes
      this.#freeBytes = freeBytes
      this.isFull = freeBytes <= this.#reserveBytes
    } catch (error) {
      this.#logger.warn('space of the disk is unknown', { code: codeOf(error) })
    }
  }

  get #reserveBytes(): number {
    return Math.min(RESERVE_BYTES_MAX, Math.max(RESERVE_BYTES_MIN, this.#totalBytes / 50))
  }

  /** The reserve is not shown as free. */
  get report(): { totalBytes: number; freeBytes: number } {
    const freeBytes = Math.max(0, Math.floor(this.#freeBytes - this.#reserveBytes))
    return { totalBytes: this.#totalBytes, freeBytes }
  }
}
