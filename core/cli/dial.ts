/** One connection of a command to a server: resolves when it is ready, rejects with what the server said. */
import { BufferPool } from '../base/buffer-pool.ts'
import { CairnError } from '../base/errors.ts'
import { silentLogger } from '../platform/logger.ts'
import type { Address } from '../platform/network.ts'
import { nodeClock, nodeNetwork } from '../platform/node/platform.ts'
import { WirePeer } from '../wire/peer.ts'
import type { Authenticator, Identity, Peer } from '../wire/types.ts'

export const CONNECT_TIMEOUT_MS = 2000

/** Without an authenticator: only what a server lets anybody do (role `auth`). */
export function dial(
  address: Address,
  identity: Identity,
  authenticator?: Authenticator,
  pool = new BufferPool(),
): Promise<Peer> {
  return new Promise((resolve, reject) => {
    const peer = new WirePeer({
      ...(authenticator === undefined ? {} : { authenticator }),
      connection: nodeNetwork.connect(address, CONNECT_TIMEOUT_MS),
      side: 'dial',
      identity: () => identity,
      clock: nodeClock,
      logger: silentLogger,
      pool,
      onReady: resolve,
    })
    peer.start()
    peer.onClosed((reason) => {
      reject(peer.refusal ?? new CairnError('DISCONNECTED', reason, { retryable: true }))
    })
  })
}
