/**
 * Connections to chunk servers, one per server id, made when first needed.
 *
 * Promises: requests to one server leave in the order they were given; after a connection broke, nothing
 * is sent on the next one before `cs.drain` was answered (rule E5), so a caller may repeat an unanswered
 * request at the same version simply by sending it again. A server that cannot be connected fails its
 * requests at once for a short back-off, so that the caller reports it. Callbacks never run inside `send`.
 */
import { assert } from '../../base/assert.ts'
import { CairnError } from '../../base/errors.ts'
import { Deque } from '../../base/deque.ts'
import type { DataRequest } from '../../wire/data.ts'
import type { ServerAddress } from '../../wire/messages/common.ts'
import type { DataCallback } from '../../wire/types.ts'
import { overloaded } from './errors.ts'
import {
  CONNECT_TIMEOUT_MS,
  CONNECTION_IDLE_MS,
  RECONNECT_BACKOFF_MS_MAX,
  RECONNECT_BACKOFF_MS_MIN,
  REQUEST_TIMEOUT_MS,
  REQUESTS_IN_FLIGHT_PER_SERVER_MAX,
  REQUESTS_WAITING_PER_SERVER_MAX,
  SERVERS_MAX,
} from './limits.ts'
import type { ClientPlatform, DataLink, LinkAttempt, Transport } from './transport.ts'

/** What one request needs until it is answered; the sender reuses it. */
export interface OutgoingRequest {
  /** Filled in by the sender; `session` is filled in here. */
  readonly request: DataRequest
  readonly table: Uint32Array | null
  readonly payload: Buffer | null
  readonly callback: DataCallback
}

export class ServerPool {
  readonly #platform: ClientPlatform
  readonly #transport: Transport
  readonly #sessionId: () => number
  readonly #servers = new Map<number, ServerConnection>()

  constructor(platform: ClientPlatform, transport: Transport, sessionId: () => number) {
    this.#platform = platform
    this.#transport = transport
    this.#sessionId = sessionId
  }

  /** Every Located answer tells where its servers are now. */
  updateAddresses(servers: readonly ServerAddress[]): void {
    for (const server of servers) {
      const known = this.#servers.get(server.server)
      if (known !== undefined) known.updateAddress(server)
      else if (this.#servers.size < SERVERS_MAX)
        this.#servers.set(
          server.server,
          new ServerConnection(server, this.#platform, this.#transport, this.#sessionId),
        )
    }
  }

  send(server: number, outgoing: OutgoingRequest): void {
    const connection = this.#servers.get(server)
    if (connection !== undefined) return connection.send(outgoing)
    this.#platform.clock.defer(() =>
      outgoing.callback(new CairnError('DISCONNECTED', `address of CS ${server} unknown`), null, null, null),
    )
  }

  /** Requests waiting or in flight. */
  load(server: number): number {
    return this.#servers.get(server)?.load ?? 0
  }

  /** In its back-off after a failed connection. */
  isDown(server: number): boolean {
    return this.#servers.get(server)?.isDown ?? true
  }

  release(ownedPayload: Buffer): void {
    this.#transport.release(ownedPayload)
  }

