/**
 * A session of the command line with the cluster's master: tries every known metadata server until one
 * answers or the deadline passes.
 */
import os from 'node:os'
import { BufferPool } from '../base/buffer-pool.ts'
import { CairnError, codeOf } from '../base/errors.ts'
import { addressKey, asMetadataServers, type MetadataServers } from '../discovery/metadata-servers.ts'
import { type Address, formatAddress } from '../platform/network.ts'
import { nodeClock } from '../platform/node/platform.ts'
import { finalRefusals } from '../wire/codes.ts'
import { chunkServerPortMethods } from '../wire/messages/chunk.ts'
import type { Mutation } from '../wire/messages/common.ts'
import { type MetadataMethods, metadataMethods } from '../wire/messages/metadata.ts'
import type { ParamsOf } from '../wire/messages/method.ts'
import type { Authenticator, Caller, Identity, Peer } from '../wire/types.ts'
import { hostAuthenticator } from './authentication.ts'
import { CONNECT_TIMEOUT_MS, dial, dialMaster } from './dial.ts'
import type { EtcDirectory } from './etc.ts'
import { NoQuorumError, surveyMembers } from './survey.ts'

const MASTER_DEADLINE_MS = 15_000
const RETRY_DELAY_MS = 250

export interface AdminConnection {
  /** For messages that only an administrator's commands know. */
  readonly peer: Peer
  readonly metadata: Caller<MetadataMethods>
  /** Id of the metadata server that answers. */
  readonly metadataServer: number
  readonly clusterUuid: string
  /** Base address of the metadata server that answers. */
  readonly address: Address
  /** For the next mutating call. Calls of one connection are made one after the other. */
  mutation(): Mutation
  /** Ends a chunk server. Rejects when it does not answer. */
  shutDownChunkServer(address: Address): Promise<void>
  pause(milliseconds: number): Promise<void>
  close(): Promise<void>
}

/**
 * `etc`: whose cluster key it proves.
 * Tries the servers in turn, asks discovery when none answers, and starts again until the deadline. A server of
 * another cluster is skipped (`onSkip` hears why); it is final only when nobody else is known. Rejects with
 * UNREACHABLE (NoQuorumError when some answer, but no master), KEY_MISSING, or with what the server said
 * (WRONG_CLUSTER, …).
 */
export async function connectAdmin(
  cluster: string,
  given: readonly Address[] | MetadataServers,
  etc: EtcDirectory,
  deadlineMs = MASTER_DEADLINE_MS,
  onSkip: (message: string) => void = () => {},
): Promise<AdminConnection> {
  let authenticator: Authenticator | null = null
  const endMs = nodeClock.nowMs() + deadlineMs
  const servers = asMetadataServers(given)
  const refused = new Map<string, CairnError>()
  let list = servers.list()
  if (list.length === 0) list = await servers.ask()
  let last = 'no address is known'
  do {
    for (const server of list) {
      authenticator ??= hostAuthenticator(etc, cluster)
      try {
        return await openAdmin(cluster, server, authenticator)
      } catch (error) {
        last = `${formatAddress(server)}: ${(error as Error).message}`
        const code = codeOf(error)
        if (!finalRefusals.includes(code)) continue
        if (!refused.has(addressKey(server)) && list.length > 1) onSkip(`${last}; it is skipped`)
        refused.set(addressKey(server), wrongServer(cluster, code, last, error))
      }
    }
    list = await servers.ask()
    const refusal = refused.values().next().value
    if (refusal !== undefined && list.every((server) => refused.has(addressKey(server)))) throw refusal
    if (list.length === 0) break
    await pause(RETRY_DELAY_MS)
  } while (nodeClock.nowMs() < endMs)
  const survey = authenticator === null ? null : await surveyMembers(cluster, list, authenticator)
  if (survey !== null) throw new NoQuorumError(cluster, survey)
  throw unreachable(cluster, list.length === 0, last, servers)
}

function wrongServer(cluster: string, code: string, message: string, cause: unknown): CairnError {
  const step = cause instanceof CairnError ? cause.next : undefined
  return new CairnError(code, message, {
    next: step ?? `check the name given with -c, and the addresses in bs.list of '${cluster}'`,
    cause,
  })
}

function unreachable(
  cluster: string,
  isNoneKnown: boolean,
  last: string,
  servers: MetadataServers,
): CairnError {
  const problems = servers.problems().map((problem) => `; ${problem}`)
  if (isNoneKnown)
    return new CairnError(
      'UNREACHABLE',
      `no metadata server of cluster '${cluster}' is known${problems.join('')}`,
      {
        next: `put HOST:PORT of one into clusters/${cluster}/bs.list of the configuration root, name one with -b, or set up discovery`,
      },
    )
  return new CairnError(
    'UNREACHABLE',
    `no metadata server of cluster '${cluster}' answers (${last}${problems.join('')})`,
    {
      next: 'check that one is running (cairn status) and that bs.list names its base port',
    },
  )
}

async function openAdmin(
  cluster: string,
  known: Address,
  authenticator: Authenticator,
): Promise<AdminConnection> {
  const pool = new BufferPool()
  const identity = identityOf(cluster, '')
  const { peer, base } = await dialMaster(known, identity, authenticator, pool)
  try {
    const metadata = peer.caller<MetadataMethods>(metadataMethods)
    await metadata.call('session.open', { name: `cairn-${process.pid}`, host: os.hostname(), kind: 'admin' })
    const clusterUuid = peer.remoteIdentity?.clusterUuid ?? ''
    const chunkServers = new Map<string, Promise<Peer>>()
    const connectChunkServer = (address: Address): Promise<Peer> => {
      const key = formatAddress(address)
      const known = chunkServers.get(key)
      if (known !== undefined) return known
      const server = dial(address, identityOf(cluster, clusterUuid), authenticator, pool)
      chunkServers.set(key, server)
      return server
    }
    let sequence = 0
    return {
      peer,
      metadata,
      metadataServer: peer.remoteIdentity?.member ?? 0,
      clusterUuid,
      address: base,
      mutation() {
        sequence += 1
        return { sequence, acknowledgedBelow: sequence }
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

function pause(milliseconds: number): Promise<void> {
  return new Promise((resolve) => {
    nodeClock.setTimer(milliseconds, resolve)
  })
}
