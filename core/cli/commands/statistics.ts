/** `cairn stat`, `list-services`, `get-event`: what the cluster says of itself. Guide: Monitoring. */
import type { Command } from 'commander'
import type { ChunkStatistics, ClusterStatistics, ServiceEntry } from '../../wire/messages/statistics.ts'
import { CairnError } from '../../base/errors.ts'
import type { AdminConnection } from '../admin.ts'
import type { CommandContext } from '../context.ts'
import { quorumWarnings } from '../quorum.ts'
import { NO_ANSWER, NoQuorumError, statusOf, type Survey } from '../survey.ts'
import { formatDuration, formatPercent, formatSize, formatTable, type Output } from '../output.ts'

const EVENT_POLL_MS = 1000

export function registerStatisticsCommands(program: Command, contextOf: () => CommandContext): void {
  program
    .command('stat')
    .description('state of the cluster: space, servers, chunks, clients, I/O')
    .addHelpText('after', '\nExample:\n  cairn -c demo stat --json')
    .action(async () => {
      const context = contextOf()
      const asking = context.withAdmin(async (admin) => {
        const statistics = (await admin.metadata.call('admin.stat', {})) as ClusterStatistics
        context.output.document(statistics)
        if (!context.output.json) printStatistics(context.output, statistics, admin.metadataServer)
      })
      await withoutQuorum(asking, (survey) => printSurvey(context.output, context.cluster(), survey))
    })

  program
    .command('list-services')
    .description('metadata servers, chunk servers and clients of the cluster')
    .option('-M', 'metadata servers only')
    .option('-C', 'chunk servers only')
    .addHelpText('after', '\nExample:\n  cairn -c demo list-services -C')
    .action(async (options: ServiceFilter) => {
      const context = contextOf()
      const asking = context.withAdmin(async (admin) => {
        const { services } = (await admin.metadata.call('admin.services', {})) as {
          services: ServiceEntry[]
        }
        printServices(context.output, services, options)
      })
      await withoutQuorum(asking, (survey) =>
        printServices(context.output, servicesOfSurvey(survey), options),
      )
    })

  program
    .command('get-event')
    .description('the event log')
    .option('-n <count>', 'how many of the latest events', '20')
    .option('-f', 'go on printing new events')
    .option('--level <level>', 'this severity and worse: info, warn or err', 'info')
    .option('--since <time>', 'events since this ISO 8601 time')
    .addHelpText('after', '\nExample:\n  cairn -c demo get-event -n 50 --level warn')
    .action(async (options: EventOptions) => {
      const context = contextOf()
      await context.withAdmin((admin) =>
        printEvents(context.output, admin, checkEventOptions(options), options.f === true),
      )
    })
}

/** Without a majority there is still something to say; the exit status stays that of the failure. */
async function withoutQuorum(asking: Promise<void>, tell: (survey: Survey) => void): Promise<void> {
  try {
    await asking
  } catch (error) {
    if (error instanceof NoQuorumError) tell(error.survey)
    throw error
  }
}

/** The keys of `stat --json` that can be known without a majority. */
function printSurvey(output: Output, cluster: string, { uuid, members, best }: Survey): void {
  const mds = members.map((member) => ({
    ...{ id: member.id, address: member.address, master: false, status: statusOf(member) },
    ...{ term: member.look?.term ?? 0, lag: best.lastIndex - (member.look?.lastIndex ?? 0) },
  }))
  const cs = best.chunkServers.map(({ id, address, host }) => ({ id, address, host, status: 'unknown' }))
  const { inodes, chunks } = best
  output.document({ cluster, uuid, status: 'no-quorum', mds, cs, fs: { inodes, chunks } })
  output.line(`Cluster '${cluster}': no quorum`)
  output.line(`MDS nodes: ${members.filter(({ look }) => look !== null).length} of ${members.length}`)
  output.line(`As MDS#${best.member} knew it last: ${cs.length} CS, ${inodes} inodes, ${chunks} chunks`)
  output.line()
  const rows = mds.map(({ id, status, term, lag, address }) => {
    const numbers = status === NO_ANSWER ? ['-', '-'] : [String(term), String(lag)]
    return [`  ${id}`, status, ...numbers, address]
  })
  for (const line of formatTable(['MDSID', 'STATUS', 'TERM', 'LAG', 'HOST'], rows)) output.line(line)
}

function servicesOfSurvey({ members, best }: Survey): ServiceEntry[] {
  return [
    ...members.map((member): ServiceEntry => {
      const { id, address, host } = member
      return { kind: 'mds', id, address, host, hostId: '', status: statusOf(member) }
    }),
    ...best.chunkServers.map((server): ServiceEntry => ({ kind: 'cs', ...server, status: 'unknown' })),
  ]
}

interface ServiceFilter {
  readonly M?: boolean
  readonly C?: boolean
}

