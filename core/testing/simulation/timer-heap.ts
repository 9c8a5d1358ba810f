/** Timers of the simulated clock: a binary heap by (time, order of setting). Cancelled ones are skipped. */
import type { Timer } from '../../platform/clock.ts'

/** Whose timer it is. */
export interface TimerOwner {
  /** False: it never runs, or the owner keeps it and lets it run later. */
  mayRun(timer: SimulatedTimer): boolean
}

/** A timer, or something deferred. One object: there are tens of thousands in a run. */
export class SimulatedTimer implements Timer {
  readonly atMs: number
  readonly order: number
  /** Null once it ran or was cancelled. */
  callback: (() => void) | null
  readonly #owner: TimerOwner | null

  constructor(atMs: number, order: number, callback: () => void, owner: TimerOwner | null) {
    this.atMs = atMs
    this.order = order
    this.callback = callback
    this.#owner = owner
  }

  cancel(): void {
    this.callback = null
  }

  /** It is due. */
  run(): void {
    const { callback } = this
    if (callback === null || this.#owner?.mayRun(this) === false) return
    this.callback = null
    callback()
  }
}

function isBefore(a: SimulatedTimer, b: SimulatedTimer): boolean {
  return a.atMs < b.atMs || (a.atMs === b.atMs && a.order < b.order)
}

export class TimerHeap {
  readonly #heap: SimulatedTimer[] = []

  push(timer: SimulatedTimer): void {
    const heap = this.#heap
    let child = heap.length
    heap.push(timer)
    while (child > 0) {
      const parent = (child - 1) >> 1
      const above = heap[parent] as SimulatedTimer
      if (!isBefore(timer, above)) break
      heap[child] = above
      heap[parent] = timer
      child = parent
    }
  }

  /** The next living timer, which stays. */
  peek(): SimulatedTimer | undefined {
    while (this.#heap[0]?.callback === null) this.#removeTop()
    return this.#heap[0]
  }

  pop(): SimulatedTimer | undefined {
    const top = this.peek()
    if (top !== undefined) this.#removeTop()
    return top
  }

  #removeTop(): void {
    const heap = this.#heap
    const last = heap.pop()
    if (last === undefined || heap.length === 0) return
    let parent = 0
    heap[0] = last
    for (;;) {
      let child = parent * 2 + 1
      if (child >= heap.length) break
      const right = heap[child + 1]
      if (right !== undefined && isBefore(right, heap[child] as SimulatedTimer)) child += 1
      const below = heap[child] as SimulatedTimer
      if (!isBefore(below, last)) break
      heap[parent] = below
      heap[child] = last
      parent = child
    }
  }
}
