/** One open of a file: the `File` face over the shared FileState. */
import type { Readable, Writable } from 'node:stream'
import { CairnError } from '../../base/errors.ts'
import type { Attributes } from '../../wire/messages/common.ts'
import type { File, IoCallback, Operation, ReadCallback } from '../api.ts'
import { cancelled, invalid } from '../session/errors.ts'
import { type ErrorView, FlushOperation } from './file-flush.ts'
import { allocateFile, truncateFile, zeroFile } from './file-resize.ts'
import type { FileState } from './file-state.ts'
import { FILE_SIZE_BYTES_MAX } from '../session/limits.ts'
import { ReadOperation } from './read-operation.ts'
import { readStreamOf, writeStreamOf } from './streams.ts'
import { WriteOperation } from './write-operation.ts'

const EMPTY = Buffer.alloc(0)

export class FileHandle implements File, ErrorView {
  readonly #file: FileState
  readonly #onClose: (file: FileState) => void
  #closed = false
  /** Errors of the file that this open has been told (rule F5). */
  seenErrorNumber: number

  constructor(file: FileState, onClose: (file: FileState) => void) {
    this.#file = file
    this.#onClose = onClose
    this.seenErrorNumber = file.errorsReported
    file.handleCount++
  }

  get inode(): number {
    return this.#file.inode
  }

  get state(): FileState {
    return this.#file
  }

  attributes(): Attributes {
    return this.#file.attributes
  }

  read(offset: number, length: number, callback: ReadCallback): Operation {
    const fault = this.#fault(offset, length)
    if (fault !== null) return this.#failLater((error) => callback(error, EMPTY), fault)
    const file = this.#file
    const clipped = Math.max(0, Math.min(length, file.size - offset))
    if (clipped > 0 && file.readAhead.wants(offset, clipped)) {
      const cancellable = new CancellableRead(callback)
      const direct = (): void => {
        if (!cancellable.isOver) this.#read(offset, clipped, cancellable.deliver)
      }
      if (
        file.unfinishedWrites.size === 0 &&
        file.readAhead.serve(offset, clipped, cancellable.deliver, direct)
      )
        return cancellable
    }
    return this.#read(offset, clipped, callback)
  }

  #read(offset: number, length: number, callback: ReadCallback): ReadOperation {
    const operation = new ReadOperation(this.#file, offset, length, true, callback)
    operation.start()
    return operation
  }

  write(offset: number, borrowedData: Buffer, callback: IoCallback): Operation {
    const fault = this.#fault(offset, borrowedData.length)
    if (fault !== null) return this.#failLater(callback, fault)
    const operation = new WriteOperation(this.#file, offset, borrowedData.length, borrowedData, callback)
    this.#file.gate.enter(operation)
    this.#lookAhead(operation)
    return operation
  }

  /** A stream forward gets the intent for its next chunk before it needs it. */
  #lookAhead(operation: WriteOperation): void {
    const file = this.#file
    const isSequential = operation.offset === file.lastWriteEnd
    file.lastWriteEnd = operation.end
    if (isSequential) file.wantNextIntent(operation.end)
  }

  flush(callback: IoCallback): Operation {
    return this.#flush(true, callback)
  }

  publish(callback: IoCallback): Operation {
    return this.#flush(false, callback)
  }

  #flush(durable: boolean, callback: IoCallback): Operation {
    if (this.#closed) return this.#failLater(callback, new CairnError('EINVAL', 'the file is closed'))
    const operation = new FlushOperation(this.#file, durable, this, callback)
    this.#file.gate.enter(operation)
    return operation
  }

  truncate(size: number): Promise<Attributes> {
    return truncateFile(this.#file, size)
  }

  zero(offset: number, length: number, keepSize: boolean): Promise<void> {
    return zeroFile(this.#file, offset, length, keepSize)
  }

  allocate(offset: number, length: number, keepSize: boolean): Promise<void> {
    return allocateFile(this.#file, offset, length, keepSize)
  }

  close(): void {
    if (this.#closed) return
    this.#closed = true
    this.#file.handleCount--
    this.#onClose(this.#file)
  }

  createReadStream(options: { readonly start?: number; readonly end?: number } = {}): Readable {
    return readStreamOf(this, options)
  }

  createWriteStream(options: { readonly start?: number } = {}): Writable {
    return writeStreamOf(this, options)
  }

  #fault(offset: number, length: number): CairnError | null {
    if (this.#closed) return invalid('the file is closed')
    if (!Number.isSafeInteger(offset) || offset < 0 || !Number.isSafeInteger(length) || length < 0)
      return invalid(`range ${offset}, ${length}`)
    if (offset + length > FILE_SIZE_BYTES_MAX)
      return new CairnError('EFBIG', `range ends at ${offset + length}`)
    return null
  }

  #failLater(callback: IoCallback, error: CairnError): Operation {
    this.#file.engine.clock.defer(() => callback(error))
    return nothing
  }
}

const nothing: Operation = { cancel: () => undefined }

/** A read that is served from read-ahead. */
class CancellableRead implements Operation {
  #callback: ReadCallback | null

  constructor(callback: ReadCallback) {
    this.#callback = callback
  }

  get isOver(): boolean {
    return this.#callback === null
  }

  readonly deliver: ReadCallback = (error, borrowedData) => {
    const callback = this.#callback
    this.#callback = null
    callback?.(error, borrowedData)
  }

  cancel(): void {
    this.deliver(cancelled(), EMPTY)
  }
}
