/**
 * A further metadata server of a cluster that runs: it is given an id that nobody had before, and an empty
 * repository. When it starts, the master brings it up to date and then lets it vote. The host must have proved
 * the cluster's password before (auth-node). Guide: Setting Up the Second and Third Metadata Servers.
 */
import fs from 'node:fs'
import os from 'node:os'
import path from 'node:path'
import { CairnError, codeOf } from '../../base/errors.ts'
import { type AdminConnection, connectAdmin } from '../../cli/admin.ts'
import type { EtcDirectory } from '../../cli/etc.ts'
import type { MetadataServers } from '../../discovery/metadata-servers.ts'
import { HIGHEST_LEVEL } from '../../metadata/state/feature-levels.ts'
import type { Address } from '../../platform/network.ts'
import { NodeHardStateFile } from '../../platform/node/hard-state-file.ts'
import { SqliteStore } from '../../platform/node/sqlite-store.ts'
import type { ClusterStatistics, MetadataServerStatistics } from '../../wire/messages/statistics.ts'
import { writeListenSetting } from '../listen-setting.ts'
import { emptyDraft } from '../renewed-repository.ts'
import { syncDirectory } from '../set-aside.ts'
import { HARD_STATE_FILE, METADATA_DATABASE } from '../repository-files.ts'

export interface JoinMetadataServer {
  readonly cluster: string
  readonly address: Address
  readonly repository: string
  readonly etc: EtcDirectory
  readonly metadataServers: readonly Address[] | MetadataServers
}

export interface Joined {
  readonly member: number
  /** Those that were there before. */
  readonly others: readonly MetadataServerStatistics[]
}

/** The master was lost while it was asked. */
const lostAnswerCodes: readonly string[] = ['DISCONNECTED', 'NOT_MASTER']
const ATTEMPTS_MAX = 3

/** Durable when it resolves. Throws REFUSED when the directory holds something or the address is taken. */
export async function joinMetadataServer(options: JoinMetadataServer): Promise<Joined> {
  const { repository, etc, cluster, address } = options
  checkEmpty(repository)
  for (let attempt = 1; ; attempt++) {
    const admin = await connectAdmin(cluster, options.metadataServers, etc)
    try {
      const { mds } = (await admin.metadata.call('admin.stat', {})) as ClusterStatistics
      const member = await idFor(admin, address)
      await writeRepository(repository, address, member)
      etc.hostIdentity()
      etc.addBootstrapAddresses(cluster, [admin.address, address])
      return { member, others: mds }
    } catch (error) {
      // It may have been done all the same; then the next master gives that id up.
      if (!lostAnswerCodes.includes(codeOf(error)) || attempt === ATTEMPTS_MAX) throw error
    } finally {
      await admin.close()
    }
  }
}

/** Throws REFUSED, also when a metadata server of this or another cluster lies there. */
export function checkEmpty(repository: string): void {
  const names = fs.existsSync(repository) ? fs.readdirSync(repository) : []
  if (names.every((name) => name === 'lost+found')) return
  if (names.includes(METADATA_DATABASE) || names.includes(HARD_STATE_FILE))
    throw new CairnError('REFUSED', `${repository} holds a metadata server already`, {
      next: `name another directory; whose it is tells, when it is stopped: cairn mds check -r ${repository}`,
    })
  throw new CairnError('REFUSED', `${repository} is not empty`, {
    next: 'name a directory that does not exist yet, or an empty one',
  })
}

async function idFor(admin: AdminConnection, { host, port }: Address): Promise<number> {
  try {
    const parameters = { host, port, name: os.hostname(), level: HIGHEST_LEVEL }
    return (await admin.metadata.call('mds.add', parameters)).member
  } catch (error) {
    if (codeOf(error) !== 'REFUSED') throw error
    throw new CairnError('REFUSED', (error as Error).message, {
      next: 'name another address with -a; or, when that metadata server is gone for good, remove it with rm-mds',
      cause: error,
    })
  }
}

/** Beside its place first: a crash leaves no half-made repository. */
async function writeRepository(repository: string, address: Address, member: number): Promise<void> {
  const draft = emptyDraft(repository)
  const store = await SqliteStore.open(path.join(draft, METADATA_DATABASE))
  await store.close()
  await new NodeHardStateFile(path.join(draft, HARD_STATE_FILE)).save({ member, term: 0, vote: 0 })
  writeListenSetting(draft, address)
  putInPlace(draft, repository)
}

export function putInPlace(draft: string, repository: string): void {
  if (fs.existsSync(repository)) fs.rmdirSync(repository)
  fs.renameSync(draft, repository)
  syncDirectory(path.dirname(repository))
}
