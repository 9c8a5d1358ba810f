/**
 * One run: a cluster, some clients under load, trouble for a while; then the trouble stops and everything
 * must become healthy, and everything that was promised must be there. The seed decides all of it.
 */
import { SimulatedCluster } from '../../core/testing/simulation/simulated-cluster.ts'
import type { SimulatedRoles } from '../../core/testing/simulation/simulated-roles.ts'
import { startMarks, stopMarks } from '../../core/base/coverage.ts'
import { SeededRandom } from '../../core/testing/simulation/seeded-random.ts'
import { ClientUnderLoad } from './client-under-load.ts'
import { chooseKinds } from './fault-choice.ts'
import type { FaultKind } from './faults.ts'
import { excuseOf, excuseOldSize } from './excuses.ts'
import { checkAtEnd } from './final-check.ts'
import { GivenUpServers } from './given-up.ts'
import { Links } from './links.ts'
import { NamespaceModel } from './namespace-model.ts'
import { Nemesis, type StruckFault, type World } from './nemesis.ts'
import { Oracle } from './oracle.ts'
import { cutPower } from './power-cuts.ts'
import { Trace } from './trace.ts'
import type { SharedState } from './shared-state.ts'
import { drawShape, type Shape, shapeText, smallestShape } from './shape.ts'
import { COUNTED } from './summary.ts'

const FILE_COUNT_MIN = 3
const CHURN_NAMES = ['n0', 'n1', 'n2', 'n3', 'n4', 'n5']
interface Pace {
  /** Of the trouble. */
  readonly durationMs: number
  /** How many operations the clients are to do, of which the seed decides; and in which share of the trouble. */
  readonly operationsMin: number
  readonly operationsSpan: number
  readonly withinShare: number
}
/**
 * A run of the faults that the seed draws counts (summary.ts), and does hardly more: many seeds see more than few
 * long ones. With its start and its end it has 30 simulated seconds.
 */
const mixedPace: Pace = { durationMs: 27_500, operationsMin: 303, operationsSpan: 40, withinShare: 0.95 }
/** One of chosen faults looks for something: those of the planted bugs. */
const chosenPace: Pace = { durationMs: 30_000, operationsMin: 305, operationsSpan: 90, withinShare: 1 }
/** From the end of the trouble until the clients stop. */
const QUIET_MS = 2000
/** Longest extension of it, until the run had enough operations and faults to count. */
const EXTENSION_MS_MAX = 20_000
/** Much is under way whenever the power fails. */
const POWER_CUT_THINK_MS = 10
const START_LIMIT_MS = 20_000
/** Longest time from the end of all trouble until a metadata server is the master. */
const MASTER_LIMIT_MS = 10_000
/** Longest time from the end of all trouble until every operation was answered. */
const DRAIN_LIMIT_MS = 120_000

export interface RunOptions {
  readonly seed: number
  readonly durationMs?: number
  /** Default: the seed draws it, or, when the kinds of faults are given, the smallest. */
  readonly shape?: Partial<Shape>
  /** Kinds of faults; default: the seed picks some. Empty: none. */
  readonly kinds?: readonly FaultKind[]
  /** How often faults begin, on average, and how many at once; default: the seed decides. */
  readonly faultPauseMs?: number
  readonly faultsAtOnce?: number
  /** Numbers of the faults that strike, the others do not; default: all. */
  readonly onlyFaults?: readonly number[]
  /** How long a chunk server may be away until others take over its replicas; default: the seed decides. */
  readonly offlineSeconds?: number
  readonly print?: ((line: string) => void) | null
  /** Instead of faults: everything loses power, many times (power-cuts.ts). */
  readonly powerCuts?: boolean
  /** Planted bugs. */
  readonly roles?: Partial<SimulatedRoles>
}

