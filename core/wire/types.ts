/**
 * The faces of the wire: what rooms above see of a connection. Implementations: peer.ts, server.ts,
 * dialer.ts. Control messages are promises (`Caller`, `Handlers`); the data path is callbacks with
 * reused objects. `borrowed…` is valid until the call returns, `owned…` moves to the callee.
 */
import type { CairnError } from '../base/errors.ts'
import type { DataAnswer, DataRequest } from './data.ts'
import type { MethodTable, ParamsOf, ResultOf } from './messages/method.ts'

/** What a side says of itself in the hello exchange. */
export interface Identity {
  /** 'client', 'cs', 'mds', 'admin', … */
  readonly role: string
  /** Empty: not known yet (joins whatever it finds). Two non-empty names that differ are refused. */
  readonly clusterName: string
  readonly clusterUuid: string
  /** How often the metadata of the cluster have begun anew, as a number that rises; absent: not known. */
  readonly generation?: number
  /** Session that requests on this connection belong to; 0 = none. */
  readonly session: number
  /** For people: host and process. */
  readonly name: string
  /** Of a metadata server: the highest feature level that it understands (metadata/state/feature-levels.ts). */
  readonly level?: number
  /** Metadata servers: which one it is. Its address may change, this never does. */
  readonly member?: number
}

export interface RemoteIdentity extends Identity {
  readonly protocolVersion: number
  /** Feature bits both sides have. */
  readonly features: number
}

export interface CallOptions {
  /** Default: limits.callTimeoutMs. Rounded up to the peer's tick (250 ms). */
  readonly timeoutMs?: number
}

/** Typed view of the methods a peer serves. */
export interface Caller<T extends MethodTable> {
  /**
   * Rejects with CairnError: a WireCode from the peer; DISCONNECTED, TIMED_OUT (outcome unknown);
   * OVERLOADED (nothing was sent); BAD_MESSAGE (the answer does not have the form it must have).
   */
  call<N extends keyof T & string>(
    method: N,
    params: ParamsOf<T, N>,
    options?: CallOptions,
  ): Promise<ResultOf<T, N>>
  /** Sends and forgets; false when not connected or the queue is full. */
  notify<N extends keyof T & string>(method: N, params: ParamsOf<T, N>): boolean
}

/** Value or promise; a thrown CairnError whose code is a WireCode crosses the wire, all else is INTERNAL. */
export type Handlers<T extends MethodTable> = {
  readonly [N in keyof T]: (params: ParamsOf<T, N>, peer: Peer) => ResultOf<T, N> | Promise<ResultOf<T, N>>
}

/**
 * Exactly one call. `error` is about the connection (OVERLOADED: nothing was sent; DISCONNECTED, TIMED_OUT:
 * outcome unknown; BAD_MESSAGE) and the rest is null then; what the server says is in the answer's `code`. `borrowedAnswer` and `borrowedTable` are valid until
 * the callback returns; `ownedPayload` comes from the peer's pool: give it back with `pool.release`.
 */
export type DataCallback = (
  error: CairnError | null,
  borrowedAnswer: DataAnswer | null,
  borrowedTable: Buffer | null,
  ownedPayload: Buffer | null,
) => void

/** Answers one data request, exactly once. Do not keep it afterwards: it is reused. */
export interface DataResponder {
  /**
   * `borrowedAnswer` and `borrowedTable` are encoded before it returns. `ownedPayload` (any buffer) is
   * released to the peer's pool when sent. A connection that has closed swallows the answer.
   */
  respond(
    borrowedAnswer: DataAnswer,
    borrowedTable: Uint32Array | Buffer | null,
    ownedPayload: Buffer | null,
  ): void
}

/**
 * Must not wait for the same peer: while too much is unanswered nothing of that peer is read.
 * `borrowedTable` has length 0 when the request carries none; keep a copy of what you need later.
 */
export type DataHandler = (
  borrowedRequest: DataRequest,
  borrowedTable: Buffer,
  ownedPayload: Buffer | null,
  responder: DataResponder,
  peer: Peer,
) => void

export type PeerState = 'handshake' | 'ready' | 'closed'

/** One connection with another process, after or during its handshake. */
export interface Peer {
  readonly remote: string
  readonly state: PeerState
  /** Null before the handshake. */
  readonly remoteIdentity: RemoteIdentity | null
  readonly inFlightCount: number
  /** Bytes accepted from here and not yet handed to the network. */
  readonly queuedBytes: number

