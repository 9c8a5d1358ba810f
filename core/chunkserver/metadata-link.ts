/**
 * The connection to the metadata servers: tries each address in turn, registers, reports the inventory,
 * sends heartbeats, delivers events until they are answered. Orders come in over the same connection.
 */
import { CairnError, codeOf } from '../base/errors.ts'
import type { BufferPool } from '../base/buffer-pool.ts'
import { MasterFinder } from '../discovery/master-finder.ts'
import type { MetadataServers } from '../discovery/metadata-servers.ts'
import type { Clock, Timer } from '../platform/clock.ts'
import type { Logger } from '../platform/logger.ts'
import type { Address, Network } from '../platform/network.ts'
import type { Random } from '../platform/random.ts'
import { Dialer } from '../wire/dialer.ts'
import { chunkServerUpMethods, type ChunkServerUpMethods } from '../wire/messages/chunk.ts'
import { registerMethods } from '../wire/messages/membership.ts'
import { masterHint } from '../wire/not-master.ts'
import type { ParamsOf, ResultOf } from '../wire/messages/method.ts'
import type { Authenticator, Caller, Identity, Peer } from '../wire/types.ts'
import type { ReplicaReport } from '../wire/messages/chunk.ts'

const READY_TIMEOUT_MS = 4000
/**
 * The first time where there are others to ask: a server that is cut off or stopped must not hold up the search.
 * Twice as long after each that was too slow: on a machine or link that is slow, all are.
 */
const READY_TIMEOUT_MS_MIN = 1000
/** For the registration there: a master that stops in its middle. */
const REGISTER_TIMEOUT_MS_OF_MANY = 5000
const RETRY_MIN_MS = 200
const RETRY_MAX_MS = 3000
/** A page that the master takes in within some milliseconds. */
const REPORT_COUNT = 1024
/** Events waiting for an answer; beyond it the oldest is dropped: reads and scrubbing find it again. */
const EVENT_COUNT_MAX = 4096
const EVENT_TIMEOUT_MS = 10_000
const EVENTS_AT_ONCE = 16
/** Where there are several metadata servers: a heartbeat without an answer for so long, and another is asked. */
const SILENT_MS = 1000

export type UpEvent = {
  [N in 'cs.joined' | 'cs.joinFailed' | 'cs.merged' | 'cs.badPages' | 'cs.badReplica']: {
    readonly method: N
    readonly params: ParamsOf<ChunkServerUpMethods, N>
  }
}[keyof ChunkServerUpMethods &
  ('cs.joined' | 'cs.joinFailed' | 'cs.merged' | 'cs.badPages' | 'cs.badReplica')]

export interface MetadataLinkOptions {
  readonly network: Network
  readonly clock: Clock
  readonly random: Random
  readonly logger: Logger
  readonly pool: BufferPool
  /** Base addresses; chunk servers dial base + 1. */
  readonly servers: MetadataServers
  readonly identity: () => Identity
  readonly authenticator?: Authenticator
}

export interface MetadataLinkHandlers {
  /** Serves the orders on a new connection. */
  onPeer(peer: Peer): void
  registration(): ParamsOf<ChunkServerUpMethods, 'cs.register'>
  /** Makes it durable (rule B3). */
  onRegistered(answer: ResultOf<ChunkServerUpMethods, 'cs.register'>, peer: Peer): Promise<void>
  inventory(): Iterable<ReplicaReport>
  /** The inventory is answered: serving may start. */
  onReported(): void
  heartbeat(counter: number): ParamsOf<ChunkServerUpMethods, 'cs.heartbeat'>
}

export class MetadataLink {
  readonly #options: MetadataLinkOptions
  readonly #handlers: MetadataLinkHandlers
  readonly #finder: MasterFinder
  readonly #events: UpEvent[] = []
  #dialer: Dialer | null = null
  #caller: Caller<ChunkServerUpMethods> | null = null
  #heartbeatTimer: Timer | null = null
  #heartbeatCounter = 0
  #lastContactBootMs = Number.NEGATIVE_INFINITY
  #sending = 0
  #closed = false
  #wake: (() => void) | null = null
  #detail = 'not connected yet'
  #readyTimeoutMs = READY_TIMEOUT_MS_MIN
  /** The connection was given up because nothing came back. */
  #isSilent = false

