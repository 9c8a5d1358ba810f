/**
 * A real cluster for integration tests: `cairn up` in a temporary folder, real processes, real disk. Always
 * ends everything it started, whatever the test did.
 */
import { spawn } from 'node:child_process'
import fs from 'node:fs'
import os from 'node:os'
import path from 'node:path'
import { type AdminConnection, connectAdmin } from '../../../core/cli/admin.ts'
import { EtcDirectory, formatBase, parseAddress } from '../../../core/cli/etc.ts'
import type { ChunkLocation } from '../../../core/wire/messages/common.ts'
import type { ClusterStatistics } from '../../../core/wire/messages/statistics.ts'
import type { UpStatus } from '../../../core/node/up/control.ts'
import { type Finished, isAlive, must, runProgram, until } from './programs.ts'

export const CAIRN = path.join(import.meta.dirname, '..', '..', '..', 'scripts', 'cairn')
export * from './programs.ts'

const HEALTHY_TIMEOUT_MS = 90_000

/**
 * How many metadata servers a test runs on that works with any number: what `scripts/test.ts --mds N` says, else
 * the test's own choice, by which every run covers both 1 and 3.
 */
export function metadataServerCount(byDefault: 1 | 3 = 1): number {
  return Number(process.env['CAIRN_TEST_MDS'] ?? byDefault)
}

export interface ClusterOptions {
  readonly chunkServers?: number
  /** Default: `metadataServerCount()`. */
  readonly metadataServers?: number
  readonly hosts?: number
  readonly replicas?: string
  readonly restart?: boolean
  readonly mount?: boolean
  /** Chunk server number to the directory (a mount point) its repository is put into. */
  readonly repositories?: Readonly<Record<number, string>>
  readonly config?: Readonly<Record<string, string>>
}

export interface ClusterEvent {
  readonly id: number
  readonly code: string
  readonly message: string
  readonly severity: string
}

export class TestCluster {
  readonly directory: string
  readonly #upArguments: string[]
  readonly #config: Readonly<Record<string, string>>

