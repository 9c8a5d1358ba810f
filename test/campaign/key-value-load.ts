/**
 * Clients of the key-value store, with a namespace and a history for each round. Sessions outlive every fault,
 * so that keys bound to them stay until the end.
 */
import { setTimeout as pause } from 'node:timers/promises'
import type { Client } from '../../core/client/api.ts'
import {
  type Draft,
  HistoryRecorder,
  KeyValueWorker,
  type MapHistory,
  shownList,
} from '../../core/testing/linearizability/key-value-workload.ts'
import { checkLinearizability, describeVerdict } from '../../core/testing/linearizability/linearizability.ts'
import { mapModel, type MapOutput } from '../../core/testing/linearizability/linearizability-models.ts'
import type { SeededRandom } from '../../core/testing/simulation/seeded-random.ts'
import type { Crew } from './crew.ts'
import type { Pulse } from './pulse.ts'

/** The workers' own pauses are made for a simulated clock. */
const PAUSE_PART = 0.1

class RoundRecorder extends HistoryRecorder {
  readonly namespace: string
  readonly #pulse: Pulse

  constructor(namespace: string, pulse: Pulse) {
    super()
    this.namespace = namespace
    this.#pulse = pulse
  }

  override end(operation: Draft, output: MapOutput): void {
    super.end(operation, output)
    if (!this.isOver) this.#pulse.beat(operation.client)
  }
}

export class KeyValueLoad {
  readonly #pulse: Pulse
  readonly #crew: Crew
  readonly #clients: readonly Client[]
  readonly #rounds: RoundRecorder[] = []

  constructor(pulse: Pulse, crew: Crew, clients: readonly Client[]) {
    this.#pulse = pulse
    this.#crew = crew
    this.#clients = clients
  }

  get count(): number {
    return this.#rounds.reduce((sum, { history }) => sum + history.length, 0)
  }

  newRound(name: string, random: SeededRandom): Promise<void> {
    this.stop()
    const recorder = new RoundRecorder(name, this.#pulse)
    this.#rounds.push(recorder)
    for (const [number, client] of this.#clients.entries()) {
      const worker = new KeyValueWorker({
        recorder,
        client: `keys${number + 1}`,
        keyValue: client.keyValue(name),
        random: random.fork(`${name} ${number}`),
        pause: (durationMs) => pause(durationMs * PAUSE_PART),
      })
      this.#crew.add(`keys${number + 1}`, worker.run())
    }
    return Promise.resolve()
  }

  /** Nobody begins anything any more. */
  stop(): void {
    const last = this.#rounds.at(-1)
    if (last !== undefined) last.isOver = true
  }

  /** Goes into the histories. */
  async lookAtEverything(client: Client): Promise<void> {
    for (const recorder of this.#rounds) {
      const listed = client.keyValue(recorder.namespace).list().then(shownList)
      await recorder.record('last', { kind: 'list', prefix: '' }, listed)
    }
  }

  /** What is wrong; empty: nothing. */
  check(): string[] {
    return this.#rounds.flatMap(({ namespace, history }) => {
      const verdict = checkLinearizability(history as MapHistory, mapModel)
      return verdict.kind === 'linearizable'
        ? []
        : [`key-value store, ${namespace}: ${describeVerdict(verdict)}`]
    })
  }
}
