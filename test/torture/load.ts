/**
 * Everything that works on the tortured cluster: the clients with their workloads and mounts, the oracle that
 * judges what they see, and the files they share. A new file takes the place of the oldest one now and then; the
 * old ones are read at the end, and one of them is in use again at any time.
 */
import fs from 'node:fs'
import { codeOf } from '../../core/base/errors.ts'
import type { SeededRandom } from '../../core/testing/simulation/seeded-random.ts'
import type { Client } from '../../core/client/api.ts'
import { nodeClock } from '../../core/platform/node/platform.ts'
import { until } from '../integration/support/programs.ts'
import type { QuorumCluster } from '../integration/support/quorum-cluster.ts'
import { checkFiles, checkNames } from '../simulation/final-reads.ts'
import { NamespaceModel } from '../simulation/namespace-model.ts'
import { Oracle } from '../simulation/oracle.ts'
import type { SharedState } from '../simulation/shared-state.ts'
import { Trace } from '../simulation/trace.ts'
import { ClientHost } from './clients.ts'
import type { Place } from './cluster.ts'
import { FioLoad } from './fio-load.ts'
import { Stalls } from './stalls.ts'

const CHURN_NAMES = ['n0', 'n1', 'n2', 'n3', 'n4', 'n5', 'n6', 'n7']
const FILES_IN_USE = 4
const LOOPS_PER_CLIENT = 3
const THINK_MS = 60
/** Until everything is answered that was asked. */
const DRAIN_TIMEOUT_MS = 180_000
const owner = { uid: 0, gid: 0 }

export interface LoadOptions {
  readonly cluster: QuorumCluster
  readonly places: readonly Place[]
  readonly random: SeededRandom
  /** Null: this error is a broken promise. */
  readonly excuse: (client: string, code: string) => string | null
  /** Lasts a fault at this moment? What is checked then is counted apart. */
  readonly isUnderFault: () => boolean
  /** Null: no fio. May a round of this client's fio that began then have failed? */
  readonly excuseFio: ((client: string, sinceMs: number) => boolean) | null
  /** Every operation, one a line. */
  readonly traceFile: string
}

