/**
 * One run: a cluster, two clients under load, trouble for a while; then the trouble stops and everything
 * must become healthy, and everything that was promised must be there. The seed decides all of it.
 */
import { type ClientNode, SimulatedCluster } from '../../core/testing/simulation/simulated-cluster.ts'
import type { SimulatedRoles } from '../../core/testing/simulation/simulated-roles.ts'
import { startMarks, stopMarks } from '../../core/base/coverage.ts'
import { SeededRandom } from '../../core/testing/simulation/seeded-random.ts'
import { type FaultKind, faultKinds, focusedKinds } from './faults.ts'
import { excuseOf, excuseOldSize } from './excuses.ts'
import { checkAtEnd } from './final-check.ts'
import { GivenUpServers } from './given-up.ts'
import { severalKinds } from './metadata-faults.ts'
import { Links } from './links.ts'
import { NamespaceModel } from './namespace-model.ts'
import { type ClientControl, Nemesis, type World } from './nemesis.ts'
import { Oracle } from './oracle.ts'
import { Trace } from './trace.ts'
import type { SharedState } from './shared-state.ts'
import { ClientWorkload } from './workload.ts'

const FILE_NAMES = ['f0', 'f1', 'f2']
const CHURN_NAMES = ['n0', 'n1', 'n2', 'n3', 'n4', 'n5']
/** Of the trouble. */
const DURATION_MS = 30_000
const START_LIMIT_MS = 20_000
/** Longest time from the end of all trouble until a metadata server is the master. */
const MASTER_LIMIT_MS = 10_000
/** Longest time from the end of all trouble until every operation was answered. */
const DRAIN_LIMIT_MS = 120_000

export interface RunOptions {
  readonly seed: number
  readonly durationMs?: number
  /** Default 1. */
  readonly metadataServerCount?: number
  /** Kinds of faults; default: the seed picks some. Empty: none. */
  readonly kinds?: readonly FaultKind[]
  /** How often faults begin, on average, and how many at once; default: the seed decides. */
  readonly faultPauseMs?: number
  readonly faultsAtOnce?: number
  /** How long a chunk server may be away until others take over its replicas; default: the seed decides. */
  readonly offlineSeconds?: number
  readonly print?: ((line: string) => void) | null
  /** Planted bugs. */
  readonly roles?: Partial<SimulatedRoles>
}

export interface RunResult {
  readonly seed: number
  readonly failure: string | null
  readonly hash: string
  readonly simulatedMs: number
  readonly operationCount: number
  readonly operations: Readonly<Record<string, number>>
  readonly faults: Readonly<Record<string, number>>
  readonly marks: Readonly<Record<string, number>>
  readonly lastLines: readonly string[]
}

export const allFaultKinds = Object.keys(faultKinds) as FaultKind[]

export async function runSimulation(options: RunOptions): Promise<RunResult> {
  const marks = startMarks()
  const run = new Run(options)
  let failure: string | null = null
  try {
    await run.run()
    failure = run.oracle.violation?.message ?? null
  } catch (error) {
    failure =
      run.oracle.violation?.message ??
      (error instanceof Error ? (error.stack ?? error.message) : String(error))
  } finally {
    stopMarks()
  }
  const result: RunResult = {
    seed: options.seed,
    failure,
    hash: run.trace.hash,
    simulatedMs: run.cluster.clock.nowMs(),
    operationCount: run.oracle.checkedOperationCount,
    operations: Object.fromEntries(run.shared.counts),
    faults: Object.fromEntries(run.nemesis?.counts ?? []),
    marks: Object.fromEntries(marks),
    lastLines: run.trace.lastLines,
  }
  run.cluster.dispose()
  return result
}

class Run {
  readonly cluster: SimulatedCluster
  readonly trace: Trace
  readonly oracle: Oracle
  readonly shared: SharedState
  nemesis: Nemesis | null = null
  readonly #options: RunOptions
  readonly #random: SeededRandom
  readonly #clients: ClientUnderLoad[] = []
  #directory = 0

