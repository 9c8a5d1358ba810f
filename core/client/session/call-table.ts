/**
 * Calls to the master until they are answered: bounded numbers in flight, sent again over the next
 * connection, mutations with the sequence number they had. The session (session.ts) makes the connections.
 */
import { CairnError } from '../../base/errors.ts'
import { Deque } from '../../base/deque.ts'
import type { Clock } from '../../platform/clock.ts'
import type { MethodTable, ParamsOf, ResultOf } from '../../wire/messages/method.ts'
import type { MetadataMethods } from '../../wire/messages/metadata.ts'
import { asCairnError, clientClosed, heldTooLong, overloaded } from './errors.ts'
import {
  CALL_TIMEOUT_MS,
  CALLS_IN_FLIGHT_MAX,
  CALLS_MAX,
  HOLD_BACKOFF_MS_MAX,
  HOLD_BACKOFF_MS_MIN,
  MUTATIONS_IN_FLIGHT_MAX,
} from './limits.ts'
import type { MetadataLink } from './transport.ts'

export type MethodName = keyof MetadataMethods
export type Params<N extends MethodName> = ParamsOf<MetadataMethods & MethodTable, N>
export type Result<N extends MethodName> = ResultOf<MetadataMethods & MethodTable, N>

export interface CallChoices {
  /** The caller has its own way of waiting: TRY_AGAIN is an answer. */
  readonly rejectTryAgain?: boolean
  /** The resumption of the session says it anew: over another connection it would be said twice. */
  readonly endsWithLink?: boolean
}

/** What a table needs of its session. */
export interface CallHost {
  /** Null: no session on any connection now. */
  link(): MetadataLink | null
  /** Rises with every connection: answers of earlier ones cannot be mistaken. */
  linkNumber(): number
  epoch(): number
  /** A request left that the server should answer; it answered one. */
  sent(): void
  heard(): void
  /** This server cannot serve us: another, please. */
  unusable(code: string): void
}

interface PendingCall {
  readonly id: number
  readonly method: MethodName
  readonly params: Record<string, unknown>
  readonly mutating: boolean
  readonly rejectTryAgain: boolean
  /** The only connection over which it may go; -1: any. */
  readonly onlyLinkNumber: number
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

/** Said by this side. */
const unanswered = new Set(['DISCONNECTED', 'TIMED_OUT', 'OVERLOADED'])

export class CallTable {
  readonly #clock: Clock
  readonly #host: CallHost
  #closed = false
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
  /** A closed connection says so to callers at once, to the session a turn later: nothing is sent meanwhile. */
  #brokenLinkNumber = -1

  constructor(clock: Clock, host: CallHost) {
    this.#clock = clock
    this.#host = host
  }

  close(): void {
    this.#closed = true
    for (const call of this.#calls.values()) this.#settle(call, null, clientClosed())
  }

  /**
   * hold_timeout for calls that wait for a master; 0: without limit. Not for what goes under a lease: its holder
   * must know what came of it before it goes on (rules E11, T2). There only the program's wait ends.
   */
  failOlderThan(holdMs: number): void {
    if (holdMs <= 0) return
    const nowMs = this.#clock.nowMs()
    for (const call of this.#calls.values()) {
      if (call.leaseEpoch < 0 && nowMs - call.startedMs > holdMs)
        this.#settle(call, null, heldTooLong(holdMs))
    }
  }

  /** Rule E3: what belongs to a lease of the old session ends; so does what may have been applied in it. */
  sessionExpired(): void {
    for (const call of [...this.#calls.values()]) {
      if (call.leaseEpoch >= 0 && call.leaseEpoch < this.#host.epoch())
        this.#settle(call, null, noLease(call.method))
      else if (call.mutating && call.sendCount > 0) this.#settle(call, null, this.#unknownOutcome(call))
    }
    this.#unanswered.clear()
    this.#nextSequence = 1
  }

  /** Resolves with the answer; see the promises of the file. */
  enter(
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
        onlyLinkNumber: choices.endsWithLink === true ? this.#host.linkNumber() : -1,
        leaseEpoch: isUnderLease(params) ? this.#host.epoch() : -1,
        startedMs: this.#clock.nowMs(),
        sequence: 0,
        sendCount: 0,
        backoffMs: HOLD_BACKOFF_MS_MIN,
        done: false,
        resolve,
        reject,
      }
      this.#calls.set(call.id, call)
      this.#enqueue(call)
      this.pump()
    })
  }

  #enqueue(call: PendingCall): void {
    if (call.mutating) this.#mutations.push(call)
    else this.#reads.push(call)
  }

  #link(): MetadataLink | null {
    return this.#host.linkNumber() === this.#brokenLinkNumber ? null : this.#host.link()
  }

  /** Sends what may be sent. */
  pump(): void {
    if (this.#link() === null) return
    const again = this.#again
    if (again.length > 0) {
      this.#again = []
      again.sort((a, b) => a.id - b.id)
      for (const call of again) if (!call.done) this.#send(call)
    }
    while (this.#link() !== null && this.#mutationsInFlight < MUTATIONS_IN_FLIGHT_MAX) {
      const call = this.#mutations.shift()
      if (call === undefined) break
      if (!call.done) this.#send(call)
    }
    while (this.#link() !== null && this.#readsInFlight < CALLS_IN_FLIGHT_MAX) {
      const call = this.#reads.shift()
      if (call === undefined) break
      if (!call.done) this.#send(call)
    }
  }

  #send(call: PendingCall): void {
    const link = this.#link()
    if (link === null) {
      this.#again.push(call)
      return
    }
    if (call.onlyLinkNumber >= 0 && call.onlyLinkNumber !== this.#host.linkNumber()) {
      this.#settle(call, null, linkEnded(call.method))
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
    const linkNumber = this.#host.linkNumber()
    this.#host.sent()
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
    const isAnswer = error === null || !unanswered.has(error.code)
    if (isAnswer && linkNumber === this.#host.linkNumber()) this.#host.heard()
    if (!call.done) this.#handleAnswer(call, result, error, linkNumber)
    this.pump()
  }

  #handleAnswer(call: PendingCall, result: never, error: CairnError | null, linkNumber: number): void {
    if (error === null) return this.#settle(call, result, null)
    const code = error.code
    if (repeatable.has(code)) {
      if (code === 'OVERLOADED') return this.#repeatLater(call)
      if (code === 'DISCONNECTED') this.#brokenLinkNumber = Math.max(this.#brokenLinkNumber, linkNumber)
      else if (linkNumber === this.#host.linkNumber()) this.#host.unusable(code)
      this.#again.push(call)
      return
    }
    if (code === 'NO_SESSION') {
      if (linkNumber === this.#host.linkNumber()) this.#host.unusable(code)
      // Resuming the session tells whether it lives. This sending was not applied; an earlier one may have been.
      if (!call.mutating || call.sendCount === 1) this.#forgetSequence(call)
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
    this.#clock.setTimer(delayMs, () => {
      if (call.done) return
      this.#again.push(call)
      this.pump()
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
}

function isUnderLease(params: Record<string, unknown>): boolean {
  return typeof params['lease'] === 'number' || 'leases' in params
}

function linkEnded(method: string): CairnError {
  return new CairnError('DISCONNECTED', `${method}: the connection ended before the answer`)
}

function noLease(method: string): CairnError {
  return new CairnError('NO_LEASE', `${method}: the session under which the lease was given has expired`)
}
