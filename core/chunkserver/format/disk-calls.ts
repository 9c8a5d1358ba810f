/** Promises around disk callbacks, for control work only: the data path uses the callbacks. */
import type { CairnError } from '../../base/errors.ts'
import type { Disk, DiskFile } from '../../platform/disk.ts'

type Settle = (error: CairnError | null) => void

function settled(start: (settle: Settle) => void): Promise<void> {
  return new Promise((resolve, reject) => {
    start((error) => (error === null ? resolve() : reject(error)))
  })
}

export function writeFile(file: DiskFile, bytes: Buffer, position: number): Promise<void> {
  return settled((settle) => file.write([bytes], position, settle))
}

export function syncFile(file: DiskFile): Promise<void> {
  return settled((settle) => file.sync(settle))
}

export function syncDirectory(disk: Disk, path: string): Promise<void> {
  return settled((settle) => disk.syncDirectory(path, settle))
}

/** Reads what is there, at most `length` bytes. */
export function readFile(file: DiskFile, position: number, length: number): Promise<Buffer> {
  return new Promise((resolve, reject) => {
    const target = Buffer.alloc(length)
    file.read(target, position, (error, bytesRead) => {
      if (error === null) resolve(target.subarray(0, bytesRead))
      else reject(error)
    })
  })
}

/** Makes a directory when it is missing; true when it did. */
export function ensureDirectory(disk: Disk, path: string): boolean {
  if (disk.exists(path)) return false
  disk.makeDirectory(path)
  return true
}