function printServices(output: Output, all: readonly ServiceEntry[], { M, C }: ServiceFilter): void {
  const areAllWanted = M !== true && C !== true
  const services = all.filter(
    ({ kind }) => areAllWanted || (M === true && kind === 'mds') || (C === true && kind === 'cs'),
  )
  output.document({ services })
  const lines = M === true && C !== true ? membersTable(services) : servicesTable(services)
  for (const line of lines) output.line(line)
}

function servicesTable(services: readonly ServiceEntry[]): string[] {
  const rows = services.map((entry) => [
    entry.kind.toUpperCase(),
    `${entry.master === true ? 'M ' : ''}${entry.id}`,
    entry.status,
    entry.address,
    entry.host,
    entry.hostId,
  ])
  return formatTable(['TYPE', 'ID', 'STATUS', 'ADDRESS', 'HOST', 'HOST ID'], rows)
}

function membersTable(members: readonly ServiceEntry[]): string[] {
  const rows = members.map(({ id, master, status, term, lag, lagMs = 0, address, host }) => [
    `${master === true ? 'M' : ' '} ${id}`,
    status,
    String(term ?? '-'),
    lag === undefined ? '-' : formatLag({ lag, lagMs }),
    address,
    host,
  ])
  return formatTable(['MDSID', 'STATUS', 'TERM', 'LAG', 'ADDRESS', 'HOST'], rows)
}

/** Entries, and since when: 0, or 1200 (3s). */
function formatLag({ lag, lagMs }: { readonly lag: number; readonly lagMs: number }): string {
  return lag === 0 ? '0' : `${lag} (${formatDuration(lagMs)})`
}

interface EventOptions {
  n: string
  f?: boolean
  level: string
  since?: string
}
interface EventFilter {
  count: number
  level: number
  sinceMs: number
}
const LEVELS = ['info', 'warn', 'err']

function checkEventOptions(options: EventOptions): EventFilter {
  const count = Number(options.n)
  const level = LEVELS.indexOf(options.level)
  const sinceMs = options.since === undefined ? 0 : Date.parse(options.since)
  if (!Number.isInteger(count) || count < 1 || count > 10_000) {
    throw new CairnError('USAGE', `-n ${options.n} is no count`, { next: 'give a number from 1 to 10000' })
  }
  if (level < 0)
    throw new CairnError('USAGE', `--level ${options.level} is unknown`, { next: 'use info, warn or err' })
  if (Number.isNaN(sinceMs)) {
    throw new CairnError('USAGE', `--since ${options.since} is no time`, {
      next: 'write for example 2026-11-22T10:00:00Z',
    })
  }
  return { count, level, sinceMs }
}

type ClusterEvent = {
  id: number
  timeMs: number
  system: string
  severity: string
  code: string
  message: string
}

async function printEvents(
  output: Output,
  admin: AdminConnection,
  filter: EventFilter,
  follow: boolean,
): Promise<void> {
  const wanted = (event: ClusterEvent): boolean =>
    LEVELS.indexOf(event.severity) >= filter.level && event.timeMs >= filter.sinceMs
  let after = 0
  let latest: ClusterEvent[] = []
  for (;;) {
    const page = await admin.metadata.call('admin.events', { after, limit: 1000 })
    latest = [...latest, ...page.events.filter(wanted)].slice(-filter.count)
    const end = page.events.at(-1)
    if (end === undefined || end.id >= page.last) break
    after = end.id
  }
  output.document({ events: latest })
  for (const event of latest) output.line(formatEvent(event))
  after = latest.at(-1)?.id ?? after
  while (follow) {
    await admin.pause(EVENT_POLL_MS)
    const page = await admin.metadata.call('admin.events', { after, limit: 1000 })
    for (const event of page.events.filter(wanted)) {
      if (output.json) process.stdout.write(`${JSON.stringify(event)}\n`)
      else output.line(formatEvent(event))
    }
    after = page.events.at(-1)?.id ?? after
  }
}

function formatEvent(event: ClusterEvent): string {
  const time = new Date(event.timeMs).toISOString().replace('T', ' ').slice(0, 19)
  return `${time}  ${event.system.padEnd(3)}  ${event.severity.padEnd(4)}  ${event.message}`
}

