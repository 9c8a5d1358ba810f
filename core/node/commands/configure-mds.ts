/**
 * `cairn configure-mds`: where metadata servers listen, changed while the one of this repository is stopped.
 * With `-a` it moves alone, and the cluster goes on meanwhile: when it starts again it says where it is, and the
 * master puts that into the register of members. With `-n` all of a stopped cluster move: the command runs on
 * each of their hosts, with the same list. Who a member is does not change: that is its id.
 * Guide: Changing Parallels Cloud Storage Cluster Network.
 */
import path from 'node:path'
import type { Command } from 'commander'
import { CairnError } from '../../base/errors.ts'
import { hostKeys } from '../../cli/authentication.ts'
import type { CommandContext } from '../../cli/context.ts'
import { type EtcDirectory, parseAddress } from '../../cli/etc.ts'
import { addressKey } from '../../discovery/metadata-servers.ts'
import type { Examination } from '../../metadata/quorum/examination.ts'
import type { MemberRow } from '../../metadata/state/rows.ts'
import { silentLogger } from '../../platform/logger.ts'
import { type Address, formatAddress } from '../../platform/network.ts'
import { readListenSetting, writeListenSetting } from '../listen-setting.ts'
import { writeMovedMembers } from '../moved-members.ts'
import { checkIsRepository, examineRepository } from '../repository-examination.ts'
import { lockRepository } from '../repository-lock.ts'

interface ConfigureOptions {
  readonly r: string
  readonly a?: string
  readonly n?: string[]
}

export function registerConfigureMetadataServer(program: Command, contextOf: () => CommandContext): void {
  program
    .command('configure-mds')
    .description(
      'change the address of a stopped metadata server (-a), or of all of a stopped cluster (-n, on each host)',
    )
    .requiredOption('-r <dir>', 'repository of the metadata server on this host')
    .option('-a <address>', 'new address of this one alone: IP[:PORT]; the others may run')
    .option(
      '-n <id@address>',
      'new address of a metadata server: ID@IP[:PORT]; once for each',
      (value: string, all: string[] | undefined) => [...(all ?? []), value],
    )
    .addHelpText(
      'after',
      '\nExample:\n  cairn -c demo configure-mds -r /cairn/demo-mds -a 10.10.20.1\n' +
        '  cairn -c demo configure-mds -r /cairn/demo-mds -n 1@10.10.20.1 -n 2@10.10.20.2 -n 3@10.10.20.3',
    )
    .action(async (options: ConfigureOptions) => {
      const context = contextOf()
      const cluster = context.cluster()
      const repository = path.resolve(options.r)
      const outcome = await configureMetadataServer({
        ...{ cluster, repository, etc: context.etc },
        ...(options.a === undefined ? {} : { address: parseAddress(options.a) }),
        moved: parseMoves(options.n ?? []),
      })
      const { member, address, moved, unnamed } = outcome
      const others = [...moved].filter(([id]) => id !== member)
      context.output.document({
        ...{ member, repository, address: formatAddress(address) },
        moved: Object.fromEntries(others.map(([id, where]) => [id, formatAddress(where)])),
      })
      context.output.line(`MDS#${member} listens on ${formatAddress(address)} from its next start on.`)
      for (const [id, where] of others)
        context.output.line(`It expects MDS#${id} at ${formatAddress(where)}.`)
      if (others.length > 0 && unnamed.length > 0)
        context.output.note(
          `cairn: warning: not named, and expected where they were: MDS#${unnamed.join(', MDS#')}`,
        )
      context.output.line(`Start it with: cairn -c ${cluster} mds -r ${options.r}`)
    })
}

export interface ConfigureMetadataServer {
  readonly cluster: string
  readonly repository: string
  readonly etc: EtcDirectory
  /** Of this one alone. */
  readonly address?: Address
  readonly moved: ReadonlyMap<number, Address>
}

export interface Configured {
  readonly member: number
  readonly address: Address
  /** Everybody's new addresses. */
  readonly moved: ReadonlyMap<number, Address>
  readonly unnamed: readonly number[]
}

