/**
 * The session with the master: finds it, opens and resumes the session, renews it, repeats calls.
 *
 * Promises: a mutation is applied exactly once while the session lives (the same sequence number is sent
 * until it is answered; the server remembers the answers). `isConfirmed` counts from the *sending* of the
 * last confirmed renewal on a clock that counts suspend (rules L1, L2). Loss of connections and restarts of
 * metadata servers only delay calls; when the session has expired everybody is told (rule E3) and a new
 * one is opened. It knows nothing about files.
 */
import { CairnError } from '../base/errors.ts'
import { Deque } from '../base/deque.ts'
import type { Timer } from '../platform/clock.ts'
import type { Address } from '../platform/network.ts'
import type { MethodTable, ParamsOf, ResultOf } from '../wire/messages/method.ts'
import type { MetadataMethods } from '../wire/messages/metadata.ts'
import { asCairnError, clientClosed, heldTooLong, overloaded } from './errors.ts'
import {
  CALL_TIMEOUT_MS,
  CALLS_IN_FLIGHT_MAX,
  CALLS_MAX,
  CONNECT_TIMEOUT_MS,
  HOLD_BACKOFF_MS_MAX,
  HOLD_BACKOFF_MS_MIN,
  MUTATIONS_IN_FLIGHT_MAX,
  RECONNECT_BACKOFF_MS_MAX,
  RECONNECT_BACKOFF_MS_MIN,
} from './limits.ts'
import type { ClientPlatform, LinkAttempt, MetadataLink, ServedByClient, Transport } from './transport.ts'

export type MethodName = keyof MetadataMethods
export type Params<N extends MethodName> = ParamsOf<MetadataMethods & MethodTable, N>
export type Result<N extends MethodName> = ResultOf<MetadataMethods & MethodTable, N>
type WithoutMutation<P> = P extends { mutation: unknown } ? Omit<P, 'mutation'> : never

export interface SessionOptions {
  readonly addresses: readonly Address[]
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

export interface CallChoices {
  /** The caller has its own way of waiting: TRY_AGAIN is an answer. */
  readonly rejectTryAgain?: boolean
}

interface PendingCall {
  readonly id: number
  readonly method: MethodName
  readonly params: Record<string, unknown>
  readonly mutating: boolean
  readonly rejectTryAgain: boolean
  /** Epoch of the session in which its lease was given; such calls die with the session. */
  readonly leaseEpoch: number
  readonly startedMs: number
  sequence: number
  sendCount: number
  backoffMs: number
  done: boolean
  readonly resolve: (value: never) => void
  readonly reject: (error: CairnError) => void
}

/** Answers after which the same request is sent again, perhaps to another server. */
const repeatable = new Set(['DISCONNECTED', 'TIMED_OUT', 'NOT_MASTER', 'STARTING', 'OVERLOADED'])

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
  #confirmedUntilBootMs = Number.NEGATIVE_INFINITY

  #attempt: LinkAttempt | null = null
  #link: MetadataLink | null = null
  /** Rises with every connection: answers of earlier ones cannot be mistaken. */
  #linkNumber = 0
  #ready = false
  #addressIndex = 0
  #reconnectBackoffMs = RECONNECT_BACKOFF_MS_MIN
  #timer: Timer | null = null
  #renewTimer: Timer | null = null
  #renewSentMs = 0
  #renewOutstanding = false
  #renewCount = 0
  #closed = false
  #firstReady: { resolve: () => void; reject: (error: CairnError) => void } | null = null

  #nextCallId = 1
  #nextSequence = 1
  readonly #calls = new Map<number, PendingCall>()
  readonly #mutations = new Deque<PendingCall>(CALLS_MAX)
  readonly #reads = new Deque<PendingCall>(CALLS_MAX)
  /** Sent once and to be sent again, by rising id. */
  #again: PendingCall[] = []
  #mutationsInFlight = 0
  #readsInFlight = 0
  /** Sequence numbers without an answer; rising. */
  readonly #unanswered = new Set<number>()
  #confirmationWaiters: ((alive: boolean) => void)[] = []

