/**
 * The /dev/fuse descriptor: a bounded set of request buffers being read into by pool threads, and
 * answers written synchronously. A buffer goes back to reading when its request is done with it, so a
 * slow cluster stops us from reading (back-pressure) instead of filling memory. Knows nothing of the
 * protocol but its framing.
 *
 * Each outstanding read blocks one thread of Node's pool: whoever starts the process sets
 * UV_THREADPOOL_SIZE to at least the number of readers plus four.
 */
import * as fs from 'node:fs'
import { REQUEST_BYTES_MAX } from './constants.ts'
import { codeOf } from './errno.ts'
import { Request } from './request.ts'
import type { MountLogger } from './types.ts'

/** Requests read at the same time. More only costs thread switches: one process answers them all. */
export const READERS_DEFAULT = 4
/** Threads of the pool that stay free for everything else in the process. */
const POOL_THREADS_RESERVED = 2
const POOL_THREADS_DEFAULT = 4
/** Buffers of 1 MiB and a page, held by WRITEs that are not answered yet; touched pages only cost memory. */
export const BUFFERS_MAX_DEFAULT = 64
/** With fewer free buffers than this, small writes move to exact copies so that many can be held. */
const BUFFERS_LOW = 16
export const SMALL_WRITE_BYTES_MAX = 64 * 1024
const READ_ERRORS_MAX = 100

export interface DeviceHandler {
  /**
   * A request is valid during the call, unless the handler keeps it (returns true) and gives it back
   * by `release`.
   */
  onRequest(request: Request): boolean
  /**
   * Exactly once, when no read is outstanding any more: the kernel ended the connection ('unmounted',
   * 'aborted'), or reading failed for the reason given.
   */
  onEnd(reason: string): void
}

export interface DeviceOptions {
  readonly readers?: number
  readonly buffersMax?: number
}

/** Readers that a thread pool of the present size can carry. */
export function readerCount(wanted: number, environment: NodeJS.ProcessEnv = process.env): number {
  const configured = Number(environment['UV_THREADPOOL_SIZE'] ?? POOL_THREADS_DEFAULT)
  const threads = Number.isInteger(configured) && configured > 0 ? configured : POOL_THREADS_DEFAULT
  return Math.max(1, Math.min(wanted, threads - POOL_THREADS_RESERVED))
}

export class Device {
  readonly descriptor: number
  readonly #log: MountLogger
  readonly #readers: number
  readonly #buffersMax: number
  readonly #free: Request[] = []
  readonly #callbacks = new WeakMap<Request, (error: Error | null, byteCount: number) => void>()
  #handler: DeviceHandler | undefined
  #created = 0
  #reading = 0
  #readErrors = 0
  #ended = false
  #endReason = ''
  #paused = false

  constructor(descriptor: number, log: MountLogger, options: DeviceOptions = {}) {
    this.descriptor = descriptor
    this.#log = log
    this.#readers = readerCount(options.readers ?? READERS_DEFAULT)
    this.#buffersMax = Math.max(options.buffersMax ?? BUFFERS_MAX_DEFAULT, this.#readers + BUFFERS_LOW)
  }

  get ended(): boolean {
    return this.#ended
  }

  start(handler: DeviceHandler): void {
    this.#handler = handler
    this.#fillReaders()
  }

  /** Too many requests are in hand: read no more until `resume`. */
  pause(): void {
    this.#paused = true
  }

  resume(): void {
    if (!this.#paused) return
    this.#paused = false
    this.#fillReaders()
  }

  /** Fewer free buffers than is comfortable: keep small payloads by copying them. */
  get isShortOfBuffers(): boolean {
    return this.#buffersMax - this.#created + this.#free.length < BUFFERS_LOW
  }

  #fillReaders(): void {
    while (!this.#ended && !this.#paused && this.#reading < this.#readers) {
      const request = this.#free.pop() ?? this.#create()
      if (request === undefined) return
      this.#read(request)
    }
  }

  #create(): Request | undefined {
    if (this.#created >= this.#buffersMax) return undefined
    this.#created++
    const request = new Request(Buffer.allocUnsafeSlow(REQUEST_BYTES_MAX))
    this.#callbacks.set(request, (error, byteCount) => this.#onRead(request, error, byteCount))
    return request
  }

  #read(request: Request): void {
    const callback = this.#callbacks.get(request)
    if (callback === undefined) throw new Error('request without a callback')
    this.#reading++
    fs.read(this.descriptor, request.buffer, 0, REQUEST_BYTES_MAX, null, callback)
  }

  #onRead(request: Request, error: Error | null, byteCount: number): void {
    this.#reading--
    if (error !== null) {
      this.#onReadError(request, error)
      if (this.#ended && this.#reading === 0) this.#handler?.onEnd(this.#endReason)
      return
    }
    this.#readErrors = 0
    let kept = false
    if (request.parse(request.buffer, byteCount)) {
      kept = this.#handler?.onRequest(request) ?? false
    } else {
      // Nobody can be answered; the kernel of this machine never sends this.
      this.#log.error('a request without a usable header was dropped', { byteCount })
    }
    if (!kept) this.#free.push(request)
    this.#fillReaders()
  }

  #onReadError(request: Request, error: Error): void {
    this.#free.push(request)
    const code = codeOf(error)
    // ENOENT: the program was killed before we took its request. Nothing is lost.
    if (code === 'ENOENT' || code === 'EINTR' || code === 'EAGAIN') {
      this.#fillReaders()
      return
    }
    if (code === 'ENODEV' || code === 'ECONNABORTED') {
      this.#end(code === 'ENODEV' ? 'unmounted' : 'aborted')
      return
    }
    this.#readErrors++
    if (this.#readErrors >= READ_ERRORS_MAX) {
      this.#end(`reading /dev/fuse failed: ${error.message}`)
      return
    }
    this.#log.warn('reading a request failed', { code, message: error.message })
    this.#fillReaders()
  }

  #end(reason: string): void {
    if (this.#ended) return
    this.#ended = true
    this.#endReason = reason
  }

  /** Gives back a request that `onRequest` kept. */
  release(request: Request): void {
    this.#free.push(request)
    this.#fillReaders()
  }

  /** Sends the first `byteCount` bytes, header included. */
  write(buffer: Buffer, byteCount: number): void {
    // After the end the descriptor may be closed and its number in other use.
    if (this.#ended) return
    try {
      fs.writeSync(this.descriptor, buffer, 0, byteCount)
    } catch (error) {
      this.#onWriteError(error)
    }
  }

  /** Header and payload in one call, without copying them together. */
  writeTwo(header: Buffer, payload: Buffer): void {
    if (this.#ended) return
    try {
      fs.writevSync(this.descriptor, [header, payload])
    } catch (error) {
      this.#onWriteError(error)
    }
  }

  #onWriteError(error: unknown): void {
    const code = codeOf(error)
    // The program gave up waiting (ENOENT) or the mount is gone: nobody is left to be told.
    if (code === 'ENOENT' || code === 'ENODEV' || code === 'ECONNABORTED' || code === 'ENOTCONN') return
    this.#log.error('the kernel refused an answer', { code })
  }

  /** After `onEnd`, when nobody writes any more. */
  close(): void {
    this.#ended = true
    fs.closeSync(this.descriptor)
  }
}
