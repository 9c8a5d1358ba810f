/**
 * The seam between the client's logic and the network: what it needs of a connection and no more.
 * wire-transport.ts makes it from core/wire; tests make it from fake servers.
 */
import type { BufferPool } from '../../base/buffer-pool.ts'
import type { Clock } from '../../platform/clock.ts'
import type { Logger } from '../../platform/logger.ts'
import type { Address, Network } from '../../platform/network.ts'
import type { Random } from '../../platform/random.ts'
import type { DataRequest } from '../../wire/data.ts'
import type { ClientMethods, MetadataMethods } from '../../wire/messages/metadata.ts'
import type { Authenticator, Caller, DataCallback, Handlers } from '../../wire/types.ts'

/** Everything of the outside world; the simulator passes its own. */
export interface ClientPlatform {
  readonly clock: Clock
  readonly network: Network
  readonly random: Random
  readonly logger: Logger
  /** Shown in `stat`: where this client runs. */
  readonly hostName?: string
  /** Proves the cluster's key; without it no server that wants a proof lets this client in. */
  readonly authenticator?: Authenticator
  /** Default: one of its own. */
  readonly pool?: BufferPool
}

export interface MetadataLink {
  readonly caller: Caller<MetadataMethods>
  close(reason: string): void
}

export interface DataLink {
  /** See Peer.sendData: exactly one callback; before the call returns only with an error, and nothing was sent. */
  sendData(
    borrowedRequest: DataRequest,
    borrowedTable: Uint32Array | Buffer | null,
    borrowedPayload: Buffer | null,
    timeoutMs: number,
    callback: DataCallback,
  ): void
  /** `cs.drain` (rule E5): resolves with the server's incarnation. */
  drain(session: number): Promise<number>
  close(reason: string): void
}

/** `onReady` at most once, then or instead of it `onClosed` exactly once; never before `connect…` returned. */
export interface LinkEvents<L> {
  onReady(link: L): void
  /** `master`: where a server that is not the master sends us. */
  onClosed(reason: string, code: string, master?: Address | null): void
}

export interface LinkAttempt {
  close(reason: string): void
}

/** How the served methods look to the client: no peer is needed. */
export type ServedByClient = Handlers<ClientMethods>

export interface Transport {
  connectMetadata(
    address: Address,
    served: ServedByClient,
    events: LinkEvents<MetadataLink>,
    timeoutMs: number,
  ): LinkAttempt
  /** `session`: whose requests will travel; said in the greeting. */
  connectData(address: Address, session: number, events: LinkEvents<DataLink>, timeoutMs: number): LinkAttempt
  /** Gives the payload of a data answer back. */
  release(ownedPayload: Buffer): void
}