  get requestsInFlight(): number {
    let count = 0
    for (const server of this.#servers.values()) count += server.load
    return count
  }

  /** Called now and then: connections nobody uses are closed. */
  closeIdle(): void {
    for (const server of this.#servers.values()) server.maybeCloseIdle()
  }

  /** The session has expired: connections greet with the new one. What is unanswered fails. */
  sessionExpired(): void {
    for (const server of this.#servers.values()) server.reconnect('session expired')
  }

  close(): void {
    for (const server of this.#servers.values()) server.close()
    this.#servers.clear()
  }
}

class ServerConnection {
  readonly #platform: ClientPlatform
  readonly #transport: Transport
  readonly #sessionId: () => number
  #address: ServerAddress
  #attempt: LinkAttempt | null = null
  #link: DataLink | null = null
  #linkNumber = 0
  #inFlight = 0
  /** A connection broke: rule E5 applies to the next one. */
  #needsDrain = false
  #downUntilMs = 0
  #backoffMs = RECONNECT_BACKOFF_MS_MIN
  #lastUsedMs = 0
  #closed = false
  readonly #waiting = new Deque<OutgoingRequest>(REQUESTS_WAITING_PER_SERVER_MAX)

  constructor(
    address: ServerAddress,
    platform: ClientPlatform,
    transport: Transport,
    sessionId: () => number,
  ) {
    this.#address = address
    this.#platform = platform
    this.#transport = transport
    this.#sessionId = sessionId
  }

  get load(): number {
    return this.#inFlight + this.#waiting.count
  }

  get isDown(): boolean {
    return this.#link === null && this.#platform.clock.nowMs() < this.#downUntilMs
  }

  updateAddress(address: ServerAddress): void {
    const moved = address.host !== this.#address.host || address.port !== this.#address.port
    this.#address = address
    if (!moved) return
    this.#downUntilMs = 0
    if (this.#attempt !== null) this.#lost('the server has another address', this.#inFlight > 0)
  }

  send(outgoing: OutgoingRequest): void {
    if (this.#closed || this.isDown) return this.#failLater(outgoing, 'DISCONNECTED')
    this.#lastUsedMs = this.#platform.clock.nowMs()
    if (
      this.#link !== null &&
      this.#waiting.count === 0 &&
      this.#inFlight < REQUESTS_IN_FLIGHT_PER_SERVER_MAX
    )
      return this.#transmit(this.#link, outgoing)
    if (!this.#waiting.push(outgoing)) return this.#failLater(outgoing, 'OVERLOADED')
    if (this.#attempt === null) this.#connect()
  }

  maybeCloseIdle(): void {
    if (this.#attempt === null || this.load > 0) return
    if (this.#platform.clock.nowMs() - this.#lastUsedMs < CONNECTION_IDLE_MS) return
    this.#lost('idle', false)
  }

  reconnect(reason: string): void {
    if (this.#attempt !== null) this.#lost(reason, true)
  }

  close(): void {
    this.#closed = true
    this.#lost('client closed', false)
    this.#failWaiting()
  }

  #transmit(link: DataLink, outgoing: OutgoingRequest): void {
    this.#inFlight++
    outgoing.request.session = this.#sessionId()
    const linkNumber = this.#linkNumber
    let inSend = true
    link.sendData(
      outgoing.request,
      outgoing.table,
      outgoing.payload,
      REQUEST_TIMEOUT_MS,
      (error, answer, table, payload) => {
        this.#inFlight--
        if (inSend) {
          // OVERLOADED or DISCONNECTED at once: nothing was sent.
          assert(error !== null, 'a request is answered after it was sent')
          this.#failLater(outgoing, error.code)
          return
        }
        if (error !== null && linkNumber === this.#linkNumber && error.code !== 'OVERLOADED') {
          this.#lost(error.message, true)
        }
        outgoing.callback(error, answer, table, payload)
        this.#pump()
      },
    )
    inSend = false
  }

  #pump(): void {
    while (this.#link !== null && this.#inFlight < REQUESTS_IN_FLIGHT_PER_SERVER_MAX) {
      const outgoing = this.#waiting.shift()
      if (outgoing === undefined) return
      this.#transmit(this.#link, outgoing)
    }
  }

  #connect(): void {
    const linkNumber = ++this.#linkNumber
    const events = {
      onReady: (link: DataLink): void => {
        if (linkNumber !== this.#linkNumber) return link.close('superseded')
        if (this.#needsDrain) void this.#drain(link, linkNumber)
        else this.#use(link)
      },
      onClosed: (reason: string): void => {
        if (linkNumber === this.#linkNumber) this.#lost(reason, this.#link === null || this.#inFlight > 0)
      },
    }
    this.#attempt = this.#transport.connectData(
      { host: this.#address.host, port: this.#address.port },
      this.#sessionId(),
      events,
      CONNECT_TIMEOUT_MS,
    )
  }

  /** Rule E5: the server says that nothing of an earlier connection is queued any more. */
  async #drain(link: DataLink, linkNumber: number): Promise<void> {
    try {
      await link.drain(this.#sessionId())
    } catch (error) {
      if (linkNumber === this.#linkNumber) this.#lost(`drain: ${String(error)}`, true)
      return
    }
    if (linkNumber !== this.#linkNumber) return
    this.#needsDrain = false
    this.#use(link)
  }

  #use(link: DataLink): void {
    this.#link = link
    this.#backoffMs = RECONNECT_BACKOFF_MS_MIN
    this.#downUntilMs = 0
    this.#lastUsedMs = this.#platform.clock.nowMs()
    this.#pump()
  }

  /** `failed`: requests may be lost, or no connection came about. */
  #lost(reason: string, failed: boolean): void {
    const wasReady = this.#link !== null
    const attempt = this.#attempt
    this.#linkNumber++
    this.#attempt = null
    this.#link = null
    if (wasReady && failed) this.#needsDrain = true
    attempt?.close(reason)
    if (wasReady || this.#closed) {
      // Requests that were never sent go on over the next connection.
      if (!this.#closed && this.#waiting.count > 0) this.#connect()
      return
    }
    this.#downUntilMs = this.#platform.clock.nowMs() + this.#backoffMs
    this.#backoffMs = Math.min(RECONNECT_BACKOFF_MS_MAX, this.#backoffMs * 2)
    this.#failWaiting()
  }

  #failWaiting(): void {
    for (let outgoing = this.#waiting.shift(); outgoing !== undefined; outgoing = this.#waiting.shift())
      this.#failLater(outgoing, 'DISCONNECTED')
  }

  #failLater(outgoing: OutgoingRequest, code: string): void {
    const error =
      code === 'OVERLOADED'
        ? overloaded(`requests to CS ${this.#address.server}`)
        : new CairnError('DISCONNECTED', `no connection to CS ${this.#address.server}`)
    this.#platform.clock.defer(() => outgoing.callback(error, null, null, null))
  }
}
