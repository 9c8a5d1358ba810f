/**
 * One life of a simulated process: its clock, its network, its randomness. When it ends, nothing of it runs
 * any more, whatever promises its code still holds. It can be paused (SIGSTOP, a stalled virtual machine):
 * then time goes on without it, and what came meanwhile is handled late.
 */
import type { Clock, Timer, WallTime } from '../../platform/clock.ts'
import type { SeededRandom } from './seeded-random.ts'
import type { ClockSkew, ClockView, SimulatedClock } from './simulated-clock.ts'
import type { SimulatedHost, SimulatedNetwork } from './simulated-network.ts'

/** A clock whose callbacks can be held back. */
export class PausableClock implements Clock {
  readonly #view: ClockView
  readonly #base: SimulatedClock
  #waiting: (() => void)[] | null = null

  constructor(base: SimulatedClock, skew: ClockSkew) {
    this.#base = base
    this.#view = base.view(skew)
  }

  nowMs(): number {
    return this.#view.nowMs()
  }

  bootMs(): number {
    return this.#view.bootMs()
  }

  wall(): WallTime {
    return this.#view.wall()
  }

  setTimer(delayMs: number, callback: () => void): Timer {
    let isCancelled = false
    const timer = this.#view.setTimer(delayMs, () => {
      if (this.#waiting === null) callback()
      else
        this.#waiting.push(() => {
          if (!isCancelled) callback()
        })
    })
    return {
      cancel: () => {
        isCancelled = true
        timer.cancel()
      },
    }
  }

  defer(callback: () => void): void {
    this.#view.defer(() => this.#run(callback))
  }

  pause(): void {
    this.#waiting ??= []
  }

  resume(): void {
    const waiting = this.#waiting
    this.#waiting = null
    for (const callback of waiting ?? []) this.#view.defer(callback)
  }

  /** The machine was suspended until now, for that long. */
  wasSuspended(durationMs: number): void {
    this.#view.wasSuspended(durationMs)
  }

  stepWall(seconds: number): void {
    this.#view.stepWall(seconds)
  }

  stop(): void {
    this.#view.stop()
    this.#waiting = null
  }

  get base(): SimulatedClock {
    return this.#base
  }

  #run(callback: () => void): void {
    if (this.#waiting === null) callback()
    else this.#waiting.push(callback)
  }
}

export class ProcessLife {
  readonly clock: PausableClock
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
    this.clock = new PausableClock(clock, skew)
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