  private constructor(directory: string, options: ClusterOptions) {
    this.directory = directory
    this.#config = options.config ?? {}
    this.#upArguments = [
      'up',
      '--detach',
      '--dir',
      directory,
      '--cs',
      String(options.chunkServers ?? 3),
      '--mds',
      String(options.metadataServers ?? metadataServerCount()),
      ...(options.hosts === undefined ? [] : ['--hosts', String(options.hosts)]),
      ...(options.replicas === undefined ? [] : ['--replicas', options.replicas]),
      ...(options.restart === false ? ['--no-restart'] : []),
      ...(options.mount === false ? ['--no-mount'] : []),
    ]
  }

  /** Starts a cluster and registers its end with the test (`t.after`). */
  static async start(
    after: (end: () => Promise<void>) => void,
    options: ClusterOptions = {},
  ): Promise<TestCluster> {
    const directory = fs.mkdtempSync(path.join(os.tmpdir(), 'cairn-test-'))
    const cluster = new TestCluster(directory, options)
    after(() => cluster.destroy())
    for (const [number, target] of Object.entries(options.repositories ?? {})) {
      fs.mkdirSync(target)
      fs.symlinkSync(target, path.join(directory, `cs${number}`))
    }
    await cluster.up()
    for (const [key, value] of Object.entries(cluster.#config))
      await cluster.cairn('set-config', `${key}=${value}`)
    return cluster
  }

  get mount(): string {
    return path.join(this.directory, 'mnt')
  }

  async up(): Promise<void> {
    await must(CAIRN, this.#upArguments)
  }

  async down(): Promise<void> {
    await must(CAIRN, ['down', '--dir', this.directory])
  }

  /** `cairn --etc … ARGUMENTS` that must succeed; returns its output. */
  cairn(...parameters: string[]): Promise<string> {
    return must(CAIRN, ['--etc', path.join(this.directory, 'etc'), ...parameters], { timeoutMs: 300_000 })
  }

  /** The same, whatever the status. */
  tryCairn(...parameters: string[]): Promise<Finished> {
    return runProgram(CAIRN, ['--etc', path.join(this.directory, 'etc'), ...parameters], {
      timeoutMs: 300_000,
    })
  }

  /** As `cairn stat --json`, without starting a program: tests ask often. */
  statistics(): Promise<ClusterStatistics> {
    return this.#ask(async (admin) => (await admin.metadata.call('admin.stat', {})) as ClusterStatistics)
  }

  /** The last thousand. */
  events(): Promise<ClusterEvent[]> {
    return this.#ask(
      async (admin) => (await admin.metadata.call('admin.events', { after: 0, limit: 1000 })).events,
    )
  }

  /** The id under which the cluster knows chunk server `number`: it stands in its superblock, once it has one. */
  serverId(number: number): number {
    const known = this.serverIds[number]
    if (known !== undefined) return known
    const id = readServerId(path.join(this.directory, `cs${number}`))
    if (id > 0) this.serverIds[number] = id
    return id
  }
  /** By number; filled by `serverId`, which cannot read a disk that has died since. */
  readonly serverIds: Record<number, number> = {}

  /** The first thousand, and who has replicas of them. */
  chunks(): Promise<ChunkLocation[]> {
    return this.#ask(async (admin) => {
      const page = await admin.metadata.call('admin.chunks', { after: 0, limit: 1000 })
      return page.chunks.map((listed) => listed.location)
    })
  }

  /** Is a chunk being written, as far as the metadata servers know? */
  isBusy(): Promise<boolean> {
    return this.#ask(async (admin) => {
      const page = await admin.metadata.call('admin.chunks', { after: 0, limit: 1000 })
      return page.chunks.some((listed) => listed.busy)
    })
  }

  get keyFile(): string {
    return new EtcDirectory(path.join(this.directory, 'etc')).keyFile('demo')
  }

  get metadataServers(): string[] {
    return new EtcDirectory(path.join(this.directory, 'etc')).bootstrapList('demo').map(formatBase)
  }

  async #ask<T>(question: (admin: AdminConnection) => Promise<T>): Promise<T> {
    const admin = await connectAdmin(
      'demo',
      this.metadataServers.map((text) => parseAddress(text)),
      new EtcDirectory(path.join(this.directory, 'etc')),
    )
    try {
      return await question(admin)
    } finally {
      await admin.close()
    }
  }

  async processes(): Promise<UpStatus['processes']> {
    const text = await must(CAIRN, ['status', '--dir', this.directory, '--json'])
    return (JSON.parse(text) as UpStatus).processes
  }

  /** Sends a signal to one supervised process ('cs1', 'mds1', 'mount'). Returns its process id. */
  async signal(name: string, signal: NodeJS.Signals): Promise<number> {
    const pid = await this.processId(name)
    process.kill(pid, signal)
    return pid
  }

  async processId(name: string): Promise<number> {
    const pid = (await this.processes()).find((service) => service.id === name)?.pid
    if (pid === undefined || pid === null) throw new Error(`${name} is not running`)
    return pid
  }

  /** The metadata server that is master now: 'mds1' … */
  async master(): Promise<string> {
    const { mds } = await this.statistics()
    const address = mds.find((server) => server.master)?.address
    const found = (await this.processes()).find((service) => service.address === address)
    if (found === undefined) throw new Error(`there is no process at ${address}`)
    return found.id
  }

  /** Numbers of the chunk servers, that with the most replicas first. */
  async chunkServersByReplicas(): Promise<{ number: number; replicas: number }[]> {
    const { cs } = await this.statistics()
    return this.#chunkServerNumbers()
      .map((number) => {
        const id = this.serverId(number)
        return { number, replicas: cs.find((server) => server.id === id)?.replicas ?? 0 }
      })
      .sort((a, b) => b.replicas - a.replicas)
  }

  #chunkServerNumbers(): number[] {
    return fs
      .readdirSync(this.directory)
      .flatMap((name) => (/^cs\d+$/.test(name) ? [Number(name.slice(2))] : []))
  }

  /** kill -9, and the process is gone when this resolves (for --no-restart clusters). */
  killChunkServer(number: number): Promise<void> {
    return this.#endChunkServer(number, 'SIGKILL')
  }

  /** The same in order, with everything written. */
  stopChunkServer(number: number): Promise<void> {
    return this.#endChunkServer(number, 'SIGTERM')
  }

  async #endChunkServer(number: number, signal: NodeJS.Signals): Promise<void> {
    const byHand = this.#byHand.get(number)
    const pid = byHand ?? (await this.processes()).find((service) => service.id === `cs${number}`)?.pid
    if (pid === undefined || pid === null) throw new Error(`cs${number} is not running`)
    process.kill(pid, signal)
    await until(`cs${number} is gone`, () => !isAlive(pid))
    this.#byHand.delete(number)
  }

  /** Starts one by hand, as an administrator would (for --no-restart clusters). Ends with the test. */
  startChunkServer(number: number): void {
    const child = spawn(
      CAIRN,
      [
        '--etc',
        path.join(this.directory, 'etc'),
        '-c',
        'demo',
        'cs',
        '-r',
        path.join(this.directory, `cs${number}`),
        '--log',
        path.join(this.directory, 'log', `cs${number}.log`),
      ],
      { stdio: 'ignore', detached: true },
    )
    if (child.pid !== undefined) this.#byHand.set(number, child.pid)
    child.unref()
  }
  /** Number to process id. */
  readonly #byHand = new Map<number, number>()

  async allHealthy(timeoutMs = HEALTHY_TIMEOUT_MS): Promise<void> {
    await until(
      'all chunks healthy',
      async () => {
        const { chunks } = await this.statistics()
        return (chunks.healthy === chunks.total && chunks.replicating === 0) || JSON.stringify(chunks)
      },
      timeoutMs,
    )
  }

  /** Everything must verify and compare equal. */
  async fsckClean(): Promise<void> {
    await until('no chunk in use', async () => {
      const result = JSON.parse((await this.tryCairn('fsck', '--json')).stdout) as {
        notCompared: number
        problemCount: number
        problems: unknown[]
      }
      if (result.problemCount > 0) throw new Error(`fsck: ${JSON.stringify(result.problems.slice(0, 5))}`)
      return result.notCompared === 0 || `${result.notCompared} chunks in use`
    })
  }

  /** kill -9 of every process, the supervisor first, as if the machine had stopped. */
  async killEverything(): Promise<void> {
    const text = await must(CAIRN, ['status', '--dir', this.directory, '--json'])
    const status = JSON.parse(text) as UpStatus
    const pids = [
      status.pid,
      ...status.processes.map((service) => service.pid),
      ...this.#byHand.values(),
    ].filter((pid) => pid !== null)
    for (const pid of pids) process.kill(pid, 'SIGKILL')
    await until('everything gone', () => pids.every((pid) => !isAlive(pid)))
    await runProgram('umount', ['-l', this.mount])
  }

  async destroy(): Promise<void> {
    for (const pid of this.#byHand.values()) if (isAlive(pid)) process.kill(pid, 'SIGKILL')
    const down = await runProgram(CAIRN, ['down', '--dir', this.directory])
    if (down.status !== 0 && down.status !== 3) process.stderr.write(`${down.stderr}\n`)
    await runProgram('umount', ['-l', this.mount])
    if (process.env['CAIRN_KEEP'] === undefined) fs.rmSync(this.directory, { recursive: true, force: true })
    else process.stderr.write(`kept: ${this.directory}\n`)
  }
}

/** Of the chunk server with this repository, as its superblock says; 0 until it is registered. */
export function readServerId(repository: string): number {
  const text = fs.readFileSync(path.join(repository, 'superblock'), 'latin1')
  return Math.max(0, ...[...text.matchAll(/"server":(\d+)/g)].map((match) => Number(match[1])))
}

/** A small ext4 file system on a loop device, unmounted and removed with the test. */
export async function smallFileSystem(
  after: (end: () => Promise<void>) => void,
  megabytes: number,
): Promise<string> {
  const directory = fs.mkdtempSync(path.join(os.tmpdir(), 'cairn-disk-'))
  const image = path.join(directory, 'image')
  const mount = path.join(directory, 'mnt')
  fs.mkdirSync(mount)
  fs.writeFileSync(image, '')
  fs.truncateSync(image, megabytes * 1024 * 1024)
  await must('mkfs.ext4', ['-q', '-m', '0', image])
  await must('mount', ['-o', 'loop', image, mount])
  after(async () => {
    const unmounted = await runProgram('umount', [mount])
    if (unmounted.status !== 0) await runProgram('umount', ['-l', mount])
    fs.rmSync(directory, { recursive: true, force: true })
  })
  return mount
}
