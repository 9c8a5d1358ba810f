/**
 * Records what concurrent clients of a simulated cluster see of the key-value store while processes crash,
 * lose power and lose each other, as a history for the linearizability checker. Everything follows from the
 * seed. An operation whose client died, or whose session expired before the answer, has an unknown outcome.
 */
import type { Client, KeyValue } from '../../client/api.ts'
import {
  type Draft,
  HistoryRecorder,
  KeyValueWorker,
  type MapHistory,
  shownList,
} from './key-value-workload.ts'
import { SeededRandom } from '../simulation/seeded-random.ts'
import { type ClientNode, SimulatedCluster } from '../simulation/simulated-cluster.ts'
import type { SimulatedRoles } from '../simulation/simulated-roles.ts'

const NAMESPACE = 'history'
const CLIENT_COUNT = 3
const WORKERS_PER_CLIENT = 2
const FAULT_PAUSE_MS_MAX = 3000
const FAULT_MS_MAX = 12_000
const START_LIMIT_MS = 60_000

export interface HistoryOptions {
  readonly seed: number
  /** Of simulated time under faults. */
  readonly durationMs: number
  readonly roles?: Partial<SimulatedRoles>
  /** For planted bugs: what the clients use instead. */
  readonly decorate?: (keyValue: KeyValue, random: SeededRandom) => KeyValue
}

export interface Recording {
  readonly history: MapHistory
  readonly faultCount: number
}

/**
 * Runs it to the end, then some more without faults, so that everything that can be answered is and dead
 * sessions expire; then all clients close, and one more looks at what is left.
 */
export async function recordHistory(options: HistoryOptions): Promise<Recording> {
  return await new Run(options).run()
}

class Run {
  readonly #options: HistoryOptions
  readonly #cluster: SimulatedCluster
  readonly #random: SeededRandom
  readonly #recorder = new HistoryRecorder()
  /** Which life of each client runs: its keys end with it. */
  readonly #lives = new Map<ClientNode, number>()
  /** Ends of sessions whose client died: they expire. */
  readonly #deaths: Draft[] = []
  #faultCount = 0

  constructor(options: HistoryOptions) {
    this.#options = options
    this.#random = new SeededRandom(options.seed)
    this.#cluster = new SimulatedCluster({
      seed: options.seed,
      chunkServerCount: 0,
      replicas: { normal: 1, minimum: 1 },
      ...(options.roles === undefined ? {} : { roles: options.roles }),
    })
  }

  async run(): Promise<Recording> {
    const { clock } = this.#cluster
    this.#cluster.start()
    for (let number = 1; number <= CLIENT_COUNT; number++) {
      const node = this.#cluster.addClient(`client${number}`, (client) => this.#begin(node, client))
      node.restart()
    }
    if (!(await clock.runUntil(() => this.#lives.size === CLIENT_COUNT, START_LIMIT_MS))) {
      throw new Error('the clients do not come up')
    }
    this.#trouble()
    await clock.advance(this.#options.durationMs)
    this.#recorder.isOver = true
    // The last fault ends, the supervisor restarts what is dead, sessions resume or expire.
    await clock.advance(FAULT_MS_MAX * 2)
    if (!(await clock.runUntil(() => this.#recorder.pendingCount === 0, START_LIMIT_MS))) {
      throw new Error('operations are never answered')
    }
    for (const death of this.#deaths) this.#recorder.end(death, {})
    await clock.settled(this.#finish(), START_LIMIT_MS)
    return { history: this.#recorder.history, faultCount: this.#faultCount }
  }

  async #finish(): Promise<void> {
    for (const node of this.#cluster.clients) {
      const owner = this.#nameOf(node)
      const closed = node.client?.close().then(() => ({}))
      if (closed !== undefined) await this.#recorder.record(owner, { kind: 'end', owner }, closed)
    }
    const last = await new Promise<Client>((resolve) => this.#cluster.addClient('last', resolve).restart())
    const listed = last.keyValue(NAMESPACE).list().then(shownList)
    await this.#recorder.record('last', { kind: 'list', prefix: '' }, listed)
    await last.close()
  }

  #begin(node: ClientNode, client: Client): void {
    const life = (this.#lives.get(node) ?? 0) + 1
    this.#lives.set(node, life)
    const random = this.#random.fork(`${node.name} ${life}`)
    const plain = client.keyValue(NAMESPACE)
    const keyValue = this.#options.decorate?.(plain, random) ?? plain
    for (let number = 0; number < WORKERS_PER_CLIENT; number++) {
      const worker = new KeyValueWorker({
        recorder: this.#recorder,
        client: this.#nameOf(node),
        keyValue,
        random: random.fork(`${number}`),
        pause: (durationMs) =>
          new Promise((resolve) => void this.#cluster.clock.setTimer(durationMs, resolve)),
      })
      void worker.run()
    }
  }

  #trouble(): void {
    if (this.#recorder.isOver) return
    const delayMs = this.#random.float() * FAULT_PAUSE_MS_MAX
    this.#cluster.clock.setTimer(delayMs, () => {
      if (this.#recorder.isOver) return
      this.#fault()
      this.#trouble()
    })
  }

  #fault(): void {
    const { clients, metadataServer, network, clock } = this.#cluster
    const node = clients[this.#random.below(clients.length)] as ClientNode
    const lengthMs = this.#random.float() * (this.#random.below(3) === 0 ? FAULT_MS_MAX : 1500)
    this.#faultCount++
    switch (this.#random.below(6)) {
      case 0:
      case 1: {
        if (this.#random.below(2) === 0) metadataServer.crash()
        else metadataServer.losePower()
        clock.setTimer(Math.min(lengthMs, 2000), () => metadataServer.restart())
        break
      }
      case 2:
      case 3:
        network.cut(node.host, metadataServer.host)
        break
      case 4: {
        this.#mayEnd(node)
        if (this.#random.below(2) === 0) network.partition(node.host, metadataServer.host)
        else network.blockOneWay(metadataServer.host, node.host)
        clock.setTimer(lengthMs, () => network.heal(node.host, metadataServer.host))
        break
      }
      default: {
        if (!node.isRunning) break
        this.#deaths.push(this.#mayEnd(node))
        this.#recorder.abandon(this.#nameOf(node))
        node.crash()
        clock.setTimer(lengthMs, () => node.restart())
      }
    }
  }

  /** Its session may expire from now on: once, because a new one is opened only when it is heard again. */
  #mayEnd(node: ClientNode): Draft {
    const client = this.#nameOf(node)
    return this.#recorder.begin(client, { kind: 'end', owner: client })
  }

  #nameOf(node: ClientNode): string {
    return `${node.name}.${this.#lives.get(node) ?? 0}`
  }
}
