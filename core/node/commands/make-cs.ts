/**
 * Making a chunk server: asks the cluster who it is, looks at the disk, warns of what the guide warns of,
 * and creates the store. Guide: Setting Up Chunk Servers.
 */
import fs from 'node:fs'
import os from 'node:os'
import path from 'node:path'
import { CairnError } from '../../base/errors.ts'
import { checkNewStore, createStore } from '../../chunkserver/index.ts'
import { connectAdmin } from '../../cli/admin.ts'
import type { EtcDirectory } from '../../cli/etc.ts'
import type { MetadataServers } from '../../discovery/metadata-servers.ts'
import type { Address } from '../../platform/network.ts'
import { gatherDiskFacts } from '../../platform/node/disk-facts.ts'
import { NodeDisk } from '../../platform/node/disk.ts'
import { nodeClock, nodeRandom } from '../../platform/node/platform.ts'
import type { ServiceEntry } from '../../wire/messages/statistics.ts'
import { writeListenSetting } from '../listen-setting.ts'
import { localAddressTowards } from '../local-address.ts'

export interface MakeChunkServer {
  readonly cluster: string
  readonly metadataServers: readonly Address[] | MetadataServers
  /** Base addresses to write into this host's bs.list: what was found by discovery is found again. */
  readonly remembered: readonly Address[]
  readonly repository: string
  readonly etc: EtcDirectory
  readonly tier: number
  readonly checksums: boolean
  /** Null: the address from which the metadata servers are reached, and a free port. */
  readonly listen: Address | null
  /** Warnings are for people who set up a real host. */
  readonly warn: ((text: string) => void) | null
}

/** Durable when it resolves. Throws REFUSED when the directory holds something, UNREACHABLE, WRONG_CLUSTER. */
export async function makeChunkServer(options: MakeChunkServer): Promise<void> {
  const { repository } = options
  if (fs.existsSync(repository) && fs.readdirSync(repository).some((name) => name !== 'lost+found')) {
    throw new CairnError('REFUSED', `${repository} is not empty`, {
      next: 'name a directory that does not exist yet, or an empty one',
    })
  }
  const identity = options.etc.hostIdentity()
  const admin = await connectAdmin(options.cluster, options.metadataServers, options.etc)
  let clusterUuid: string
  let answering: Address
  let services: ServiceEntry[]
  try {
    clusterUuid = admin.clusterUuid
    answering = admin.address
    services = ((await admin.metadata.call('admin.services', {})) as { services: ServiceEntry[] }).services
  } finally {
    await admin.close()
  }
  fs.mkdirSync(repository, { recursive: true })
  const host = options.listen?.host ?? (await localAddressTowards([answering]))
  if (options.warn !== null) {
    const knownHosts = services
      .filter((entry) => entry.kind === 'cs')
      .map((entry) => ({ hostId: entry.hostId, hostName: entry.host }))
    const facts = {
      disk: gatherDiskFacts(repository),
      hostId: identity.hostId,
      hostName: os.hostname(),
      knownHosts,
    }
    for (const { message, next } of checkNewStore(facts)) options.warn(`${message}; ${next}`)
  }
  writeListenSetting(repository, { host, port: options.listen?.port ?? 0 })
  await createStore({
    disk: new NodeDisk(repository),
    clock: nodeClock,
    random: nodeRandom,
    clusterName: options.cluster,
    clusterUuid,
    tier: options.tier,
    checksums: options.checksums,
  })
  options.etc.addBootstrapAddresses(options.cluster, options.remembered)
  // The directory entry of the repository itself.
  const parent = fs.openSync(path.dirname(path.resolve(repository)), 'r')
  fs.fsyncSync(parent)
  fs.closeSync(parent)
}
