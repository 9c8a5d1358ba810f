/**
 * `cairn make-mds --rebuild -r DIR`: a member whose directory is damaged is built again from the others. What it
 * voted for may be forgotten, so its id never comes back (rule L4): the old id leaves the cluster first, the
 * directory is set aside, and a new one joins under a new id as a learner. Broken off anywhere, it goes on when
 * it is given again; once the directory is set aside, with `make-mds -a`.
 */
import { CairnError, codeOf } from '../../base/errors.ts'
import type { CommandContext } from '../../cli/context.ts'
import { addressKey, type MetadataServers } from '../../discovery/metadata-servers.ts'
import type { Examination } from '../../metadata/quorum/examination.ts'
import { type Address, formatAddress } from '../../platform/network.ts'
import { nodeClock } from '../../platform/node/platform.ts'
import type { ClusterStatistics, MetadataServerStatistics } from '../../wire/messages/statistics.ts'
import { addressOfRepository, checkIsRepository, examineRepository } from '../repository-examination.ts'
import { lockRepository } from '../repository-lock.ts'
import { pause } from '../self.ts'
import { setAside } from '../set-aside.ts'
import { parseAddress } from '../../cli/etc.ts'
import { joinMetadataServer } from './join-mds.ts'
import { removeMember } from './rm-mds.ts'

/** A process that has just ended still counts as there for a moment. */
const SILENT_DEADLINE_MS = 8_000
const POLL_MS = 500

export interface RebuildMetadataServer {
  readonly repository: string
  /** As given with -a; else where it was. */
  readonly address: Address | null
  /** Although nothing is wrong with it. */
  readonly isForced: boolean
  readonly isDryRun: boolean
}

export interface Rebuilt {
  /** 0: unknown, or it had left already. */
  readonly oldMember: number
  readonly member: number
  readonly address: Address
  readonly setAside: string
}

/** Durable when it resolves. Rejects with REFUSED, UNREACHABLE (no quorum); then nothing was changed here. */
export async function rebuildMetadataServer(
  context: CommandContext,
  options: RebuildMetadataServer,
): Promise<Rebuilt> {
  const { repository } = options
  checkIsRepository(repository)
  const lock = lockRepository(repository)
  let isSetAside = false
  try {
    const found = await examineRepository(repository)
    for (const { code, message } of found.faults) context.output.note(`cairn: ${code}: ${message}`)
    if (found.faults.length === 0 && !options.isForced) throw healthy(context.cluster(), repository)
    const here = addressOfRepository(repository)
    const all = withPeers(context, found)
    const old = await oldMemberIn(all, found, here ?? options.address)
    const address = options.address ?? here ?? (old === null ? null : parseAddress(old.address))
    if (address === null)
      throw new CairnError('USAGE', 'the directory does not say where this server was any more', {
        next: 'name its address with -a IP[:PORT]',
      })
    const oldMember = old?.id ?? 0
    if (options.isDryRun) return { oldMember, member: 0, address, setAside: '' }
    if (old !== null) await removeMember(all, old.id)
    const aside = setAside(repository, 'damaged')
    isSetAside = true
    const { member } = await joinAgain(all, repository, address)
    return { oldMember, member, address, setAside: aside }
  } finally {
    if (!isSetAside) lock.release()
  }
}

async function joinAgain(
  context: CommandContext,
  repository: string,
  address: Address,
): Promise<{ readonly member: number }> {
  const { etc } = context
  const metadataServers = context.metadataServers()
  try {
    return await joinMetadataServer({ cluster: context.cluster(), address, repository, etc, metadataServers })
  } catch (error) {
    throw new CairnError(codeOf(error), `the old member is removed, but: ${(error as Error).message}`, {
      next: `go on with: cairn -c ${context.cluster()} make-mds -a ${formatAddress(address)} -r ${repository}`,
      cause: error,
    })
  }
}

function healthy(cluster: string, repository: string): CairnError {
  return new CairnError('REFUSED', `nothing is wrong with ${repository}`, {
    next: `start it with: cairn -c ${cluster} mds -r ${repository}; to build it again nevertheless add -f`,
  })
}

/** Who this directory was in the cluster. Null: nobody that is still there. */
async function oldMemberIn(
  context: CommandContext,
  { hardState, cluster }: Examination,
  address: Address | null,
): Promise<MetadataServerStatistics | null> {
  const key = address === null ? '' : formatAddress(address)
  const endMs = nodeClock.nowMs() + SILENT_DEADLINE_MS
  for (;;) {
    const { mds, uuid } = await statisticsOf(context)
    if (cluster !== null && cluster.uuid !== uuid)
      throw new CairnError('WRONG_CLUSTER', 'the directory belongs to another cluster of this name', {
        next: 'check -r and -c',
      })
    const old = mds.find(({ id, address: at }) => (hardState === null ? at === key : id === hardState.member))
    if (old === undefined) return null
    if (key !== '' && old.address !== key)
      throw new CairnError('REFUSED', `MDS#${old.id} is at ${old.address}, this directory was at ${key}`, {
        next: `check -r and -a; when MDS#${old.id} is gone for good: cairn rm-mds ${old.id}`,
      })
    if (old.status === 'inactive') return old
    if (nodeClock.nowMs() > endMs)
      throw new CairnError(
        'REFUSED',
        `MDS#${old.id} at ${old.address} is running: it is not this directory`,
        {
          next: 'check -r; a server that runs needs no rebuilding',
        },
      )
    await pause(POLL_MS)
  }
}

async function statisticsOf(context: CommandContext): Promise<ClusterStatistics> {
  try {
    return await context.withAdmin(
      async (admin) => (await admin.metadata.call('admin.stat', {})) as ClusterStatistics,
    )
  } catch (error) {
    if (codeOf(error) !== 'UNREACHABLE') throw error
    throw new CairnError('UNREACHABLE', (error as Error).message, {
      next:
        'a member is built again from a majority of the others: start them; when a majority is lost for good, ' +
        'see make-mds --force-new-quorum and mds restore',
      cause: error,
    })
  }
}

/** The same, where the directory's own list of members counts too. */
function withPeers(context: CommandContext, { members }: Examination): CommandContext {
  const peers = members
    .filter(({ state }) => state === 'member')
    .map(({ host, port }): Address => ({ host, port }))
  return context.withServers((known) => new KnownServers(known, peers))
}

class KnownServers implements MetadataServers {
  readonly #known: MetadataServers
  readonly #peers: readonly Address[]

  constructor(known: MetadataServers, peers: readonly Address[]) {
    this.#known = known
    this.#peers = peers
  }

  list(): readonly Address[] {
    return this.#with(this.#known.list())
  }

  async ask(): Promise<readonly Address[]> {
    return this.#with(await this.#known.ask())
  }

  problems(): readonly string[] {
    return this.#known.problems()
  }

  #with(addresses: readonly Address[]): readonly Address[] {
    const keys = new Set(addresses.map(addressKey))
    return [...addresses, ...this.#peers.filter((peer) => !keys.has(addressKey(peer)))]
  }
}
