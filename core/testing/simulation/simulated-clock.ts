/**
 * Virtual time for whole clusters in one process. Nothing happens by itself: `advance`, `runUntil` and
 * `settle` run what is due, one thing at a time in a fixed order, and let all promises settle in between, so
 * that a run depends on nothing but its inputs. Each simulated process gets its own `view`, which may run
 * fast or slow, jump, be held back (SIGSTOP, a stalled virtual machine: what came meanwhile is handled late), and
 * be stopped for good (a killed process's timers never fire).
 */
import type { Clock, Timer, WallTime } from '../../platform/clock.ts'
import { afterEverything, afterPromises } from '../../platform/node/turns.ts'
import { SimulatedTimer, TimerHeap, type TimerOwner } from './timer-heap.ts'

export interface ClockSkew {
  /** Local milliseconds in one millisecond of true time; 1 is exact. */
  readonly rate?: number
  readonly bootOffsetMs?: number
  readonly wallOffsetSeconds?: number
}

/** The shortest time: a shorter one could vanish when it is added, and time would stand still for who waits it out. */
const TICK_MS = 1e-6
/** Steps without time passing: more is an endless loop of the code under test. */
const STEPS_AT_ONE_TIME_MAX = 1_000_000
/** Turns that only promises get until sockets and the rest of the real process get one. */
const PROMISE_TURNS_MAX = 500
const WALL_START_SECONDS = 1_700_000_000

export class SimulatedClock implements Clock {
  readonly #timers = new TimerHeap()
  #deferred: SimulatedTimer[] = []
  #nowMs = 0
  #order = 0
  #stepsAtThisTime = 0
  #turnCount = 0

  nowMs(): number {
    return this.#nowMs
  }

  bootMs(): number {
    return this.#nowMs
  }

