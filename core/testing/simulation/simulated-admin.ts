/**
 * What an administrator's command does on a simulated cluster: a session for `admin.*` calls. One connection; when
 * it breaks, connect again.
 */
import { BufferPool } from '../../base/buffer-pool.ts'
import { CairnError } from '../../base/errors.ts'
import { silentLogger } from '../../platform/logger.ts'
import type { Address } from '../../platform/network.ts'
import type { Mutation } from '../../wire/messages/common.ts'
import { type MetadataMethods, metadataMethods } from '../../wire/messages/metadata.ts'
import { WirePeer } from '../../wire/peer.ts'
import type { Caller, Peer } from '../../wire/types.ts'
import type { ProcessLife } from './simulated-process.ts'

const CONNECT_TIMEOUT_MS = 2000

export class SimulatedAdmin {
  readonly metadata: Caller<MetadataMethods>
  readonly #life: ProcessLife
  readonly #peer: Peer
  #sequence = 0

  private constructor(life: ProcessLife, peer: Peer) {
    this.#life = life
    this.#peer = peer
    this.metadata = peer.caller<MetadataMethods>(metadataMethods)
  }

  /** `base`: the base address of the metadata server. */
  static async connect(life: ProcessLife, clusterName: string, base: Address): Promise<SimulatedAdmin> {
    const pool = new BufferPool({ retainedBytesMax: 0 })
    const address = { host: base.host, port: base.port + 1 }
    const admin = new SimulatedAdmin(life, await dial(life, clusterName, address, pool))
    await admin.metadata.call('session.open', { name: 'admin', host: 'admin', kind: 'admin' })
    return admin
  }

  /** For the next mutating call; one call after the other. */
  mutation(): Mutation {
    this.#sequence += 1
    return { sequence: this.#sequence, acknowledgedBelow: this.#sequence }
  }

  async setReplicas(inode: number, replicas: { normal: number; minimum: number }): Promise<void> {
    const attributes = { replicasNormal: replicas.normal, replicasMinimum: replicas.minimum }
    const mutation = this.mutation()
    await this.metadata.call('attr.set', { mutation, inode, recursive: false, attributes })
  }

  pause(durationMs: number): Promise<void> {
    return new Promise((resolve) => void this.#life.clock.setTimer(durationMs, resolve))
  }

  async close(): Promise<void> {
    await this.metadata.call('session.close', {})
    this.#peer.close('done')
  }
}

function dial(life: ProcessLife, clusterName: string, address: Address, pool: BufferPool): Promise<Peer> {
  return new Promise((resolve, reject) => {
    const peer = new WirePeer({
      connection: life.network.connect(address, CONNECT_TIMEOUT_MS),
      side: 'dial',
      identity: () => ({ role: 'admin', clusterName, clusterUuid: '', session: 0, name: 'admin' }),
      clock: life.clock,
      logger: silentLogger,
      pool,
      onReady: resolve,
    })
    peer.onClosed((reason) => reject(new CairnError('DISCONNECTED', reason, { retryable: true })))
    peer.start()
  })
}
