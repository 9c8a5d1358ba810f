/**
 * Sessions of clients on their connections. A session is confirmed by renewals only, and expires by a command
 * after session_tout x 1.1 / 0.9 without one (rules L1, L2); every master counts afresh from its own start.
 * Once expiry is proposed nothing is confirmed until its outcome is known.
 */
import { codeOf } from '../../../base/errors.ts'
import { type ClientMethods, clientMethods } from '../../../wire/messages/metadata.ts'
import type { MetadataMethods } from '../../../wire/messages/metadata.ts'
import type { ParamsOf, ResultOf } from '../../../wire/messages/method.ts'
import type { Caller, Peer } from '../../../wire/types.ts'
import type { Master } from '../../control/servers/master.ts'
import { RateSamples } from '../../control/servers/server-connection.ts'
import { wireError } from '../../errors.ts'
import { valueOf } from '../../state/result.ts'
import type { InvalidateParams, SessionNotifier } from './cache-invalidator.ts'
import type { OpenFiles } from './open-files.ts'

const TICK_MS = 250
const SECRET_BYTES = 16
/** Rule L2: clocks run at most 10 % fast or slow, on both sides. */
const CLOCK_MARGIN = 1.1 / 0.9

export interface ConnectedSession {
  readonly session: number
  peer: Peer | null
  client: Caller<ClientMethods> | null
  confirmedMs: number
  isExpiring: boolean
  readonly samples: RateSamples
}

export interface SessionEnds {
  onResumed(session: number): void
  onEnded(session: number): void
}

type Params<N extends keyof MetadataMethods> = ParamsOf<MetadataMethods, N>
type Result<N extends keyof MetadataMethods> = ResultOf<MetadataMethods, N>

export class SessionService implements SessionNotifier {
  readonly #master: Master
  readonly #openFiles: OpenFiles
  readonly #ends: SessionEnds
  readonly #sessions = new Map<number, ConnectedSession>()
  readonly #byPeer = new Map<Peer, ConnectedSession>()
  readonly #startedMs: number

