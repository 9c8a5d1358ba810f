/** Composition for programs: the client on the real clock, network and randomness of this process. */
import { nodeClock, nodeNetwork, nodeRandom } from '../platform/node/platform.ts'
import { type Logger, silentLogger } from '../platform/logger.ts'
import { FileKeyStore } from '../platform/node/key-file.ts'
import { KeyAuthenticator } from '../wire/authentication/key-authenticator.ts'
import type { Client, ConnectOptions } from './api.ts'
import { connect as connectOn } from './client.ts'

export interface ProcessIdentity {
  readonly logger?: Logger
  /** Shown in `stat`. */
  readonly hostName?: string
  /** The host's cluster key: `auth_digest.key`, made by `cairn auth-node`. Without it no cluster lets a program in. */
  readonly keyFile?: string
}

/** Resolves when a session with the cluster's master is open; keeps trying while none answers. */
export async function connect(options: ConnectOptions, identity: ProcessIdentity = {}): Promise<Client> {
  const logger = identity.logger ?? silentLogger
  const authentication =
    identity.keyFile === undefined
      ? {}
      : { authenticator: fileAuthenticator(identity.keyFile, options.cluster, logger) }
  return await connectOn(options, {
    ...authentication,
    clock: nodeClock,
    network: nodeNetwork,
    random: nodeRandom,
    logger,
    hostName: identity.hostName ?? '',
  })
}

/** Throws KEY_MISSING, KEY_UNPROTECTED, BAD_CONFIG. */
function fileAuthenticator(keyFile: string, cluster: string, logger: Logger): KeyAuthenticator {
  const keys = new FileKeyStore(keyFile, cluster, logger)
  keys.current()
  return new KeyAuthenticator({ keys, random: nodeRandom, clock: nodeClock, logger, cluster })
}
