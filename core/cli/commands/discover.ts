/**
 * `cairn discover`: which clusters can be found, method by method with time and result, then their names; with
 * `-c NAME`, where the metadata servers of that cluster are. Guide: Discovering Cluster Names.
 */
import type { Command } from 'commander'
import { CairnError } from '../../base/errors.ts'
import { rankedOrder } from '../../discovery/order.ts'
import { formatAddress } from '../../platform/network.ts'
import { nodeClock, nodeRandom } from '../../platform/node/platform.ts'
import type { CommandContext, DiscoveryPlugins, OpenDiscovery } from '../context.ts'
import { checkClusterName, type EtcDirectory } from '../etc.ts'

/** Of all methods together. */
const NAMES_MAX = 10_000

interface MethodLine {
  readonly method: string
  readonly atMs: number
  readonly problem: string | undefined
  readonly skipped: readonly string[]
  /** Names, or addresses with where they stand in the answer. */
  readonly found: readonly string[]
}

export function registerDiscoverCommand(
  program: Command,
  contextOf: () => CommandContext,
  openDiscovery: OpenDiscovery,
): void {
  program
    .command('discover')
    .description('clusters on this network; with -c, the metadata servers of one')
    .addHelpText('after', '\nExample:\n  cairn discover\n  cairn -c demo discover')
    .action(async () => {
      const context = contextOf()
      const { clusterGiven, etc } = context
      const plugins = await openDiscovery(etc)
      const lines =
        clusterGiven === undefined
          ? await listClusters(etc, plugins)
          : await resolveCluster(checkClusterName(clusterGiven), context, plugins)
      const failed = plugins.failures().map(({ plugin, reason }) => ({
        method: `plugin ${plugin}`,
        atMs: wallMs(),
        problem: reason,
        skipped: [],
        found: [],
      }))
      print(context, [...lines, ...failed], clusterGiven)
    })
}

function print(context: CommandContext, lines: readonly MethodLine[], cluster: string | undefined): void {
  const { output } = context
  const all = [...new Set(lines.flatMap(({ found }) => found))]
  const found = (cluster === undefined ? all.sort() : all).slice(0, NAMES_MAX)
  output.document({
    ...(cluster === undefined ? {} : { cluster }),
    methods: lines.map(({ method, atMs, problem, skipped, found: own }) => ({
      method,
      at: new Date(atMs).toISOString(),
      ok: problem === undefined,
      ...(problem === undefined ? {} : { problem }),
      [cluster === undefined ? 'clusters' : 'servers']: own,
      skipped,
    })),
    [cluster === undefined ? 'clusters' : 'servers']: found,
  })
  for (const { method, atMs, problem, skipped } of lines) {
    const result = problem === undefined ? 'OK' : `FAIL (${problem})`
    output.line(`${timeStamp(atMs)} Discovering using ${method}: ${result}`)
    for (const reason of skipped) output.note(`cairn: ${method}: skipped ${reason}`)
  }
  for (const one of found) output.line(one)
  if (found.length > 0) return
  throw new CairnError(
    'NOT_FOUND',
    cluster === undefined ? 'no cluster was found' : `no metadata server of cluster '${cluster}' was found`,
    {
      next: `enable discovery-dns or discovery-zeroconf in ${context.etc.configFile}, or write a bs.list`,
    },
  )
}

async function listClusters(etc: EtcDirectory, plugins: DiscoveryPlugins): Promise<MethodLine[]> {
  const own = byHand(() => etc.clusters().filter((name) => etc.bootstrapList(name).length > 0))
  const reports = (await plugins.hooks.list.call()).flatMap(({ value }) => value)
  return [
    own,
    ...reports.map(({ method, atMs, problem, skipped = [], clusters }) => ({
      method,
      atMs,
      problem,
      skipped,
      found: clusters,
    })),
  ]
}

async function resolveCluster(
  cluster: string,
  context: CommandContext,
  plugins: DiscoveryPlugins,
): Promise<MethodLine[]> {
  const own = byHand(() => context.configuredServers().map(formatAddress))
  const reports = (await plugins.hooks.resolve.call(cluster)).flatMap(({ value }) => value)
  return [
    own,
    ...reports.map(({ method, problem, skipped = [], servers }) => ({
      method,
      atMs: wallMs(),
      problem,
      skipped,
      found: rankedOrder(servers, nodeRandom).map(formatAddress),
    })),
  ]
}

function byHand(find: () => string[]): MethodLine {
  const line = { method: 'bs.list', atMs: wallMs(), skipped: [] }
  try {
    return { ...line, problem: undefined, found: find() }
  } catch (error) {
    return { ...line, problem: error instanceof Error ? error.message : String(error), found: [] }
  }
}

/** As in the guide: day, month, year, and the time of this host. */
function timeStamp(atMs: number): string {
  const at = new Date(atMs)
  const two = (value: number): string => String(value).padStart(2, '0')
  const day = [at.getDate(), at.getMonth() + 1, at.getFullYear() % 100].map(two).join('-')
  const time = [at.getHours(), at.getMinutes(), at.getSeconds()].map(two).join(':')
  return `${day} ${time}.${String(at.getMilliseconds()).padStart(3, '0')}`
}

function wallMs(): number {
  const { seconds, nanoseconds } = nodeClock.wall()
  return seconds * 1000 + Math.floor(nanoseconds / 1e6)
}