  wall(): WallTime {
    const seconds = Math.floor(this.#nowMs / 1000)
    return {
      seconds: WALL_START_SECONDS + seconds,
      nanoseconds: Math.floor((this.#nowMs - seconds * 1000) * 1e6),
    }
  }

  setTimer(delayMs: number, callback: () => void): Timer {
    return this.setTimerOf(null, delayMs, callback)
  }

  setTimerOf(owner: TimerOwner | null, delayMs: number, callback: () => void): Timer {
    const atMs = this.#nowMs + (delayMs > 0 ? Math.max(TICK_MS, delayMs) : 0)
    const timer = new SimulatedTimer(atMs, this.#order++, callback, owner)
    this.#timers.push(timer)
    return timer
  }

  defer(callback: () => void): void {
    this.deferOf(null, callback)
  }

  deferOf(owner: TimerOwner | null, callback: () => void): void {
    this.#deferred.push(new SimulatedTimer(this.#nowMs, 0, callback, owner))
  }

  /** What was held back, in its order. */
  deferAgain(timers: readonly SimulatedTimer[]): void {
    for (const timer of timers) this.#deferred.push(timer)
  }

  view(skew: ClockSkew = {}): ClockView {
    return new ClockView(this, skew)
  }

  /** Runs everything that is due now, until nothing is left to do without time passing. */
  async settle(): Promise<void> {
    await this.#turn(afterEverything)
    while (this.#step(this.#nowMs)) await this.#letPromisesSettle()
  }

  /** Lets `durationMs` of time pass. */
  async advance(durationMs: number): Promise<void> {
    const untilMs = this.#nowMs + durationMs
    await this.#turn(afterEverything)
    while (this.#step(untilMs)) await this.#letPromisesSettle()
    this.#nowMs = untilMs
  }

  /** Lets time pass until `condition` holds; false when `limitMs` have passed before. */
  async runUntil(condition: () => boolean, limitMs: number): Promise<boolean> {
    const untilMs = this.#nowMs + limitMs
    await this.#turn(afterEverything)
    for (;;) {
      if (condition()) return true
      if (!this.#step(untilMs)) {
        this.#nowMs = untilMs
        return false
      }
      await this.#letPromisesSettle()
    }
  }

  /** For scripts: the promise's outcome, letting time pass until it is there. */
  async settled<T>(promise: Promise<T>, limitMs = 600_000): Promise<T> {
    let isDone = false
    const marked = promise.finally(() => {
      isDone = true
    })
    marked.catch(() => {})
    if (!(await this.runUntil(() => isDone, limitMs)))
      throw new Error(`no answer in ${limitMs} ms of simulated time`)
    return await marked
  }

  /** Every promise that can settle has settled. Costs a fraction of a whole turn, which comes now and then. */
  #letPromisesSettle(): Promise<void> {
    return this.#turn(++this.#turnCount % PROMISE_TURNS_MAX === 0 ? afterEverything : afterPromises)
  }

  #turn(schedule: (callback: () => void) => void): Promise<void> {
    return new Promise((resolve) => schedule(resolve))
  }

  /** All that was deferred, or the next timer up to `untilMs`. False: nothing left. */
  #step(untilMs: number): boolean {
    if (this.#deferred.length > 0) {
      const deferred = this.#deferred
      this.#deferred = []
      for (const timer of deferred) timer.run()
      return this.#countStep()
    }
    const next = this.#timers.peek()
    if (next === undefined || next.atMs > untilMs) return false
    this.#timers.pop()
    if (next.atMs > this.#nowMs) {
      this.#nowMs = next.atMs
      this.#stepsAtThisTime = 0
    }
    next.run()
    return this.#countStep()
  }

  #countStep(): boolean {
    if (++this.#stepsAtThisTime > STEPS_AT_ONE_TIME_MAX) throw new Error('simulated time stands still')
    return true
  }
}

/** The clocks of one simulated process. */
export class ClockView implements Clock, TimerOwner {
  readonly #base: SimulatedClock
  readonly #rate: number
  #bootOffsetMs: number
  #stoodStillMs = 0
  #wallOffsetSeconds: number
  #isStopped = false
  /** What became due while it is held back; null: it is not. */
  #heldBack: SimulatedTimer[] | null = null

  constructor(base: SimulatedClock, skew: ClockSkew) {
    this.#base = base
    this.#rate = skew.rate ?? 1
    this.#bootOffsetMs = skew.bootOffsetMs ?? 0
    this.#wallOffsetSeconds = skew.wallOffsetSeconds ?? 0
  }

  nowMs(): number {
    return this.#base.nowMs() * this.#rate - this.#stoodStillMs
  }

  bootMs(): number {
    return this.#base.bootMs() * this.#rate + this.#bootOffsetMs
  }

  wall(): WallTime {
    const { seconds, nanoseconds } = this.#base.wall()
    return { seconds: seconds + this.#wallOffsetSeconds, nanoseconds }
  }

  setTimer(delayMs: number, callback: () => void): Timer {
    return this.#base.setTimerOf(this, Math.max(0, delayMs) / this.#rate, callback)
  }

  defer(callback: () => void): void {
    this.#base.deferOf(this, callback)
  }

  mayRun(timer: SimulatedTimer): boolean {
    if (this.#isStopped) return false
    this.#heldBack?.push(timer)
    return this.#heldBack === null
  }

  pause(): void {
    this.#heldBack ??= []
  }

  resume(): void {
    const heldBack = this.#heldBack
    this.#heldBack = null
    if (heldBack !== null) this.#base.deferAgain(heldBack)
  }

  /** The process is gone: no timer and nothing deferred runs any more. */
  stop(): void {
    this.#isStopped = true
    this.#heldBack = null
  }

  /** The machine was suspended until now, for that long: only the boot clock noticed. */
  wasSuspended(durationMs: number): void {
    this.#stoodStillMs += durationMs * this.#rate
  }

  stepWall(seconds: number): void {
    this.#wallOffsetSeconds += seconds
  }
}
