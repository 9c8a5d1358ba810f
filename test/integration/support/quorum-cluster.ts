/**
 * A cluster whose servers are started one by one, each where the caller says: at an address, behind a command
 * that enters a network namespace, on a disk of its own. For tests that kill, cut off, add and remove servers.
 * Ends every process it started, by its id.
 */
import type { ChildProcess } from 'node:child_process'
import { type AdminConnection, connectAdmin } from '../../../core/cli/admin.ts'
import { EtcDirectory, parseAddress } from '../../../core/cli/etc.ts'
import type { Client } from '../../../core/client/api.ts'
import { connect } from '../../../core/client/connect.ts'
import type { ClusterStatistics } from '../../../core/wire/messages/statistics.ts'
import { CAIRN, isAlive, readServerId, until } from './cluster.ts'
import { TestHost } from './hosts.ts'

export const CLUSTER = 'demo'
const PASSWORD = 'a password of tests'
/** Entries: a member that lacks fewer is as good as there. */
const LAG_COUNT_MAX = 200
/** Only against hanging: a busy machine may need minutes for what an idle one does in seconds. */
const ALL_THERE_TIMEOUT_MS = 240_000

export interface MemberPlace {
  /** Base address, HOST:PORT. */
  readonly address: string
  /** Its repository: does not exist yet. */
  readonly repository: string
  /** Put in front of the command. */
  readonly prefix?: readonly string[]
}

export interface ChunkServerPlace {
  /** IP[:PORT]; default: as the metadata servers see this host. */
  readonly address?: string
  /** Its repository: does not exist yet. */
  readonly repository: string
  /** Put in front of the command. */
  readonly prefix?: readonly string[]
}

export interface QuorumClusterOptions {
  readonly places: readonly MemberPlace[]
  /** So many in the cluster's own directory, or where they are. */
  readonly chunkServers: number | readonly ChunkServerPlace[]
  readonly replicas: string
}

/** The process of one server; it may be down. */
abstract class ServerProcess {
  readonly name: string
  readonly logFile: string
  readonly #host: TestHost
  #child: ChildProcess | null = null
  #output: () => string = () => ''

  constructor(host: TestHost, name: string) {
    this.#host = host
    this.name = name
    this.logFile = host.path(`${name}.log`)
  }

