/**
 * Passwords and keys of the cluster, on the metadata server: checks passwords, hands out the cluster key to
 * hosts that know one, changes the password, replaces the key. The exchange itself is PasswordExchange, what is
 * remembered is in record.ts, what slows guessing down in attempt-limiter.ts. docs/formats/authentication.md.
 */
import { CairnError } from '../../base/errors.ts'
import { CLUSTER_KEY_BYTES, formatKeyRing, type KeyRing, type KeyStore } from '../../platform/key-ring.ts'
import type { PasswordExchange } from '../../platform/password.ts'
import { hostOf } from '../../wire/authentication/failure-delays.ts'
import { PasswordSession } from '../../wire/authentication/password-session.ts'
import { type KeyMethods, type PasswordMethods, passwordMethods } from '../../wire/messages/authentication.ts'
import type { Handlers, Peer } from '../../wire/types.ts'
import type { EventRecorder } from '../control/servers/event-recorder.ts'
import type { Master } from '../control/servers/master.ts'
import { CLUSTER_UUID_KEY } from '../chunks/administration.ts'
import { valueOf } from '../state/result.ts'
import { AttemptLimiter } from './attempt-limiter.ts'
import {
  type AuthenticationRecord,
  openVerifier,
  readAuthentication,
  ringOf,
  sealUpdate,
  sealVerifier,
} from './record.ts'

const EXCHANGE_COUNT_MAX = 32
const RETIRE_CHECK_MS = 10_000
/** Connections that have proved nothing: few, and not for long. Enough for the slowest host. */
const CONNECTION_COUNT_MAX = 64
const CONNECTION_LIFE_MS = 60_000

export interface AuthenticationParts {
  readonly master: Master
  readonly events: EventRecorder
  readonly keys: KeyStore
  readonly clusterName: string
  /** Asked when the first password comes. */
  readonly loadExchange: () => Promise<PasswordExchange>
}

/** One connection with a password on it. */
interface Exchange {
  readonly host: string
  readonly address: string
  readonly request: string
  readonly response: string
  /** Of the exchange; '' when used. */
  state: string
  /** Once the password was right. */
  session: PasswordSession | null
}

export class AuthenticationService {
  readonly #parts: AuthenticationParts
  readonly #limiter: AttemptLimiter
  readonly #exchanges = new Map<Peer, Exchange>()
  #connectionCount = 0

  constructor(parts: AuthenticationParts) {
    this.#parts = parts
    this.#limiter = new AttemptLimiter(parts.master.clock)
  }