  caller<T extends MethodTable>(table: T): Caller<T>
  /** Adds methods that the other side may call. Call it in `onPeer`, before anything is dispatched. */
  serve<T extends MethodTable>(table: T, handlers: Handlers<T>): void

  /**
   * `borrowedRequest` and `borrowedTable` are encoded before it returns; `borrowedPayload` must stay
   * unchanged until the callback. The callback may run before the call returns (OVERLOADED, DISCONNECTED).
   */
  sendData(
    borrowedRequest: DataRequest,
    borrowedTable: Uint32Array | Buffer | null,
    borrowedPayload: Buffer | null,
    timeoutMs: number,
    callback: DataCallback,
  ): void
  onData(handler: DataHandler): void

  /** Runs once, with the reason; at once (asynchronously) when already closed. Returns how to unsubscribe. */
  onClosed(callback: (reason: string) => void): () => void
  /** Idempotent. Everything pending fails with DISCONNECTED. */
  close(reason: string): void
}

export type DialerState = 'connecting' | 'ready' | 'waiting' | 'closed'

/** Keeps one connection to one address. */
export interface Dialling {
  readonly state: DialerState
  /** The ready peer, or null. */
  readonly peer: Peer | null
  /** Rejects at once with DISCONNECTED while there is no ready peer. */
  caller<T extends MethodTable>(table: T): Caller<T>
  /** Resolves with the ready peer; rejects with TIMED_OUT, with the refusal's code, or DISCONNECTED when closed. */
  ready(timeoutMs: number): Promise<Peer>
  close(reason: string): void
}

/** Bounds of one connection; defaults in limits.ts. */
export interface WireLimits {
  /** Own calls and data requests without an answer. */
  readonly inFlightCountMax: number
  /** Own bytes waiting for the network; beyond it calls and data requests get OVERLOADED. */
  readonly queuedBytesMax: number
  /** Calls of the peer whose handlers have not finished; beyond it they get OVERLOADED. */
  readonly servedCallCountMax: number
  readonly servedCallBytesMax: number
  /** Data requests of the peer without an answer; at the bound reading pauses. */
  readonly servedDataCountMax: number
  /** Payload bytes (received or asked for) of those; at the bound reading pauses. */
  readonly servedDataBytesMax: number
  /** Answers waiting for a peer that does not read; at the bound reading pauses. */
  readonly answerBytesMax: number
  readonly handshakeTimeoutMs: number
  /** An incomplete frame must be complete after this (slow loris). */
  readonly frameTimeoutMs: number
  readonly callTimeoutMs: number
  /** Silence after which a ping is sent. */
  readonly idleMs: number
  /** Silence after a ping, or a send queue that does not move, after which the connection is closed. */
  readonly deadMs: number
  /** The one coarse timer of a connection. */
  readonly tickMs: number
}

/** Frames between hello and ready, and later on. Both sides must end with `accept`. */
export interface AuthenticationChannel {
  /** Also after `accept`: then the frame carries a tag as every control frame does. */
  send(message: Uint8Array): void
  /** The peer is who it should be. With `protection` every control frame from now on carries a tag. */
  accept(protection?: FrameProtection): void
  refuse(error: CairnError): void
}

/** What was said before: both sides bind their proofs to it. */
export interface AuthenticationContext {
  readonly local: Identity
  /** Address of the other end. */
  readonly remoteAddress: string
  readonly helloMeta: Buffer
  readonly welcomeMeta: Buffer
}

/** One connection's part of an authenticator. What it throws ends the connection. */
export interface AuthenticationSession {
  onMessage(borrowedMessage: Buffer): void
  onClosed?(): void
}

/** core/wire/authentication has the one of production. Without one frames carry no tags. */
export interface Authenticator {
  /** Accepting side, before the welcome: throws CairnError to refuse a peer by what its hello says. */
  admit?(remote: RemoteIdentity): void
  start(
    side: 'dial' | 'accept',
    remote: RemoteIdentity,
    channel: AuthenticationChannel,
    context: AuthenticationContext,
  ): AuthenticationSession
}

/** Tags of control frames: one object for each connection, both directions. */
export interface FrameProtection {
  /** Writes the tag behind the meta, which lies at `target[metaAt]` and is `metaBytes` long without it. */
  sign(target: Buffer, metaAt: number, metaBytes: number, kind: number, requestId: number): void
  /** `borrowedMeta` ends with the tag. Frames are verified in the order in which they were signed. */
  verify(borrowedMeta: Buffer, kind: number, requestId: number): boolean
}
