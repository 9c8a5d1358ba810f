/** Making the first metadata server creates the cluster. Guide: Setting Up the First Metadata Server. */
import fs from 'node:fs'
import os from 'node:os'
import path from 'node:path'
import { CairnError, codeOf } from '../../base/errors.ts'
import { parsePlacement } from '../../cli/commands/attributes.ts'
import { dial } from '../../cli/dial.ts'
import { checkClusterName, type EtcDirectory } from '../../cli/etc.ts'
import type { MetadataServers } from '../../discovery/metadata-servers.ts'
import { sealVerifier } from '../../metadata/authentication/record.ts'
import { createCluster } from '../../metadata/server/cluster-repository.ts'
import { CLUSTER_KEY_BYTES, KeyRing } from '../../platform/key-ring.ts'
import { silentLogger } from '../../platform/logger.ts'
import { type Address, formatAddress } from '../../platform/network.ts'
import { writeKeyFile } from '../../platform/node/key-file.ts'
import { loadPasswordExchange } from '../../platform/node/opaque-password.ts'
import { nodeClock, nodeRandom } from '../../platform/node/platform.ts'
import { NodeHardStateFile } from '../../platform/node/hard-state-file.ts'
import { SqliteStore } from '../../platform/node/sqlite-store.ts'
import { PASSWORD_ROLE } from '../../wire/authentication/key-authenticator.ts'
import { writeListenSetting } from '../listen-setting.ts'
import { emptyDraft } from '../renewed-repository.ts'
import { checkEmpty, putInPlace } from './join-mds.ts'
import { HARD_STATE_FILE, METADATA_DATABASE } from '../repository-files.ts'

export interface MakeMetadataServer {
  readonly cluster: string
  readonly address: Address
  readonly repository: string
  readonly etc: EtcDirectory
  /** "N" or "N:M". */
  readonly replicas: string
  readonly failureDomain: string
  readonly password: string
}

/** Durable when it resolves. Throws USAGE, and REFUSED when the directory holds something. */
export async function makeMetadataServer(options: MakeMetadataServer): Promise<void> {
  const { repository, etc } = options
  const cluster = checkClusterName(options.cluster)
  const placement = parsePlacement([
    `replicas=${options.replicas}`,
    `failure-domain=${options.failureDomain}`,
  ])
  checkEmpty(repository)
  const keyFile = etc.keyFile(cluster)
  if (fs.existsSync(keyFile)) {
    throw new CairnError('REFUSED', `this host belongs to a cluster '${cluster}' already (${keyFile})`, {
      next: 'choose another name with -c; or, when that cluster is gone for good, remove the file',
    })
  }
  const exchange = await loadPasswordExchange()
  const key = nodeRandom.bytes(CLUSTER_KEY_BYTES)
  // A cluster is created beside its place and renamed there: a crash leaves no half-made repository.
  const draft = emptyDraft(repository)
  const fatal: { error: Error | null } = { error: null }
  const { uuid } = await createCluster(
    {
      store: await SqliteStore.open(path.join(draft, METADATA_DATABASE)),
      hardState: new NodeHardStateFile(path.join(draft, HARD_STATE_FILE)),
      clock: nodeClock,
      random: nodeRandom,
      logger: silentLogger,
      onFatal: (error) => {
        fatal.error = error
      },
    },
    {
      name: cluster,
      placement,
      authentication: (clusterUuid) => {
        const ring = new KeyRing(clusterUuid, [[1, key]])
        const verifier = exchange.createVerifier(options.password, clusterUuid)
        return { version: 1, oldest: 1, verifier: sealVerifier(verifier, 1, ring, nodeRandom) }
      },
    },
  )
  if (fatal.error !== null) throw fatal.error
  writeListenSetting(draft, options.address)
  // Before the repository has its name: without the key it could not be opened.
  writeKeyFile(keyFile, new KeyRing(uuid, [[1, key]]))
  putInPlace(draft, repository)
  etc.hostIdentity()
  etc.addBootstrapAddress(cluster, options.address)
}

/** What a metadata server answers whose cluster has the name that was asked for. */
const SAME_NAME_CODES: readonly string[] = ['NOT_MASTER', 'STARTING', 'OVERLOADED']

/**
 * A second cluster of the same name would be taken for the first by hosts that have not authenticated yet.
 * Only who answers counts: zones may name servers that are to come. Throws REFUSED.
 */
export async function refuseSecondCluster(cluster: string, servers: MetadataServers): Promise<void> {
  const addresses = await servers.ask()
  const answers = await Promise.all(addresses.map((address) => isServerOf(cluster, address)))
  const found = addresses.find((_address, index) => answers[index] === true)
  if (found === undefined) return
  throw new CairnError(
    'REFUSED',
    `there is a cluster '${cluster}' already: one of its metadata servers answers at ${formatAddress(found)}`,
    { next: 'choose another name with -c; to add a metadata server to that cluster leave -I out' },
  )
}

async function isServerOf(clusterName: string, { host, port }: Address): Promise<boolean> {
  const identity = { role: PASSWORD_ROLE, clusterName, clusterUuid: '', session: 0, name: os.hostname() }
  try {
    const peer = await dial({ host, port: port + 1 }, identity)
    peer.close('only asked for its name')
    return true
  } catch (error) {
    return SAME_NAME_CODES.includes(codeOf(error))
  }
}
