/**
 * A disk of its own for a metadata server: XFS on a loop device over a file. The power is cut as XFS knows it:
 * from one moment on every call fails, and what was not synced is gone when it is mounted again. Or it runs full, or
 * it hangs: whoever writes waits, and gets neither an answer nor an error.
 */
import fs from 'node:fs'
import path from 'node:path'
import { codeOf } from '../../../core/base/errors.ts'
import { isMounted, must, runProgram, until } from './programs.ts'

/** mkfs.xfs makes none below 300 MB. The file is sparse. */
const SIZE_BYTES = 400 * 1024 * 1024
/** Taken without being written; the rest is written, to the last block. */
const WRITTEN_BYTES = 4 * 1024 * 1024
const PIECE_BYTES: readonly number[] = [64 * 1024, 4096]

export class LoopDisk {
  readonly mountPoint: string
  readonly #image: string
  readonly #ballast: string
  #isHanging = false

  private constructor(directory: string) {
    this.mountPoint = path.join(directory, 'disk')
    this.#image = path.join(directory, 'image')
    this.#ballast = path.join(this.mountPoint, 'ballast')
  }

  static async make(directory: string): Promise<LoopDisk> {
    const disk = new LoopDisk(directory)
    fs.mkdirSync(disk.mountPoint, { recursive: true })
    fs.writeFileSync(disk.#image, '')
    fs.truncateSync(disk.#image, SIZE_BYTES)
    await must('mkfs.xfs', ['-q', disk.#image])
    await disk.#mount()
    return disk
  }

  async #mount(): Promise<void> {
    await must('mount', ['-o', 'loop', this.#image, this.mountPoint])
  }

  /** Until nothing more fits. */
  async fill(): Promise<void> {
    const { bavail, bsize } = fs.statfsSync(this.mountPoint)
    await must('fallocate', ['-l', `${bavail * bsize - WRITTEN_BYTES}`, this.#ballast])
    const handle = fs.openSync(this.#ballast, 'a')
    try {
      for (const length of PIECE_BYTES) while (hasRoom(handle, length));
      fs.fsyncSync(handle)
    } finally {
      fs.closeSync(handle)
    }
  }

  /** Ends `fill`. */
  free(): void {
    fs.rmSync(this.#ballast)
  }

  /** Whoever writes or syncs waits, even for its own end. */
  async hang(): Promise<void> {
    await must('fsfreeze', ['-f', this.mountPoint])
    this.#isHanging = true
  }

  /** Ends `hang`. */
  async release(): Promise<void> {
    if (this.#isHanging) await must('fsfreeze', ['-u', this.mountPoint])
    this.#isHanging = false
  }

  /** Everything fails at once. */
  async cutPower(): Promise<void> {
    await must('xfs_io', ['-x', '-c', 'shutdown', this.mountPoint])
  }

  /** After `cutPower`, when the process that used it is gone. */
  async mountAgain(): Promise<void> {
    await this.unmount()
    await this.#mount()
  }

  /** When nothing uses it any more. */
  async unmount(): Promise<void> {
    await until('the disk is unmounted', async () => {
      if (!isMounted(this.mountPoint)) return true
      const { status, stderr } = await runProgram('umount', [this.mountPoint])
      return status === 0 || stderr
    })
  }
}

function hasRoom(handle: number, length: number): boolean {
  try {
    return fs.writeSync(handle, Buffer.alloc(length)) === length
  } catch (error) {
    if (codeOf(error) === 'ENOSPC') return false
    throw error
  }
}
