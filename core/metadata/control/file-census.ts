/** Counts files and their bytes by a paced scan of the inodes, for `stat`. Never holds the event loop for long. */
import type { InodeRow } from '../state/rows.ts'
import type { Master } from './servers/master.ts'

const ROWS_PER_SLICE = 2000
const SLICE_PAUSE_MS = 20
const PASS_PAUSE_MS = 2000

export interface FileCounts {
  files: number
  fileMaps: number
  bytes: number
}

export class FileCensus {
  readonly #master: Master
  #finished: FileCounts = { files: 0, fileMaps: 0, bytes: 0 }
  #counting: FileCounts = { files: 0, fileMaps: 0, bytes: 0 }
  #rows: Iterator<InodeRow> | null = null

  constructor(master: Master) {
    this.#master = master
  }

  start(): void {
    this.#slice()
  }

  get counts(): Readonly<FileCounts> {
    return this.#finished
  }

  #slice(): void {
    this.#rows ??= this.#master.state.inodes.values()
    for (let count = 0; count < ROWS_PER_SLICE; count++) {
      const next = this.#rows.next()
      if (next.done === true) {
        this.#finished = this.#counting
        this.#counting = { files: 0, fileMaps: 0, bytes: 0 }
        this.#rows = null
        this.#master.after(PASS_PAUSE_MS, () => this.#slice())
        return
      }
      const row = next.value
      if (row.type !== 'file' || this.#master.state.snapshots.has(row.inode)) continue
      this.#counting.files += 1
      this.#counting.bytes += row.size
      if (row.chunks.size > 0) this.#counting.fileMaps += 1
    }
    this.#master.after(SLICE_PAUSE_MS, () => this.#slice())
  }
}