  constructor(
    options: SessionOptions,
    platform: ClientPlatform,
    transport: Transport,
    served: ServedByClient,
    events: SessionEvents,
  ) {
    this.#options = options
    this.#platform = platform
    this.#transport = transport
    this.#served = served
    this.#events = events
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
    return this.#platform.clock.bootMs() < this.#confirmedUntilBootMs
  }

  /** Rule L6: `callback(true)` when confirmed again, `callback(false)` when the session has expired. */
  whenConfirmed(callback: (alive: boolean) => void): void {
    if (this.isConfirmed()) callback(true)
    else this.#confirmationWaiters.push(callback)
  }

  /** Resolves when the first session is open; rejects when a server refuses for good. */
  open(): Promise<void> {
    return new Promise((resolve, reject) => {
      this.#firstReady = { resolve, reject }
      this.#connect()
    })
  }

  call<N extends MethodName>(method: N, params: Params<N>, choices: CallChoices = {}): Promise<Result<N>> {
    return this.#enter(method, params as Record<string, unknown>, false, choices) as Promise<Result<N>>
  }

  /** Adds the sequence number; applied exactly once. */
  mutate<N extends MethodName>(
    method: N,
    params: WithoutMutation<Params<N>>,
    choices: CallChoices = {},
  ): Promise<Result<N>> {
    return this.#enter(method, params as Record<string, unknown>, true, choices) as Promise<Result<N>>
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
    for (const call of this.#calls.values()) this.#settle(call, null, clientClosed())
    this.#wakeConfirmation(false)
  }

  // --- calls ---

  #enter(
    method: MethodName,
    params: Record<string, unknown>,
    mutating: boolean,
    choices: CallChoices,
  ): Promise<unknown> {
    if (this.#closed) return Promise.reject(clientClosed())
    if (this.#calls.size >= CALLS_MAX) return Promise.reject(overloaded('calls to the metadata server'))
    return new Promise((resolve, reject) => {
      const call: PendingCall = {
        id: this.#nextCallId++,
        method,
        params,
        mutating,
        rejectTryAgain: choices.rejectTryAgain ?? false,
        leaseEpoch: 'lease' in params && typeof params['lease'] === 'number' ? this.#epoch : -1,
        startedMs: this.#platform.clock.nowMs(),
        sequence: 0,
        sendCount: 0,
        backoffMs: HOLD_BACKOFF_MS_MIN,
        done: false,
        resolve,
        reject,
      }
      this.#calls.set(call.id, call)
      this.#enqueue(call)
      this.#pump()
    })
  }

  #enqueue(call: PendingCall): void {
    if (call.mutating) this.#mutations.push(call)
    else this.#reads.push(call)
  }

  #pump(): void {
    if (!this.#ready) return
    const again = this.#again
    if (again.length > 0) {
      this.#again = []
      again.sort((a, b) => a.id - b.id)
      for (const call of again) if (!call.done) this.#send(call)
    }
    while (this.#ready && this.#mutationsInFlight < MUTATIONS_IN_FLIGHT_MAX) {
      const call = this.#mutations.shift()
      if (call === undefined) break
      if (!call.done) this.#send(call)
    }
    while (this.#ready && this.#readsInFlight < CALLS_IN_FLIGHT_MAX) {
      const call = this.#reads.shift()
      if (call === undefined) break
      if (!call.done) this.#send(call)
    }
  }

  #send(call: PendingCall): void {
    const link = this.#link
    if (link === null || !this.#ready) {
      this.#again.push(call)
      return
    }
    call.sendCount++
    let params = call.params
    if (call.mutating) {
      if (call.sequence === 0) {
        call.sequence = this.#nextSequence++
        this.#unanswered.add(call.sequence)
      }
      params = {
        ...params,
        mutation: { sequence: call.sequence, acknowledgedBelow: this.#acknowledgedBelow() },
      }
      this.#mutationsInFlight++
    } else {
      this.#readsInFlight++
    }
    const linkNumber = this.#linkNumber
    link.caller.call(call.method, params as never, { timeoutMs: CALL_TIMEOUT_MS }).then(
      (result) => this.#answered(call, result as never, null, linkNumber),
      (error: unknown) => this.#answered(call, null as never, asCairnError(error), linkNumber),
    )
  }

  #acknowledgedBelow(): number {
    for (const sequence of this.#unanswered) return sequence
    return this.#nextSequence
  }

  #answered(call: PendingCall, result: never, error: CairnError | null, linkNumber: number): void {
    if (call.mutating) this.#mutationsInFlight--
    else this.#readsInFlight--
    if (!call.done) this.#handleAnswer(call, result, error, linkNumber)
    this.#pump()
  }

