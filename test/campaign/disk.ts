/**
 * A disk of its own for a metadata server: XFS on a loop device over a file. The power is cut as XFS knows it:
 * from one moment on every call fails, and what was not synced is gone when it is mounted again.
 */
import fs from 'node:fs'
import path from 'node:path'
import { must, until, runProgram } from '../integration/support/cluster.ts'

/** mkfs.xfs makes none below 300 MB. The file is sparse. */
const SIZE_BYTES = 400 * 1024 * 1024

export class LoopDisk {
  readonly mountPoint: string
  readonly #image: string

  private constructor(directory: string) {
    this.mountPoint = path.join(directory, 'disk')
    this.#image = path.join(directory, 'image')
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

  /** Everything fails at once. */
  async cutPower(): Promise<void> {
    await must('xfs_io', ['-x', '-c', 'shutdown', this.mountPoint])
  }

  /** After `cutPower`, when the process that used it is gone. */
  async mountAgain(): Promise<void> {
    await until('the disk is unmounted', async () => {
      const { status, stderr } = await runProgram('umount', [this.mountPoint])
      return status === 0 || stderr
    })
    await this.#mount()
  }
}
