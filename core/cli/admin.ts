/**
 * A session of the command line with the cluster's master: tries every known metadata server until one
 * answers or the deadline passes. Also reads replicas from chunk servers for fsck.
 */
import os from 'node:os'
import { BufferPool } from '../base/buffer-pool.ts'
import { CairnError, codeOf } from '../base/errors.ts'
import { silentLogger } from '../platform/logger.ts'
import { type Address, formatAddress } from '../platform/network.ts'
import { nodeClock, nodeNetwork } from '../platform/node/platform.ts'
import { chunkServerPortMethods } from '../wire/messages/chunk.ts'
import type { Mutation, ServerAddress } from '../wire/messages/common.ts'
import { type MetadataMethods, metadataMethods } from '../wire/messages/metadata.ts'
import type { ParamsOf, ResultOf } from '../wire/messages/method.ts'
import { WirePeer } from '../wire/peer.ts'
import type { Caller, Identity, Peer } from '../wire/types.ts'

const CONNECT_TIMEOUT_MS = 2000
const MASTER_DEADLINE_MS = 15_000
const RETRY_DELAY_MS = 250
/** A whole chunk is read from a disk. */
const VERIFY_TIMEOUT_MS = 120_000

type VerifyResult = ResultOf<typeof chunkServerPortMethods, 'cs.verify'>

export interface AdminConnection {
  readonly metadata: Caller<MetadataMethods>
  /** Id of the metadata server that answers. */
  readonly metadataServer: number
  readonly clusterUuid: string
  /** For the next mutating call. Calls of one connection are made one after the other. */
  mutation(): Mutation
  verify(address: ServerAddress, chunk: number, version: number): Promise<VerifyResult>
  /** Ends a chunk server. Rejects when it does not answer. */
  shutDownChunkServer(address: Address): Promise<void>
  pause(milliseconds: number): Promise<void>
  close(): Promise<void>
}

/** Rejects with UNREACHABLE, or with what the server said (WRONG_CLUSTER, …). */
export async function connectAdmin(
  cluster: string,
  servers: readonly Address[],
  deadlineMs = MASTER_DEADLINE_MS,
): Promise<AdminConnection> {
  const endMs = nodeClock.nowMs() + deadlineMs
  let last = 'no address is known'
  do {
    for (const server of servers) {
      try {
        return await openAdmin(cluster, server)
      } catch (error) {
        const code = codeOf(error)
        if (code === 'WRONG_CLUSTER' || code === 'WRONG_PROTOCOL') {
          throw new CairnError(code, `${formatAddress(server)}: ${(error as Error).message}`, {
            next: `check the name given with -c, and the addresses in bs.list of '${cluster}'`,
            cause: error,
          })
        }
        last = `${formatAddress(server)}: ${(error as Error).message}`
      }
    }
    await pause(RETRY_DELAY_MS)
  } while (nodeClock.nowMs() < endMs)
  throw new CairnError('UNREACHABLE', `no metadata server of cluster '${cluster}' answers (${last})`, {
    next: 'check that one is running (cairn status) and that bs.list names its base port',
  })
}

async function openAdmin(cluster: string, base: Address): Promise<AdminConnection> {
  const pool = new BufferPool()
  const identity = identityOf(cluster, '')
  const peer = await dial({ host: base.host, port: base.port + 1 }, identity, pool)
  try {
    const metadata = peer.caller<MetadataMethods>(metadataMethods)
    await metadata.call('session.open', { name: `cairn-${process.pid}`, host: os.hostname(), kind: 'admin' })
    const clusterUuid = peer.remoteIdentity?.clusterUuid ?? ''
    const chunkServers = new Map<string, Promise<Peer>>()
    const connectChunkServer = (address: Address): Promise<Peer> => {
      const key = formatAddress(address)
      const known = chunkServers.get(key)
      if (known !== undefined) return known
      const server = dial(address, identityOf(cluster, clusterUuid), pool)
      chunkServers.set(key, server)
      return server
    }
    let sequence = 0
    return {
      metadata,
      metadataServer: 1,
      clusterUuid,
      mutation() {
        sequence += 1
        return { sequence, acknowledgedBelow: sequence }
      },
      async verify(address, chunk, version) {
        const key = formatAddress(address)
        try {
          const caller = (await connectChunkServer(address)).caller(chunkServerPortMethods)
          return await caller.call('cs.verify', { chunk, version }, { timeoutMs: VERIFY_TIMEOUT_MS })
        } catch (error) {
          if (codeOf(error) === 'DISCONNECTED') chunkServers.delete(key)
          throw error
        }
      },
      async shutDownChunkServer(address) {
        const caller = (await connectChunkServer(address)).caller(chunkServerPortMethods)
        await caller.call('cs.shutdown', {}, { timeoutMs: CONNECT_TIMEOUT_MS })
      },
      pause,
      async close() {
        for (const server of chunkServers.values()) {
          await server.then((open) => open.close('done')).catch(() => undefined)
        }
        await closeSession(metadata)
        peer.close('done')
      },
    }
  } catch (error) {
    peer.close('failed')
    throw error
  }
}

/** The server expires the session by itself when it does not hear this. */
async function closeSession(metadata: Caller<MetadataMethods>): Promise<void> {
  try {
    await metadata.call('session.close', {} as ParamsOf<MetadataMethods, 'session.close'>, {
      timeoutMs: CONNECT_TIMEOUT_MS,
    })
  } catch (error) {
    if (codeOf(error) === 'UNKNOWN') throw error
  }
}

function identityOf(clusterName: string, clusterUuid: string): Identity {
  return {
    role: 'admin',
    clusterName,
    clusterUuid,
    session: 0,
    name: `${os.hostname()} cairn ${process.pid}`,
  }
}

function dial(address: Address, identity: Identity, pool: BufferPool): Promise<Peer> {
  return new Promise((resolve, reject) => {
    const peer = new WirePeer({
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

function pause(milliseconds: number): Promise<void> {
  return new Promise((resolve) => {
    nodeClock.setTimer(milliseconds, resolve)
  })
}
