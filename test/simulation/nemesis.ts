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

/** A fault of a run, for the one who wants it shorter. */
export interface StruckFault {
  readonly number: number
  readonly kind: FaultKind
  readonly atMs: number
  readonly durationMs: number
  readonly description: string
}

export interface NemesisOptions {
  readonly pauseMs: number
  readonly runningMax: number
  /** Numbers of the faults that strike; null: all. */
  readonly only: readonly number[] | null
}

export class Nemesis {
  readonly counts = new Map<FaultKind, number>()
  readonly struck: StruckFault[] = []
  readonly #world: World
  readonly #kinds: readonly FaultKind[]
  readonly #running = new Map<Fault, FaultKind>()
  readonly #options: NemesisOptions
  #nextNumber = 1
  /** When the last fault of each kind ended; Infinity while one runs. */
  readonly #lastMs = new Map<FaultKind, number>()
  #isStopped = false
  #isResting = false

  constructor(world: World, kinds: readonly FaultKind[], options: NemesisOptions) {
    this.#world = world
    this.#kinds = kinds
    this.#options = options
  }

  /** There are no kinds of faults. */
  get isIdle(): boolean {
    return this.#kinds.length === 0
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

  /** Starts no more; those that run end by themselves. */
  rest(): void {
    this.#isResting = true
  }

  /** Ends all faults that run and starts no more. */
  stop(): void {
    this.#isStopped = true
    for (const [fault, kind] of [...this.#running]) this.#end(fault, kind)
  }

  /**
   * Each fault has a number and randomness of its own, and its time whether the ones before strike or not: so that
   * leaving some out leaves the others what they were.
   */
  #next(): void {
    const number = this.#nextNumber++
    const random = this.#world.random.fork(`fault ${number}`)
    const delayMs = this.#options.pauseMs * (0.2 + 1.6 * random.float())
    this.#world.cluster.clock.setTimer(delayMs, () => {
      if (this.#isStopped || this.#isResting) return
      const { only, runningMax } = this.#options
      if (only !== null ? only.includes(number) : this.#running.size < runningMax) this.#begin(number, random)
      this.#next()
    })
  }

  #begin(number: number, random: SeededRandom): void {
    const world = { ...this.#world, random }
    let kind = this.#kinds[0] as FaultKind
    let fault: Fault | null = null
    for (let attempt = 0; fault === null && attempt < ATTEMPTS; attempt++) {
      kind = this.#kinds[random.below(this.#kinds.length)] as FaultKind
      fault = faultKinds[kind](world)
    }
    if (fault === null) return
    const { description, durationMs } = fault
    this.struck.push({ number, kind, atMs: world.cluster.clock.nowMs(), durationMs, description })
    this.counts.set(kind, (this.counts.get(kind) ?? 0) + 1)
    world.oracle.trace.line('nemesis', `${number} ${kind}: ${description}`)
    this.#running.set(fault, kind)
    this.#lastMs.set(kind, Number.POSITIVE_INFINITY)
    const begun = fault
    fault.begin()
    world.cluster.clock.setTimer(durationMs, () => this.#end(begun, kind))
  }

  #end(fault: Fault, kind: FaultKind): void {
    if (!this.#running.delete(fault)) return
    this.#world.oracle.trace.line('nemesis', `end of ${kind}: ${fault.description}`)
    fault.end()
    if (![...this.#running.values()].includes(kind)) this.#lastMs.set(kind, this.#world.cluster.clock.nowMs())
  }
}
