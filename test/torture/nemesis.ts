/**
 * Starts the faults that fault-choice.ts chooses, several at once, and sees that the cluster recovers from each.
 */
import { performance } from 'node:perf_hooks'
import { setTimeout as pause } from 'node:timers/promises'
import type { SeededRandom } from '../../core/testing/simulation/seeded-random.ts'
import type { ClusterStatistics } from '../../core/wire/messages/statistics.ts'
import { until } from '../integration/support/programs.ts'
import type { Place } from './cluster.ts'
import { chooseFault, strikesAll } from './fault-choice.ts'
import { type FaultKind, faultKinds, type FaultName } from './faults.ts'
import { isHealthy, lookAt, placesOf, whatEnded, type World } from './world.ts'

const LOOK_PAUSE_MS = 500
/** So often in a row it must look well: what has just begun is seen a moment later. */
const GOOD_LOOKS = 3
const LAG_COUNT_MAX = 200
/** Nobody takes longer to recover without something being broken. */
const RECOVERY_TIMEOUT_MS = 300_000

export interface StruckFault {
  readonly kind: FaultName
  readonly host: string
  readonly startedMs: number
  /** Infinity while it lasts. */
  endedMs: number
  /** When the cluster was well again. */
  recoveredMs: number
  what: string
}

interface Running {
  readonly fault: StruckFault
  readonly place: Place
  goodLooks: number
}

export interface NemesisOptions {
  readonly kinds: readonly FaultName[]
  /** Between the beginnings of two faults, on average. */
  readonly pauseMs: number
  readonly progress: (line: string) => void
}

export class Nemesis {
  /** Everything that struck, in order. */
  readonly struck: StruckFault[] = []
  /** Faults that could not be carried through, and recoveries that did not come. */
  readonly problems: string[] = []
  readonly #world: World
  readonly #random: SeededRandom
  readonly #options: NemesisOptions
  /** Host names to what has not recovered yet. */
  readonly #running = new Map<string, Running>()
  #isStopped = false
  #looking: Promise<void> = Promise.resolve()

  constructor(world: World, options: NemesisOptions) {
    this.#world = world
    this.#random = world.random.fork('nemesis')
    this.#options = options
  }

  start(): void {
    this.#looking = this.#look()
    void this.#strikeAgainAndAgain()
  }

  /** Begins nothing any more; resolves when all is well. */
  async stop(): Promise<void> {
    this.#isStopped = true
    await until(
      'all is well again',
      () => this.problems.length > 0 || this.#running.size === 0 || [...this.#running.keys()].join(', '),
      RECOVERY_TIMEOUT_MS,
    )
    await this.#looking
  }

  /** Lasts one at this moment? */
  get isStriking(): boolean {
    return [...this.#running.values()].some(({ fault }) => !Number.isFinite(fault.endedMs))
  }

  /** Did such a fault last at some time since then, or was not recovered from? `host`: of one host only. */
  wasStruck(kinds: readonly FaultName[], sinceMs: number, host?: string): boolean {
    return this.struck.some(
      (fault) =>
        kinds.includes(fault.kind) &&
        (host === undefined || fault.host === host) &&
        fault.recoveredMs >= sinceMs,
    )
  }

  async #strikeAgainAndAgain(): Promise<void> {
    while (!this.#isStopped) {
      const chosen = this.problems.length > 0 ? null : this.#choose()
      if (chosen === null) await pause(LOOK_PAUSE_MS)
      else {
        this.#strike(chosen.kind, chosen.host.place)
        await pause(this.#random.float() * 2 * this.#options.pauseMs)
      }
    }
  }

  #choose() {
    const hosts = placesOf(this.#world).map((place) => ({ ...place.host, place }))
    const running = [...this.#running.values()].map(({ fault, place }) => ({
      kind: fault.kind,
      host: place.host,
    }))
    const countOf = (kind: FaultName) => this.struck.filter((fault) => fault.kind === kind).length
    return chooseFault(this.#options.kinds, countOf, hosts, running, this.#random)
  }

  #strike(kind: FaultName, place: Place): void {
    const host = place.host.name
    const fault: StruckFault = {
      ...{ kind, host, what: 'under way', startedMs: performance.now() },
      ...{ endedMs: Number.POSITIVE_INFINITY, recoveredMs: Number.POSITIVE_INFINITY },
    }
    this.struck.push(fault)
    this.#running.set(host, { fault, place, goodLooks: 0 })
    const number = this.struck.length
    const random = this.#random.fork(`fault ${number}`)
    const chosen: FaultKind = faultKinds[kind]
    chosen.run(this.#world, place, random).then(
      (what) => {
        fault.endedMs = performance.now()
        fault.what = what
        const beside = [...this.#running.keys()].filter((name) => name !== host).join(', ')
        this.#options.progress(
          `${number} ${kind} of ${host}: ${what}${beside === '' ? '' : ` (beside ${beside})`}`,
        )
      },
      (error: unknown) => {
        this.problems.push(`${kind} of ${host} could not be carried through: ${String(error)}`)
      },
    )
  }

  /** Takes from `#running` who has recovered. */
  async #look(): Promise<void> {
    while (!this.#isStopped || (this.#running.size > 0 && this.problems.length === 0)) {
      const lookedMs = performance.now()
      const seen = await lookAt(this.#world)
      const ended = whatEnded(this.#world, (host) => this.#isUnderFault(host))
      if (ended !== null) {
        this.problems.push(ended)
        return
      }
      for (const [name, running] of this.#running) {
        const { fault } = running
        if (fault.endedMs > lookedMs) continue
        const isWell = this.#isWell(running, seen)
        running.goodLooks = isWell ? running.goodLooks + 1 : 0
        if (running.goodLooks >= GOOD_LOOKS) {
          fault.recoveredMs = performance.now()
          this.#running.delete(name)
        } else if (performance.now() - fault.endedMs > RECOVERY_TIMEOUT_MS) {
          this.problems.push(
            `not well ${RECOVERY_TIMEOUT_MS / 1000} s after ${fault.kind} of ${name}: ${JSON.stringify(seen?.chunks)}`,
          )
          return
        }
      }
      await pause(LOOK_PAUSE_MS)
    }
  }

  #isUnderFault(host: string): boolean {
    return [...this.#running].some(
      ([name, { fault, place }]) =>
        !Number.isFinite(fault.endedMs) &&
        (name === host || (strikesAll(fault.kind) && host.startsWith(place.host.role))),
    )
  }

  #isWell({ place: { host }, fault }: Running, seen: ClusterStatistics | null): boolean {
    switch (host.role) {
      case 'client':
        return true
      case 'mds':
        return (
          seen !== null && seen.mds.every(({ status, lag }) => status === 'active' && lag < LAG_COUNT_MAX)
        )
      case 'cs': {
        if (seen === null || !isHealthy(seen)) return false
        const servers = this.#world.chunkServers.filter(
          (place) => strikesAll(fault.kind) || place.host === host,
        )
        return servers.every(({ server }) =>
          seen.cs.some(({ id, status }) => id === server.id && status === 'active'),
        )
      }
    }
  }
}
