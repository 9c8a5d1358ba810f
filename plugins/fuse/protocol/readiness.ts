/**
 * Tells when a descriptor has something to read, from the event loop's own poll, with the first thing read
 * already. Node has no public way to poll a character device: its pipes poll whatever descriptor they are
 * given, so one of those is opened on it (the parts used are checked at the start). The alternative, reads
 * that block threads of the pool, costs two wake-ups of threads for each request.
 *
 * The descriptor becomes non-blocking, and belongs to this object: closing it closes the descriptor.
 */
import { connect } from 'node:net'

/** What is used of Node's pipes. */
interface PipeHandle {
  open(descriptor: number): number
  useUserBuffer(buffer: Buffer): void
  readStart(): number
  readStop(): number
  close(done?: () => void): void
  /** Returns the buffer for the next read; undefined: the same again. */
  onread: () => Buffer | undefined
}
type PipeClass = new (type: number) => PipeHandle

/** A plain stream, not one that carries descriptors. */
const PIPE_TYPE_SOCKET = 0

function pipeClass(): PipeClass {
  const probe = connect({ path: '/' })
  probe.on('error', () => {}) // nobody listens there: only its handle is of interest
  const { _handle: handle } = probe as unknown as { _handle: PipeHandle | null }
  const found = handle?.constructor as unknown as PipeClass | undefined
  const methods = ['open', 'useUserBuffer', 'readStart', 'readStop', 'close'] as const
  if (found === undefined || methods.some((name) => typeof handle?.[name] !== 'function'))
    throw new Error('this version of Node cannot poll a device: its pipes have changed')
  probe.destroy()
  return found
}

export class Readiness {
  readonly #pipe: PipeHandle
  /** Being read into; kept here because the pipe does not. */
  #buffer: Buffer
  #isReading = false

  /**
   * `onRead` runs when `buffer` has been filled, or is untouched: after an error, or because there was nothing
   * after all. It returns the buffer for the next read.
   */
  constructor(descriptor: number, buffer: Buffer, onRead: () => Buffer) {
    this.#buffer = buffer
    const Pipe = pipeClass()
    this.#pipe = new Pipe(PIPE_TYPE_SOCKET)
    if (this.#pipe.open(descriptor) < 0) throw new Error('the device cannot be polled')
    this.#pipe.onread = () => {
      this.#buffer = onRead()
      return this.#buffer
    }
    this.#pipe.useUserBuffer(this.#buffer)
  }

  start(): void {
    if (this.#isReading) return
    this.#isReading = true
    this.#pipe.readStart()
  }

  stop(): void {
    if (!this.#isReading) return
    this.#isReading = false
    this.#pipe.readStop()
  }

  /** False: an error has ended the polling for good. */
  get isAlive(): boolean {
    if (!this.#isReading) return true
    this.#pipe.readStop()
    return this.#pipe.readStart() >= 0
  }

  close(): void {
    this.#isReading = false
    this.#pipe.close()
  }
}
