/**
 * Connections between metadata servers on the base port. Each dials the others whose address it knows, and
 * either end of a connection carries messages both ways: so a new member, which knows nobody yet, answers
 * whoever called it, and one that has moved is heard before anybody knows its new address. Both ends say who
 * they are: an address is only where to look, the member id is who it is. Who was removed from the cluster is
 * told so, also when it was away meanwhile. Messages are one-way and best effort: what cannot be sent is dropped, and Raft, which is
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
import type { RegisteredMember } from './member-addresses.ts'
import type { MemberReport } from './members-view.ts'
import { decodeStep, encodeStep } from './step-codec.ts'

const ROLE = 'mds'
const CONNECTION_COUNT_MAX = 64
/** Twice what consensus keeps in flight to one member. */
const QUEUE_BYTES_MAX = 8 * 1024 * 1024
const BACKOFF_MS_MAX = 500
const CONNECT_TIMEOUT_MS = 1_000
const REMOVED_TIMEOUT_MS = 2_000

/** Where a member listens, and its host. */
export interface MemberPlace {
  readonly address: Address
  readonly name: string
}

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
  /** What the member itself says. */
  readonly onReport: (member: MemberId, report: MemberReport, place: MemberPlace | undefined) => void
  /** What this member knows of the others, for those that were away. */
  readonly register: () => readonly RegisteredMember[]
  readonly onRegister: (members: readonly RegisteredMember[]) => void
  readonly isRemoved: (member: MemberId) => boolean
  /** Others say that `member` is not one of them any more. */
  readonly onRemoved: (member: MemberId) => void
  readonly onUnreachable: (member: MemberId) => void
  /** Another sends what this version does not understand, or is of a newer quorum that replaced ours. */
  readonly onMustEnd: (error: Error) => void
  readonly onShutdown: () => void
  readonly onSnapshotPiece: Handlers<MemberMethods>['snapshot.piece']
  readonly onSnapshotEnd: Handlers<MemberMethods>['snapshot.end']
}

