/**
 * Servers that the quorum gives up. Rule J3: while all replicas at hand have crashed, the choice among them waits for
 * an uncrashed one whose server is silent, until `offline_tout`. From then on what only that one had may be lost
 * (and the next flush says so, rule F5): to the oracle its memory is gone, no earlier.
 */
import type { LogFields, Logger } from '../../core/platform/logger.ts'
import type { SimulatedCluster } from '../../core/testing/simulation/simulated-cluster.ts'
import { tellMemoryLost } from './fault-tools.ts'
import type { Oracle } from './oracle.ts'

export class GivenUpServers {
  readonly #cluster: SimulatedCluster
  readonly #oracle: Oracle

  constructor(cluster: SimulatedCluster, oracle: Oracle) {
    this.#cluster = cluster
    this.#oracle = oracle
  }

  /** The metadata server's log: it says there who is offline, before it decides anything because of that. */
  watching(logger: Logger): Logger {
    const watching: Logger = {
      ...logger,
      info: (message: string, fields?: LogFields) => {
        logger.info(message, fields)
        if (fields?.['code'] === 'CS_OFFLINE') this.#look()
      },
      child: () => watching,
    }
    return watching
  }

  /** All of them: one that has been offline for longer is not waited for either. */
  #look(): void {
    const { role } = this.#cluster.master ?? this.#cluster.metadataServer
    if (role === null) return
    for (const { server, state } of role.server.state.servers.values()) {
      if (state === 'offline') tellMemoryLost(this.#cluster, this.#oracle, server)
    }
  }
}
