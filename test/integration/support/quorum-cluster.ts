/**
 * A cluster whose metadata servers are started one by one, each where the caller says: at an address, behind a
 * command that enters a network namespace, on a disk of its own. For tests that kill, cut off, add and remove
 * metadata servers. Ends every process it started, by its id.
 */
import type { ChildProcess } from 'node:child_process'
import { type AdminConnection, connectAdmin } from '../../../core/cli/admin.ts'
import { EtcDirectory, parseAddress } from '../../../core/cli/etc.ts'
import type { Client } from '../../../core/client/api.ts'
import { connect } from '../../../core/client/connect.ts'
import type { ClusterStatistics } from '../../../core/wire/messages/statistics.ts'
import { CAIRN, isAlive, until } from './cluster.ts'
import { TestHost } from './hosts.ts'

export const CLUSTER = 'demo'
const PASSWORD = 'a password of tests'
/** Entries: a member that lacks fewer is as good as there. */
const LAG_COUNT_MAX = 200

export interface MemberPlace {
  /** Base address, HOST:PORT. */
  readonly address: string
  /** Its repository: does not exist yet. */
  readonly repository: string
  /** Put in front of the command. */
  readonly prefix?: readonly string[]
}

export interface QuorumClusterOptions {
  readonly places: readonly MemberPlace[]
  readonly chunkServers: number
  readonly replicas: string
}

/** One metadata server; it may be down. */
export class Member {
  readonly id: number
  readonly place: MemberPlace
  readonly logFile: string
  readonly #host: TestHost
  #child: ChildProcess | null = null
  #output: () => string = () => ''

  constructor(host: TestHost, id: number, place: MemberPlace) {
    this.#host = host
    this.id = id
    this.place = place
    this.logFile = host.path(`mds${id}.log`)
  }

  start(): void {
    const { prefix = [], repository } = this.place
    const role = ['-c', CLUSTER, 'mds', '-r', repository, '--log', this.logFile]
    const [program = CAIRN, ...parameters] = [...prefix, CAIRN, '--etc', this.#host.etc, ...role]
    const { child, output } = this.#host.spawn(program, parameters)
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
    if (pid === undefined) throw new Error(`MDS#${this.id} was never started`)
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

export class QuorumCluster {
  readonly host: TestHost
  readonly members: Member[] = []
  #chunkServers: { readonly repository: string; child: ChildProcess }[] = []

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
    for (let number = 1; number <= chunkServers; number++) {
      const repository = host.path(`cs${number}`)
      await host.cairn('-c', CLUSTER, 'make-cs', '-r', repository)
      cluster.#chunkServers.push({ repository, child: cluster.#startChunkServer(repository) })
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

  #startChunkServer(repository: string): ChildProcess {
    const log = ['--log', `${repository}.log`]
    return this.host.spawnCairn('-c', CLUSTER, 'cs', '-r', repository, ...log).child
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

  /** All members vote and are up to date, all chunk servers are registered. Rejects when a member has ended. */
  async allThere(timeoutMs = 60_000): Promise<void> {
    await until('all servers are there', () => this.#areAllThere(), timeoutMs)
  }

  async #areAllThere(): Promise<boolean | string> {
    const ended = this.members.find((member) => !member.isRunning)
    if (ended !== undefined) throw new Error(`MDS#${ended.id} has ended: ${ended.output}`)
    try {
      const { mds, cs } = await this.statistics()
      const seen = mds.map(({ id, status, lag }) => `MDS#${id} ${status} ${lag}`).join(', ')
      const active = cs.filter(({ status }) => status === 'active').length
      const areThere = mds.every(({ status, lag }) => status === 'active' && lag < LAG_COUNT_MAX)
      const isAll = mds.length === this.members.length && active === this.#chunkServers.length
      return (isAll && areThere) || `${seen}; ${active} chunk servers`
    } catch (error) {
      // A new master looks for its chunk servers, or there is none yet.
      return String(error)
    }
  }

  /** kill -9 of everything that still runs. */
  async killEverything(): Promise<void> {
    const children = this.#chunkServers.map(({ child }) => this.host.stop(child, 'SIGKILL'))
    await Promise.all([...this.members.map((member) => member.stop('SIGKILL')), ...children])
  }

  /** All that belongs to it, after `killEverything`. */
  async startEverything(): Promise<void> {
    for (const member of this.members) member.start()
    for (const server of this.#chunkServers) server.child = this.#startChunkServer(server.repository)
    await this.allThere()
  }
}
