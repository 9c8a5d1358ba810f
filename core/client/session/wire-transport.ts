/** The client's transport over core/wire: one WirePeer for each connection attempt. */
import { BufferPool } from '../../base/buffer-pool.ts'
import type { CairnError } from '../../base/errors.ts'
import type { Address } from '../../platform/network.ts'
import { chunkServerPortMethods } from '../../wire/messages/chunk.ts'
import { clientMethods, metadataMethods } from '../../wire/messages/metadata.ts'
import { masterHint } from '../../wire/not-master.ts'
import { WirePeer } from '../../wire/peer.ts'
import type { Peer, WireLimits } from '../../wire/types.ts'
import type { ConnectOptions } from '../api.ts'
import { CALLS_IN_FLIGHT_MAX, MUTATIONS_IN_FLIGHT_MAX, REQUESTS_IN_FLIGHT_PER_SERVER_MAX } from './limits.ts'
import type {
  ClientPlatform,
  DataLink,
  LinkAttempt,
  LinkEvents,
  MetadataLink,
  ServedByClient,
  Transport,
} from './transport.ts'

const limits: Partial<WireLimits> = {
  inFlightCountMax:
    Math.max(REQUESTS_IN_FLIGHT_PER_SERVER_MAX, CALLS_IN_FLIGHT_MAX + MUTATIONS_IN_FLIGHT_MAX) * 2,
}

export class WireTransport implements Transport {
  readonly #options: ConnectOptions
  readonly #platform: ClientPlatform
  readonly #pool: BufferPool
  /** Of the first metadata server that let us in: discovery may name another cluster of the same name later. */
  #clusterUuid = ''
  /** The highest met: a quorum that was replaced by another is not followed back. */
  #generation = 0

  constructor(options: ConnectOptions, platform: ClientPlatform) {
    this.#options = options
    this.#platform = platform
    this.#pool = platform.pool ?? new BufferPool()
  }

  connectMetadata(
    address: Address,
    served: ServedByClient,
    events: LinkEvents<MetadataLink>,
    timeoutMs: number,
  ): LinkAttempt {
    const onPeer = (peer: Peer): void => {
      if (this.#clusterUuid === '') this.#clusterUuid = peer.remoteIdentity?.clusterUuid ?? ''
      this.#generation = Math.max(this.#generation, peer.remoteIdentity?.generation ?? 0)
      peer.serve(clientMethods, served)
      events.onReady({
        caller: peer.caller(metadataMethods),
        close: (reason) => peer.close(reason),
      })
    }
    return this.#dial(address, 0, timeoutMs, onPeer, events)
  }

  connectData(
    address: Address,
    session: number,
    events: LinkEvents<DataLink>,
    timeoutMs: number,
  ): LinkAttempt {
    const onPeer = (peer: Peer): void => {
      const caller = peer.caller(chunkServerPortMethods)
      events.onReady({
        sendData: (request, table, payload, requestTimeoutMs, callback) =>
          peer.sendData(request, table, payload, requestTimeoutMs, callback),
        drain: async (drained) => (await caller.call('cs.drain', { session: drained })).incarnation,
        close: (reason) => peer.close(reason),
      })
    }
    return this.#dial(address, session, timeoutMs, onPeer, events)
  }

  release(ownedPayload: Buffer): void {
    this.#pool.release(ownedPayload)
  }

  #dial(
    address: Address,
    session: number,
    timeoutMs: number,
    onPeer: (peer: Peer) => void,
    events: Pick<LinkEvents<unknown>, 'onClosed'>,
  ): LinkAttempt {
    const { authenticator, clock, logger, network, hostName } = this.#platform
    const name = `${this.#options.kind} ${this.#options.name}${hostName === undefined ? '' : ` on ${hostName}`}`
    const peer = new WirePeer({
      ...(authenticator === undefined ? {} : { authenticator }),
      connection: network.connect(address, timeoutMs),
      side: 'dial',
      clock,
      logger,
      pool: this.#pool,
      limits,
      identity: () => ({
        role: 'client',
        clusterName: this.#options.cluster,
        clusterUuid: this.#clusterUuid,
        generation: this.#generation,
        session,
        name: name.slice(0, 255),
      }),
      onReady: () => onPeer(peer),
    })
    peer.onClosed((reason) => {
      const refusal: CairnError | null = peer.refusal
      events.onClosed(reason, refusal?.code ?? 'DISCONNECTED', masterHint(refusal))
    })
    peer.start()
    return { close: (reason) => peer.close(reason) }
  }
}