  constructor(options: RunOptions) {
    this.#options = options
    this.#random = new SeededRandom(options.seed).fork('run')
    const random = this.#random
    const minimum = 2 - (random.below(4) === 0 ? 1 : 0)
    const offlineSeconds = random.below(2) === 0 ? 3 : 12
    const rates = new Map<string, number>()
    let trace: Trace | null = null
    let givenUp: GivenUpServers | null = null
    this.cluster = new SimulatedCluster({
      seed: options.seed,
      chunkServerCount: 4,
      metadataServerCount: options.metadataServerCount ?? 1,
      replicas: { normal: 3, minimum },
      parameters: {
        // scrubbing is at work all the time, beside everything else
        'mds.wd.verify_chunks': '120',
        'mds.wd.offline_tout': `${options.offlineSeconds ?? offlineSeconds}s`,
        'mds.wd.inactive_tout': '2s',
        'mds.lease.recall_tout': '10s',
        'mds.gc.grace': '1s',
        'mds.gc.stale_grace': '5s',
      },
      logger: (name) => {
        const logger = (trace as Trace).logger(name)
        return name.startsWith('mds') ? (givenUp as GivenUpServers).watching(logger) : logger
      },
      clockRate: (name) => {
        let rate = rates.get(name)
        if (rate === undefined) rates.set(name, (rate = 0.91 + random.float() * 0.18))
        return rate
      },
      onEnded: (name, error) => {
        trace?.line(name, `ENDED ${error instanceof Error ? error.stack : String(error)}`)
        if (error instanceof Error && error.name === 'AssertionError')
          this.oracle.fail(`${name} ended: ${error.stack}`)
      },
      ...(options.roles === undefined ? {} : { roles: options.roles }),
    })
    trace = new Trace(this.cluster.clock, options.print ?? null)
    this.trace = trace
    this.oracle = new Oracle(trace)
    givenUp = new GivenUpServers(this.cluster, this.oracle)
    this.oracle.mayKnowOldSize = () => !this.shared.isStopping && excuseOldSize(this.nemesis)
    this.shared = {
      oracle: this.oracle,
      clock: this.cluster.clock,
      names: new NamespaceModel(CHURN_NAMES),
      excuse: (code, during) => excuseOf(this.nemesis, code, during),
      counts: new Map(),
      fileNames: FILE_NAMES,
      loopCount: 3,
      thinkMs: 100 + random.below(200),
      operationsWanted: {
        count: ((350 + random.below(200)) * (options.durationMs ?? DURATION_MS)) / DURATION_MS,
        withinMs: options.durationMs ?? DURATION_MS,
      },
      isStopping: false,
    }
  }

  async run(): Promise<void> {
    await this.#start()
    const { clock } = this.cluster
    const durationMs = this.#options.durationMs ?? DURATION_MS
    this.#startTrouble(durationMs)
    await clock.runUntil(() => this.oracle.violation !== null, durationMs)
    this.trace.line('run', 'the trouble ends')
    this.nemesis?.stop()
    for (const node of [...this.cluster.metadataServers, ...this.cluster.chunkServers]) node.restart()
    for (const client of this.#clients) client.restart()
    if (this.oracle.violation !== null) return
    await clock.runUntil(() => this.oracle.violation !== null, 2000)
    const isLed = () => this.oracle.violation !== null || this.cluster.master !== null
    if (!(await clock.runUntil(isLed, MASTER_LIMIT_MS)))
      this.oracle.fail(`no master ${MASTER_LIMIT_MS} ms after the end of the trouble`)
    this.shared.isStopping = true
    const isIdle = () => this.oracle.violation !== null || this.#clients.every((client) => client.isIdle)
    if (!(await clock.runUntil(isIdle, DRAIN_LIMIT_MS))) {
      const waiting = this.#clients.flatMap((client) => client.waiting)
      this.oracle.fail(
        `operations without answer ${DRAIN_LIMIT_MS} ms after the end of the trouble:\n${waiting.join('\n')}`,
      )
    }
    if (this.oracle.violation !== null) return
    await checkAtEnd(this.cluster, this.shared, this.#clients, this.#directory)
  }

  #startTrouble(durationMs: number): void {
    const random = this.#random.fork('nemesis')
    const world: World = {
      cluster: this.cluster,
      links: new Links(this.cluster.network),
      oracle: this.oracle,
      random,
      clients: this.#clients,
    }
    const isAlone = this.cluster.metadataServers.length === 1
    const kinds = this.#options.kinds ?? [...chooseKinds(random), ...(isAlone ? [] : chooseSeveral(random))]
    this.trace.line('run', `faults: ${kinds.join(' ') || 'none'}`)
    const pauseMs = durationMs / (10 + random.below(12))
    const runningMax = 1 + random.below(4)
    this.nemesis = new Nemesis(world, kinds, {
      pauseMs: this.#options.faultPauseMs ?? pauseMs,
      runningMax: this.#options.faultsAtOnce ?? runningMax,
    })
    this.nemesis.start()
  }

  async #start(): Promise<void> {
    const { cluster } = this
    cluster.start()
    if (!(await cluster.clock.runUntil(() => cluster.isServing, START_LIMIT_MS)))
      throw new Error('the cluster does not come up')
    await cluster.clock.settled(cluster.configure(), START_LIMIT_MS)
    for (const name of ['client1', 'client2']) {
      const client = new ClientUnderLoad(name, cluster, this.shared, this.#random.fork(name))
      this.#clients.push(client)
      client.restart()
    }
    if (
      !(await cluster.clock.runUntil(
        () => this.#clients.every(({ node }) => node.client !== null),
        START_LIMIT_MS,
      ))
    )
      throw new Error('the clients do not connect')
    this.#directory = await cluster.clock.settled(this.#makeFiles())
    for (const client of this.#clients) client.begin(this.#directory)
  }

  async #makeFiles(): Promise<number> {
    const fileSystem = this.#clients[0]?.node.client?.fileSystem
    if (fileSystem === undefined) throw new Error('no client')
    const owner = { uid: 0, gid: 0 }
    const directory = await fileSystem.makeDirectory(1, 'work', 0o755, owner)
    for (const name of FILE_NAMES) {
      const { file, attributes } = await fileSystem.create(directory.inode, name, 0o644, owner, true)
      this.oracle.file(name).inode = attributes.inode
      file.close()
    }
    return directory.inode
  }
}

/** A client process that is started again after each crash, and its workload. */
export class ClientUnderLoad implements ClientControl {
  readonly name: string
  readonly node: ClientNode
  readonly #shared: SharedState
  readonly #random: SeededRandom
  #workload: ClientWorkload | null = null
  #directory = 0
  #lives = 0

