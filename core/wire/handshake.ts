/**
 * The steps from an open connection to a ready one: hello, welcome or refusal, then the authentication
 * frames when there is an Authenticator. Contents and decisions are in hello.ts.
 */
import { CairnError } from '../base/errors.ts'
import { FrameKind } from './frame.ts'
import {
  acceptHello,
  acceptWelcome,
  decodeRefusal,
  encodeHello,
  encodeRefusal,
  encodeWelcome,
  type LocalSide,
  PROTOCOL_FEATURES,
  PROTOCOL_VERSIONS,
} from './hello.ts'
import type { Authenticator, Identity, RemoteIdentity } from './types.ts'

export interface HandshakeOptions {
  readonly side: 'dial' | 'accept'
  /** Asked when it is sent: cluster and session may become known over time. */
  readonly identity: () => Identity
  /** Default: none; ready after the welcome. */
  readonly authenticator?: Authenticator
  /** Accepting side: throws CairnError to refuse a peer that said hello. */
  readonly admit?: (remote: RemoteIdentity) => void
  /** For tests of negotiation. */
  readonly versions?: readonly number[]
  readonly features?: number
}

export interface HandshakeSteps {
  send(kind: number, meta: Buffer): void
  ready(): void
  /** The connection has to be closed, after what was sent. */
  fail(error: CairnError): void
}

export class Handshake {
  readonly side: 'dial' | 'accept'
  readonly #options: HandshakeOptions
  readonly #steps: HandshakeSteps
  #remote: RemoteIdentity | null = null
  #refusal: CairnError | null = null
  #authentication: { onMessage(borrowedMessage: Buffer): void } | null = null

  constructor(options: HandshakeOptions, steps: HandshakeSteps) {
    this.side = options.side
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
    this.#steps.send(FrameKind.hello, encodeHello(this.#local()))
  }

  onFrame(kind: number, borrowedMeta: Buffer): void {
    try {
      if (kind === FrameKind.authentication && this.#authentication !== null)
        this.#authentication.onMessage(borrowedMeta)
      else if (this.#remote !== null) throw unexpected(kind)
      else if (this.side === 'accept' && kind === FrameKind.hello) this.#onHello(borrowedMeta)
      else if (this.side === 'dial' && kind === FrameKind.welcome) this.#onWelcome(borrowedMeta)
      else if (this.side === 'dial' && kind === FrameKind.refuse) this.#fail(decodeRefusal(borrowedMeta))
      else throw unexpected(kind)
    } catch (error) {
      this.#refuse(
        error instanceof CairnError
          ? error
          : new CairnError('INTERNAL', `handshake failed: ${String(error)}`, { cause: error }),
      )
    }
  }

  #onHello(borrowedMeta: Buffer): void {
    const local = this.#local()
    const remote = acceptHello(borrowedMeta, local)
    this.#options.admit?.(remote)
    this.#remote = remote
    this.#steps.send(FrameKind.welcome, encodeWelcome(local, remote.protocolVersion))
    this.#authenticate(remote)
  }

  #onWelcome(borrowedMeta: Buffer): void {
    const remote = acceptWelcome(borrowedMeta, this.#local())
    this.#remote = remote
    this.#authenticate(remote)
  }

  #authenticate(remote: RemoteIdentity): void {
    if (this.#options.authenticator === undefined) {
      this.#steps.ready()
      return
    }
    let over = false
    const end = (step: () => void): void => {
      if (over) return
      over = true
      step()
    }
    this.#authentication = this.#options.authenticator.start(this.side, remote, {
      send: (message) => this.#steps.send(FrameKind.authentication, Buffer.from(message)),
      accept: () => end(() => this.#steps.ready()),
      refuse: (reason) => end(() => this.#refuse(new CairnError('REFUSED', reason))),
    })
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
    return {
      identity: this.#options.identity(),
      versions: this.#options.versions ?? PROTOCOL_VERSIONS,
      features: this.#options.features ?? PROTOCOL_FEATURES,
    }
  }
}

function unexpected(kind: number): CairnError {
  return new CairnError('BAD_MESSAGE', `a frame of kind ${kind} during the handshake`)
}
