/**
 * The authenticator of production: both sides prove that they have the cluster key, and get keys for the tags
 * of their frames; hosts that have an old key are sent the new one. Contents of the messages are in proofs.ts.
 * Does not read files (KeyStore) and knows no passwords: a connection with the role `auth` is let through
 * without proof where `admitsPasswords` says so, and may be served nothing but the password methods.
 * Design: docs/formats/authentication.md.
 */
import { CairnError } from '../../base/errors.ts'
import type { Clock, Timer } from '../../platform/clock.ts'
import type { KeyRing, KeyStore } from '../../platform/key-ring.ts'
import type { Logger } from '../../platform/logger.ts'
import type { Random } from '../../platform/random.ts'
import { FEATURE_AUTHENTICATION } from '../hello.ts'
import type {
  AuthenticationChannel,
  AuthenticationContext,
  AuthenticationSession,
  Authenticator,
  RemoteIdentity,
} from '../types.ts'
import { FailureDelays, hostOf } from './failure-delays.ts'
import { FrameTags } from './frame-tags.ts'
import {
  chooseProtection,
  encodeChallenge,
  encodeConfirmation,
  encodeKeys,
  encodeResponseHead,
  frameKey,
  isSameProof,
  kindOf,
  NONCE_BYTES,
  parseChallenge,
  parseConfirmation,
  parseKeys,
  parseResponse,
  Protection,
  proofOf,
  transcriptDigest,
} from './proofs.ts'
import { keyFor, seal, unseal, updatePurpose } from './sealing.ts'

/** Role of a connection that proves the password because it has no key yet. */
export const PASSWORD_ROLE = 'auth'

export interface KeyAuthenticatorOptions {
  readonly keys: KeyStore
  readonly random: Random
  readonly clock: Clock
  readonly logger: Logger
  /** For messages: `cairn -c NAME auth-node`. */
  readonly cluster: string
  /** Metadata servers: serve the role `auth`. */
  readonly admitsPasswords?: boolean
}

interface Opening {
  readonly remote: RemoteIdentity
  readonly channel: AuthenticationChannel
  readonly context: AuthenticationContext
}

export class KeyAuthenticator implements Authenticator {
  readonly options: KeyAuthenticatorOptions
  readonly delays: FailureDelays
  /** Accepted connections that are ready: they hear of new keys. As many as there are connections. */
  readonly #accepted = new Set<AcceptSession>()

