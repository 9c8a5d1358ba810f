/**
 * Connections between metadata servers on the base port. Each dials the others whose address it knows, and
 * either end of a connection carries messages both ways: so a new member, which knows nobody yet, answers
 * whoever called it. Messages are one-way and best effort: what cannot be sent is dropped, and Raft, which is
 * told, sends it again. Queues are bounded; a member that does not read is sent nothing more.
 */
import type { BufferPool } from '../../base/buffer-pool.ts'
import { CairnError, codeOf } from '../../base/errors.ts'
import { addressKey } from '../../discovery/metadata-servers.ts'
import type { Clock } from '../../platform/clock.ts'
import type { Logger } from '../../platform/logger.ts'
import type { Address, Network } from '../../platform/network.ts'
import type { Random } from '../../platform/random.ts'
import type { MemberId, Message } from '../../raft/index.ts'
import { BASE_LEVEL } from '../state/feature-levels.ts'
import { Dialer } from '../../wire/dialer.ts'
import { type MemberMethods, memberMethods } from '../../wire/messages/quorum.ts'
import { WireServer } from '../../wire/server.ts'
import type { Authenticator, Handlers, Identity, Peer } from '../../wire/types.ts'
import type { MemberReport } from './members-view.ts'
import { decodeStep, encodeStep } from './step-codec.ts'

const ROLE = 'mds'
const CONNECTION_COUNT_MAX = 64
/** Twice what consensus keeps in flight to one member. */
const QUEUE_BYTES_MAX = 8 * 1024 * 1024
const BACKOFF_MS_MAX = 500
const CONNECT_TIMEOUT_MS = 1_000

export interface TransportOptions {
  readonly network: Network
  readonly clock: Clock
  readonly random: Random
  readonly logger: Logger
  readonly pool: BufferPool
  readonly address: Address
  readonly identity: () => Identity
  readonly authenticator?: Authenticator
  readonly onMessage: (message: Message) => void
  readonly onReport: (member: MemberId, report: MemberReport) => void
  readonly onUnreachable: (member: MemberId) => void
  /** Another sends what this version does not understand. */
  readonly onTooOld: (error: Error) => void
  readonly onShutdown: () => void
  readonly onSnapshotPiece: Handlers<MemberMethods>['snapshot.piece']
  readonly onSnapshotEnd: Handlers<MemberMethods>['snapshot.end']
}

export class MemberTransport {
  readonly #options: TransportOptions
  readonly #server: WireServer
  readonly #dialers = new Map<MemberId, { readonly key: string; readonly dialer: Dialer }>()
  /** Who has spoken on a connection that it made. */
  readonly #incoming = new Map<MemberId, Peer>()
  readonly #handlers: Handlers<MemberMethods>
  readonly #authenticator: { readonly authenticator?: Authenticator }
  #isClosed = false

  constructor(options: TransportOptions) {
    this.#options = options
    this.#authenticator = options.authenticator === undefined ? {} : { authenticator: options.authenticator }
    const { network, clock, logger, pool, identity } = options
    this.#handlers = {
      'raft.step': (params, peer) => this.#onStep(params, peer),
      'mds.report': ({ member, ...report }) => {
        options.onReport(member, report)
        return {}
      },
      'snapshot.piece': options.onSnapshotPiece,
      'snapshot.end': options.onSnapshotEnd,
      'mds.shutdown': () => {
        options.onShutdown()
        return {}
      },
    }
    this.#server = new WireServer({
      ...{ network, clock, logger, pool, identity, ...this.#authenticator },
      connectionCountMax: CONNECTION_COUNT_MAX,
      admit: ({ role }) => {
        if (role === ROLE) return
        throw new CairnError('REFUSED', 'this port is for metadata servers: others dial the next one')
      },
      onPeer: (peer) => peer.serve(memberMethods, this.#handlers),
    })
  }

  /** Rejects when the address cannot be bound. */
  listen(): Promise<void> {
    return this.#server.listen(this.#options.address)
  }

  /** Where the others are from now on. */
  update(addresses: ReadonlyMap<MemberId, Address>): void {
    if (this.#isClosed) return
    for (const [member, { key, dialer }] of this.#dialers) {
      const address = addresses.get(member)
      if (address !== undefined && addressKey(address) === key) continue
      this.#dialers.delete(member)
      dialer.close('this metadata server has moved or left')
    }
    for (const [member, address] of addresses) if (!this.#dialers.has(member)) this.#dial(member, address)
  }

  /** The feature level that a member announced with its connection; null without one. */
  levelOf(member: MemberId): number | null {
    const peer = this.peerOf(member)
    return peer === null ? null : (peer.remoteIdentity?.level ?? BASE_LEVEL)
  }

  isConnected(member: MemberId): boolean {
    return this.peerOf(member) !== null
  }

  /** Dropped when there is no connection or too much waits for it. */
  send(message: Message): void {
    const peer = this.peerOf(message.to)
    if (peer === null) return
    const isSent =
      peer.queuedBytes < QUEUE_BYTES_MAX &&
      peer.caller(memberMethods).notify('raft.step', encodeStep(message))
    if (!isSent) this.#options.onUnreachable(message.to)
  }

  /** Tells everybody who can be reached. */
  shutDownOthers(): void {
    for (const member of this.#dialers.keys())
      this.peerOf(member)?.caller(memberMethods).notify('mds.shutdown', {})
  }

  report(to: MemberId, member: MemberId, report: MemberReport): void {
    this.peerOf(to)
      ?.caller(memberMethods)
      .notify('mds.report', { member, ...report })
  }

  async close(reason: string): Promise<void> {
    this.#isClosed = true
    for (const { dialer } of this.#dialers.values()) dialer.close(reason)
    this.#dialers.clear()
    await this.#server.close(reason)
  }

  peerOf(member: MemberId): Peer | null {
    return this.#dialers.get(member)?.dialer.peer ?? this.#incoming.get(member) ?? null
  }

  #dial(member: MemberId, address: Address): void {
    const { network, clock, random, logger, pool, identity, onUnreachable } = this.#options
    const dialer = new Dialer({
      ...{ network, clock, random, logger, pool, identity, address, ...this.#authenticator },
      connectTimeoutMs: CONNECT_TIMEOUT_MS,
      backoffMaxMs: BACKOFF_MS_MAX,
      onPeer: (peer) => peer.serve(memberMethods, this.#handlers),
      onState: (state) => {
        if (state === 'waiting') onUnreachable(member)
      },
    })
    this.#dialers.set(member, { key: addressKey(address), dialer })
    dialer.start()
  }

  #onStep(params: Parameters<Handlers<MemberMethods>['raft.step']>[0], peer: Peer): Record<string, never> {
    if (this.#isClosed) return {}
    try {
      const message = decodeStep(params)
      this.#remember(message.from, peer)
      this.#options.onMessage(message)
    } catch (error) {
      if (codeOf(error) === 'VERSION_TOO_OLD') {
        this.#options.onTooOld(error as Error)
        return {}
      }
      this.#options.logger.warn('message refused', { remote: peer.remote, code: codeOf(error) })
      peer.close(`a message that consensus refuses: ${codeOf(error)}`)
    }
    return {}
  }

  #remember(member: MemberId, peer: Peer): void {
    if (this.#incoming.get(member) === peer || this.#incoming.size >= CONNECTION_COUNT_MAX) return
    this.#incoming.set(member, peer)
    peer.onClosed(() => {
      if (this.#incoming.get(member) !== peer) return
      this.#incoming.delete(member)
      this.#options.onUnreachable(member)
    })
  }
}