  constructor(options: MetadataLinkOptions, handlers: MetadataLinkHandlers) {
    this.#options = options
    this.#handlers = handlers
    const { servers, clock, random } = options
    this.#finder = new MasterFinder({
      ...{ servers, clock, random },
      pauseMsMin: RETRY_MIN_MS,
      pauseMsMax: RETRY_MAX_MS,
    })
  }

  start(): void {
    void this.#loop()
  }

  /** Why there is no connection, for people. */
  get detail(): string {
    return this.#detail
  }

  get isRegistered(): boolean {
    return this.#caller !== null
  }

  /** Milliseconds since a heartbeat was *sent* that was answered (rules L1, L2). */
  get silenceMs(): number {
    return this.#options.clock.bootMs() - this.#lastContactBootMs
  }

  send(event: UpEvent): void {
    if (this.#events.length >= EVENT_COUNT_MAX) this.#events.shift()
    this.#events.push(event)
    this.#deliver()
  }

  close(): void {
    this.#closed = true
    this.#heartbeatTimer?.cancel()
    this.#dialer?.close('shutting down')
    this.#wake?.()
  }

  async #loop(): Promise<void> {
    const { servers, logger } = this.#options
    const finder = this.#finder
    while (!this.#closed) {
      const address = finder.next()
      let pauseMs: number
      if (address === undefined) {
        this.#detail = ['no metadata server is known', ...servers.problems()].join('; ')
        logger.warn('no registration', { reason: this.#detail })
        pauseMs = finder.failed()
      } else pauseMs = await this.#tryOne(address, finder)
      if (this.#isClosed()) return
      if (pauseMs > 0) await this.#pause(pauseMs)
    }
  }

  /** Asked after others have run: the compiler remembers what was. */
  #isClosed(): boolean {
    return this.#closed
  }

  /** Returns when the connection has ended: the pause before the next try. */
  async #tryOne(address: Address, finder: MasterFinder): Promise<number> {
    this.#isSilent = false
    let failure: CairnError | null = null
    try {
      await this.#session(address)
    } catch (error) {
      failure = error instanceof CairnError ? error : null
      this.#detail = `${codeOf(error)}: ${error instanceof Error ? error.message : String(error)}`
      const { host, port } = address
      this.#options.logger.warn('no registration', { host, port, reason: this.#detail })
    }
    const hasServed = this.#caller !== null
    this.#caller = null
    this.#heartbeatTimer?.cancel()
    this.#dialer?.close('trying again')
    if (hasServed) return finder.lost(address, this.#isSilent)
    if (failure?.code === 'NOT_MASTER') return finder.notMaster(address, masterHint(failure))
    if (failure?.code !== 'TIMED_OUT') return finder.failed()
    this.#readyTimeoutMs = Math.min(READY_TIMEOUT_MS, this.#readyTimeoutMs * 2)
    return finder.silent(address)
  }

  #pause(delayMs: number): Promise<void> {
    return new Promise((resolve) => {
      const timer = this.#options.clock.setTimer(delayMs, resolve)
      this.#wake = () => {
        timer.cancel()
        resolve()
      }
    })
  }

  /** Returns when the connection has ended. */
  async #session(address: Address): Promise<void> {
    const { clock } = this.#options
    const peer = await this.#connect(address)
    const ended = new Promise<string>((resolve) => peer.onClosed(resolve))
    const caller = peer.caller(chunkServerUpMethods)
    const sentBootMs = clock.bootMs()
    const options = this.#finder.hasOthers ? { timeoutMs: REGISTER_TIMEOUT_MS_OF_MANY } : {}
    const answer = await caller.call('cs.register', this.#handlers.registration(), options)
    await this.#handlers.onRegistered(answer, peer)
    await this.#report(caller)
    this.#lastContactBootMs = sentBootMs
    this.#readyTimeoutMs = READY_TIMEOUT_MS_MIN
    this.#caller = caller
    this.#detail = ''
    this.#handlers.onReported()
    this.#options.logger.info('registered', { server: answer.server, host: address.host, port: address.port })
    this.#beat(caller, answer.heartbeatMs)
    this.#deliver()
    const reason = await ended
    throw new CairnError('DISCONNECTED', reason)
  }

  /** Rejects after the first attempt that fails: the next address may answer at once. */
  #connect(address: Address): Promise<Peer> {
    return new Promise((resolve, reject) => {
      const dialer = new Dialer({
        ...this.#options,
        address: { host: address.host, port: address.port + 1 },
        onPeer: (peer) => this.#serve(peer),
        onState: (state, detail) => {
          if (state === 'waiting')
            reject(dialer.refusal ?? new CairnError('DISCONNECTED', detail, { retryable: true }))
        },
      })
      this.#dialer = dialer
      dialer
        .start()
        .ready(this.#finder.hasOthers ? this.#readyTimeoutMs : READY_TIMEOUT_MS)
        .then(resolve, reject)
    })
  }

  #serve(peer: Peer): void {
    peer.serve(registerMethods, {
      'mds.members': ({ servers }) => {
        this.#finder.told(servers)
        return {}
      },
    })
    this.#handlers.onPeer(peer)
  }

  async #report(caller: Caller<ChunkServerUpMethods>): Promise<void> {
    let replicas: ReplicaReport[] = []
    for (const replica of this.#handlers.inventory()) {
      replicas.push(replica)
      if (replicas.length < REPORT_COUNT) continue
      await caller.call('cs.report', { replicas, last: false })
      replicas = []
    }
    await caller.call('cs.report', { replicas, last: true })
  }

  #beat(caller: Caller<ChunkServerUpMethods>, periodMs: number): void {
    const { clock, logger } = this.#options
    this.#heartbeatTimer?.cancel()
    if (this.#closed || this.#caller !== caller) return
    const sentBootMs = clock.bootMs()
    this.#heartbeatCounter++
    const options = this.#finder.hasOthers ? { timeoutMs: SILENT_MS } : {}
    caller.call('cs.heartbeat', this.#handlers.heartbeat(this.#heartbeatCounter), options).then(
      () => {
        this.#lastContactBootMs = Math.max(this.#lastContactBootMs, sentBootMs)
        this.#deliver()
      },
      (error: unknown) => {
        const code = codeOf(error)
        logger.warn('heartbeat not answered', { code })
        // it is there and does not know us: register again (another master, or restored state)
        if (code === 'TIMED_OUT') this.#isSilent = this.#finder.hasOthers
        if (this.#isSilent || (code !== 'TIMED_OUT' && code !== 'OVERLOADED'))
          this.#dialer?.peer?.close(`heartbeat: ${code}`)
      },
    )
    this.#heartbeatTimer = clock.setTimer(Math.max(100, periodMs), () => this.#beat(caller, periodMs))
  }

  /** Sends what waits, a few at a time; what gets no answer stays for the next connection. */
  #deliver(): void {
    const caller = this.#caller
    while (caller !== null && this.#sending < EVENTS_AT_ONCE) {
      const event = this.#events.shift()
      if (event === undefined) return
      this.#sending++
      // every event names (chunk, version, attempt): a repeated one is harmless (rule E6)
      caller
        .call(event.method, event.params, { timeoutMs: EVENT_TIMEOUT_MS })
        .then(
          () => true,
          (error: unknown) => this.#keep(event, error),
        )
        .then((goOn) => {
          this.#sending--
          if (goOn) this.#deliver()
        })
        .catch((error: unknown) => this.#options.logger.error('event lost', { code: codeOf(error) }))
    }
  }

  /** False: no answer; the next heartbeat or connection tries again. */
  #keep(event: UpEvent, error: unknown): boolean {
    const code = codeOf(error)
    const unanswered =
      code === 'DISCONNECTED' || code === 'TIMED_OUT' || code === 'OVERLOADED' || code === 'NOT_MASTER'
    if (!unanswered) {
      this.#options.logger.warn('event refused', { method: event.method, code })
      return true
    }
    if (this.#events.length < EVENT_COUNT_MAX) this.#events.unshift(event)
    return false
  }
}
