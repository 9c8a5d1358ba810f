/**
 * The source of trouble: starts faults of random kinds at random times, several at once, and ends each
 * after a while. What it may do at a moment is bounded by what the promises cover, so that every failure
 * of the oracle is a bug.
 */
import type { SeededRandom } from '../../core/testing/simulation/seeded-random.ts'
import type { SimulatedCluster } from '../../core/testing/simulation/simulated-cluster.ts'
import type { SimulatedNode } from '../../core/testing/simulation/simulated-node.ts'
import type { Fault } from './fault-tools.ts'
import { faultKinds, type FaultKind } from './faults.ts'
import type { Links } from './links.ts'
import type { Oracle } from './oracle.ts'

/** Kinds tried when the first one does not suit the moment. */
const ATTEMPTS = 4

export interface ClientControl {
  readonly name: string
  readonly node: SimulatedNode
  crash(): void
  restart(): void
}

export interface World {
  readonly cluster: SimulatedCluster
  readonly links: Links
  readonly oracle: Oracle
  readonly random: SeededRandom
  readonly clients: readonly ClientControl[]
}

export class Nemesis {
  readonly counts = new Map<FaultKind, number>()
  readonly #world: World
  readonly #kinds: readonly FaultKind[]
  readonly #random: SeededRandom
  readonly #running = new Map<Fault, FaultKind>()
  readonly #pauseMs: number
  readonly #runningMax: number
  /** When the last fault of each kind ended; Infinity while one runs. */
  readonly #lastMs = new Map<FaultKind, number>()
  #isStopped = false

  constructor(world: World, kinds: readonly FaultKind[], options: { pauseMs: number; runningMax: number }) {
    this.#world = world
    this.#kinds = kinds
    this.#random = world.random
    this.#pauseMs = options.pauseMs
    this.#runningMax = options.runningMax
  }

  get faultCount(): number {
    let sum = 0
    for (const count of this.counts.values()) sum += count
    return sum
  }

  start(): void {
    if (this.#kinds.length > 0) this.#next()
  }

  /** Was there a fault of one of `kinds` within the last `withinMs`? */
  recently(kinds: readonly FaultKind[], withinMs: number): FaultKind | null {
    const sinceMs = this.#world.cluster.clock.nowMs() - withinMs
    for (const kind of kinds) if ((this.#lastMs.get(kind) ?? Number.NEGATIVE_INFINITY) >= sinceMs) return kind
    return null
  }

  /** Ends all faults that run and starts no more. */
  stop(): void {
    this.#isStopped = true
    for (const [fault, kind] of [...this.#running]) this.#end(fault, kind)
  }

  #next(): void {
    const delayMs = this.#pauseMs * (0.2 + 1.6 * this.#random.float())
    this.#world.cluster.clock.setTimer(delayMs, () => {
      if (this.#isStopped) return
      if (this.#running.size < this.#runningMax) this.#begin()
      this.#next()
    })
  }

  #begin(): void {
    let kind = this.#kinds[0] as FaultKind
    let fault: Fault | null = null
    for (let attempt = 0; fault === null && attempt < ATTEMPTS; attempt++) {
      kind = this.#kinds[this.#random.below(this.#kinds.length)] as FaultKind
      fault = faultKinds[kind](this.#world)
    }
    if (fault === null) return
    this.counts.set(kind, (this.counts.get(kind) ?? 0) + 1)
    this.#world.oracle.trace.line('nemesis', `${kind}: ${fault.description}`)
    this.#running.set(fault, kind)
    this.#lastMs.set(kind, Number.POSITIVE_INFINITY)
    fault.begin()
    this.#world.cluster.clock.setTimer(fault.durationMs, () => this.#end(fault, kind))
  }

  #end(fault: Fault, kind: FaultKind): void {
    if (!this.#running.delete(fault)) return
    this.#world.oracle.trace.line('nemesis', `end of ${kind}: ${fault.description}`)
    fault.end()
    if (![...this.#running.values()].includes(kind)) this.#lastMs.set(kind, this.#world.cluster.clock.nowMs())
  }
}
