/**
 * The session with the master: finds it, opens and resumes the session, renews it, repeats calls.
 *
 * Promises: a mutation is applied exactly once while the session lives (the same sequence number is sent
 * until it is answered; the server remembers the answers). `isConfirmed` counts from the *sending* of the
 * last confirmed renewal on a clock that counts suspend (rules L1, L2). Loss of connections and restarts of
 * metadata servers only delay calls; when the session has expired everybody is told (rule E3) and a new
 * one is opened. It knows nothing about files.
 */
import { CairnError } from '../../base/errors.ts'
import { MasterFinder } from '../../discovery/master-finder.ts'
import { addressKey, type MetadataServers } from '../../discovery/metadata-servers.ts'
import type { Timer } from '../../platform/clock.ts'
import type { Address } from '../../platform/network.ts'
import { finalRefusals } from '../../wire/codes.ts'
import { AttemptLimit } from './attempt-limit.ts'
import { CallTable, type CallChoices, type MethodName, type Params, type Result } from './call-table.ts'
import { Confirmation } from './confirmation.ts'
import { asCairnError } from './errors.ts'
import {
  CALL_TIMEOUT_MS,
  CONNECT_TIMEOUT_MS,
  RECONNECT_BACKOFF_MS_MAX,
  RECONNECT_BACKOFF_MS_MIN,
} from './limits.ts'
import { Silence } from './silence.ts'
import type { ClientPlatform, LinkAttempt, MetadataLink, ServedByClient, Transport } from './transport.ts'

type WithoutMutation<P> = P extends { mutation: unknown } ? Omit<P, 'mutation'> : never

/** Parts of the session's time-out: between renewals; without an answer until another is asked. */
const RENEWAL_PART = 0.1
const SILENT_PART = 0.2
/** A slow link is no reason to give up the only one. */
const SILENT_PART_ALONE = 1

/** What a server answered that is not the master. */
interface NotMaster {
  readonly master?: Address | null | undefined
}

/** Clients talk to base port + 1. */
const CLIENT_PORT_OFFSET = 1

export interface SessionOptions {
  /** Base addresses; clients dial one port above. */
  readonly servers: MetadataServers
  readonly name: string
  readonly hostName: string
  readonly kind: string
  readonly holdTimeoutMs: number
}

export interface SessionEvents {
  /** One entry for each `fs.open` that was answered and not closed. */
  openInodes(): number[]
  /** All leases are gone (rule E3). Runs before a new session is opened. */
  onExpired(): void
  counters(): Record<string, number>
}

const NEXT_STEP = 'check the addresses in bs.list; authenticate this host with: cairn auth-node'

export class Session {
  readonly #options: SessionOptions
  readonly #platform: ClientPlatform
  readonly #transport: Transport
  readonly #served: ServedByClient
  readonly #events: SessionEvents

  #id = 0
  #secret = ''
  #epoch = 0
  #timeoutMs = 5000
  readonly #confirmation: Confirmation

  #attempt: LinkAttempt | null = null
  readonly #attemptLimit: AttemptLimit
  #link: MetadataLink | null = null
  /** Rises with every connection: answers of earlier ones cannot be mistaken. */
  #linkNumber = 0
  #ready = false
  #readyAtMs = 0
  readonly #finder: MasterFinder
  /** Dialled last. */
  #base: Address | null = null
  /** Servers that turned out to be of another cluster, before the first session. */
  readonly #refused = new Set<string>()
  #timer: Timer | null = null
  #renewTimer: Timer | null = null
  #renewOutstanding = false
  #renewCount = 0
  #closed = false
  #firstReady: { resolve: () => void; reject: (error: CairnError) => void } | null = null

  readonly #calls: CallTable
  readonly #silence: Silence