/** Durable when it resolves. Throws USAGE, NOT_FOUND, REFUSED (it runs, or has not joined yet), WRONG_CLUSTER. */
export async function configureMetadataServer(options: ConfigureMetadataServer): Promise<Configured> {
  const { repository, cluster, etc, address } = options
  if ((address === undefined) === (options.moved.size === 0))
    throw new CairnError('USAGE', 'give either -a, or -n once for each metadata server', {
      next: 'for example: -a 10.10.20.1, or -n 1@10.10.20.1 -n 2@10.10.20.2 -n 3@10.10.20.3',
    })
  checkIsRepository(repository)
  const clusterUuid = hostKeys(etc, cluster, silentLogger).current().clusterUuid
  // Throws when a line of it cannot be read: before anything is changed.
  etc.bootstrapList(cluster)
  const lock = lockRepository(repository)
  try {
    const found = await examineRepository(repository)
    const member = memberOf(found, repository)
    const { refuseForeignRepository } = await import('../../metadata/server/cluster-repository.ts')
    refuseForeignRepository(found.cluster, { name: cluster, uuid: clusterUuid })
    const moved = address === undefined ? options.moved : new Map([[member, address]])
    const before = addressesOf(found.members, member, readListenSetting(repository))
    const after = checkedAddresses(before, moved)
    const others = new Map([...moved].filter(([id]) => id !== member))
    // Before the own address: with it alone the others are still where the register says.
    if (others.size > 0) writeMovedMembers(repository, others)
    const own = after.get(member) as Address
    writeListenSetting(repository, own)
    etc.moveBootstrapAddresses(
      cluster,
      [...moved].map(([id, to]) => ({ from: before.get(id) as Address, to })),
    )
    const unnamed = [...before.keys()].filter((id) => !moved.has(id))
    return { member, address: own, moved, unnamed }
  } finally {
    lock.release()
  }
}

/** Throws FAILED when the repository is damaged. */
function memberOf({ hardState, faults }: Examination, repository: string): number {
  const [fault] = faults
  if (hardState !== null && fault === undefined) return hardState.member
  throw new CairnError(
    'FAILED',
    `${repository} is damaged: ${fault?.message ?? 'it does not say who it is'}`,
    {
      next: `see: cairn mds check -r ${repository}`,
    },
  )
}

/** Where the members are now. */
function addressesOf(members: readonly MemberRow[], member: number, own: Address): Map<number, Address> {
  const known = members.filter(({ state }) => state !== 'removed')
  if (!known.some((row) => row.member === member) && member !== 1)
    throw new CairnError('REFUSED', `MDS#${member} has not joined the cluster yet, or has left it`, {
      next: `remove it with: cairn rm-mds ${member}; and make it again at its new address, in an empty directory`,
    })
  return new Map([...known.map(({ member: id, host, port }) => [id, { host, port }] as const), [member, own]])
}

/** With the moves. Throws USAGE, NOT_FOUND. */
function checkedAddresses(
  before: ReadonlyMap<number, Address>,
  moved: ReadonlyMap<number, Address>,
): Map<number, Address> {
  for (const id of moved.keys())
    if (!before.has(id))
      throw new CairnError('NOT_FOUND', `there is no MDS#${id}`, {
        next: `the metadata servers are ${[...before].map(([known, at]) => `${known}@${formatAddress(at)}`).join(', ')}`,
      })
  const after = new Map([...before, ...moved])
  const takenBy = new Map<string, number>()
  for (const [id, { host, port }] of after)
    for (const taken of [port, port + 1]) {
      const key = addressKey({ host, port: taken })
      const other = takenBy.get(key)
      if (other !== undefined)
        throw new CairnError('USAGE', `MDS#${other} and MDS#${id} would both use port ${taken} of ${host}`, {
          next: 'each uses a port and the one behind it: choose another address or port',
        })
      takenBy.set(key, id)
    }
  return after
}

/** "ID@IP[:PORT]". Throws USAGE. */
function parseMoves(texts: readonly string[]): Map<number, Address> {
  const moved = new Map<number, Address>()
  for (const text of texts) {
    const match = /^(\d{1,6})@(.+)$/.exec(text)
    const id = Number(match?.[1])
    if (match?.[2] === undefined || id === 0 || moved.has(id))
      throw new CairnError('USAGE', `-n ${text} ${moved.has(id) ? 'names it twice' : 'is no ID@IP[:PORT]'}`, {
        next: 'write for example -n 1@10.10.20.1; list-services -M shows the ids',
      })
    moved.set(id, parseAddress(match[2]))
  }
  return moved
}
