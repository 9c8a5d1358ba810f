/** Listens and makes a peer of every connection that comes in, within a limit. */
import type { BufferPool } from '../base/buffer-pool.ts'
import { CairnError } from '../base/errors.ts'
import type { Clock } from '../platform/clock.ts'
import type { Logger } from '../platform/logger.ts'
import type { Address, Connection, Listener, Network } from '../platform/network.ts'
import { WirePeer } from './peer.ts'
import type { Authenticator, Identity, Peer, RemoteIdentity, WireLimits } from './types.ts'

export interface WireServerOptions {
  readonly network: Network
  readonly clock: Clock
  readonly logger: Logger
  readonly pool: BufferPool
  readonly identity: () => Identity
  readonly limits?: Partial<WireLimits>
  /** Default 4096. Connections beyond it are closed at once. */
  readonly connectionCountMax?: number
  readonly authenticator?: Authenticator
  /** Throws CairnError to refuse a peer by its role, cluster or session. */
  readonly admit?: (remote: RemoteIdentity) => void
  /** A peer is ready: the place for `serve` and `onData`, before anything of it is dispatched. */
  readonly onPeer: (peer: Peer) => void
}

const CONNECTION_COUNT_MAX = 4096

export class WireServer {
  readonly #options: WireServerOptions
  readonly #peers = new Set<WirePeer>()
  #listener: Listener | null = null
  #closed = false

  constructor(options: WireServerOptions) {
    this.#options = options
  }

  /** Rejects when the address cannot be bound. Port 0 takes a free one: see `address`. */
  async listen(address: Address): Promise<void> {
    if (this.#listener !== null || this.#closed)
      throw new CairnError('REFUSED', 'this server listens already, or has been closed')
    this.#listener = await this.#options.network.listen(address, (connection) => this.#accept(connection))
  }

  get address(): Address {
    if (this.#listener === null) throw new CairnError('REFUSED', 'this server does not listen')
    return this.#listener.address
  }

  /** Connections, those in their handshake included. */
  get connectionCount(): number {
    return this.#peers.size
  }

  /** Goes on listening. */
  closePeers(reason: string): void {
    for (const peer of this.#peers) peer.close(reason)
  }

  /** Stops listening and closes every connection. */
  async close(reason: string): Promise<void> {
    this.#closed = true
    for (const peer of this.#peers) peer.close(reason)
    await this.#listener?.close()
  }

  #accept(connection: Connection): void {
    const options = this.#options
    const countMax = options.connectionCountMax ?? CONNECTION_COUNT_MAX
    if (this.#closed || this.#peers.size >= countMax) {
      const reason = this.#closed ? 'shutting down' : `${countMax} connections are the limit`
      options.logger.warn('connection closed', { remote: connection.remote, reason })
      connection.start({ onOpen() {}, onData() {}, onDrain() {}, onClose() {} })
      connection.destroy(reason)
      return
    }
    const peer = new WirePeer({ ...options, connection, side: 'accept', onReady: options.onPeer })
    this.#peers.add(peer)
    peer.onClosed(() => this.#peers.delete(peer))
    peer.start()
  }
}
