/**
 * The steps from an open connection to a ready one: hello, welcome or refusal, then the authentication
 * frames when there is an Authenticator. Contents and decisions are in hello.ts.
 */
import { AssertionError } from '../base/assert.ts'
import { CairnError } from '../base/errors.ts'
import { FrameKind } from './frame.ts'
import {
  acceptHello,
  acceptWelcome,
  decodeRefusal,
  encodeHello,
  encodeRefusal,
  encodeWelcome,
  FEATURE_AUTHENTICATION,
  type LocalSide,
  FEATURE_BUNDLES,
  PROTOCOL_VERSIONS,
} from './hello.ts'
import type {
  AuthenticationContext,
  AuthenticationSession,
  Authenticator,
  FrameProtection,
  Identity,
  RemoteIdentity,
} from './types.ts'

export interface HandshakeOptions {
  readonly side: 'dial' | 'accept'
  /** Asked when it is sent: cluster and session may become known over time. */
  readonly identity: () => Identity
  /** Default: none; ready after the welcome. */
  readonly authenticator?: Authenticator
  /** Throws CairnError to refuse a peer for what it said of itself, before it has proved it. */
  readonly admit?: (remote: RemoteIdentity) => void
  /** For tests of negotiation. */
  readonly versions?: readonly number[]
  readonly features?: number
}

export interface HandshakeSteps {
  send(kind: number, meta: Buffer): void
  ready(protection: FrameProtection | null): void
  /** The connection has to be closed, after what was sent. */
  fail(error: CairnError): void
}

export class Handshake {
  readonly side: 'dial' | 'accept'
  readonly #remoteAddress: string
  readonly #options: HandshakeOptions
  readonly #steps: HandshakeSteps
  #remote: RemoteIdentity | null = null
  #refusal: CairnError | null = null
  #helloMeta: Buffer = EMPTY
  #authentication: AuthenticationSession | null = null

  constructor(options: HandshakeOptions, remoteAddress: string, steps: HandshakeSteps) {
    this.side = options.side
    this.#remoteAddress = remoteAddress
    this.#options = options
    this.#steps = steps
  }

  get remote(): RemoteIdentity | null {
    return this.#remote
  }

  get refusal(): CairnError | null {
    return this.#refusal
  }

  /** The dialled connection is open. */
  open(): void {
    this.#helloMeta = encodeHello(this.#local())
    this.#steps.send(FrameKind.hello, this.#helloMeta)
  }

  onFrame(kind: number, borrowedMeta: Buffer): void {
    try {
      if (kind === FrameKind.authentication && this.#authentication !== null)
        this.#authentication.onMessage(borrowedMeta)
      else if (this.side === 'dial' && kind === FrameKind.refuse) this.#fail(decodeRefusal(borrowedMeta))
      else if (this.#remote !== null) throw unexpected(kind)
      else if (this.side === 'accept' && kind === FrameKind.hello) this.#onHello(borrowedMeta)
      else if (this.side === 'dial' && kind === FrameKind.welcome) this.#onWelcome(borrowedMeta)
      else throw unexpected(kind)
    } catch (error) {
      this.#refuse(
        error instanceof CairnError
          ? error
          : new CairnError('INTERNAL', `handshake failed: ${String(error)}`, { cause: error }),
      )
    }
  }

  /** Authentication goes on after the handshake (a new key). `close`: the connection must end. */
  onLateAuthentication(borrowedMessage: Buffer, close: (reason: string) => void): void {
    if (this.#authentication === null) {
      close('the peer asks for authentication, and this side has no key')
      return
    }
    try {
      this.#authentication.onMessage(borrowedMessage)
    } catch (error) {
      if (error instanceof AssertionError) throw error
      close(`authentication: ${error instanceof Error ? error.message : String(error)}`)
    }
  }

  closed(): void {
    this.#authentication?.onClosed?.()
    this.#authentication = null
  }

  #onHello(borrowedMeta: Buffer): void {
    const local = this.#local()
    const remote = acceptHello(borrowedMeta, local)
    this.#options.authenticator?.admit?.(remote)
    this.#options.admit?.(remote)
    this.#remote = remote
    const welcomeMeta = encodeWelcome(local, remote.protocolVersion)
    this.#steps.send(FrameKind.welcome, welcomeMeta)
    this.#helloMeta = Buffer.from(borrowedMeta)
    this.#authenticate(remote, local.identity, welcomeMeta)
  }

  #onWelcome(borrowedMeta: Buffer): void {
    const local = this.#local()
    const remote = acceptWelcome(borrowedMeta, local)
    this.#options.admit?.(remote)
    this.#remote = remote
    this.#authenticate(remote, local.identity, Buffer.from(borrowedMeta))
  }

  #authenticate(remote: RemoteIdentity, local: Identity, welcomeMeta: Buffer): void {
    if (this.#options.authenticator === undefined) {
      this.#steps.ready(null)
      return
    }
    let over = false
    const end = (step: () => void): void => {
      if (over) return
      over = true
      step()
    }
    const context: AuthenticationContext = {
      local,
      remoteAddress: this.#remoteAddress,
      helloMeta: this.#helloMeta,
      welcomeMeta,
    }
    const channel = {
      send: (message: Uint8Array) => this.#steps.send(FrameKind.authentication, Buffer.from(message)),
      accept: (protection?: FrameProtection) => end(() => this.#steps.ready(protection ?? null)),
      refuse: (error: CairnError) => end(() => this.#refuse(error)),
    }
    this.#authentication = this.#options.authenticator.start(this.side, remote, channel, context)
  }

  #refuse(error: CairnError): void {
    if (this.side === 'accept') this.#steps.send(FrameKind.refuse, encodeRefusal(error))
    this.#fail(error)
  }

  #fail(error: CairnError): void {
    this.#refusal = error
    this.#steps.fail(error)
  }

  #local(): LocalSide {
    const { identity, versions, features, authenticator } = this.#options
    return {
      identity: identity(),
      versions: versions ?? PROTOCOL_VERSIONS,
      features: (features ?? FEATURE_BUNDLES) | (authenticator === undefined ? 0 : FEATURE_AUTHENTICATION),
    }
  }
}

const EMPTY = Buffer.alloc(0)

function unexpected(kind: number): CairnError {
  return new CairnError('BAD_MESSAGE', `a frame of kind ${kind} during the handshake`)
}