export interface RunResult {
  readonly seed: number
  readonly shape: string
  readonly failure: string | null
  readonly hash: string
  readonly simulatedMs: number
  readonly operationCount: number
  readonly operations: Readonly<Record<string, number>>
  readonly faults: Readonly<Record<string, number>>
  /** Those that struck, in order. */
  readonly faultList: readonly StruckFault[]
  readonly marks: Readonly<Record<string, number>>
  readonly lastLines: readonly string[]
}

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
    shape: run.shape,
    failure,
    hash: run.trace.hash,
    simulatedMs: run.cluster.clock.nowMs(),
    operationCount: run.oracle.checkedOperationCount,
    operations: Object.fromEntries(run.shared.counts),
    faults:
      run.powerCutCount > 0
        ? { 'power-cut': run.powerCutCount }
        : Object.fromEntries(run.nemesis?.counts ?? []),
    faultList: run.nemesis?.struck ?? [],
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
  powerCutCount = 0
  readonly #options: RunOptions
  readonly #random: SeededRandom
  readonly #clients: ClientUnderLoad[] = []
  readonly #shape: Shape
  readonly #durationMs: number
  #directory = 0

  constructor(options: RunOptions) {
    this.#options = options
    this.#random = new SeededRandom(options.seed).fork('run')
    const random = this.#random
    const drawn = options.kinds === undefined ? drawShape(random.fork('shape')) : smallestShape
    const shape = { ...drawn, ...options.shape }
    this.#shape = shape
    const offlineSeconds = random.below(2) === 0 ? 3 : 12
    const pace = options.kinds === undefined ? mixedPace : chosenPace
    const durationMs = options.durationMs ?? pace.durationMs
    this.#durationMs = durationMs
    const rates = new Map<string, number>()
    let trace: Trace | null = null
    let givenUp: GivenUpServers | null = null
    this.cluster = new SimulatedCluster({
      seed: options.seed,
      chunkServerCount: shape.chunkServerCount,
      metadataServerCount: shape.metadataServerCount,
      replicas: shape.replicas,
      replacesRemovedMembers: true,
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
      fileNames: Array.from(
        { length: Math.max(FILE_COUNT_MIN, shape.clientCount) },
        (_, index) => `f${index}`,
      ),
      loopCount: 3,
      snapshotPercent: shape.snapshotPercent,
      thinkMs:
        options.powerCuts === true ? POWER_CUT_THINK_MS : (100 + random.below(200)) * (shape.clientCount / 2),
      operationsWanted: {
        count: ((pace.operationsMin + random.below(pace.operationsSpan)) * durationMs) / pace.durationMs,
        withinMs: durationMs * pace.withinShare,
      },
      isStopping: false,
    }
  }

  get shape(): string {
    return shapeText(this.#shape)
  }

  async run(): Promise<void> {
    await this.#start()
    if (this.#options.powerCuts === true) return await this.#cutPower()
    const { clock } = this.cluster
    this.#startTrouble(this.#durationMs)
    await clock.runUntil(() => this.oracle.violation !== null, this.#durationMs)
    if (this.#options.durationMs === undefined) await this.#extend()
    this.trace.line('run', 'the trouble ends')
    this.nemesis?.stop()
    for (const node of [...this.cluster.metadataServers, ...this.cluster.chunkServers]) node.restart()
    for (const client of this.#clients) client.restart()
    if (this.oracle.violation !== null) return
    const quietMs = Math.max(QUIET_MS, COUNTED.simulatedMs - clock.nowMs())
    await clock.runUntil(
      () => this.oracle.violation !== null,
      this.#options.durationMs === undefined ? quietMs : QUIET_MS,
    )
    this.#replaceRefused()
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

  async #cutPower(): Promise<void> {
    await cutPower({
      cluster: this.cluster,
      shared: this.shared,
      random: this.#random.fork('power cuts'),
      clients: this.#clients,
      directory: this.#directory,
      onCut: () => (this.powerCutCount += 1),
    })
  }

  /** What somebody does about a server that went back in time and is refused (rule B3). */
  #replaceRefused(): void {
    for (const server of this.cluster.chunkServers) {
      if (!server.isRefused) continue
      if (server.role?.isRegistered === true)
        this.oracle.fail(`${server.name} went back in time and was let in`)
      this.trace.line('run', `${server.name} gets an empty disk`)
      server.wipe()
      server.restart()
    }
  }

  /** Until the run counts: first what is missing of faults, then, while no new ones begin, of operations. */
  async #extend(): Promise<void> {
    const { clock } = this.cluster
    const untilMs = clock.nowMs() + EXTENSION_MS_MAX
    const { oracle } = this
    await clock.runUntil(() => oracle.violation !== null || this.#hasFaults, EXTENSION_MS_MAX)
    this.nemesis?.rest()
    const isEnough = (): boolean =>
      oracle.violation !== null || oracle.checkedOperationCount >= COUNTED.operations
    await clock.runUntil(isEnough, untilMs - clock.nowMs())
  }

  /** Were there enough faults? Without any: nothing to wait for. */
  get #hasFaults(): boolean {
    const { nemesis } = this
    if (nemesis === null || nemesis.isIdle) return true
    return nemesis.faultCount >= COUNTED.faults && nemesis.counts.size >= COUNTED.kinds
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
    const kinds = this.#options.kinds ?? chooseKinds(random, this.#shape.metadataServerCount === 1)
    this.trace.line('run', `${shapeText(this.#shape)}; faults: ${kinds.join(' ') || 'none'}`)
    const pauseMs = durationMs / (10 + random.below(12))
    const runningMax = 1 + random.below(4)
    this.nemesis = new Nemesis(world, kinds, {
      pauseMs: this.#options.faultPauseMs ?? pauseMs,
      runningMax: this.#options.faultsAtOnce ?? runningMax,
      only: this.#options.onlyFaults ?? null,
    })
    this.nemesis.start()
  }

  async #start(): Promise<void> {
    const { cluster } = this
    cluster.start()
    if (!(await cluster.clock.runUntil(() => cluster.isServing, START_LIMIT_MS)))
      throw new Error('the cluster does not come up')
    await cluster.clock.settled(cluster.configure(), START_LIMIT_MS)
    for (let number = 1; number <= this.#shape.clientCount; number++) {
      const name = `client${number}`
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
    for (const name of this.shared.fileNames) {
      const { file, attributes } = await fileSystem.create(directory.inode, name, 0o644, owner, true)
      this.oracle.file(name).inode = attributes.inode
      file.close()
    }
    return directory.inode
  }
}