  /** Throws when this host's key is not of this cluster, or too old: then nothing may be served. */
  start(): void {
    const { master, keys, clusterName } = this.#parts
    const uuid = master.state.config.get(CLUSTER_UUID_KEY)
    if (keys.current().clusterUuid !== uuid)
      throw new CairnError(
        'WRONG_CLUSTER',
        `the cluster key of this host is not of the cluster '${clusterName}' here`,
        {
          next: 'restore auth_digest.key that belongs to this repository, or copy it from another metadata server',
        },
      )
    this.#followRecord()
    // Throws when it is another key of this version.
    openVerifier(this.#record(), this.#ring())
    master.onApplied(({ command }) => {
      if (command.type !== 'authentication.set') return
      try {
        this.#followRecord()
      } catch (error) {
        master.logger.error('the cluster key was replaced and this host cannot follow', {
          reason: (error as Error).message,
        })
      }
    })
    master.every(RETIRE_CHECK_MS, () => this.#maybeRetire())
  }

  /** A connection with the role `auth`. */
  serve(peer: Peer): void {
    if (this.#connectionCount >= CONNECTION_COUNT_MAX) {
      peer.close('too many hosts authenticate at once')
      return
    }
    this.#connectionCount += 1
    const tooSlow = this.#parts.master.after(CONNECTION_LIFE_MS, () =>
      peer.close('the password took too long'),
    )
    peer.onClosed(() => {
      this.#connectionCount -= 1
      tooSlow.cancel()
    })
    peer.serve(passwordMethods, this.passwordHandlers())
  }

  passwordHandlers(): Handlers<PasswordMethods> {
    return {
      'auth.start': ({ request, host }, peer) => this.#start(request, host, peer),
      'auth.finish': ({ finish }, peer) => this.#finish(finish, peer),
      'auth.register': async ({ sealed }, peer) => {
        const session = this.#sessionOf(peer)
        const exchange = await this.#parts.loadExchange()
        const { setup } = openVerifier(this.#record(), this.#ring())
        const answer = exchange.answerRegistration(setup, session.unseal('registration request', sealed))
        return { sealed: session.seal('registration response', answer) }
      },
      'auth.replace': ({ sealed }, peer) => this.#replacePassword(sealed, peer),
    }
  }

  keyHandlers(): Handlers<KeyMethods> {
    return {
      'key.rotate': () => this.#rotate(),
      'key.retire': () => this.#retire(),
    }
  }

  // ---- passwords

  async #start(request: string, host: string, peer: Peer): Promise<{ response: string }> {
    const address = hostOf(peer.remote)
    if (this.#exchanges.has(peer)) throw new CairnError('REFUSED', 'one password for each connection')
    if (this.#exchanges.size >= EXCHANGE_COUNT_MAX)
      throw new CairnError('OVERLOADED', 'too many hosts authenticate at once', { retryable: true })
    this.#limiter.begin(address)
    const entry = { host: host.slice(0, 100), address, request, response: '', state: '', session: null }
    const exchange: Exchange = entry
    this.#exchanges.set(peer, exchange)
    peer.onClosed(() => this.#ended(peer))
    const opaque = await this.#parts.loadExchange()
    const { state, message } = opaque.answer(
      openVerifier(this.#record(), this.#ring()),
      request,
      this.#uuid(),
    )
    entry.state = state
    entry.response = message
    return { response: message }
  }

  async #finish(finish: string, peer: Peer): Promise<{ sealed: Uint8Array }> {
    const { events, loadExchange, master } = this.#parts
    const exchange = this.#exchanges.get(peer)
    if (exchange === undefined || exchange.state === '')
      throw new CairnError('REFUSED', 'a proof of the password comes after its request, once')
    const opaque = await loadExchange()
    const { state, request, response, host, address } = exchange
    exchange.state = ''
    const sessionKey = state === '' ? null : opaque.check(state, finish, this.#uuid())
    if (sessionKey === null) throw new CairnError('WRONG_PASSWORD', 'not the password of the cluster')
    const transcript = { request, response, finish }
    exchange.session = new PasswordSession(sessionKey, transcript, this.#uuid(), master.random)
    this.#limiter.succeeded(address)
    events.record(
      'MDS',
      'info',
      'HOST_AUTHENTICATED',
      `Host ${host} (${address}) has proved the password`,
      host,
    )
    return { sealed: exchange.session.seal('keys', formatKeyRing(this.#ring())) }
  }

  async #replacePassword(sealed: Uint8Array, peer: Peer): Promise<Record<string, never>> {
    const session = this.#sessionOf(peer)
    const exchange = this.#exchanges.get(peer)
    const ring = this.#ring()
    const record = this.#record()
    const { setup } = openVerifier(record, ring)
    const verifier = { setup, record: session.unseal('registration record', sealed) }
    const { random } = this.#parts.master
    await this.#change({ ...record, verifier: sealVerifier(verifier, record.version, ring, random) })
    const where = `${exchange?.host ?? ''} (${exchange?.address ?? ''})`
    this.#parts.events.record(
      'MDS',
      'info',
      'PASSWORD_CHANGED',
      `The password was changed from host ${where}`,
    )
    return {}
  }

  #sessionOf(peer: Peer): PasswordSession {
    const session = this.#exchanges.get(peer)?.session ?? null
    if (session === null) throw new CairnError('REFUSED', 'a new password needs the old one')
    return session
  }

  /** Who knows only a wrong password finds out by himself and goes away: that is what is seen here. */
  #ended(peer: Peer): void {
    const exchange = this.#exchanges.get(peer)
    this.#exchanges.delete(peer)
    if (exchange === undefined || exchange.session !== null) return
    const { host, address } = exchange
    const message = `Wrong password from host ${host} (${address})`
    this.#parts.events.record('MDS', 'warn', 'WRONG_PASSWORD', message, address)
  }

  // ---- keys

  async #rotate(): Promise<{ version: number; overlapMs: number }> {
    const { master, events } = this.#parts
    const { random } = master
    const record = this.#record()
    const ring = this.#ring()
    const under = record.version
    if (record.oldest !== under)
      throw new CairnError(
        'REFUSED',
        `the cluster key is being replaced: versions ${record.oldest} and ${under} are valid`,
        {
          next: 'end that first with: cairn passwd --retire-key',
        },
      )
    const verifier = openVerifier(record, ring)
    const version = under + 1
    const key = random.bytes(CLUSTER_KEY_BYTES)
    const overlapMs = master.parameter('mds.auth.key_overlap')
    await this.#change({
      version,
      oldest: under,
      verifier: sealVerifier(verifier, version, ring.with(version, key), random),
      update: sealUpdate(key, version, under, ring, random),
      retireAtMs: master.state.counters.get('logTimeMs') + overlapMs,
    })
    events.record(
      'MDS',
      'info',
      'KEY_ROTATED',
      `The cluster key has version ${version}; ${under} is still valid`,
    )
    return { version, overlapMs }
  }

  async #retire(): Promise<{ oldest: number }> {
    const { version, verifier, oldest } = this.#record()
    if (oldest === version)
      throw new CairnError('REFUSED', `version ${version} is the only cluster key`, {
        next: 'make a new one first with: cairn passwd --rotate-key',
      })
    await this.#change({ version, oldest: version, verifier })
    const message = `Version ${oldest} of the cluster key is not valid any more`
    this.#parts.events.record('MDS', 'info', 'KEY_RETIRED', message)
    return { oldest: version }
  }

  #maybeRetire(): void {
    const { master } = this.#parts
    const { retireAtMs } = this.#record()
    if (retireAtMs === undefined || master.state.counters.get('logTimeMs') < retireAtMs) return
    this.#retire().catch((error: unknown) => {
      master.logger.warn('the old cluster key was not retired', { error: String(error) })
    })
  }

  async #change(record: AuthenticationRecord): Promise<void> {
    const { log, state } = this.#parts.master
    const revision = readAuthentication(state.config).revision + 1
    valueOf(await log.propose({ type: 'authentication.set', revision, value: JSON.stringify(record) }))
  }

  #followRecord(): void {
    const { keys } = this.#parts
    keys.replace(ringOf(this.#record(), keys.current()))
  }

  #record(): AuthenticationRecord {
    const { record } = readAuthentication(this.#parts.master.state.config)
    if (record !== null) return record
    throw new CairnError('KEY_MISSING', `cluster '${this.#parts.clusterName}' has no password`, {
      next: 'it was made by a version without authentication: make a new cluster and copy the files',
    })
  }

  #ring(): KeyRing {
    return this.#parts.keys.current()
  }

  #uuid(): string {
    return this.#ring().clusterUuid
  }
}
