/**
 * One client host of the torture: a process with the verifying workload of the simulation, and a mount with fio
 * on it. Both are started again when they were killed; to the oracle each life is another client.
 */
import type { ChildProcess } from 'node:child_process'
import fs from 'node:fs'
import type { SeededRandom } from '../../core/testing/simulation/seeded-random.ts'
import { CAIRN, isAlive, isMounted, runProgram, until } from '../integration/support/cluster.ts'
import { CLUSTER, type QuorumCluster } from '../integration/support/quorum-cluster.ts'
import type { SharedState } from '../simulation/shared-state.ts'
import { ClientWorkload } from '../simulation/workload.ts'
import type { Place } from './cluster.ts'
import { RemoteClient } from './remote-client.ts'

const MOUNT_TIMEOUT_MS = 120_000

export class ClientHost {
  readonly place: Place
  readonly mountPoint: string
  readonly #cluster: QuorumCluster
  readonly #random: SeededRandom
  readonly #shared: SharedState
  readonly #onAnswer: (client: string) => void
  #directory = 0
  #lives = 0
  #process: RemoteClient | null = null
  #workload: ClientWorkload | null = null
  #mount: ChildProcess | null = null

  constructor(
    place: Place,
    cluster: QuorumCluster,
    random: SeededRandom,
    shared: SharedState,
    onAnswer: (client: string) => void,
  ) {
    this.place = place
    this.#cluster = cluster
    this.#random = random
    this.#shared = shared
    this.#onAnswer = onAnswer
    this.mountPoint = cluster.host.path(`mnt-${place.host.name}`)
    fs.mkdirSync(this.mountPoint)
  }

  get name(): string {
    return this.place.host.name
  }

  get isIdle(): boolean {
    return this.#workload?.isIdle ?? true
  }

  /** What has no answer. */
  get waiting(): readonly string[] {
    return this.#workload?.waiting ?? []
  }

  /** `directory`: inode of the one the workload works in. */
  async start(directory: number, withMount: boolean): Promise<void> {
    this.#directory = directory
    await this.startWorkload()
    if (withMount) await this.startMount()
  }

  /** The workload, after it had come to its end. */
  goOn(): void {
    this.#workload?.start(this.#directory)
  }

  async startWorkload(): Promise<void> {
    this.#lives += 1
    const name = `${this.name}.${this.#lives}`
    const { addresses: metadataServers, keyFile } = this.#cluster
    const start = { cluster: CLUSTER, metadataServers, keyFile, name }
    this.#process = await RemoteClient.start(this.place.prefix, start, () => this.#onAnswer(this.name))
    const random = this.#random.fork(`life ${this.#lives}`)
    this.#workload = new ClientWorkload(name, this.#process, random, this.#shared)
    this.#workload.start(this.#directory)
  }

  async startMount(): Promise<void> {
    const log = `${this.mountPoint}.log`
    const command = ['--etc', this.#cluster.host.etc, 'mount', '-c', CLUSTER, '-f', '--log', log]
    const [program, ...rest] = [...this.place.prefix, CAIRN, ...command, this.mountPoint]
    this.#mount = this.#cluster.host.spawn(program, rest).child
    await until(`${this.mountPoint} is mounted`, () => isMounted(this.mountPoint), MOUNT_TIMEOUT_MS)
  }

  /** kill -9 of the workload's process. Nobody is left who would be told of a loss. */
  async killWorkload(): Promise<void> {
    await this.#process?.end()
    this.#workload?.die()
    this.#workload = null
    for (const file of this.#shared.oracle.files.values()) file.forgive()
  }

  /** kill -9 of the mount's process. */
  async killMount(): Promise<void> {
    if (this.#mount === null) return
    const { pid } = this.#mount
    this.#mount.kill('SIGKILL')
    // Else a page that the kernel was told to forget, and that somebody reads, keeps both of them for ever.
    await runProgram('umount', ['-f', this.mountPoint])
    await runProgram('umount', ['-l', this.mountPoint])
    await until('the mount is gone', () => !isMounted(this.mountPoint) && !isAlive(pid ?? 0))
  }

  /** Stops or continues both. */
  signal(signal: NodeJS.Signals): void {
    this.#process?.signal(signal)
    const pid = this.#mount?.pid
    if (pid !== undefined && this.#mount?.exitCode === null) process.kill(pid, signal)
  }

  async end(): Promise<void> {
    await this.#process?.end()
    await this.killMount()
  }
}
