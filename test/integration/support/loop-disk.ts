/**
 * A disk of its own for a server: a file system on a loop device over a file. The power is cut as XFS (and ext4
 * with it) knows it: from one moment on every call fails, and what was not synced is gone when it is mounted
 * again. Or it runs full, becomes read-only, or hangs: whoever writes waits, and gets neither an answer nor an
 * error.
 */
import fs from 'node:fs'
import path from 'node:path'
import { codeOf } from '../../../core/base/errors.ts'
import { isMounted, must, runProgram, until } from './programs.ts'

/** mkfs.xfs makes none below 300 MB. The file is sparse. */
const SIZE_BYTES = 400 * 1024 * 1024
const makers = {
  xfs: ['mkfs.xfs', '-q', '-f'],
  // What an error makes of it is the choice of most: read-only.
  ext4: ['mkfs.ext4', '-q', '-F', '-m', '0', '-e', 'remount-ro'],
} as const

export interface LoopDiskOptions {
  /** Default: xfs. */
  readonly fileSystem?: keyof typeof makers
  readonly sizeBytes?: number
}
/** Taken without being written; the rest is written, to the last block. */
const WRITTEN_BYTES = 4 * 1024 * 1024
const PIECE_BYTES: readonly number[] = [64 * 1024, 4096]

export class LoopDisk {
  readonly mountPoint: string
  readonly #image: string
  readonly #ballast: string
  readonly #options: LoopDiskOptions
  #isHanging = false

  private constructor(directory: string, options: LoopDiskOptions) {
    this.#options = options
    this.mountPoint = path.join(directory, 'disk')
    this.#image = path.join(directory, 'image')
    this.#ballast = path.join(this.mountPoint, 'ballast')
  }

  static async make(directory: string, options: LoopDiskOptions = {}): Promise<LoopDisk> {
    const disk = new LoopDisk(directory, options)
    fs.mkdirSync(disk.mountPoint, { recursive: true })
    await disk.#format()
    return disk
  }

  async #format(): Promise<void> {
    const { fileSystem = 'xfs', sizeBytes = SIZE_BYTES } = this.#options
    fs.writeFileSync(this.#image, '')
    fs.truncateSync(this.#image, sizeBytes)
    const [program, ...parameters] = makers[fileSystem]
    await must(program, [...parameters, this.#image])
    await this.#mount()
  }

  /** Another disk in its place, empty. When nothing uses the old one any more. */
  async replace(): Promise<void> {
    await this.unmount()
    await this.#format()
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

  /** ext4: it has found something wrong with itself, and takes no more writes. `repair` ends it. */
  becomeReadOnly(): void {
    const device = path.basename(this.#device())
    fs.writeFileSync(`/sys/fs/ext4/${device}/trigger_fs_error`, 'test')
  }

  /** ext4, after `becomeReadOnly`, when the process that used it is gone. */
  async repair(): Promise<void> {
    await this.unmount()
    const { status, stdout, stderr } = await runProgram('e2fsck', ['-f', '-y', this.#image])
    // 1: errors were corrected
    if (status !== 0 && status !== 1) throw new Error(`e2fsck: status ${status}\n${stdout}${stderr}`)
    await this.#mount()
  }

  #device(): string {
    const mounts = fs.readFileSync('/proc/self/mounts', 'utf8').split('\n')
    const found = mounts.map((line) => line.split(' ')).find(([, point]) => point === this.mountPoint)
    if (found?.[0] === undefined) throw new Error(`${this.mountPoint} is not mounted`)
    return found[0]
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