export class Load {
  readonly hosts: readonly ClientHost[]
  readonly oracle: Oracle
  readonly stalls = new Stalls()
  readonly fio: readonly FioLoad[]
  readonly #options: LoadOptions
  readonly #names = new NamespaceModel(CHURN_NAMES)
  readonly #counts = new Map<string, number>()
  readonly #trace: fs.WriteStream
  readonly #state: { fileNames: readonly string[]; isStopping: boolean } = {
    fileNames: [],
    isStopping: false,
  }
  /** Of the oracle's checks, those while a fault lasted. */
  checkedDuringFaults = 0
  #checkedBefore = 0
  #fileCount = 0
  #directory = 0
  /** Makes files; nothing ever happens to it. */
  #keeper: Client | null = null

  constructor(options: LoadOptions) {
    const { places, cluster, random, traceFile, excuseFio } = options
    this.#options = options
    this.#trace = fs.createWriteStream(traceFile)
    this.oracle = new Oracle(new Trace(nodeClock, (line) => this.#trace.write(`${line}\n`)))
    // Trouble never ends here: what nobody has flushed may be unknown to others.
    this.oracle.mayKnowOldSize = () => !this.#state.isStopping
    this.hosts = places.map((place) => {
      const { name } = place.host
      const onAnswer = (client: string): void => this.#answered(client)
      return new ClientHost(place, cluster, random.fork(name), this.#sharedBy(name), onAnswer)
    })
    this.fio =
      excuseFio === null
        ? []
        : this.hosts.map((host) => {
            const { name } = host
            return new FioLoad(host, random.fork(`fio ${name}`), (sinceMs) => excuseFio(name, sinceMs))
          })
  }

  /** As the workload of this client sees it. */
  #sharedBy(client: string): SharedState {
    const state = this.#state
    return {
      oracle: this.oracle,
      clock: nodeClock,
      names: this.#names,
      excuse: (code) => this.#options.excuse(client, code),
      counts: this.#counts,
      get fileNames() {
        return state.fileNames
      },
      loopCount: LOOPS_PER_CLIENT,
      thinkMs: THINK_MS,
      snapshotPercent: 0,
      operationsWanted: { count: 0, withinMs: 1 },
      get isStopping() {
        return state.isStopping
      },
    }
  }

  #answered(client: string): void {
    this.stalls.beat(client)
    const checked = this.oracle.checkedOperationCount
    if (this.#options.isUnderFault()) this.checkedDuringFaults += checked - this.#checkedBefore
    this.#checkedBefore = checked
  }

  /** Acknowledged operations by kind. */
  get counts(): Readonly<Record<string, number>> {
    return Object.fromEntries(this.#counts)
  }

  get problems(): string[] {
    const { violation } = this.oracle
    return [
      ...(violation === null ? [] : [violation.message]),
      ...this.fio.flatMap(({ problems }) => problems),
    ]
  }

  async start(): Promise<void> {
    this.#keeper = await this.#options.cluster.connect('keeper')
    const { fileSystem } = this.#keeper
    this.#directory = (await fileSystem.makeDirectory(1, 'work', 0o755, owner)).inode
    for (const { name } of this.hosts) await fileSystem.makeDirectory(1, name, 0o755, owner)
    for (let count = 0; count < FILES_IN_USE; count++) await this.addFile()
    await Promise.all(this.hosts.map((host) => host.start(this.#directory, this.fio.length > 0)))
    for (const fio of this.fio) fio.start()
  }

  /** A new file in use; the oldest one no more, and one from before again. */
  async addFile(): Promise<void> {
    const name = `f${this.#fileCount++}`
    const created = await this.#keeper?.fileSystem.create(this.#directory, name, 0o644, owner, true)
    if (created === undefined) throw new Error('not started')
    this.oracle.file(name).inode = created.attributes.inode
    created.file.close()
    const newest = Array.from({ length: FILES_IN_USE - 1 }, (_, back) => this.#fileCount - 1 - back)
    const old = this.#options.random.below(this.#fileCount)
    this.#state.fileNames = [...new Set([...newest, old])].filter((at) => at >= 0).map((at) => `f${at}`)
  }

  /** Nobody begins anything any more; resolves when everything is answered. */
  async stop(): Promise<void> {
    this.#state.isStopping = true
    await Promise.all(this.fio.map((fio) => fio.stop()))
    await until(
      'everything is answered',
      () =>
        this.oracle.violation !== null ||
        this.hosts.every(({ isIdle }) => isIdle) ||
        this.hosts.flatMap(({ waiting }) => waiting).join('\n'),
      DRAIN_TIMEOUT_MS,
    )
  }

  /** After `stop`. */
  goOn(): void {
    this.#state.isStopping = false
    for (const host of this.hosts) host.goOn()
  }

  /** Of all chunk servers: what nobody has flushed may be gone. */
  lostPower(): void {
    for (const file of this.oracle.files.values())
      file.lostPower(0, Number.POSITIVE_INFINITY, this.oracle.tick())
  }

  /** After `stop`. Whoever still holds the lease of a file gives it back now, not when it has been idle for a while. */
  async publish(): Promise<void> {
    for (const { inode } of this.oracle.files.values()) {
      if (inode === 0) continue
      try {
        const file = await this.#keeper?.fileSystem.open(inode)
        file?.close()
      } catch (error) {
        // It has no name any more.
        if (codeOf(error) !== 'ENOENT' && codeOf(error) !== 'ESTALE') throw error
      }
    }
  }

  /** All names and all bytes, as a client sees them that knows nothing. What is wrong is in `problems`. */
  async verify(): Promise<void> {
    const shared = { ...this.#sharedBy('last'), fileNames: this.#allFiles() }
    const client = await this.#options.cluster.connect('last')
    try {
      await checkNames(client, 'last', shared, this.#directory)
      await checkFiles(client, 'last', shared)
    } finally {
      await client.close()
    }
  }

  #allFiles(): string[] {
    return Array.from({ length: this.#fileCount }, (_, index) => `f${index}`)
  }

  async close(): Promise<void> {
    for (const host of this.hosts) await host.end()
    await this.#keeper?.close()
    await new Promise((resolve) => this.#trace.end(resolve))
  }
}
