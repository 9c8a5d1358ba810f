/**
 * One connection with another process: handshake, then calls and data requests in both directions, many
 * in flight. Everything is bounded (limits.ts); garbage, silence and slowness end the connection with one
 * logged reason, and everything pending fails with DISCONNECTED. Time counts in ticks of one coarse timer
 * (liveness.ts). What it serves is in served-calls.ts and served-data.ts, what it sends in outbox.ts.
 */
import { assert } from '../base/assert.ts'
import type { BufferPool } from '../base/buffer-pool.ts'
import { CairnError } from '../base/errors.ts'
import type { Clock, Timer } from '../platform/clock.ts'
import type { Logger } from '../platform/logger.ts'
import type { Connection } from '../platform/network.ts'
import { BundleReader } from './bundle.ts'
import { encodeMessage } from './codec.ts'
import { DATA_ANSWER_BYTES, type DataAnswer, type DataRequest } from './data.ts'
import { emptyDataAnswer, readDataAnswer } from './data-codec.ts'
import { type FrameHeader, FrameKind, FrameParser } from './frame.ts'
import { Handshake, type HandshakeOptions } from './handshake.ts'
import { FEATURE_BUNDLES } from './hello.ts'
import { Inbound } from './inbound.ts'
import { META_BYTES_MAX, TAG_BYTES, wireLimits } from './limits.ts'
import { Liveness } from './liveness.ts'
import type { MethodTable } from './messages/method.ts'
import { Outbox } from './outbox.ts'
import { PendingTable, settleCall } from './pending.ts'
import { ServedCalls } from './served-calls.ts'
import { ServedData } from './served-data.ts'
import type { Caller, DataCallback, DataHandler, Handlers, Peer, PeerState } from './types.ts'
import type { FrameProtection, RemoteIdentity, WireLimits } from './types.ts'

export interface WirePeerOptions extends HandshakeOptions {
  readonly connection: Connection
  readonly clock: Clock
  readonly logger: Logger
  readonly pool: BufferPool
  readonly limits?: Partial<WireLimits>
  /** Before anything of the peer is dispatched: the place for `serve` and `onData`. */
  readonly onReady: (peer: Peer) => void
}

export class WirePeer implements Peer {
  readonly remote: string
  readonly #clock: Clock
  readonly #logger: Logger
  readonly #limits: WireLimits
  readonly #pool: BufferPool
  readonly #connection: Connection
  readonly #onReady: (peer: Peer) => void
  readonly #parser: FrameParser
  readonly #bundles: BundleReader
  readonly #inbound: Inbound
  readonly #outbox: Outbox
  readonly #handshake: Handshake
  readonly #pending = new PendingTable()
  readonly #servedCalls: ServedCalls
  readonly #servedData: ServedData
  readonly #liveness: Liveness
  readonly #answer: DataAnswer = emptyDataAnswer()
  readonly #closers = new Set<(reason: string) => void>()
  #state: PeerState = 'handshake'
  #closeReason = ''
  #connected = false
  #timer: Timer | null = null

