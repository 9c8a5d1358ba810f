/**
 * Keeps one connection to one address: connects, says hello, and after a loss tries again with a growing
 * pause and jitter (so that a restarted server is not met by everybody at once). Never gives up by itself.
 */
import type { BufferPool } from '../base/buffer-pool.ts'
import { CairnError } from '../base/errors.ts'
import type { Clock, Timer } from '../platform/clock.ts'
import type { Logger } from '../platform/logger.ts'
import { type Address, formatAddress, type Network } from '../platform/network.ts'
import type { Random } from '../platform/random.ts'
import type { MethodTable } from './messages/method.ts'
import { WirePeer } from './peer.ts'
import type {
  Authenticator,
  Caller,
  Dialling,
  DialerState,
  Identity,
  Peer,
  RemoteIdentity,
  WireLimits,
} from './types.ts'

export interface DialerOptions {
  readonly network: Network
  readonly clock: Clock
  readonly random: Random
  readonly logger: Logger
  readonly pool: BufferPool
  readonly address: Address
  readonly identity: () => Identity
  readonly limits?: Partial<WireLimits>
  readonly authenticator?: Authenticator
  /** Throws CairnError to turn away from somebody else than was looked for. */
  readonly admit?: (remote: RemoteIdentity) => void
  /** Each time a connection is ready: the place for `serve` and `onData`. */
  readonly onPeer?: (peer: Peer) => void
  /** `detail`: the reason of the last loss or refusal. */
  readonly onState?: (state: DialerState, detail: string) => void
  readonly connectTimeoutMs?: number
  readonly backoffMinMs?: number
  readonly backoffMaxMs?: number
}

const CONNECT_TIMEOUT_MS = 3000
const BACKOFF_MIN_MS = 50
const BACKOFF_MAX_MS = 3000
/** Callers of `ready` at one time. */
const WAITER_COUNT_MAX = 10_000

interface Waiter {
  readonly resolve: (peer: Peer) => void
  readonly reject: (error: CairnError) => void
  readonly timer: Timer
}

export class Dialer implements Dialling {
  readonly address: Address
  readonly #options: DialerOptions
  readonly #waiters = new Set<Waiter>()
  #state: DialerState = 'waiting'
  #peer: WirePeer | null = null
  #timer: Timer | null = null
  #backoffMs: number
  #detail = 'not connected yet'
  #refusal: CairnError | null = null
  #started = false

  constructor(options: DialerOptions) {
    this.#options = options
    this.address = options.address
    this.#backoffMs = options.backoffMinMs ?? BACKOFF_MIN_MS
  }

  /** Idempotent. */
  start(): this {
    if (!this.#started && this.#state !== 'closed') {
      this.#started = true
      this.#connect()
    }
    return this
  }

  get state(): DialerState {
    return this.#state
  }

  get peer(): Peer | null {
    return this.#state === 'ready' ? this.#peer : null
  }

  /** Why there is no connection. */
  get detail(): string {
    return this.#detail
  }

  /** Of the last attempt, when the other side said no. */
  get refusal(): CairnError | null {
    return this.#refusal
  }

  caller<T extends MethodTable>(table: T): Caller<T> {
    return {
      call: (method, params, options) => {
        const peer = this.peer
        if (peer === null) return Promise.reject(this.#disconnected())
        return peer.caller(table).call(method, params, options)
      },
      notify: (method, params) => this.peer?.caller(table).notify(method, params) ?? false,
    }
  }

  ready(timeoutMs: number): Promise<Peer> {
    const peer = this.peer
    if (peer !== null) return Promise.resolve(peer)
    if (this.#state === 'closed') return Promise.reject(this.#disconnected())
    if (this.#waiters.size >= WAITER_COUNT_MAX)
      return Promise.reject(
        new CairnError('OVERLOADED', 'too many wait for this connection', { retryable: true }),
      )
    return new Promise((resolve, reject) => {
      const timer = this.#options.clock.setTimer(timeoutMs, () => {
        this.#waiters.delete(waiter)
        reject(this.#refusal ?? this.#timedOut(timeoutMs))
      })
      const waiter: Waiter = { resolve, reject, timer }
      this.#waiters.add(waiter)
    })
  }

  close(reason: string): void {
    if (this.#state === 'closed') return
    this.#detail = reason
    this.#timer?.cancel()
    this.#setState('closed')
    this.#peer?.close(reason)
    for (const waiter of this.#waiters) {
      waiter.timer.cancel()
      waiter.reject(this.#disconnected())
    }
    this.#waiters.clear()
  }

  #connect(): void {
    const options = this.#options
    this.#setState('connecting')
    const connection = options.network.connect(
      options.address,
      options.connectTimeoutMs ?? CONNECT_TIMEOUT_MS,
    )
    const peer = new WirePeer({ ...options, connection, side: 'dial', onReady: () => this.#onReady(peer) })
    this.#peer = peer
    peer.onClosed((reason) => this.#onLost(peer, reason))
    peer.start()
  }

  #onReady(peer: WirePeer): void {
    this.#backoffMs = this.#options.backoffMinMs ?? BACKOFF_MIN_MS
    this.#refusal = null
    this.#detail = ''
    this.#options.onPeer?.(peer)
    this.#setState('ready')
    for (const waiter of this.#waiters) {
      waiter.timer.cancel()
      waiter.resolve(peer)
    }
    this.#waiters.clear()
  }

  #onLost(peer: WirePeer, reason: string): void {
    if (this.#state === 'closed') return
    this.#peer = null
    this.#detail = reason
    this.#refusal = peer.refusal
    const pauseMs = this.#backoffMs * (0.5 + this.#options.random.float() / 2)
    this.#backoffMs = Math.min(this.#backoffMs * 2, this.#options.backoffMaxMs ?? BACKOFF_MAX_MS)
    this.#timer = this.#options.clock.setTimer(pauseMs, () => this.#connect())
    this.#setState('waiting')
  }

  #setState(state: DialerState): void {
    this.#state = state
    this.#options.onState?.(state, this.#detail)
  }

  #timedOut(timeoutMs: number): CairnError {
    const where = formatAddress(this.address)
    const message = `no connection to ${where} in ${timeoutMs} ms: ${this.#detail}`
    return new CairnError('TIMED_OUT', message, { retryable: true })
  }

  #disconnected(): CairnError {
    const message = `not connected to ${formatAddress(this.address)}: ${this.#detail}`
    return new CairnError('DISCONNECTED', message, { retryable: true })
  }
}