function printStatistics(output: Output, stat: ClusterStatistics, answering: number): void {
  output.line(`connected to MDS#${answering}`)
  output.line(`Cluster '${stat.cluster}': ${stat.status}`)
  const { space } = stat
  const used = space.allocatableTotal === 0 ? 1 : 1 - space.allocatable / space.allocatableTotal
  output.line(
    `Space: [${used >= 0.8 ? 'WARN' : 'OK'}] allocatable ${formatSize(space.allocatable)} of ${formatSize(space.allocatableTotal)}, ` +
      `free ${formatSize(space.free)} of ${formatSize(space.total)}`,
  )
  output.line(
    `MDS nodes: ${stat.mds.filter((server) => server.status === 'active').length} of ${stat.mds.length}, epoch uptime: ${formatDuration(stat.epochUptimeMs)}, term: ${stat.mds[0]?.term ?? 0}`,
  )
  for (const warning of quorumWarnings(stat.mds)) output.line(`MDS nodes: [WARN] ${warning}`)
  if (stat.featureLevel !== undefined) output.line(`Feature level: ${formatLevel(stat.featureLevel)}`)
  const count = (status: string): number => stat.cs.filter((server) => server.status === status).length
  output.line(
    `CS nodes:  ${count('active')} of ${stat.cs.length} (${count('active')} avail, ${count('inactive')} inactive, ${count('offline')} offline)`,
  )
  if (stat.license !== null) output.line(`License: ${stat.license}`)
  output.line(`Replication:  ${stat.replication.normal} norm,  ${stat.replication.minimum} limit`)
  for (const line of formatChunks(stat.chunks)) output.line(line)
  const { fs } = stat
  output.line(
    `FS:  ${formatSize(fs.bytes)} in ${fs.files} files, ${fs.inodes} inodes,  ${fs.fileMaps} file maps,  ${fs.chunks} chunks,  ${fs.chunkReplicas} chunk replicas`,
  )
  const { io } = stat
  output.line(
    `IO:  read ${formatSize(io.readBytesPerS)}/s (${Math.round(io.readOpsPerS)} ops/s),  write ${formatSize(io.writeBytesPerS)}/s (${Math.round(io.writeOpsPerS)} ops/s)`,
  )
  output.line()
  printServers(output, stat)
}

function formatLevel({ inForce, highest, waitsFor }: NonNullable<ClusterStatistics['featureLevel']>): string {
  if (inForce >= highest) return String(inForce)
  const others = waitsFor.map((member) => `MDS#${member}`).join(', ')
  return `${inForce}, ${highest} waits for ${others === '' ? 'the log' : others}`
}

function formatChunks(chunks: ChunkStatistics): string[] {
  const bad = chunks.blocked + chunks.offline + chunks.void
  const state = bad > 0 ? 'ERR' : chunks.degraded + chunks.urgent + chunks.standby > 0 ? 'WARN' : 'OK'
  const show = (name: keyof ChunkStatistics): string =>
    `${chunks[name]} (${formatPercent(chunks[name], chunks.total)}) ${name}`
  const healthy = `${chunks.healthy} (${formatPercent(chunks.healthy, chunks.total)}) healthy`
  const share = (name: keyof ChunkStatistics): string =>
    chunks.total === 0 ? `${chunks[name]} (0%) ${name}` : show(name)
  return [
    `Chunks: [${state}] ${healthy},  ${share('standby')},  ${share('degraded')},  ${share('urgent')},`,
    `             ${share('blocked')},  ${share('pending')},  ${share('offline')},  ${share('replicating')},`,
    `             ${share('overcommitted')},  ${share('deleting')},  ${share('void')}`,
  ]
}

function printServers(output: Output, stat: ClusterStatistics): void {
  const mdsRows = stat.mds.map((server) => [
    `${server.master ? 'M' : ' '} ${server.id}`,
    server.status,
    `${server.ctimePct.toFixed(1)}%`,
    `${Math.round(server.commitsPerS)}/s`,
    `${server.cpuPct.toFixed(1)}%`,
    formatSize(server.memBytes),
    formatDuration(server.uptimeMs),
    formatLag(server),
    server.address,
  ])
  for (const line of formatTable(
    ['MDSID', 'STATUS', '%CTIME', 'COMMITS', '%CPU', 'MEM', 'UPTIME', 'LAG', 'HOST'],
    mdsRows,
  ))
    output.line(line)
  output.line()
  const csRows = stat.cs.map((server) => [
    String(server.id),
    server.status,
    formatSize(server.spaceTotal),
    formatSize(server.spaceFree),
    String(server.replicas),
    `${server.ioWaitPct.toFixed(0)}%`,
    `${server.ioLatMsAvg.toFixed(1)}/${server.ioLatMsMax.toFixed(0)}`,
    server.queueDepth.toFixed(1),
    formatDuration(server.oldestUnverifiedMs),
    server.flags,
    server.address,
  ])
  for (const line of formatTable(
    [
      'CSID',
      'STATUS',
      'SPACE',
      'FREE',
      'REPLICAS',
      'IOWAIT',
      'IOLAT(ms)',
      'QDEPTH',
      'UNVERIFIED',
      'FLAGS',
      'HOST',
    ],
    csRows,
  ))
    output.line(line)
  if (stat.clients.length === 0) return
  output.line()
  const clientRows = stat.clients.map((client) => [
    String(client.id),
    String(client.leases),
    `${formatSize(client.readBytesPerS)}/s`,
    `${formatSize(client.writeBytesPerS)}/s`,
    String(Math.round(client.readOpsPerS)),
    String(Math.round(client.writeOpsPerS)),
    String(Math.round(client.fsyncsPerS)),
    `${client.ioLatMsAvg.toFixed(1)}/${client.ioLatMsMax.toFixed(0)}`,
    client.host,
  ])
  for (const line of formatTable(
    ['CLID', 'LEASES', 'READ', 'WRITE', 'RD_OPS', 'WR_OPS', 'FSYNCS', 'IOLAT(ms)', 'HOST'],
    clientRows,
  ))
    output.line(line)
}
