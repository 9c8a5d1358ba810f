/**
 * What client and server of the flush check say to each other: lines of text over TCP, so that it needs no cluster and
 * no key. The client says first who it is, then for each thread from which counter it starts, then each counter that
 * its disk has flushed. The server answers each start, and tells of counters that went back.
 *
 *   client: cairn-hwflush 1 THREADS KEY…    start THREAD COUNTER [new]    done THREAD COUNTER
 *   server: ok THREAD    error THREAD KNOWN    refused REASON…
 */
import { CairnError } from '../../base/errors.ts'
import type { Connection } from '../../platform/network.ts'

export const FLUSH_PORT_DEFAULT = 2515
export const THREADS_MAX = 256
const GREETING = 'cairn-hwflush'
const VERSION = 1
const LINE_BYTES_MAX = 4096

export type ClientMessage =
  | { readonly type: 'hello'; readonly threads: number; readonly key: string }
  /** `isNew`: another disk, or a check that begins anew. */
  | { readonly type: 'start'; readonly thread: number; readonly counter: number; readonly isNew: boolean }
  | { readonly type: 'done'; readonly thread: number; readonly counter: number }

export type ServerMessage =
  | { readonly type: 'ok'; readonly thread: number }
  | { readonly type: 'error'; readonly thread: number; readonly known: number }
  | { readonly type: 'refused'; readonly reason: string }

export function clientLine(message: ClientMessage): string {
  switch (message.type) {
    case 'hello':
      return `${GREETING} ${VERSION} ${message.threads} ${message.key}`
    case 'start':
      return `start ${message.thread} ${message.counter}${message.isNew ? ' new' : ''}`
    case 'done':
      return `done ${message.thread} ${message.counter}`
    default:
      return message satisfies never
  }
}

export function serverLine(message: ServerMessage): string {
  switch (message.type) {
    case 'ok':
      return `ok ${message.thread}`
    case 'error':
      return `error ${message.thread} ${message.known}`
    case 'refused':
      return `refused ${message.reason}`
    default:
      return message satisfies never
  }
}

/** Throws BAD_MESSAGE. */
export function parseClientLine(line: string): ClientMessage {
  const hello = new RegExp(`^${GREETING} (\\d+) (\\d+) (.+)$`).exec(line)
  if (hello !== null) {
    if (Number(hello[1]) !== VERSION)
      throw new CairnError(
        'BAD_MESSAGE',
        `version ${hello[1]} of the flush check, this one speaks ${VERSION}`,
      )
    return { type: 'hello', threads: numberOf(hello[2], 1, THREADS_MAX), key: hello[3] ?? '' }
  }
  const counted = /^(start|done) (\d+) (\d+)( new)?$/.exec(line)
  if (counted === null) throw malformed(line)
  const thread = numberOf(counted[2], 0, THREADS_MAX - 1)
  const counter = numberOf(counted[3], 0, Number.MAX_SAFE_INTEGER)
  if (counted[1] === 'done') return { type: 'done', thread, counter }
  return { type: 'start', thread, counter, isNew: counted[4] !== undefined }
}

/** Throws BAD_MESSAGE. */
export function parseServerLine(line: string): ServerMessage {
  const counted = /^(ok|error) (\d+)(?: (\d+))?$/.exec(line)
  if (counted !== null) {
    const thread = numberOf(counted[2], 0, THREADS_MAX - 1)
    if (counted[1] === 'ok') return { type: 'ok', thread }
    return { type: 'error', thread, known: numberOf(counted[3], 0, Number.MAX_SAFE_INTEGER) }
  }
  if (line.startsWith('refused ')) return { type: 'refused', reason: line.slice('refused '.length) }
  throw malformed(line)
}

function numberOf(text: string | undefined, minimum: number, maximum: number): number {
  const value = Number(text)
  if (!Number.isSafeInteger(value) || value < minimum || value > maximum) throw malformed(text ?? '')
  return value
}

function malformed(text: string): CairnError {
  return new CairnError('BAD_MESSAGE', `'${text.slice(0, 80)}' is nothing that the flush check says`)
}

export interface LineHandler {
  onOpen(): void
  /** Throws BAD_MESSAGE to end the connection. */
  onLine(line: string): void
  /** Exactly once. */
  onClose(reason: string): void
}

/** Lines over a connection. */
export class LineConnection {
  readonly #connection: Connection
  readonly #handler: LineHandler
  #rest = ''
  #drained: (() => void) | null = null

  constructor(connection: Connection, handler: LineHandler) {
    this.#connection = connection
    this.#handler = handler
  }

  get remote(): string {
    return this.#connection.remote
  }

  start(): void {
    this.#connection.start({
      onOpen: () => this.#handler.onOpen(),
      onData: (borrowed) => this.#onData(borrowed.toString('utf8')),
      onDrain: () => this.#drained?.(),
      onClose: (reason) => {
        this.#drained?.()
        this.#handler.onClose(reason)
      },
    })
  }

  /** Resolves when more may be sent. */
  send(line: string): Promise<void> {
    if (this.#connection.write([Buffer.from(`${line}\n`)])) return Promise.resolve()
    return new Promise((resolve) => {
      const before = this.#drained
      this.#drained = () => {
        this.#drained = null
        before?.()
        resolve()
      }
    })
  }

  close(reason: string): void {
    this.#connection.destroy(reason)
  }

  #onData(text: string): void {
    const lines = (this.#rest + text).split('\n')
    this.#rest = lines.pop() ?? ''
    try {
      if (this.#rest.length > LINE_BYTES_MAX) throw malformed(this.#rest)
      for (const line of lines) this.#handler.onLine(line)
    } catch (error) {
      this.close(error instanceof Error ? error.message : String(error))
    }
  }
}
