/**
 * A file as a disk: fixed size, sectors of 512 bytes, the lease taken at open and kept (rule L5). When the
 * lease ends the device is dead: whoever serves it opens it again, knowing that others may have written.
 */
import { CairnError } from '../base/errors.ts'
import type { BlockDevice, IoCallback, Operation, ReadCallback } from './api.ts'
import { asCairnError, invalid } from './session/errors.ts'
import { withinHold } from './session/hold.ts'
import type { FileHandle } from './file/file-handle.ts'

export const SECTOR_BYTES = 512
const EMPTY = Buffer.alloc(0)
const nothing: Operation = { cancel: () => undefined }

export class FileBlockDevice implements BlockDevice {
  readonly sizeBytes: number
  readonly #handle: FileHandle

  constructor(handle: FileHandle) {
    this.#handle = handle
    this.sizeBytes = Math.floor(handle.attributes().size / SECTOR_BYTES) * SECTOR_BYTES
  }

  read(offset: number, length: number, callback: ReadCallback): Operation {
    const fault = this.#fault(offset, length)
    if (fault === null) return this.#handle.read(offset, length, callback)
    this.#defer(() => callback(fault, EMPTY))
    return nothing
  }

  write(offset: number, borrowedData: Buffer, callback: IoCallback): Operation {
    const fault = this.#fault(offset, borrowedData.length)
    if (fault === null) return this.#handle.write(offset, borrowedData, callback)
    this.#defer(() => callback(fault))
    return nothing
  }

  flush(callback: IoCallback): Operation {
    return this.#handle.flush(callback)
  }

  discard(offset: number, length: number, callback: IoCallback): Operation {
    const fault = this.#fault(offset, length)
    let answer: IoCallback | null = callback
    const end = (error: CairnError | null): void => {
      const waiting = answer
      answer = null
      waiting?.(error)
    }
    if (fault !== null || length === 0) {
      this.#defer(() => end(fault))
    } else {
      this.#handle.zero(offset, length, true).then(
        () => end(null),
        (error: unknown) => end(asCairnError(error)),
      )
    }
    return { cancel: () => end(new CairnError('EINTR', 'cancelled by the caller')) }
  }

  /** Flushes and gives the lease back. */
  async close(): Promise<void> {
    const { state } = this.#handle
    state.pinned = false
    try {
      await withinHold(state.engine, state.lease.giveBack(state.engine.holdTimeoutMs))
    } finally {
      this.#handle.close()
    }
  }

  #fault(offset: number, length: number): CairnError | null {
    if (
      !Number.isSafeInteger(offset) ||
      offset < 0 ||
      offset % SECTOR_BYTES !== 0 ||
      length % SECTOR_BYTES !== 0
    )
      return invalid(`offset ${offset}, length ${length}: not whole sectors of ${SECTOR_BYTES} bytes`)
    if (!(length >= 0) || offset + length > this.sizeBytes)
      return invalid(`offset ${offset}, length ${length}: behind the end of the device (${this.sizeBytes})`)
    return null
  }

  #defer(callback: () => void): void {
    this.#handle.state.engine.clock.defer(callback)
  }
}