export class MemberTransport {
  readonly #options: TransportOptions
  readonly #server: WireServer
  /** By member and address: one that moves may be found at either of two. */
  readonly #dialers = new Map<MemberId, Map<string, Dialer>>()
  /** On connections that they made. */
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
      'mds.report': ({ member, place, ...report }, peer) => {
        if (isFrom(member, peer)) options.onReport(member, report, place)
        return {}
      },
      'mds.register': ({ members }) => {
        options.onRegister(members)
        return {}
      },
      'mds.removed': ({ member }) => {
        options.onRemoved(member)
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
      onPeer: (peer) => {
        const member = peer.remoteIdentity?.member
        if (this.#take(peer) && member !== undefined) this.#remember(member, peer)
      },
    })
  }

  /** Rejects when the address cannot be bound. */
  listen(): Promise<void> {
    return this.#server.listen(this.#options.address)
  }

  /** Where the others are from now on. Those who are not named have left. */
  update(addresses: ReadonlyMap<MemberId, readonly Address[]>): void {
    if (this.#isClosed) return
    for (const [member, dialers] of this.#dialers) {
      const wanted = new Set(addresses.get(member)?.map(addressKey))
      for (const [key, dialer] of dialers) {
        if (wanted.has(key)) continue
        dialers.delete(key)
        this.#leave(member, dialer.peer, (reason) => dialer.close(reason))
      }
      if (dialers.size === 0) this.#dialers.delete(member)
    }
    for (const [member, peer] of this.#incoming)
      if (this.#options.isRemoved(member)) this.#leave(member, peer, (reason) => peer.close(reason))
    for (const [member, candidates] of addresses)
      for (const address of candidates) this.#dial(member, address)
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

  report(to: MemberId, member: MemberId, report: MemberReport, place: MemberPlace): void {
    this.peerOf(to)
      ?.caller(memberMethods)
      .notify('mds.report', { member, ...report, place })
  }

  async close(reason: string): Promise<void> {
    this.#isClosed = true
    for (const dialers of this.#dialers.values()) for (const dialer of dialers.values()) dialer.close(reason)
    this.#dialers.clear()
    await this.#server.close(reason)
  }

  peerOf(member: MemberId): Peer | null {
    // One that was removed may answer there for a moment.
    for (const { peer } of this.#dialers.get(member)?.values() ?? [])
      if (peer !== null && (peer.remoteIdentity?.member ?? member) === member) return peer
    return this.#incoming.get(member) ?? null
  }

  #dial(member: MemberId, address: Address): void {
    const dialers = this.#dialers.get(member) ?? new Map<string, Dialer>()
    this.#dialers.set(member, dialers)
    if (dialers.has(addressKey(address))) return
    const { network, clock, random, logger, pool, identity, onUnreachable, isRemoved } = this.#options
    let wasReady = false
    const dialer = new Dialer({
      ...{ network, clock, random, logger, pool, identity, address, ...this.#authenticator },
      connectTimeoutMs: CONNECT_TIMEOUT_MS,
      backoffMaxMs: BACKOFF_MS_MAX,
      admit: (remote) => {
        if (remote.member === undefined || remote.member === member) return
        // A directory that was given up for another is started: nobody else calls it, so it hears it here.
        if (isRemoved(remote.member)) return
        throw new CairnError('REFUSED', `MDS#${remote.member} answers there, not MDS#${member}`)
      },
      onPeer: (peer) => this.#take(peer),
      onState: (state) => {
        // What was under way is lost. An address where nobody is says nothing while it is reached at another.
        if (state === 'waiting' && (wasReady || this.peerOf(member) === null)) onUnreachable(member)
        wasReady = state === 'ready'
      },
    })
    dialers.set(addressKey(address), dialer)
    dialer.start()
  }

  /** False: it was removed, and is told so; or it is of another quorum. */
  #take(peer: Peer): boolean {
    if (this.#isOfAnotherGeneration(peer)) return false
    const member = peer.remoteIdentity?.member
    if (member !== undefined && this.#options.isRemoved(member)) {
      this.#leave(member, peer, (reason) => peer.close(reason))
      return false
    }
    peer.serve(memberMethods, this.#handlers)
    peer.caller(memberMethods).notify('mds.register', { members: [...this.#options.register()] })
    return true
  }

  /** Ends a connection; who was removed hears it first. */
  #leave(member: MemberId, peer: Peer | null, close: (reason: string) => void): void {
    if (peer === null || !this.#options.isRemoved(member)) {
      close('this metadata server has moved or left')
      return
    }
    const end = (): void => close('this metadata server was removed from the cluster')
    peer
      .caller(memberMethods)
      .call('mds.removed', { member }, { timeoutMs: REMOVED_TIMEOUT_MS })
      // Without an answer it will ask again: then it is told again.
      .then(end, end)
  }

  /** Both have proved who they are. Members of two generations never take part in the same decisions. */
  #isOfAnotherGeneration(peer: Peer): boolean {
    const { identity, onMustEnd } = this.#options
    const ours = identity().generation
    const theirs = peer.remoteIdentity?.generation
    if (ours === undefined || theirs === undefined || ours === theirs) return false
    // The older one ends: the connection stays until it has understood.
    if (theirs > ours) onMustEnd(replaced(peer.remote))
    return true
  }

  #onStep(params: Parameters<Handlers<MemberMethods>['raft.step']>[0], peer: Peer): Record<string, never> {
    if (this.#isClosed) return {}
    try {
      const message = decodeStep(params)
      if (peer.remoteIdentity?.member === undefined) this.#remember(message.from, peer)
      if (!isFrom(message.from, peer))
        throw new CairnError(
          'REFUSED',
          `MDS#${peer.remoteIdentity?.member ?? 0} speaks for MDS#${message.from}`,
        )
      this.#options.onMessage(message)
    } catch (error) {
      if (codeOf(error) === 'VERSION_TOO_OLD') {
        this.#options.onMustEnd(error as Error)
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

/** Nobody speaks for another member. Versions from before feature level 2 do not say who they are. */
function isFrom(member: MemberId, peer: Peer): boolean {
  const said = peer.remoteIdentity?.member
  return said === undefined || said === member
}

function replaced(remote: string): CairnError {
  return new CairnError(
    'REPLACED',
    `a newer quorum of this cluster, met at ${remote}, has replaced this one`,
    {
      next: 'what is only here is not taken over; to join the new quorum: cairn make-mds --rebuild -f -r DIR',
    },
  )
}
