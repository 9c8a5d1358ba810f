/**
 * The service `clientEnvironment` for plugins that open the cluster as a client (mounts, exports): which
 * cluster, how to reach it, how to start this program again, where to log.
 */
import os from 'node:os'
import type { CommandContext } from '../cli/context.ts'
import type { Client, ConnectOptions } from '../client/api.ts'
import type { Logger } from '../platform/logger.ts'
import { createNodeLogger } from '../platform/node/logger.ts'
import { cairnCommand } from './self.ts'

export interface ClientEnvironment {
  cluster(given: string | undefined): string
  connect(options: Omit<ConnectOptions, 'metadataServers'> & { readonly logger: Logger }): Promise<Client>
  command(parameters: readonly string[]): readonly string[]
  logger(file: string | undefined): Logger
}

/** `onConnect` hears of each client that this process opens, by its kind. */
export function clientEnvironment(
  contextOf: (cluster?: string) => CommandContext,
  onConnect: (kind: string) => Promise<void> = () => Promise.resolve(),
): ClientEnvironment {
  return {
    cluster: (given) => contextOf(given).cluster(),
    async connect({ logger, ...options }) {
      const { connect } = await import('../client/connect.ts')
      const client = await connect(
        {
          ...options,
          metadataServers: contextOf(options.cluster).metadataServers(),
        },
        {
          logger,
          hostName: os.hostname(),
          keyFile: contextOf().etc.keyFile(options.cluster),
        },
      )
      try {
        await onConnect(options.kind)
      } catch (error) {
        // A configuration root that cannot be written to: no reason not to serve.
        logger.warn('this process is not listed by `cairn plugin list`', { reason: String(error) })
      }
      return client
    },
    command: (parameters) => cairnCommand(['--etc', contextOf().etc.root, ...parameters]),
    logger: (file) => createNodeLogger({ name: 'mount', ...(file === undefined ? {} : { file }) }),
  }
}
