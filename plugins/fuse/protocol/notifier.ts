/**
 * Tells the kernel to drop what it has cached, in order, through a helper thread (rule L9); through another one
 * what needs no wait for pages or names, since opens wait for that. Bounded: when more is waiting than the
 * limit, the owner is asked to invalidate everything instead.
 */
import { extname, join } from 'node:path'
import { Worker } from 'node:worker_threads'
import { encodeInvalidateInode } from './reply.ts'
import type { MountLogger } from './types.ts'

export const NOTIFICATIONS_WAITING_MAX = 65_536
const BATCH_MAX = 256
/** As an offset. */
const ATTRIBUTES_ONLY = -1

interface Waiting {
  readonly notification: Buffer
  readonly done: (() => void) | undefined
}

export interface Notifier {
  /** `done` runs when the kernel has taken it (or had nothing to drop). False: too many are waiting. */
  send(notification: Buffer, done?: () => void): boolean
  /** As `send`, for the attributes of one inode only: no page and no name is waited for. */
  dropAttributes(inode: number, done?: () => void): boolean
}

/** One helper thread and what waits for it. */
class Lane {
  readonly #log: MountLogger
  readonly #worker: Worker
  #queue: Waiting[] = []
  #inFlight: Waiting[] = []
  #stopped = false

  constructor(descriptor: number, log: MountLogger) {
    this.#log = log
    // The compiled plugin has .js files: take the worker of the same kind as this file. Not from
    // import.meta.url: the plugin host adds a query to it.
    const file = join(import.meta.dirname, `notify-worker${extname(import.meta.filename)}`)
    this.#worker = new Worker(file, { workerData: { descriptor } })
    this.#worker.on('message', (codes: string[]) => this.#onBatchDone(codes))
    this.#worker.on('error', (error: Error) => this.#onWorkerGone(error.message))
    this.#worker.on('exit', () => this.#onWorkerGone('exited'))
    this.#worker.unref()
  }

  send(notification: Buffer, done?: () => void): boolean {
    if (this.#stopped) {
      done?.()
      return true
    }
    if (this.#queue.length >= NOTIFICATIONS_WAITING_MAX) return false
    this.#queue.push({ notification, done })
    this.#sendBatch()
    return true
  }

  #sendBatch(): void {
    if (this.#inFlight.length > 0 || this.#queue.length === 0) return
    this.#inFlight = this.#queue.slice(0, BATCH_MAX)
    this.#queue = this.#queue.slice(BATCH_MAX)
    this.#worker.postMessage(this.#inFlight.map((waiting) => waiting.notification))
  }

  #onBatchDone(codes: string[]): void {
    // ENOENT: the kernel does not hold it. EINVAL: a notification this kernel is too old for.
    for (const code of codes) {
      if (code !== 'ENOENT' && code !== 'EINVAL' && code !== 'ENOTDIR' && code !== 'ENODEV') {
        this.#log.warn('the kernel refused an invalidation', { code })
      }
    }
    const finished = this.#inFlight
    this.#inFlight = []
    for (const waiting of finished) waiting.done?.()
    this.#sendBatch()
  }

  /** Without the helper, caches only expire by their time-outs: say so, and keep nobody waiting. */
  #onWorkerGone(reason: string): void {
    if (this.#stopped) return
    this.#log.error('the invalidation helper is gone; cached attributes expire by time-out only', { reason })
    this.#finishAll()
  }

  #finishAll(): void {
    this.#stopped = true
    const waiting = [...this.#inFlight, ...this.#queue]
    this.#inFlight = []
    this.#queue = []
    for (const one of waiting) one.done?.()
  }

  async stop(): Promise<void> {
    this.#finishAll()
    await this.#worker.terminate()
  }
}

export class WorkerNotifier implements Notifier {
  /** A page whose read is held, or a directory in use, holds up all that comes behind it: opens must not. */
  readonly #pagesAndNames: Lane
  readonly #attributes: Lane

  constructor(descriptor: number, log: MountLogger) {
    this.#pagesAndNames = new Lane(descriptor, log)
    this.#attributes = new Lane(descriptor, log)
  }

  send(notification: Buffer, done?: () => void): boolean {
    return this.#pagesAndNames.send(notification, done)
  }

  dropAttributes(inode: number, done?: () => void): boolean {
    return this.#attributes.send(encodeInvalidateInode(inode, ATTRIBUTES_ONLY), done)
  }

  async stop(): Promise<void> {
    await Promise.all([this.#pagesAndNames.stop(), this.#attributes.stop()])
  }
}
