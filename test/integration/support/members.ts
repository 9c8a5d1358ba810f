/**
 * Metadata servers made and started command by command, as an administrator does: each on a host of its own,
 * which is a directory with its configuration and an address of its own on loopback. Ends all it started.
 */
import { type ChildProcess, spawn } from 'node:child_process'
import fs from 'node:fs'
import os from 'node:os'
import path from 'node:path'
import { type AdminConnection, connectAdmin } from '../../../core/cli/admin.ts'
import { EtcDirectory, parseAddress } from '../../../core/cli/etc.ts'
import type { ClusterStatistics } from '../../../core/wire/messages/statistics.ts'
import { CAIRN, type ClusterEvent } from './cluster.ts'
import { type Finished, isAlive, runProgram, until } from './programs.ts'

export interface RunningServer {
  readonly pid: number
  /** What it wrote to standard error. */
  readonly output: () => string
  /** Null while it runs, and when a signal ended it. */
  readonly status: () => number | null
  readonly hasEnded: () => boolean
}

export class Members {
  readonly cluster: string
  readonly directory: string
  readonly #running = new Map<string, RunningServer>()
  readonly #password: string

  constructor(after: (end: () => Promise<void>) => void, cluster = 'shop') {
    this.cluster = cluster
    this.directory = fs.mkdtempSync(path.join(os.tmpdir(), 'cairn-members-'))
    this.#password = this.path('password')
    fs.writeFileSync(this.#password, 'a password for the shop\n', { mode: 0o600 })
    after(() => this.#end())
  }

  path(...parts: string[]): string {
    return path.join(this.directory, ...parts)
  }

  repository(host: string): string {
    return this.path(host, 'mds')
  }

  etc(host: string): EtcDirectory {
    return new EtcDirectory(this.path(host, 'etc'))
  }

  /** Whatever the status. */
  run(host: string, ...parameters: string[]): Promise<Finished> {
    return runProgram(CAIRN, ['--etc', this.path(host, 'etc'), '-c', this.cluster, ...parameters])
  }

  /** It must succeed. */
  async cairn(host: string, ...parameters: string[]): Promise<Finished> {
    const finished = await this.run(host, ...parameters)
    if (finished.status === 0) return finished
    throw new Error(`cairn ${parameters.join(' ')}: status ${finished.status}\n${finished.stderr}`)
  }

  /** `make-mds -I`. */
  async found(host: string, address: string): Promise<void> {
    const { status, stderr } = await this.tryFound(host, address)
    if (status !== 0) throw new Error(stderr)
    this.start(host)
  }

  tryFound(
    host: string,
    address: string,
    repository = this.repository(host),
    ...further: string[]
  ): Promise<Finished> {
    fs.mkdirSync(this.path(host), { recursive: true })
    const password = ['--password-file', this.#password]
    return this.run(host, 'make-mds', '-I', '-a', address, '-r', repository, ...password, ...further)
  }

  /** What an administrator tells a host that joins; it proves the password. */
  async authenticate(host: string, ...addresses: string[]): Promise<void> {
    for (const address of addresses) this.etc(host).addBootstrapAddress(this.cluster, parseAddress(address))
    await this.cairn(host, 'auth-node', '--password-file', this.#password)
  }

  /** `make-mds`, start; on a host that is authenticated. */
  async join(host: string, address: string): Promise<Finished> {
    const made = await this.cairn(host, 'make-mds', '-a', address, '-r', this.repository(host))
    this.start(host)
    return made
  }

  start(host: string, role = 'mds', repository = this.repository(host)): RunningServer {
    const parameters = ['--etc', this.path(host, 'etc'), '-c', this.cluster, role, '-r', repository]
    const child = spawn(CAIRN, parameters, { stdio: ['ignore', 'ignore', 'pipe'] })
    const running = watch(child)
    this.#running.set(`${role} ${host}`, running)
    return running
  }

  running(host: string, role = 'mds'): RunningServer {
    const running = this.#running.get(`${role} ${host}`)
    if (running === undefined) throw new Error(`${host} was not started`)
    return running
  }

  /** SIGTERM, and it is gone. */
  async stop(host: string, role = 'mds'): Promise<void> {
    const running = this.running(host, role)
    process.kill(running.pid, 'SIGTERM')
    await until(`${role} of ${host} is gone`, running.hasEnded)
  }

  /** As `cairn stat --json` on `host`, without starting a program. */
  statistics(host: string): Promise<ClusterStatistics> {
    return this.ask(host, async (admin) => (await admin.metadata.call('admin.stat', {})) as ClusterStatistics)
  }

  events(host: string): Promise<ClusterEvent[]> {
    return this.ask(
      host,
      async (admin) => (await admin.metadata.call('admin.events', { after: 0, limit: 1000 })).events,
    )
  }

  async ask<T>(host: string, question: (admin: AdminConnection) => Promise<T>): Promise<T> {
    const etc = this.etc(host)
    const admin = await connectAdmin(this.cluster, etc.bootstrapList(this.cluster), etc)
    try {
      return await question(admin)
    } finally {
      await admin.close()
    }
  }

  /** So many are there, and all of them level. */
  async allActive(host: string, count: number): Promise<void> {
    await until(`${count} metadata servers are active`, async () => {
      const { mds } = await this.statistics(host)
      const seen = mds.map(({ id, status, lag }) => `${id} ${status} ${lag}`).join(', ')
      return (
        (mds.length === count && mds.every(({ status, lag }) => status === 'active' && lag === 0)) || seen
      )
    })
  }

  async #end(): Promise<void> {
    const servers = [...this.#running.values()]
    for (const { pid, hasEnded } of servers) if (!hasEnded()) process.kill(pid, 'SIGKILL')
    await until('all processes are gone', () => servers.every(({ pid }) => !isAlive(pid)))
    if (process.env['CAIRN_KEEP'] === undefined) fs.rmSync(this.directory, { recursive: true, force: true })
    else {
      for (const [name, { output }] of this.#running) fs.writeFileSync(this.path(`${name}.log`), output())
      process.stderr.write(`kept: ${this.directory}\n`)
    }
  }
}

function watch(child: ChildProcess): RunningServer {
  let output = ''
  child.stderr?.on('data', (data) => {
    output = (output + String(data)).slice(-100_000)
  })
  const hasEnded = (): boolean => child.exitCode !== null || child.signalCode !== null
  return { pid: child.pid ?? 0, output: () => output, status: () => child.exitCode, hasEnded }
}