  protected startRole(role: 'mds' | 'cs', repository: string, prefix: readonly string[] = []): void {
    const parameters = ['-c', CLUSTER, role, '-r', repository, '--log', this.logFile]
    const [program = CAIRN, ...rest] = [...prefix, CAIRN, '--etc', this.#host.etc, ...parameters]
    const { child, output } = this.#host.spawn(program, rest)
    this.#child = child
    this.#output = output
  }

  /** What it said beside its log since it was started. */
  get output(): string {
    return this.#output()
  }

  get isRunning(): boolean {
    const pid = this.#child?.pid
    return pid !== undefined && isAlive(pid)
  }

  get pid(): number {
    const pid = this.#child?.pid
    if (pid === undefined) throw new Error(`${this.name} was never started`)
    return pid
  }

  signal(signal: NodeJS.Signals): void {
    if (this.isRunning) process.kill(this.pid, signal)
  }

  /** Resolves when the process is gone. */
  async stop(signal: NodeJS.Signals): Promise<void> {
    if (this.#child !== null) await this.#host.stop(this.#child, signal)
  }
}

/** One metadata server. */
export class Member extends ServerProcess {
  readonly id: number
  readonly place: MemberPlace

  constructor(host: TestHost, id: number, place: MemberPlace) {
    super(host, `mds${id}`)
    this.id = id
    this.place = place
  }

  start(): void {
    this.startRole('mds', this.place.repository, this.place.prefix)
  }
}

/** One chunk server. */
export class ChunkServer extends ServerProcess {
  readonly place: ChunkServerPlace
  #id = 0

  constructor(host: TestHost, number: number, place: ChunkServerPlace) {
    super(host, `cs${number}`)
    this.place = place
  }

  start(): void {
    this.startRole('cs', this.place.repository, this.place.prefix)
  }

  /** Under which the cluster knows it; 0 until it is registered. */
  get id(): number {
    if (this.#id === 0) this.#id = readServerId(this.place.repository)
    return this.#id
  }

  /** Its repository was made anew: it is another one to the cluster. */
  forgetId(): void {
    this.#id = 0
  }
}

export class QuorumCluster {
  readonly host: TestHost
  readonly members: Member[] = []
  readonly chunkServers: ChunkServer[] = []

  private constructor(host: TestHost) {
    this.host = host
  }

  /** Running, with all members and chunk servers there. */
  static async start(
    after: (end: () => Promise<void>) => void,
    { places, chunkServers, replicas }: QuorumClusterOptions,
  ): Promise<QuorumCluster> {
    const cluster = new QuorumCluster(new TestHost(after, {}))
    const { host } = cluster
    const [first, ...others] = places
    if (first === undefined) throw new Error('a cluster has a metadata server')
    const making = ['make-mds', '-I', '-a', first.address, '-r', first.repository]
    const password = ['--password-file', host.passwordFile(PASSWORD)]
    const placement = ['--replicas', replicas, '--failure-domain', 'disk']
    await host.cairn('-c', CLUSTER, ...making, ...password, ...placement)
    cluster.#add(1, first).start()
    for (const place of others) await cluster.addMember(place)
    for (const [index, place] of placesOf(chunkServers, host).entries()) {
      const server = new ChunkServer(host, index + 1, place)
      cluster.chunkServers.push(server)
      await cluster.makeChunkServer(server)
    }
    await cluster.allThere()
    return cluster
  }

  #add(id: number, place: MemberPlace): Member {
    const member = new Member(this.host, id, place)
    this.members.push(member)
    return member
  }

  /** `make-mds` and start; the others take it in by themselves. */
  async addMember(place: MemberPlace): Promise<Member> {
    const made = await this.host.cairn('-c', CLUSTER, 'make-mds', '-a', place.address, '-r', place.repository)
    const id = /MDS#(\d+) is created/.exec(made)?.[1]
    if (id === undefined) throw new Error(`make-mds said: ${made}`)
    const member = this.#add(Number(id), place)
    member.start()
    return member
  }

  /** `rm-mds`, and its process ended if it runs. */
  async removeMember(member: Member): Promise<void> {
    await this.host.cairn('-c', CLUSTER, 'rm-mds', String(member.id))
    this.members.splice(this.members.indexOf(member), 1)
    await member.stop('SIGTERM')
  }

  /** `make-cs` where there is nothing (any more), and start. */
  async makeChunkServer(server: ChunkServer): Promise<void> {
    const { repository, address } = server.place
    const where = address === undefined ? [] : ['-a', address]
    await this.host.cairn('-c', CLUSTER, 'make-cs', '-r', repository, ...where)
    server.forgetId()
    server.start()
  }

  get keyFile(): string {
    return new EtcDirectory(this.host.etc).keyFile(CLUSTER)
  }

  get addresses(): string[] {
    return this.members.map(({ place }) => place.address)
  }

  /** Once it is open its end is the caller's business. */
  connect(name: string): Promise<Client> {
    const { addresses: metadataServers, keyFile } = this
    return connect({ cluster: CLUSTER, metadataServers, kind: 'test', name }, { keyFile })
  }

  async ask<T>(question: (admin: AdminConnection) => Promise<T>): Promise<T> {
    const addresses = this.addresses.map((text) => parseAddress(text))
    const admin = await connectAdmin(CLUSTER, addresses, new EtcDirectory(this.host.etc))
    try {
      return await question(admin)
    } finally {
      await admin.close()
    }
  }

  statistics(): Promise<ClusterStatistics> {
    return this.ask(async (admin) => (await admin.metadata.call('admin.stat', {})) as ClusterStatistics)
  }

  async master(): Promise<Member> {
    const { mds } = await this.statistics()
    const id = mds.find((server) => server.master)?.id
    const member = this.members.find((candidate) => candidate.id === id)
    if (member === undefined) throw new Error(`the master is MDS#${id}, which nobody here started`)
    return member
  }

  /** All members vote and are up to date, all chunk servers are registered. Rejects when one of them has ended. */
  async allThere(timeoutMs = ALL_THERE_TIMEOUT_MS): Promise<void> {
    await until('all servers are there', () => this.#areAllThere(), timeoutMs)
  }

  async #areAllThere(): Promise<boolean | string> {
    const ended = [...this.members, ...this.chunkServers].find((server) => !server.isRunning)
    if (ended !== undefined) throw new Error(`${ended.name} has ended: ${ended.output}`)
    try {
      const { mds, cs } = await this.statistics()
      const seen = mds.map(({ id, status, lag }) => `MDS#${id} ${status} ${lag}`).join(', ')
      const active = cs.filter(({ status }) => status === 'active').length
      const areThere = mds.every(({ status, lag }) => status === 'active' && lag < LAG_COUNT_MAX)
      const isAll = mds.length === this.members.length && active === this.chunkServers.length
      return (isAll && areThere) || `${seen}; ${active} chunk servers`
    } catch (error) {
      // A new master looks for its chunk servers, or there is none yet.
      return String(error)
    }
  }

  /** kill -9 of everything that still runs. */
  async killEverything(): Promise<void> {
    const servers = [...this.members, ...this.chunkServers]
    await Promise.all(servers.map((server) => server.stop('SIGKILL')))
  }

  /** All that belongs to it, after `killEverything`. */
  async startEverything(): Promise<void> {
    for (const server of [...this.members, ...this.chunkServers]) server.start()
    await this.allThere()
  }
}

function placesOf(
  chunkServers: number | readonly ChunkServerPlace[],
  host: TestHost,
): readonly ChunkServerPlace[] {
  if (typeof chunkServers !== 'number') return chunkServers
  return Array.from({ length: chunkServers }, (_, index) => ({ repository: host.path(`cs${index + 1}`) }))
}
