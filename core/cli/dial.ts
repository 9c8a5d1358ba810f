/** One connection of a command to a server: resolves when it is ready, rejects with what the server said. */
import { BufferPool } from '../base/buffer-pool.ts'
import { CairnError } from '../base/errors.ts'
import { silentLogger } from '../platform/logger.ts'
import type { Address } from '../platform/network.ts'
import { nodeClock, nodeNetwork } from '../platform/node/platform.ts'
import { masterHint } from '../wire/not-master.ts'
import { WirePeer } from '../wire/peer.ts'
import type { Authenticator, Identity, Peer, WireLimits } from '../wire/types.ts'

export const CONNECT_TIMEOUT_MS = 2000

/**
 * As `dial`, on the port for everybody of the metadata server with this base address; when it says who the
 * master is, of that one. `base` in the answer is the one that took us.
 */
export async function dialMaster(
  base: Address,
  identity: Identity,
  authenticator?: Authenticator,
  pool = new BufferPool(),
): Promise<{ readonly peer: Peer; readonly base: Address }> {
  const portOf = ({ host, port }: Address): Address => ({ host, port: port + 1 })
  try {
    return { peer: await dial(portOf(base), identity, authenticator, pool), base }
  } catch (error) {
    const master = error instanceof CairnError ? masterHint(error) : null
    if (master === null) throw error
    return { peer: await dial(portOf(master), identity, authenticator, pool), base: master }
  }
}

/** Without an authenticator: only what a server lets anybody do (role `auth`). */
export function dial(
  address: Address,
  identity: Identity,
  authenticator?: Authenticator,
  pool = new BufferPool(),
  limits: Partial<WireLimits> = {},
): Promise<Peer> {
  return new Promise((resolve, reject) => {
    const peer = new WirePeer({
      ...(authenticator === undefined ? {} : { authenticator }),
      limits,
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
