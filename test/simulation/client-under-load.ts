/** A client of a run: its process, which faults kill, and the workload of each of its lives. */
import type { ClientNode, SimulatedCluster } from '../../core/testing/simulation/simulated-cluster.ts'
import type { SeededRandom } from '../../core/testing/simulation/seeded-random.ts'
import type { ClientControl } from './nemesis.ts'
import type { SharedState } from './shared-state.ts'
import { ClientWorkload } from './workload.ts'

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
