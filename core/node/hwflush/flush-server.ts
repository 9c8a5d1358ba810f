/**
 * The server of the flush check: remembers, for each client and thread, the highest counter that the client's disk
 * said it had flushed. A client that comes back with a lower one has lost what its disk had promised to keep. It knows
 * only what it was told since it started, in memory: it must run on a machine whose power is not cut.
 */
import type { Address, Listener, Network } from '../../platform/network.ts'
import {
  type ClientMessage,
  LineConnection,
  parseClientLine,
  type ServerMessage,
  serverLine,
} from './protocol.ts'

const CLIENTS_MAX = 1000
const ERRORS_KEPT_MAX = 1000

export interface CacheError {
  readonly client: string
  readonly thread: number
  readonly known: number
  readonly counter: number
}

export interface FlushServerEvents {
  onClient(client: string, remote: string): void
  /** `counter` 0: a new check. */
  onStart(client: string, thread: number, counter: number, known: number): void
  onCacheError(error: CacheError): void
  onGone(client: string, reason: string): void
}

export class FlushServer {
  readonly #network: Network
  readonly #events: FlushServerEvents
  /** Client -> thread -> counter. */
  readonly #known = new Map<string, Map<number, number>>()
  readonly #errors: CacheError[] = []
  #listener: Listener | null = null

  constructor(network: Network, events: FlushServerEvents) {
    this.#network = network
    this.#events = events
  }

  /** The first ones. */
  get errors(): readonly CacheError[] {
    return this.#errors
  }

  /** Each client with the highest counter of each of its threads. */
  get clients(): { client: string; counters: number[] }[] {
    return [...this.#known].map(([client, threads]) => ({ client, counters: [...threads.values()] }))
  }

  async listen(address: Address): Promise<Address> {
    this.#listener = await this.#network.listen(address, (connection) => {
      let client = ''
      const lines = new LineConnection(connection, {
        onOpen: () => {},
        onLine: (line) => {
          const message = parseClientLine(line)
          if (message.type !== 'hello') return this.#onCounter(client, message, lines)
          client = message.key
          this.#onClient(client, lines)
        },
        onClose: (reason) => {
          if (client !== '') this.#events.onGone(client, reason)
        },
      })
      lines.start()
    })
    return this.#listener.address
  }

  async close(): Promise<void> {
    await this.#listener?.close()
  }

  #onClient(client: string, lines: LineConnection): void {
    if (!this.#known.has(client) && this.#known.size >= CLIENTS_MAX) {
      this.#answer(lines, { type: 'refused', reason: 'too many clients: start the server again' })
      return
    }
    if (!this.#known.has(client)) this.#known.set(client, new Map())
    this.#events.onClient(client, lines.remote)
  }

  #onCounter(
    client: string,
    message: Exclude<ClientMessage, { type: 'hello' }>,
    lines: LineConnection,
  ): void {
    const counters = this.#known.get(client)
    if (counters === undefined) {
      this.#answer(lines, { type: 'refused', reason: 'say who you are first' })
      return
    }
    const { thread, counter } = message
    const isNew = message.type === 'start' && message.isNew
    const known = isNew ? 0 : (counters.get(thread) ?? 0)
    counters.set(thread, counter)
    if (message.type === 'start') this.#events.onStart(client, thread, counter, known)
    if (counter >= known) {
      if (message.type === 'start') this.#answer(lines, { type: 'ok', thread })
      return
    }
    const error = { client, thread, known, counter }
    if (this.#errors.length < ERRORS_KEPT_MAX) this.#errors.push(error)
    this.#events.onCacheError(error)
    this.#answer(lines, { type: 'error', thread, known })
  }

  #answer(lines: LineConnection, message: ServerMessage): void {
    void lines.send(serverLine(message))
    if (message.type === 'refused') lines.close(message.reason)
  }
}