  #handleAnswer(call: PendingCall, result: never, error: CairnError | null, linkNumber: number): void {
    if (error === null) return this.#settle(call, result, null)
    const code = error.code
    if (repeatable.has(code)) {
      if (code === 'OVERLOADED') return this.#repeatLater(call)
      if (linkNumber === this.#linkNumber && code !== 'DISCONNECTED') this.#changeServer(code)
      this.#again.push(call)
      return
    }
    if (code === 'NO_SESSION') {
      if (linkNumber === this.#linkNumber) this.#changeServer(code)
      // Not applied now; but an earlier sending of the same mutation may have been.
      if (call.mutating && call.sendCount > 1)
        return this.#settle(call, null as never, this.#unknownOutcome(call))
      if (call.leaseEpoch >= 0) return this.#settle(call, null as never, noLease(call.method))
      this.#forgetSequence(call)
      this.#again.push(call)
      return
    }
    if (code === 'TRY_AGAIN' && !call.rejectTryAgain) {
      // Nothing was applied: the next try is a new mutation.
      this.#forgetSequence(call)
      return this.#repeatLater(call)
    }
    this.#settle(call, null as never, error)
  }

  #repeatLater(call: PendingCall): void {
    const delayMs = call.backoffMs
    call.backoffMs = Math.min(HOLD_BACKOFF_MS_MAX, delayMs * 2)
    this.#platform.clock.setTimer(delayMs, () => {
      if (call.done) return
      this.#again.push(call)
      this.#pump()
    })
  }

  #forgetSequence(call: PendingCall): void {
    if (call.sequence !== 0) this.#unanswered.delete(call.sequence)
    call.sequence = 0
    call.sendCount = 0
  }

  #settle(call: PendingCall, result: never, error: CairnError | null): void
  #settle(call: PendingCall, result: null, error: CairnError): void
  #settle(call: PendingCall, result: never, error: CairnError | null): void {
    if (call.done) return
    call.done = true
    this.#calls.delete(call.id)
    if (call.sequence !== 0) this.#unanswered.delete(call.sequence)
    if (error === null) call.resolve(result)
    else call.reject(error)
  }

  #unknownOutcome(call: PendingCall): CairnError {
    return new CairnError(
      'EIO',
      `${call.method}: the session expired before the answer came; it may have been applied`,
    )
  }

  // --- connection ---

  #connect(): void {
    if (this.#closed || this.#attempt !== null) return
    const address = this.#options.addresses[this.#addressIndex % this.#options.addresses.length]
    if (address === undefined) return
    const linkNumber = ++this.#linkNumber
    this.#attempt = this.#transport.connectMetadata(
      address,
      this.#served,
      {
        onReady: (link) => {
          if (linkNumber === this.#linkNumber) void this.#greet(link, linkNumber)
          else link.close('superseded')
        },
        onClosed: (reason, code) => {
          if (linkNumber !== this.#linkNumber) return
          this.#platform.logger.info('metadata server connection closed', { host: address.host, reason })
          if (code === 'WRONG_CLUSTER' || code === 'WRONG_PROTOCOL')
            this.#refuse(new CairnError(code, reason))
          this.#changeServer(reason)
        },
      },
      CONNECT_TIMEOUT_MS,
    )
  }

  #refuse(error: CairnError): void {
    this.#firstReady?.reject(error)
    this.#firstReady = null
  }

  /** Opens or resumes the session on a fresh connection. */
  async #greet(link: MetadataLink, linkNumber: number): Promise<void> {
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
      this.#changeServer(asCairnError(error).code)
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
    this.#reconnectBackoffMs = RECONNECT_BACKOFF_MS_MIN
    this.#renewOutstanding = false
    this.#confirm(sentBootMs)
    this.#firstReady?.resolve()
    this.#firstReady = null
    if (this.#renewTimer === null) this.#armRenewal()
    this.#pump()
  }

  #changeServer(reason: string): void {
    const hadLink = this.#ready
    this.#dropLink(reason)
    if (this.#closed) return
    this.#addressIndex++
    this.#timer?.cancel()
    // The first try after a loss is immediate: a broken connection says nothing about the server.
    const delayMs = hadLink ? 0 : this.#reconnectBackoffMs
    if (!hadLink) this.#reconnectBackoffMs = Math.min(RECONNECT_BACKOFF_MS_MAX, delayMs * 2)
    this.#timer = this.#platform.clock.setTimer(delayMs, () => this.#connect())
  }

  #dropLink(reason: string): void {
    this.#linkNumber++
    this.#ready = false
    const attempt = this.#attempt
    this.#attempt = null
    this.#link = null
    attempt?.close(reason)
  }

  // --- confirmation ---

  /** Rule L1: valid from the sending. */
  #confirm(sentBootMs: number): void {
    this.#confirmedUntilBootMs = Math.max(this.#confirmedUntilBootMs, sentBootMs + this.#timeoutMs)
    if (this.isConfirmed()) this.#wakeConfirmation(true)
  }

  #wakeConfirmation(alive: boolean): void {
    if (this.#confirmationWaiters.length === 0) return
    const waiters = this.#confirmationWaiters
    this.#confirmationWaiters = []
    for (const waiter of waiters) waiter(alive)
  }

  #armRenewal(): void {
    this.#renewTimer = this.#platform.clock.setTimer(Math.max(50, this.#timeoutMs / 5), () => {
      this.#renewTimer = null
      if (this.#closed) return
      this.#renew()
      this.#failHeldCalls()
      this.#armRenewal()
    })
  }

  #renew(): void {
    const link = this.#link
    if (link === null || !this.#ready) return
    const nowMs = this.#platform.clock.nowMs()
    if (this.#renewOutstanding) {
      // A master that does not confirm is not one: look for another.
      if (nowMs - this.#renewSentMs > this.#timeoutMs * 0.6) this.#changeServer('renewal not answered')
      return
    }
    this.#renewOutstanding = true
    this.#renewSentMs = nowMs
    const sentBootMs = this.#platform.clock.bootMs()
    const linkNumber = this.#linkNumber
    const params = this.#renewCount++ % 5 === 0 ? { counters: this.#events.counters() } : {}
    link.caller.call('session.renew', params, { timeoutMs: CALL_TIMEOUT_MS }).then(
      () => {
        if (linkNumber !== this.#linkNumber) return
        this.#renewOutstanding = false
        this.#confirm(sentBootMs)
      },
      (error: unknown) => {
        if (linkNumber !== this.#linkNumber) return
        this.#renewOutstanding = false
        this.#changeServer(asCairnError(error).code)
      },
    )
  }

  /** hold_timeout for calls that wait for a master. */
  #failHeldCalls(): void {
    const holdMs = this.#options.holdTimeoutMs
    if (holdMs <= 0) return
    const nowMs = this.#platform.clock.nowMs()
    for (const call of this.#calls.values()) {
      if (nowMs - call.startedMs > holdMs) this.#settle(call, null, heldTooLong(holdMs))
    }
  }

  /** Rule E3: everything under the old session has ended. */
  #expire(): void {
    this.#platform.logger.warn('session expired', { session: this.#id })
    this.#epoch++
    this.#id = 0
    this.#secret = ''
    this.#confirmedUntilBootMs = Number.NEGATIVE_INFINITY
    this.#events.onExpired()
    for (const call of [...this.#calls.values()]) {
      if (call.leaseEpoch >= 0 && call.leaseEpoch < this.#epoch)
        this.#settle(call, null, noLease(call.method))
      else if (call.mutating && call.sendCount > 0) this.#settle(call, null, this.#unknownOutcome(call))
    }
    this.#unanswered.clear()
    this.#nextSequence = 1
    this.#wakeConfirmation(false)
  }
}

function noLease(method: string): CairnError {
  return new CairnError('NO_LEASE', `${method}: the session under which the lease was given has expired`)
}