  constructor(options: KeyAuthenticatorOptions) {
    this.options = options
    this.delays = new FailureDelays(options.clock)
    options.keys.onChange(() => {
      for (const session of this.#accepted) session.tellKeys()
    })
  }

  admit(remote: RemoteIdentity): void {
    if (remote.role === PASSWORD_ROLE) {
      if (this.options.admitsPasswords === true) return
      throw new CairnError('REFUSED', 'passwords are for metadata servers')
    }
    if ((remote.features & FEATURE_AUTHENTICATION) !== 0) return
    throw new CairnError('KEY_MISSING', `cluster '${this.options.cluster}' wants a proof of its key`, {
      next: this.authenticateHost,
    })
  }

  start(
    side: 'dial' | 'accept',
    remote: RemoteIdentity,
    channel: AuthenticationChannel,
    context: AuthenticationContext,
  ): AuthenticationSession {
    const opening = { remote, channel, context }
    if (side === 'dial') return new DialSession(this, opening)
    if (remote.role === PASSWORD_ROLE) {
      channel.accept()
      return { onMessage: refuseMessage }
    }
    return new AcceptSession(this, opening, this.#accepted)
  }

  get authenticateHost(): string {
    return `prove the cluster's password once on that host: cairn -c ${this.options.cluster} auth-node`
  }
}

function refuseMessage(): void {
  throw new CairnError('BAD_MESSAGE', 'a proof on a connection that needs none')
}

class AcceptSession implements AuthenticationSession {
  readonly #authenticator: KeyAuthenticator
  readonly #opening: Opening
  readonly #accepted: Set<AcceptSession>
  readonly #ring: KeyRing
  readonly #nonce: Buffer
  readonly #challenge: Buffer
  #isAnswered = false
  /** Of the proof; 0 before. */
  #keyVersion = 0
  #refusal: Timer | null = null

  constructor(authenticator: KeyAuthenticator, opening: Opening, accepted: Set<AcceptSession>) {
    const { keys, random } = authenticator.options
    this.#authenticator = authenticator
    this.#opening = opening
    this.#accepted = accepted
    this.#ring = keys.current()
    checkCluster(opening.context.local.clusterUuid, this.#ring, authenticator.options.cluster)
    this.#nonce = random.bytes(NONCE_BYTES)
    this.#challenge = encodeChallenge(this.#nonce, this.#ring.versions)
    opening.channel.send(this.#challenge)
  }

  onMessage(borrowedMessage: Buffer): void {
    // One answer to each challenge: nobody may try again on this connection.
    if (this.#isAnswered) throw new CairnError('BAD_MESSAGE', 'authentication: a second answer')
    this.#isAnswered = true
    try {
      this.#verify(borrowedMessage)
    } catch (error) {
      const known = error instanceof CairnError ? error : new CairnError('INTERNAL', String(error))
      this.#refuseLater(known)
    }
  }

  onClosed(): void {
    this.#refusal?.cancel()
    this.#accepted.delete(this)
  }

  #verify(message: Buffer): void {
    const { remote, channel, context } = this.#opening
    const { clusterUuid } = this.#ring
    if (kindOf(message) !== 'response') throw new CairnError('BAD_MESSAGE', 'authentication: no response')
    const response = parseResponse(message)
    if (response.protection !== Protection.tags)
      throw new CairnError('WRONG_PROTOCOL', `unknown protection of frames ${response.protection}`)
    const key = this.#ring.get(response.keyVersion)
    if (key === undefined) throw this.#retired(response.keyVersion)
    const transcript = transcriptDigest({
      clusterUuid,
      dialRole: remote.role,
      acceptRole: context.local.role,
      helloMeta: context.helloMeta,
      welcomeMeta: context.welcomeMeta,
      challenge: this.#challenge,
      responseHead: encodeResponseHead(response.protection, response.keyVersion, response.nonce),
    })
    if (!isSameProof(proofOf('dialling side', key, clusterUuid, transcript), response.proof))
      throw new CairnError('WRONG_KEY', 'the proof of the cluster key does not verify', {
        next: `that host has the key of another cluster or an altered one; ${this.#authenticator.authenticateHost}`,
      })
    channel.send(encodeConfirmation(proofOf('accepting side', key, clusterUuid, transcript, response.proof)))
    const keyOf = (side: 'dialling side' | 'accepting side'): Buffer =>
      frameKey(side, key, this.#nonce, response.nonce, transcript)
    this.#keyVersion = response.keyVersion
    channel.accept(new FrameTags(keyOf('accepting side'), keyOf('dialling side')))
    this.#accepted.add(this)
    const ring = this.#authenticator.options.keys.current()
    if (ring.newest > response.keyVersion || ring.oldest > 1) this.tellKeys()
  }

  /** Which versions are accepted, and the newest key sealed under the one that the peer has. */
  tellKeys(): void {
    const { keys, random } = this.#authenticator.options
    const ring = keys.current()
    const under = this.#keyVersion
    const { oldest, newest, clusterUuid } = ring
    const underKey = ring.get(under)
    const newestKey = ring.get(newest)
    if (underKey === undefined || newestKey === undefined || newest <= under) {
      this.#opening.channel.send(encodeKeys({ oldest, version: 0, under: 0, sealed: Buffer.alloc(0) }))
      return
    }
    const purpose = updatePurpose(clusterUuid, newest, under)
    const sealed = seal(keyFor('update', underKey, clusterUuid), purpose, newestKey, random)
    this.#opening.channel.send(encodeKeys({ oldest, version: newest, under, sealed }))
  }

  #retired(version: number): CairnError {
    const known = this.#ring.versions.join(' and ')
    return new CairnError(
      'KEY_RETIRED',
      `version ${version} of the cluster key is not known here: ${known} is`,
      {
        next: this.#authenticator.authenticateHost,
      },
    )
  }

  #refuseLater(error: CairnError): void {
    const { remote, channel, context } = this.#opening
    const { delays, options } = this.#authenticator
    const host = hostOf(context.remoteAddress)
    const { delayMs, log } = delays.failed(host)
    if (log > 0) {
      const fields = { host, role: remote.role, name: remote.name, code: error.code, failures: log }
      options.logger.warn('authentication failed', { ...fields, reason: error.message })
    }
    this.#refusal = options.clock.setTimer(delayMs, () => channel.refuse(error))
  }
}

class DialSession implements AuthenticationSession {
  readonly #authenticator: KeyAuthenticator
  readonly #opening: Opening
  readonly #ring: KeyRing
  /** What is needed to check the confirmation; null before the response and after it. */
  #sent: {
    readonly key: Buffer
    readonly transcript: Buffer
    readonly proof: Buffer
    readonly nonceAccept: Buffer
    readonly nonceDial: Buffer
  } | null = null
  #isResponded = false
  #isReady = false

  constructor(authenticator: KeyAuthenticator, opening: Opening) {
    const { remote } = opening
    this.#authenticator = authenticator
    this.#opening = opening
    if ((remote.features & FEATURE_AUTHENTICATION) === 0)
      throw new CairnError('WRONG_PROTOCOL', `the ${remote.role} does not authenticate itself`, {
        next: 'Update it, or look who answers at this address: nothing was sent to it.',
      })
    this.#ring = authenticator.options.keys.current()
    checkCluster(remote.clusterUuid, this.#ring, authenticator.options.cluster)
  }

  onMessage(borrowedMessage: Buffer): void {
    const kind = kindOf(borrowedMessage)
    if (kind === 'challenge' && !this.#isResponded) this.#respond(borrowedMessage)
    else if (kind === 'confirmation' && this.#sent !== null) this.#confirm(borrowedMessage)
    else if (kind === 'keys' && this.#isReady) this.#learn(borrowedMessage)
    else throw new CairnError('BAD_MESSAGE', `authentication: a ${kind} out of turn`)
  }

  #respond(message: Buffer): void {
    const { remote, channel, context } = this.#opening
    const challenge = parseChallenge(message)
    const { clusterUuid, versions } = this.#ring
    const keyVersion = Math.max(0, ...versions.filter((version) => challenge.keyVersions.includes(version)))
    const key = this.#ring.get(keyVersion)
    if (key === undefined)
      throw new CairnError(
        'KEY_RETIRED',
        `this host has version ${versions.join(' and ')} of the cluster key, the ${remote.role} has ${challenge.keyVersions.join(' and ')}`,
        {
          next: `on the host that has the older one run: cairn -c ${this.#authenticator.options.cluster} auth-node`,
        },
      )
    const nonceDial = this.#authenticator.options.random.bytes(NONCE_BYTES)
    const head = encodeResponseHead(chooseProtection(challenge.protections), keyVersion, nonceDial)
    const transcript = transcriptDigest({
      clusterUuid,
      dialRole: context.local.role,
      acceptRole: remote.role,
      helloMeta: context.helloMeta,
      welcomeMeta: context.welcomeMeta,
      challenge: message,
      responseHead: head,
    })
    const proof = proofOf('dialling side', key, clusterUuid, transcript)
    this.#isResponded = true
    this.#sent = { key, transcript, proof, nonceAccept: challenge.nonce, nonceDial }
    channel.send(Buffer.concat([head, proof]))
  }

  #confirm(message: Buffer): void {
    const sent = this.#sent
    if (sent === null) return
    this.#sent = null
    const { key, transcript, nonceAccept, nonceDial } = sent
    const expected = proofOf('accepting side', key, this.#ring.clusterUuid, transcript, sent.proof)
    if (!isSameProof(expected, parseConfirmation(message)))
      throw new CairnError('WRONG_KEY', `the ${this.#opening.remote.role} does not have the cluster key`, {
        next: this.#authenticator.authenticateHost,
      })
    this.#isReady = true
    const keyOf = (side: 'dialling side' | 'accepting side'): Buffer =>
      frameKey(side, key, nonceAccept, nonceDial, transcript)
    this.#opening.channel.accept(new FrameTags(keyOf('dialling side'), keyOf('accepting side')))
  }

  #learn(message: Buffer): void {
    const { keys, logger } = this.#authenticator.options
    const { oldest, version, under, sealed } = parseKeys(message)
    let ring = keys.current()
    const underKey = ring.get(under)
    if (version > ring.newest && underKey !== undefined) {
      const { clusterUuid } = ring
      const purpose = updatePurpose(clusterUuid, version, under)
      ring = ring.with(version, unseal(keyFor('update', underKey, clusterUuid), purpose, sealed))
      logger.info('the cluster key was replaced', { version })
    }
    // Only metadata servers know for the whole cluster what is over.
    if (this.#opening.remote.role === 'mds') ring = ring.from(oldest)
    keys.replace(ring)
  }
}

/** `uuid`: of the side that accepts. Throws WRONG_CLUSTER. */
function checkCluster(uuid: string, ring: KeyRing, cluster: string): void {
  if (uuid === ring.clusterUuid) return
  throw new CairnError(
    'WRONG_CLUSTER',
    `the cluster key of this host is of another cluster than ${uuid || 'the peer'}`,
    {
      next: `check the addresses in bs.list of '${cluster}'; to join that cluster instead: cairn -c ${cluster} auth-node`,
    },
  )
}
