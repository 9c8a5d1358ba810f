/** Composition for programs: the client on the real clock, network and randomness of this process. */
import { nodeClock, nodeNetwork, nodeRandom } from '../platform/node/platform.ts'
import { type Logger, silentLogger } from '../platform/logger.ts'
import type { Client, ConnectOptions } from './api.ts'
import { connect as connectOn } from './client.ts'

export interface ProcessIdentity {
  readonly logger?: Logger
  /** Shown in `stat`. */
  readonly hostName?: string
}

/** Resolves when a session with the cluster's master is open; keeps trying while none answers. */
export async function connect(options: ConnectOptions, identity: ProcessIdentity = {}): Promise<Client> {
  return await connectOn(options, {
    clock: nodeClock,
    network: nodeNetwork,
    random: nodeRandom,
    logger: identity.logger ?? silentLogger,
    hostName: identity.hostName ?? '',
  })
}