  constructor(name: string, cluster: SimulatedCluster, shared: SharedState, random: SeededRandom) {
    this.name = name
    this.#shared = shared
    this.#random = random
    this.node = cluster.addClient(name, () => {
      if (this.#directory !== 0) this.begin(this.#directory)
    })
  }

  get isIdle(): boolean {
    return this.node.client !== null && (this.#workload?.isIdle ?? true)
  }

  get waiting(): string[] {
    return this.node.client === null ? [`${this.name} connect`] : (this.#workload?.waiting ?? [])
  }

  begin(directory: number): void {
    this.#directory = directory
    const { client } = this.node
    if (client === null) return
    this.#lives += 1
    // to the oracle each life is another client: it knows nothing of what the one before was promised
    const name = `${this.name}.${this.#lives}`
    this.#workload = new ClientWorkload(name, client, this.#random.fork(`life ${this.#lives}`), this.#shared)
    this.#workload.start(directory)
  }

  crash(): void {
    this.#workload?.die()
    this.#workload = null
    for (const file of this.#shared.oracle.files.values()) file.forgive()
    this.node.crash()
  }

  restart(): void {
    this.node.restart()
  }
}

/** Some kinds together: a few in depth find more than all at once. */
function chooseKinds(random: SeededRandom): FaultKind[] {
  const others: readonly FaultKind[] = [...focusedKinds, ...severalKinds]
  const kinds = shuffled(
    random,
    allFaultKinds.filter((kind) => !others.includes(kind)),
  )
  const chosen = kinds.slice(0, 4 + random.below(6))
  // rot on one server is covered only while the others keep theirs
  return chosen.includes('bit-rot') ? chosen.filter((kind) => !losesReplicas.includes(kind)) : chosen
}

/** What only several metadata servers have. */
function chooseSeveral(random: SeededRandom): FaultKind[] {
  return shuffled(random, severalKinds).slice(0, 1 + random.below(3))
}

function shuffled(random: SeededRandom, kinds: readonly FaultKind[]): FaultKind[] {
  const result = [...kinds]
  for (let index = result.length - 1; index > 0; index--) {
    const other = random.below(index + 1)
    const kept = result[index] as FaultKind
    result[index] = result[other] as FaultKind
    result[other] = kept
  }
  return result
}

const losesReplicas: readonly FaultKind[] = [
  'cs-power-loss',
  'all-power-loss',
  'disk-error',
  'wiped-cs',
  'full-disk',
]