  constructor(options: WirePeerOptions) {
    this.#clock = options.clock
    this.#logger = options.logger
    this.#limits = wireLimits(options.limits)
    this.#pool = options.pool
    this.#connection = options.connection
    this.#onReady = options.onReady
    this.remote = options.connection.remote
    this.#parser = new FrameParser(
      {
        onFrame: (header, meta, payload) => this.#onFrame(header, meta, payload),
        onFrameError: (reason) => this.#close(reason, true),
      },
      options.pool,
    )
    this.#bundles = new BundleReader({
      onBundled: (kind, requestId, meta) => {
        this.#dispatch(kind, requestId, meta)
        return !this.#maybePause()
      },
      onBundleFault: (reason) => this.#close(reason, true),
    })
    this.#inbound = new Inbound(options.connection, options.clock, this.#parser, this.#bundles)
    this.#outbox = new Outbox(options.connection, options.clock, options.pool, () => this.#maybeResume())
    this.#handshake = new Handshake(options, this.remote, {
      send: (kind, meta) => {
        if (this.#state !== 'closed') this.#outbox.frame(kind, 0, meta)
      },
      ready: (protection) => this.#ready(protection),
      fail: (error) => this.#refused(error),
    })
    this.#servedCalls = new ServedCalls(this.#limits, options.logger, (requestId, isError, meta) => {
      if (this.#state === 'ready')
        this.#outbox.frame(isError ? FrameKind.error : FrameKind.result, requestId, meta, true)
    })
    this.#servedData = new ServedData(this.#limits, options.pool, this.#sendAnswer)
    this.#liveness = new Liveness(this.#limits)
  }

  /** Call once, synchronously after the connection was handed out. */
  start(): void {
    this.#timer = this.#clock.setTimer(this.#limits.tickMs, this.#tick)
    this.#liveness.start(this.#clock.nowMs())
    this.#connected = this.#handshake.side === 'accept'
    this.#connection.start({
      onOpen: () => {
        this.#connected = true
        if (this.#state === 'handshake') this.#handshake.open()
      },
      onData: (borrowed) => this.#onBytes(borrowed),
      onDrain: () => {},
      onClose: (reason) => this.#close(reason, false),
    })
  }

  get state(): PeerState {
    return this.#state
  }

  get remoteIdentity(): RemoteIdentity | null {
    return this.#handshake.remote
  }

  get inFlightCount(): number {
    return this.#pending.count
  }

  get queuedBytes(): number {
    return this.#outbox.queuedBytes
  }

  /** Why the handshake failed, when it was refused (by either side). */
  get refusal(): CairnError | null {
    return this.#handshake.refusal
  }

  /** Memory held for what has arrived and was not dispatched. Bounded. */
  get heldBytes(): number {
    return this.#inbound.heldBytes
  }

  caller<T extends MethodTable>(table: T): Caller<T> {
    return {
      call: (method, params, options) =>
        this.#call(table, method, params, options?.timeoutMs ?? this.#limits.callTimeoutMs) as Promise<never>,
      notify: (method, params) => this.#notify(method, params),
    }
  }

  serve<T extends MethodTable>(table: T, handlers: Handlers<T>): void {
    this.#servedCalls.serve(table, handlers)
  }

  onData(handler: DataHandler): void {
    this.#servedData.handler = handler
  }

  sendData(
    borrowedRequest: DataRequest,
    borrowedTable: Uint32Array | Buffer | null,
    borrowedPayload: Buffer | null,
    timeoutMs: number,
    callback: DataCallback,
  ): void {
    const fault = this.#sendFault()
    if (fault !== null) {
      callback(fault, null, null, null)
      return
    }
    const requestId = this.#pending.add(this.#liveness.deadline(timeoutMs), callback, null)
    this.#outbox.dataRequest(requestId, borrowedRequest, borrowedTable, borrowedPayload)
    this.#pending.mark(requestId, this.#outbox.takenBytes)
  }

  onClosed(callback: (reason: string) => void): () => void {
    if (this.#state === 'closed') this.#clock.defer(() => callback(this.#closeReason))
    else this.#closers.add(callback)
    return () => this.#closers.delete(callback)
  }

  close(reason: string): void {
    this.#close(reason, false)
  }

  // ---- sending

  #sendFault(): CairnError | null {
    if (this.#state !== 'ready') return this.#disconnected('request')
    if (
      this.#pending.count >= this.#limits.inFlightCountMax ||
      this.#outbox.queuedBytes >= this.#limits.queuedBytesMax
    )
      return new CairnError('OVERLOADED', `too much in flight to ${this.remote}`, { retryable: true })
    return null
  }

  #call(table: MethodTable, method: string, params: unknown, timeoutMs: number): Promise<unknown> {
    const declared = table[method]
    assert(declared !== undefined, 'the method is in its table')
    const fault = this.#sendFault()
    if (fault !== null) return Promise.reject(fault)
    const meta = encodeMessage([method, params])
    if (meta.length > META_BYTES_MAX)
      return Promise.reject(new CairnError('BAD_MESSAGE', `${method}: ${meta.length} bytes are too many`))
    return new Promise((resolve, reject) => {
      const call = { method, result: declared.result, resolve, reject }
      const requestId = this.#pending.add(this.#liveness.deadline(timeoutMs), null, call)
      this.#outbox.frame(FrameKind.call, requestId, meta)
    })
  }

  #notify(method: string, params: unknown): boolean {
    if (this.#state !== 'ready' || this.#outbox.queuedBytes >= this.#limits.queuedBytesMax) return false
    const meta = encodeMessage([method, params])
    if (meta.length > META_BYTES_MAX) return false
    this.#outbox.frame(FrameKind.notify, 0, meta)
    return true
  }

  readonly #sendAnswer = (
    requestId: number,
    answer: DataAnswer,
    table: Uint32Array | Buffer | null,
    ownedPayload: Buffer | null,
  ): void => {
    this.#outbox.dataAnswer(requestId, answer, table, ownedPayload)
    if (this.#inbound.paused) this.#maybeResume()
  }

  // ---- receiving

  #onBytes(borrowed: Buffer): void {
    this.#liveness.heard()
    if (!this.#inbound.take(borrowed)) this.#close('data goes on arriving while paused', true)
  }

  #onFrame(header: FrameHeader, meta: Buffer, payload: Buffer | null): void {
    this.#liveness.frameDone()
    if (header.kind === FrameKind.dataRequest) this.#onDataRequest(header.requestId, meta, payload)
    else if (header.kind === FrameKind.dataAnswer) this.#onDataAnswer(header.requestId, meta, payload)
    else this.#onControl(header.kind, header.requestId, meta)
    this.#maybePause()
  }

  /** A peer that asks without reading the answers must not fill our memory. */
  #maybePause(): boolean {
    const isTooMuch = this.#outbox.answerBytes >= this.#limits.answerBytesMax
    if (isTooMuch) this.#inbound.pause()
    return isTooMuch
  }

  #onDataRequest(requestId: number, meta: Buffer, payload: Buffer | null): void {
    if (this.#state !== 'ready') {
      if (payload !== null) this.#pool.release(payload)
      this.#close('a data request before the handshake', true)
      return
    }
    const fault = this.#servedData.onRequest(requestId, meta, payload, this)
    if (fault !== null) this.#close(fault, true)
    else if (this.#servedData.full) this.#inbound.pause()
  }

  #onDataAnswer(requestId: number, meta: Buffer, payload: Buffer | null): void {
    const callback = this.#pending.takeData(requestId)
    // null: it came after its time-out
    if (callback !== null && readDataAnswer(meta, this.#answer)) {
      callback(null, this.#answer, meta.subarray(DATA_ANSWER_BYTES), payload)
      return
    }
    if (payload !== null) this.#pool.release(payload)
    const fault = new CairnError('BAD_MESSAGE', `malformed answer from ${this.remote}`)
    callback?.(fault, null, null, null)
    if (callback !== null || this.#state === 'handshake') this.#close('a malformed data answer', true)
  }

  #onControl(kind: number, requestId: number, meta: Buffer): void {
    if (this.#state === 'handshake') {
      this.#handshake.onFrame(kind, meta)
      return
    }
    const { protection } = this.#outbox
    const body = protection === null ? meta : meta.subarray(0, meta.length - TAG_BYTES)
    if (protection?.verify(meta, kind, requestId) === false)
      this.#close('the tag of a frame does not verify: changed, repeated or left out', true)
    else if (kind === FrameKind.bundle) this.#bundles.take(body)
    else this.#dispatch(kind, requestId, body)
  }

  #dispatch(kind: number, requestId: number, meta: Buffer): void {
    switch (kind) {
      case FrameKind.call:
        this.#servedCalls.onCall(requestId, meta, this)
        return
      case FrameKind.notify: {
        const fault = this.#servedCalls.onNotify(meta, this)
        if (fault !== null) this.#close(fault, true)
        return
      }
      case FrameKind.result:
      case FrameKind.error:
        this.#onCallAnswer(kind, requestId, meta)
        return
      case FrameKind.ping:
        this.#outbox.frame(FrameKind.pong, requestId, EMPTY, true)
        return
      case FrameKind.pong:
        return
      case FrameKind.authentication:
        this.#handshake.onLateAuthentication(meta, (fault) => this.#close(fault, true))
        return
      default:
        this.#close(`a frame of kind ${kind} after the handshake`, true)
    }
  }

  #onCallAnswer(kind: number, requestId: number, meta: Buffer): void {
    const call = this.#pending.takeCall(requestId)
    if (call === null) return
    const fault = settleCall(call, kind === FrameKind.error, meta)
    if (fault !== null)
      this.#logger.warn('bad answer', { remote: this.remote, method: call.method, error: fault })
  }

  #maybeResume(): void {
    if (this.#servedData.relaxed && this.#outbox.answerBytes * 2 <= this.#limits.answerBytesMax)
      this.#inbound.resume()
  }

  // ---- life

  readonly #tick = (): void => {
    const verdict = this.#liveness.tick(this.#clock.nowMs(), {
      handshaking: this.#state === 'handshake',
      connected: this.#connected,
      paused: this.#inbound.paused,
      frameIncomplete: this.#parser.incomplete,
      sending: this.#outbox.sending,
      sentCount: this.#outbox.sentCount,
    })
    if (typeof verdict === 'object') {
      this.#close(verdict.close, true)
      return
    }
    if (verdict === 'ping') this.#outbox.frame(FrameKind.ping, 0, EMPTY)
    this.#timer = this.#clock.setTimer(this.#limits.tickMs, this.#tick)
    const timedOut = (what: string): CairnError =>
      new CairnError('TIMED_OUT', `${what}: no answer from ${this.remote} in time`, { retryable: true })
    const outboxMark = this.#pending.expire(this.#liveness.elapsedMs, timedOut)
    // its payload belongs to the caller again: it must not leave from here any more
    if (outboxMark > this.#outbox.takenBytes - this.#outbox.queuedBytes)
      this.#close('a data request timed out before it could be sent', true)
  }

  #ready(protection: FrameProtection | null): void {
    this.#state = 'ready'
    this.#outbox.protection = protection
    const remote = this.#handshake.remote
    this.#outbox.hasBundles = ((remote?.features ?? 0) & FEATURE_BUNDLES) !== 0
    this.#logger.debug('connected', { remote: this.remote, role: remote?.role, name: remote?.name })
    this.#onReady(this)
  }

  /** Our refusal leaves before the connection closes; a refusal of the peer closes it. */
  #refused(error: CairnError): void {
    this.#outbox.flushNow()
    this.#close(`handshake: ${error.code}: ${error.message}`, error.code !== 'NOT_MASTER')
  }

  #disconnected(what: string): CairnError {
    const reason = this.#closeReason === '' ? 'not ready' : this.#closeReason
    return new CairnError('DISCONNECTED', `${what} to ${this.remote}: ${reason}`, { retryable: true })
  }

  #close(reason: string, isFault: boolean): void {
    if (this.#state === 'closed') return
    this.#state = 'closed'
    this.#closeReason = reason
    const fields = { remote: this.remote, role: this.#handshake.remote?.role, reason }
    if (isFault) this.#logger.warn('connection closed', fields)
    else this.#logger.info('connection closed', fields)
    this.#timer?.cancel()
    this.#handshake.closed()
    this.#inbound.close()
    this.#servedData.close()
    this.#outbox.close()
    this.#connection.destroy(reason)
    // callbacks of others run on a clean stack
    this.#clock.defer(() => {
      this.#pending.expire(Number.POSITIVE_INFINITY, (what) => this.#disconnected(what))
      for (const closer of this.#closers) closer(reason)
      this.#closers.clear()
    })
  }
}

const EMPTY = Buffer.alloc(0)