  constructor(master: Master, openFiles: OpenFiles, ends: SessionEnds) {
    this.#master = master
    this.#openFiles = openFiles
    this.#ends = ends
    this.#startedMs = master.clock.nowMs()
    master.every(TICK_MS, () => this.#tick())
  }

  /** The living session of a connection. */
  require(peer: Peer): number {
    const connected = this.#byPeer.get(peer)
    if (connected === undefined || !this.#master.state.sessions.has(connected.session)) {
      throw wireError('NO_SESSION', 'open or resume a session first')
    }
    return connected.session
  }

  get(session: number): ConnectedSession | undefined {
    return this.#sessions.get(session)
  }

  /** When the last of those with a connection was confirmed; null without any. */
  get lastConfirmedMs(): number | null {
    let lastMs: number | null = null
    for (const { confirmedMs } of this.#byPeer.values()) lastMs = Math.max(lastMs ?? 0, confirmedMs)
    return lastMs
  }

  async open(params: Params<'session.open'>, peer: Peer): Promise<Result<'session.open'>> {
    if (this.#byPeer.has(peer)) throw wireError('REFUSED', 'this connection has a session already')
    if (this.#master.isInRecovery && params.kind !== 'admin')
      throw wireError('STARTING', 'the metadata began anew and wait for an administrator: cairn mds recover')
    const secret = this.#master.random.hex(SECRET_BYTES)
    const { session } = valueOf(await this.#master.log.propose({ type: 'session.open', ...params, secret }))
    this.#attach(session, peer)
    this.#openFiles.declare(session)
    return { session, secret, timeoutMs: this.#master.parameter('mds.session_tout') }
  }

  resume(params: Params<'session.resume'>, peer: Peer): Result<'session.resume'> {
    const row = this.#master.state.sessions.get(params.session)
    if (!this.#master.log.isReady) throw wireError('STARTING', 'the metadata server is loading its state')
    if (row === undefined || row.secret !== params.secret) {
      throw wireError('NO_SESSION', `session ${params.session} has ended`)
    }
    // Rule L1: no confirmation while its expiry is being decided.
    if (this.#sessions.get(params.session)?.isExpiring === true) {
      throw wireError('TRY_AGAIN', `session ${params.session} is expiring`)
    }
    this.#attach(params.session, peer)
    this.#openFiles.declare(params.session, params.openInodes)
    this.#ends.onResumed(params.session)
    return { timeoutMs: this.#master.parameter('mds.session_tout') }
  }

  renew(params: Params<'session.renew'>, peer: Peer): Result<'session.renew'> {
    const connected = this.#sessions.get(this.require(peer))
    if (connected === undefined || !this.#master.log.isReady) throw wireError('NO_SESSION', 'no session')
    if (connected.isExpiring) throw wireError('TRY_AGAIN', `session ${connected.session} is expiring`)
    const nowMs = this.#master.clock.nowMs()
    connected.confirmedMs = nowMs
    if (params.counters !== undefined) connected.samples.add(nowMs, params.counters)
    return {}
  }

  async close(peer: Peer): Promise<Result<'session.close'>> {
    await this.#expire(this.require(peer), true)
    return {}
  }

  connectedSessions(): Iterable<number> {
    return [...this.#byPeer.values()].map((connected) => connected.session)
  }

  invalidate(session: number, params: InvalidateParams): boolean {
    return this.#sessions.get(session)?.client?.notify('cache.invalidate', params) === true
  }

  recall(session: number, params: ParamsOf<ClientMethods, 'lease.recall'>): void {
    this.#sessions
      .get(session)
      ?.client?.call('lease.recall', params)
      .catch(() => {
        // Repeated with the next request for the lease; silence ends with the session.
        this.#master.logger.debug('recall not answered', { session, inode: params.inode })
      })
  }

  recallIntents(session: number, params: ParamsOf<ClientMethods, 'intent.recall'>): void {
    this.#sessions
      .get(session)
      ?.client?.call('intent.recall', params)
      .catch(() => this.#master.logger.debug('intent recall not answered', { session, inode: params.inode }))
  }

  /** Clients of a version that cannot pause give the lease back instead. */
  pause(session: number, params: ParamsOf<ClientMethods, 'lease.pause'>): void {
    this.#sessions
      .get(session)
      ?.client?.call('lease.pause', params)
      .catch((error: unknown) => {
        if (codeOf(error) === 'UNKNOWN_METHOD') this.recall(session, params)
        else this.#master.logger.debug('pause not answered', { session, inode: params.inode })
      })
  }

  moved(session: number, params: ParamsOf<ClientMethods, 'chunk.moved'>): void {
    const client = this.#sessions.get(session)?.client
    // The holder asks again by itself when this is lost: its next write or read there is refused.
    if (client?.notify('chunk.moved', params) === false) {
      this.#master.logger.debug('location not sent', { session, inode: params.inode })
    }
  }

  /** A session.expire was applied. */
  ended(session: number): void {
    const connected = this.#sessions.get(session)
    this.#sessions.delete(session)
    if (connected?.peer !== null && connected?.peer !== undefined) this.#byPeer.delete(connected.peer)
    this.#openFiles.endSession(session)
    this.#ends.onEnded(session)
  }

  #attach(session: number, peer: Peer): void {
    let connected = this.#sessions.get(session)
    if (connected === undefined) {
      connected = {
        session,
        peer: null,
        client: null,
        confirmedMs: 0,
        isExpiring: false,
        samples: new RateSamples(),
      }
      this.#sessions.set(session, connected)
    }
    const earlier = connected.peer
    const before = this.#byPeer.get(peer)
    if (before !== undefined && before !== connected) before.peer = null
    connected.peer = peer
    connected.client = peer.caller(clientMethods)
    connected.confirmedMs = this.#master.clock.nowMs()
    this.#byPeer.set(peer, connected)
    if (earlier !== null && earlier !== peer) {
      this.#byPeer.delete(earlier)
      earlier.close('the session continues on another connection')
    }
    const attached = connected
    peer.onClosed(() => {
      this.#byPeer.delete(peer)
      if (attached.peer !== peer) return
      attached.peer = null
      attached.client = null
    })
  }

  #tick(): void {
    if (!this.#master.log.isReady) return
    const nowMs = this.#master.clock.nowMs()
    const limitMs = this.#master.parameter('mds.session_tout') * CLOCK_MARGIN
    for (const session of this.#master.state.sessions.keys()) {
      const connected = this.#sessions.get(session)
      const sinceMs = connected?.confirmedMs ?? this.#startedMs
      if (nowMs - sinceMs <= limitMs || connected?.isExpiring === true) continue
      this.#expire(session, false).catch((error: unknown) =>
        this.#master.logger.warn('session not expired', { session, error: String(error) }),
      )
    }
  }

  async #expire(session: number, clean: boolean): Promise<void> {
    const connected = this.#sessions.get(session) ?? this.#placeholder(session)
    if (connected.isExpiring) return
    connected.isExpiring = true
    try {
      valueOf(await this.#master.log.propose({ type: 'session.expire', session, clean }))
    } finally {
      connected.isExpiring = false
    }
    if (!clean) this.#master.logger.warn('session expired', { session })
  }

  /** A session of an earlier master that never came back. */
  #placeholder(session: number): ConnectedSession {
    const connected: ConnectedSession = {
      session,
      peer: null,
      client: null,
      confirmedMs: this.#startedMs,
      isExpiring: false,
      samples: new RateSamples(),
    }
    this.#sessions.set(session, connected)
    return connected
  }
}
