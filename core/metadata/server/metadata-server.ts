/**
 * The metadata server process: loads its repository, becomes master (there is one member for now), accepts
 * chunk servers and clients on base port + 1, and tells them apart by the role in their hello. This file only
 * connects the parts; each part says in its own header what it does.
 */
import type { BufferPool } from '../../base/buffer-pool.ts'
import type { Clock } from '../../platform/clock.ts'
import type { Logger } from '../../platform/logger.ts'
import type { Address, Network } from '../../platform/network.ts'
import { formatAddress } from '../../platform/network.ts'
import type { KeyStore } from '../../platform/key-ring.ts'
import type { PasswordExchange } from '../../platform/password.ts'
import type { Random } from '../../platform/random.ts'
import type { Store } from '../../platform/store.ts'
import { chunkServerUpMethods } from '../../wire/messages/chunk.ts'
import { metadataMethods } from '../../wire/messages/metadata.ts'
import { KeyAuthenticator, PASSWORD_ROLE } from '../../wire/authentication/key-authenticator.ts'
import { keyMethods } from '../../wire/messages/authentication.ts'
import { WireServer } from '../../wire/server.ts'
import type { Peer, WireLimits } from '../../wire/types.ts'
import type { ChunkState } from '../chunks/handlers.ts'
import { AuthenticationService } from '../authentication/service.ts'
import { Master } from '../control/master.ts'
import { MeasuredStore } from '../log/measured-store.ts'
import type { SingleLog } from '../log/single-log.ts'
import { clientHandlers } from './client-handlers.ts'
import { openRepository } from './cluster-repository.ts'
import type { ProcessUsage } from './cluster-statistics.ts'
import { ControlPlane } from './control-plane.ts'

export interface MetadataServerOptions {
  readonly store: Store
  readonly clock: Clock
  readonly network: Network
  readonly random: Random
  readonly logger: Logger
  readonly pool: BufferPool
  /** Base address: metadata servers dial each other here, everybody else on the next port. */
  readonly address: Address
  readonly hostName: string
  /** The process must end at once. */
  readonly onFatal: (error: Error) => void
  /** `admin.shutdown`: end in order. */
  readonly onShutdown?: () => void
  readonly usage?: () => ProcessUsage
  readonly limits?: Partial<WireLimits>
  /** Without it nobody has to prove anything (simulation, tests). */
  readonly authentication?: MetadataAuthentication
}

export interface MetadataAuthentication {
  readonly keys: KeyStore
  readonly loadExchange: () => Promise<PasswordExchange>
}

const CONNECTION_COUNT_MAX = 16_384
const TICK_MS = 10_000

export class MetadataServer {
  readonly state: ChunkState
  readonly control: ControlPlane
  readonly clusterName: string
  readonly clusterUuid: string
  readonly #master: Master
  readonly #log: SingleLog
  readonly #server: WireServer

  private constructor(parts: {
    master: Master
    log: SingleLog
    control: ControlPlane
    server: WireServer
    clusterName: string
    clusterUuid: string
  }) {
    this.state = parts.master.state
    this.control = parts.control
    this.clusterName = parts.clusterName
    this.clusterUuid = parts.clusterUuid
    this.#master = parts.master
    this.#log = parts.log
    this.#server = parts.server
  }

  /** Resolves when it serves. Rejects when the repository cannot be read or the port cannot be bound. */
  static async start(options: MetadataServerOptions): Promise<MetadataServer> {
    const { clock, random, logger, network, pool, address } = options
    const store = new MeasuredStore(options.store, clock)
    const { state, log, clusterName, clusterUuid } = await openRepository({ ...options, store })
    const master = new Master({ state, log, clock, random, logger })
    const control = new ControlPlane({
      onShutdown: () => {},
      usage: () => ({ cpuPct: 0, memBytes: 0 }),
      ...options,
      ...{ master, store, clusterName, clusterUuid },
    })
    const authentication =
      options.authentication === undefined
        ? null
        : new AuthenticationService({
            ...options.authentication,
            ...{ master, clusterName, events: control.events },
          })
    authentication?.start()
    const authenticator =
      options.authentication === undefined
        ? {}
        : {
            authenticator: new KeyAuthenticator({
              ...{ clock, random, logger, cluster: clusterName, admitsPasswords: true },
              keys: options.authentication.keys,
            }),
          }
    const server = new WireServer({
      ...authenticator,
      network,
      clock,
      logger,
      pool,
      connectionCountMax: CONNECTION_COUNT_MAX,
      ...(options.limits === undefined ? {} : { limits: options.limits }),
      identity: () => ({ role: 'mds', clusterName, clusterUuid, session: 0, name: options.hostName }),
      onPeer: (peer) => serve(peer, control, authentication),
    })
    const clients: Address = { host: address.host, port: address.port + 1 }
    await server.listen(clients)
    control.start()
    let tickMs = clock.nowMs()
    master.every(TICK_MS, () => {
      const nowMs = clock.nowMs()
      master.submit({ type: 'tick', elapsedMs: nowMs - tickMs })
      tickMs = nowMs
    })
    const message = `MDS#1 at ${formatAddress(address)} became master`
    control.events.record('JRN', 'info', 'MASTER_ELECTED', message)
    return new MetadataServer({ master, log, control, server, clusterName, clusterUuid })
  }

  get address(): Address {
    return this.#server.address
  }

  /** In order: no new requests, everything proposed is committed. */
  async close(): Promise<void> {
    this.#master.stop()
    await this.#server.close('the metadata server is stopping')
    await this.#log.close()
  }
}

function serve(peer: Peer, control: ControlPlane, authentication: AuthenticationService | null): void {
  const role = peer.remoteIdentity?.role
  if (role === PASSWORD_ROLE) {
    // It has proved nothing yet: nothing else is served to it.
    authentication?.serve(peer)
    return
  }
  if (role === 'cs') {
    peer.serve(chunkServerUpMethods, control.chunkServerHandlers())
    return
  }
  peer.serve(metadataMethods, clientHandlers(control))
  if (role === 'admin' && authentication !== null) peer.serve(keyMethods, authentication.keyHandlers())
}
