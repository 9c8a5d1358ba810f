/**
 * One life of a simulated process: its clock, its network, its randomness. When it ends, nothing of it runs
 * any more, whatever promises its code still holds. It can be paused (SIGSTOP, a stalled virtual machine):
 * then time goes on without it, and what came meanwhile is handled late.
 */
import type { SeededRandom } from './seeded-random.ts'
import type { ClockSkew, ClockView, SimulatedClock } from './simulated-clock.ts'
import type { SimulatedHost, SimulatedNetwork } from './simulated-network.ts'

export class ProcessLife {
  readonly clock: ClockView
  readonly network: SimulatedHost
  readonly random: SeededRandom
  #isOver = false

  constructor(
    clock: SimulatedClock,
    network: SimulatedNetwork,
    hostName: string,
    random: SeededRandom,
    skew: ClockSkew,
  ) {
    this.clock = clock.view(skew)
    this.network = network.host(hostName)
    this.random = random
  }

  get isOver(): boolean {
    return this.#isOver
  }

  /** `isSilent`: the peers are not told (power cut); else their connections are reset (kill -9). */
  end(isSilent: boolean): void {
    if (this.#isOver) return
    this.#isOver = true
    this.clock.stop()
    this.network.stop(isSilent)
  }
}
