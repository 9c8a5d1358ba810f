/**
 * Authentication from a host's side: the authenticator made of its key file, proving the password once to get
 * that file, and changing the password. docs/formats/authentication.md.
 */
import os from 'node:os'
import { CairnError, codeOf } from '../base/errors.ts'
import { asMetadataServers, type MetadataServers } from '../discovery/metadata-servers.ts'
import { parseKeyRing } from '../platform/key-ring.ts'
import { type Logger, silentLogger } from '../platform/logger.ts'
import { type Address, formatAddress } from '../platform/network.ts'
import { FileKeyStore, writeKeyFile } from '../platform/node/key-file.ts'
import { loadPasswordExchange } from '../platform/node/opaque-password.ts'
import { nodeClock, nodeRandom } from '../platform/node/platform.ts'
import type { PasswordExchange } from '../platform/password.ts'
import { KeyAuthenticator, PASSWORD_ROLE } from '../wire/authentication/key-authenticator.ts'
import { PasswordSession } from '../wire/authentication/password-session.ts'
import { type PasswordMethods, passwordMethods } from '../wire/messages/authentication.ts'
import type { Caller } from '../wire/types.ts'
import { dialMaster } from './dial.ts'
import type { EtcDirectory } from './etc.ts'

/** Of this host's key. Throws KEY_MISSING, KEY_UNPROTECTED or BAD_CONFIG now, not at the first connection. */
export function hostAuthenticator(
  etc: EtcDirectory,
  cluster: string,
  logger: Logger = silentLogger,
): KeyAuthenticator {
  const keys = hostKeys(etc, cluster, logger)
  return new KeyAuthenticator({ keys, random: nodeRandom, clock: nodeClock, logger, cluster })
}

/** Throws as `hostAuthenticator`. */
export function hostKeys(etc: EtcDirectory, cluster: string, logger: Logger): FileKeyStore {
  const keys = new FileKeyStore(etc.keyFile(cluster), cluster, logger)
  keys.current()
  return keys
}

export interface PasswordRequest {
  readonly cluster: string
  readonly metadataServers: readonly Address[] | MetadataServers
  readonly password: string
}

/** Proves the password and writes the key file. Rejects with WRONG_PASSWORD, TOO_MANY_ATTEMPTS, UNREACHABLE. */
export async function authenticateHost(request: PasswordRequest, etc: EtcDirectory): Promise<void> {
  await withServer(request, async (server) => {
    const { keys } = await proven(server, request.password)
    const ring = parseKeyRing(keys)
    if (ring.clusterUuid !== server.clusterUuid)
      throw new CairnError('WRONG_CLUSTER', `the key that came is not of cluster '${request.cluster}'`)
    writeKeyFile(etc.keyFile(request.cluster), ring)
  })
}

/** The cluster key stays, and with it every host that has it. Rejects as `authenticateHost`. */
export async function changePassword(request: PasswordRequest, newPassword: string): Promise<void> {
  await withServer(request, async (server) => {
    const { caller, clusterUuid, exchange } = server
    const { session } = await proven(server, request.password)
    const { state, message } = exchange.beginRegistration(newPassword)
    const answered = await caller.call('auth.register', {
      sealed: session.seal('registration request', message),
    })
    const answer = session.unseal('registration response', answered.sealed)
    const record = exchange.finishRegistration(state, answer, newPassword, clusterUuid)
    await caller.call('auth.replace', { sealed: session.seal('registration record', record) })
  })
}

interface PasswordServer {
  readonly caller: Caller<PasswordMethods>
  readonly clusterUuid: string
  readonly exchange: PasswordExchange
}

async function proven(
  { caller, clusterUuid, exchange }: PasswordServer,
  password: string,
): Promise<{ session: PasswordSession; keys: string }> {
  const { state, message: request } = exchange.begin(password)
  const { response } = await caller.call('auth.start', { request, host: os.hostname() })
  const proof = exchange.prove(state, response, password, clusterUuid)
  if (proof === null)
    throw new CairnError('WRONG_PASSWORD', 'this is not the password of the cluster', {
      next: 'try again; after three wrong ones there are pauses',
    })
  const finish = proof.message
  const { sealed } = await caller.call('auth.finish', { finish })
  const session = new PasswordSession(
    proof.sessionKey,
    { request, response, finish },
    clusterUuid,
    nodeRandom,
  )
  return { session, keys: session.unseal('keys', sealed) }
}

/** The next server may do better. */
const NEXT_SERVER_CODES: readonly string[] = [
  'DISCONNECTED',
  'TIMED_OUT',
  'STARTING',
  'NOT_MASTER',
  'OVERLOADED',
  'WRONG_CLUSTER',
  'WRONG_PROTOCOL',
]

/**
 * With the first metadata server that answers; discovery is asked when none does. A wrong answer of discovery
 * (a foreign cluster, which does not have our password) must not keep us from the others.
 */
async function withServer(
  request: PasswordRequest,
  use: (server: PasswordServer) => Promise<void>,
): Promise<void> {
  const servers = asMetadataServers(request.metadataServers)
  const exchange = await loadPasswordExchange()
  const tried = new Set<string>()
  const failures: Error[] = []
  for (const list of [() => Promise.resolve(servers.list()), () => servers.ask()]) {
    for (const address of await list()) {
      try {
        if (await useServer(address, request.cluster, exchange, tried, use)) return
      } catch (error) {
        const code = codeOf(error)
        if (code !== 'WRONG_PASSWORD' && !NEXT_SERVER_CODES.includes(code)) throw error
        failures.push(error as Error)
      }
    }
    // What a server said about the password says more than that another one is not there.
    const wrong = failures.find((failure) => codeOf(failure) === 'WRONG_PASSWORD')
    if (wrong !== undefined) throw wrong
  }
  const { cluster } = request
  const [first] = failures
  if (first === undefined)
    throw new CairnError('UNREACHABLE', `no metadata server of cluster '${cluster}' is known`, {
      next: `put HOST:PORT of one into clusters/${cluster}/bs.list of the configuration root, or name one with -b`,
    })
  const refusal = failures.find((failure) => codeOf(failure).startsWith('WRONG_'))
  if (refusal !== undefined) throw refusal
  throw new CairnError(
    'UNREACHABLE',
    `no metadata server of cluster '${cluster}' answers (${first.message})`,
    { next: 'check that one is running and that bs.list names its base port', cause: first },
  )
}

/** False: a server of this cluster was asked already, and the password was wrong. */
async function useServer(
  base: Address,
  cluster: string,
  exchange: PasswordExchange,
  tried: Set<string>,
  use: (server: PasswordServer) => Promise<void>,
): Promise<boolean> {
  const name = os.hostname()
  const identity = { role: PASSWORD_ROLE, clusterName: cluster, clusterUuid: '', session: 0, name }
  const { peer } = await dialMaster(base, identity)
  const clusterUuid = peer.remoteIdentity?.clusterUuid ?? ''
  try {
    if (tried.has(clusterUuid)) return false
    await use({ caller: peer.caller(passwordMethods), clusterUuid, exchange })
    return true
  } catch (error) {
    if (codeOf(error) === 'WRONG_PASSWORD') tried.add(clusterUuid)
    throw new CairnError(codeOf(error), `${formatAddress(base)}: ${(error as Error).message}`, {
      ...(error instanceof CairnError && error.next !== undefined ? { next: error.next } : {}),
      cause: error,
    })
  } finally {
    peer.close('done')
  }
}