  constructor(
    options: SessionOptions,
    platform: ClientPlatform,
    transport: Transport,
    served: ServedByClient,
    events: SessionEvents,
  ) {
    this.#options = options
    this.#platform = platform
    this.#finder = new MasterFinder({
      servers: options.servers,
      clock: platform.clock,
      random: platform.random,
      pauseMsMin: RECONNECT_BACKOFF_MS_MIN,
      pauseMsMax: RECONNECT_BACKOFF_MS_MAX,
    })
    this.#transport = transport
    this.#served = served
    this.#events = events
    this.#calls = new CallTable(platform.clock, {
      link: () => (this.#ready ? this.#link : null),
      linkNumber: () => this.#linkNumber,
      epoch: () => this.#epoch,
      sent: () => this.#silence.sent(),
      heard: () => this.#silence.heard(),
      unusable: (code) => this.#changeServer(code),
    })
    const { clock } = platform
    const limitMs = (): number => this.#timeoutMs * (this.#finder.hasOthers ? SILENT_PART : SILENT_PART_ALONE)
    // A master that does not answer is not one: look for another.
    this.#attemptLimit = new AttemptLimit(clock, () => this.#changeServer('no answer in time', null, true))
    this.#confirmation = new Confirmation(clock)
    this.#silence = new Silence(clock, limitMs, () => this.#changeServer('no answers', null, true))
  }

  /** 0 before the first one is open. */
  get id(): number {
    return this.#id
  }

  /** Rises when the session expires. */
  get epoch(): number {
    return this.#epoch
  }

  get connected(): boolean {
    return this.#ready
  }

  /** Rule L2: may what a lease guarded be passed on? */
  isConfirmed(): boolean {
    return this.#confirmation.isValid
  }

  /** Rule L6: `callback(true)` when confirmed again, `callback(false)` when the session has expired. */
  whenConfirmed(callback: (alive: boolean) => void): void {
    this.#confirmation.whenValid(callback)
  }

  /** By the master: base addresses of the metadata servers. */
  membersTold(members: readonly Address[]): void {
    this.#finder.told(members)
  }

  /** Resolves when the first session is open; rejects when a server refuses for good. */
  open(): Promise<void> {
    return new Promise((resolve, reject) => {
      this.#firstReady = { resolve, reject }
      this.#connect()
    })
  }

  call<N extends MethodName>(method: N, params: Params<N>, choices: CallChoices = {}): Promise<Result<N>> {
    return this.#calls.enter(method, params as Record<string, unknown>, false, choices) as Promise<Result<N>>
  }

  /** Adds the sequence number; applied exactly once. */
  mutate<N extends MethodName>(
    method: N,
    params: WithoutMutation<Params<N>>,
    choices: CallChoices = {},
  ): Promise<Result<N>> {
    return this.#calls.enter(method, params as Record<string, unknown>, true, choices) as Promise<Result<N>>
  }

  /** Says good-bye when connected. Everything pending fails. */
  async close(): Promise<void> {
    if (this.#closed) return
    if (this.#ready && this.#link !== null) {
      try {
        await this.#link.caller.call('session.close', {}, { timeoutMs: CONNECT_TIMEOUT_MS })
      } catch (error) {
        this.#platform.logger.info('session not closed in order', { error: String(error) })
      }
    }
    this.#closed = true
    this.#timer?.cancel()
    this.#renewTimer?.cancel()
    this.#dropLink('client closed')
    this.#calls.close()
    this.#confirmation.end()
  }

  // --- connection ---

  #connect(): void {
    if (this.#closed || this.#attempt !== null) return
    const base = this.#finder.next()
    if (base === undefined) {
      this.#askForServers()
      return
    }
    this.#base = base
    const address = { host: base.host, port: base.port + CLIENT_PORT_OFFSET }
    const linkNumber = ++this.#linkNumber
    this.#attempt = this.#transport.connectMetadata(
      address,
      this.#served,
      {
        onReady: (link) => {
          if (linkNumber === this.#linkNumber) void this.#greet(link, linkNumber)
          else link.close('superseded')
        },
        onClosed: (reason, code, master) => {
          if (linkNumber !== this.#linkNumber) return
          this.#platform.logger.info('metadata server connection closed', { host: address.host, reason })
          if (finalRefusals.includes(code))
            this.#skip(base, new CairnError(code, reason, { next: NEXT_STEP }))
          this.#changeServer(reason, code === 'NOT_MASTER' ? { master } : null)
        },
      },
      CONNECT_TIMEOUT_MS,
    )
    if (this.#finder.hasOthers) this.#attemptLimit.start()
  }

  #askForServers(): void {
    void this.#options.servers.ask().then((list) => {
      if (list.length > 0) this.#connect()
      else this.#changeServer('no metadata server is known')
    })
  }

  /** A rogue answer of discovery must not keep us from the others: only when all refuse it is final. */
  #skip(server: Address, error: CairnError): void {
    const { servers } = this.#options
    const { host, port } = server
    this.#platform.logger.warn('metadata server skipped', { host, port, reason: error.message })
    if (this.#firstReady === null) return
    this.#refused.add(addressKey(server))
    const areAllRefused = (list: readonly Address[]): boolean =>
      list.every((one) => this.#refused.has(addressKey(one)))
    if (!areAllRefused(servers.list())) return
    void servers.ask().then((list) => {
      if (!areAllRefused(list)) return
      this.#firstReady?.reject(error)
      this.#firstReady = null
    })
  }

  /** Opens or resumes the session on a fresh connection. */
  async #greet(link: MetadataLink, linkNumber: number): Promise<void> {
    if (this.#finder.hasOthers) this.#attemptLimit.start()
    const sentBootMs = this.#platform.clock.bootMs()
    const options = { timeoutMs: CALL_TIMEOUT_MS }
    try {
      if (this.#id !== 0) {
        const resumed = await this.#resume(link, options)
        if (linkNumber !== this.#linkNumber) return
        if (resumed) return this.#becomeReady(link, sentBootMs)
        this.#expire()
      }
      const { name, hostName, kind } = this.#options
      const openedBootMs = this.#platform.clock.bootMs()
      const opened = await link.caller.call('session.open', { name, host: hostName, kind }, options)
      if (linkNumber !== this.#linkNumber) return
      this.#id = opened.session
      this.#secret = opened.secret
      this.#timeoutMs = opened.timeoutMs
      this.#becomeReady(link, openedBootMs)
    } catch (error) {
      if (linkNumber !== this.#linkNumber) return
      link.close('session not opened')
      const { code } = asCairnError(error)
      this.#changeServer(code, code === 'NOT_MASTER' ? {} : null)
    }
  }

  async #resume(link: MetadataLink, options: { timeoutMs: number }): Promise<boolean> {
    try {
      const openInodes = this.#events.openInodes()
      const answer = await link.caller.call(
        'session.resume',
        { session: this.#id, secret: this.#secret, openInodes },
        options,
      )
      this.#timeoutMs = answer.timeoutMs
      return true
    } catch (error) {
      if (asCairnError(error).code === 'NO_SESSION') return false
      throw error
    }
  }

  #becomeReady(link: MetadataLink, sentBootMs: number): void {
    this.#link = link
    this.#ready = true
    this.#readyAtMs = this.#platform.clock.nowMs()
    this.#finder.found()
    this.#attemptLimit.succeeded()
    this.#renewOutstanding = false
    this.#confirmation.extend(sentBootMs, this.#timeoutMs)
    this.#firstReady?.resolve()
    this.#firstReady = null
    if (this.#renewTimer === null) this.#armRenewal()
    this.#calls.pump()
  }

  /** `refusal`: it is not the master, and perhaps knows who is. */
  #changeServer(reason: string, refusal: NotMaster | null = null, wasSilent = false): void {
    const nowMs = this.#platform.clock.nowMs()
    const hadLink = this.#ready && nowMs - this.#readyAtMs > RECONNECT_BACKOFF_MS_MAX
    this.#dropLink(reason)
    if (this.#closed) return
    this.#timer?.cancel()
    const delayMs = this.#pauseAfter(refusal, hadLink, wasSilent)
    this.#timer = this.#platform.clock.setTimer(delayMs, () => this.#connect())
  }

  #pauseAfter(refusal: NotMaster | null, hadLink: boolean, wasSilent: boolean): number {
    const base = this.#base
    if (base === null) return this.#finder.failed()
    if (refusal !== null) return this.#finder.notMaster(base, refusal.master ?? null)
    // The first try after a loss is immediate: a broken connection says nothing about the server.
    if (hadLink) return this.#finder.lost(base, wasSilent)
    return wasSilent ? this.#finder.silent(base) : this.#finder.failed()
  }

  #dropLink(reason: string): void {
    this.#linkNumber++
    this.#ready = false
    this.#attemptLimit.cancel()
    this.#silence.stop()
    const attempt = this.#attempt
    this.#attempt = null
    this.#link = null
    attempt?.close(reason)
  }

  #armRenewal(): void {
    this.#renewTimer = this.#platform.clock.setTimer(Math.max(50, this.#timeoutMs * RENEWAL_PART), () => {
      this.#renewTimer = null
      if (this.#closed) return
      this.#renew()
      this.#calls.failOlderThan(this.#options.holdTimeoutMs)
      this.#armRenewal()
    })
  }

  #renew(): void {
    const link = this.#link
    if (link === null || !this.#ready || this.#renewOutstanding) return
    this.#renewOutstanding = true
    this.#silence.sent()
    const sentBootMs = this.#platform.clock.bootMs()
    const linkNumber = this.#linkNumber
    const params = this.#renewCount++ % 5 === 0 ? { counters: this.#events.counters() } : {}
    link.caller.call('session.renew', params, { timeoutMs: CALL_TIMEOUT_MS }).then(
      () => {
        if (linkNumber !== this.#linkNumber) return
        this.#renewOutstanding = false
        this.#silence.heard()
        this.#confirmation.extend(sentBootMs, this.#timeoutMs)
      },
      (error: unknown) => {
        if (linkNumber !== this.#linkNumber) return
        this.#renewOutstanding = false
        this.#changeServer(asCairnError(error).code)
      },
    )
  }

  /** Rule E3: everything under the old session has ended. */
  #expire(): void {
    this.#platform.logger.warn('session expired', { session: this.#id })
    this.#epoch++
    this.#id = 0
    this.#secret = ''
    this.#confirmation.revoke()
    this.#events.onExpired()
    this.#calls.sessionExpired()
    this.#confirmation.end()
  }
}
