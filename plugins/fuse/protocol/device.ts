/**
 * The /dev/fuse descriptor: requests are read when the kernel has some, several at a time, into a bounded
 * set of buffers, and answers are written synchronously. A buffer goes back to reading when its request is
 * done with it, so a slow cluster stops us from reading (back-pressure) instead of filling memory. Knows
 * nothing of the protocol but its framing.
 */
import * as fs from 'node:fs'
import { REQUEST_BYTES_MAX } from './constants.ts'
import { codeOf } from './errno.ts'
import { Readiness } from './readiness.ts'
import { Request } from './request.ts'
import type { MountLogger } from './types.ts'

/** Requests taken in one turn of the event loop: then others get theirs. */
const REQUESTS_PER_TURN_MAX = 64
/**
 * Looking for a further request costs an exception when there is none. After a look in vain the next turns
 * take only the request that woke them: twice as many after each, up to this.
 */
const TURNS_WITHOUT_LOOK_MAX = 16
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
   * Exactly once: the kernel ended the connection ('unmounted', 'aborted'), or reading failed for the
   * reason given. Nothing is read any more.
   */
  onEnd(reason: string): void
}

export interface DeviceOptions {
  readonly buffersMax?: number
}

export class Device {
  readonly descriptor: number
  readonly #log: MountLogger
  readonly #buffersMax: number
  readonly #free: Request[] = []
  #handler: DeviceHandler | undefined
  #readiness: Readiness | undefined
  /** Read into when the kernel has something. */
  #next: Request
  #created = 0
  #readErrors = 0
  #ended = false
  #paused = false
  #turnsWithoutLook = 0
  #turnsToSkip = 0

  constructor(descriptor: number, log: MountLogger, options: DeviceOptions = {}) {
    this.descriptor = descriptor
    this.#log = log
    this.#buffersMax = Math.max(options.buffersMax ?? BUFFERS_MAX_DEFAULT, BUFFERS_LOW + 1)
    this.#next = this.#create()
  }

  get ended(): boolean {
    return this.#ended
  }

  /** After mounting: before, the descriptor leads nowhere. */
  start(handler: DeviceHandler): void {
    this.#handler = handler
    this.#readiness = new Readiness(this.descriptor, this.#next.buffer, () => this.#onReady())
    this.#readiness.start()
  }

  /** Too many requests are in hand: read no more until `resume`. */
  pause(): void {
    this.#paused = true
    this.#readiness?.stop()
  }

  resume(): void {
    if (!this.#paused) return
    this.#paused = false
    this.#maybeRead()
  }

  /** Fewer free buffers than is comfortable: keep small payloads by copying them. */
  get isShortOfBuffers(): boolean {
    return this.#freeCount < BUFFERS_LOW
  }

  get #freeCount(): number {
    return this.#buffersMax - this.#created + this.#free.length
  }

  /** The last buffer is never given away: what the poll reads into must be ours. */
  get #mayRead(): boolean {
    return !this.#ended && !this.#paused && this.#freeCount > 0
  }

  #maybeRead(): void {
    if (this.#mayRead) this.#readiness?.start()
  }

  #create(): Request {
    this.#created++
    const buffer = Buffer.allocUnsafeSlow(REQUEST_BYTES_MAX)
    buffer.writeUInt32LE(0, 0)
    return new Request(buffer)
  }

  /** The poll has read into the next buffer. Returns the one after it. */
  #onReady(): Buffer {
    const byteCount = this.#next.buffer.readUInt32LE(0)
    if (byteCount === 0) this.#onNothing()
    else {
      this.#take(byteCount)
      this.#maybeTakeMore()
    }
    if (!this.#mayRead) this.#readiness?.stop()
    return this.#next.buffer
  }

  #maybeTakeMore(): void {
    if (this.#turnsToSkip > 0) {
      this.#turnsToSkip--
      return
    }
    for (let count = 1; count < REQUESTS_PER_TURN_MAX && this.#mayRead; count++) {
      const byteCount = this.#read()
      if (byteCount === 0) {
        this.#turnsWithoutLook =
          count > 1 ? 0 : Math.min(TURNS_WITHOUT_LOOK_MAX, Math.max(1, this.#turnsWithoutLook * 2))
        this.#turnsToSkip = this.#turnsWithoutLook
        return
      }
      this.#take(byteCount)
    }
  }

  /** 0: there is none, or the poll will tell what is wrong. */
  #read(): number {
    // an exception that only says "nothing there" needs no stack
    const { stackTraceLimit } = Error
    Error.stackTraceLimit = 0
    try {
      return fs.readSync(this.descriptor, this.#next.buffer, 0, REQUEST_BYTES_MAX, null)
    } catch {
      return 0
    } finally {
      Error.stackTraceLimit = stackTraceLimit
    }
  }

  /** A request lies in the next buffer. */
  #take(byteCount: number): void {
    const request = this.#next
    this.#readErrors = 0
    let kept = false
    if (request.parse(request.buffer, byteCount)) {
      kept = this.#handler?.onRequest(request) ?? false
    } else {
      // Nobody can be answered; the kernel of this machine never sends this.
      this.#log.error('a request without a usable header was dropped', { byteCount })
    }
    if (kept) this.#next = this.#free.pop() ?? this.#create()
    // how an error is told from a request
    this.#next.buffer.writeUInt32LE(0, 0)
  }

  /** The poll found nothing, or stopped at an error: another read tells which. */
  #onNothing(): void {
    for (;;) {
      let code = ''
      try {
        this.#take(fs.readSync(this.descriptor, this.#next.buffer, 0, REQUEST_BYTES_MAX, null))
        return
      } catch (error) {
        code = codeOf(error)
      }
      if (code === 'EAGAIN' && this.#readiness?.isAlive === true) return
      if (code === 'ENODEV' || code === 'ECONNABORTED') {
        this.#end(code === 'ENODEV' ? 'unmounted' : 'aborted')
        return
      }
      // ENOENT: the program was killed before we took its request. Nothing is lost.
      if (code !== 'ENOENT' && code !== 'EINTR') this.#log.warn('reading a request failed', { code })
      this.#readErrors++
      if (this.#readErrors >= READ_ERRORS_MAX) {
        this.#end(`reading /dev/fuse failed: ${code}`)
        return
      }
    }
  }

  #end(reason: string): void {
    if (this.#ended) return
    this.#ended = true
    setImmediate(() => this.#handler?.onEnd(reason))
  }

  /** Gives back a request that `onRequest` kept. */
  release(request: Request): void {
    this.#free.push(request)
    this.#maybeRead()
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
    if (this.#readiness === undefined) fs.closeSync(this.descriptor)
    else this.#readiness.close()
  }
}
