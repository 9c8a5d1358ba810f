/**
 * Order of the operations on one replica: those that touch the same pages run one at a time in order of
 * arrival (rules E9, P7), a barrier waits for everything before it and holds back everything behind it
 * (rule E2). An operation that finishes synchronously costs no allocation.
 */

export const Hold = {
  /** Shares its pages with other readers. */
  read: 0,
  /** Has its pages alone. */
  write: 1,
  /** Waits for barriers only (flush). */
  passive: 2,
  /** Has the whole replica alone. */
  barrier: 3,
} as const
export type Hold = (typeof Hold)[keyof typeof Hold]

export interface QueuedOperation {
  readonly hold: Hold
  /** Inclusive; not looked at for passive and barrier. */
  readonly firstPage: number
  readonly lastPage: number
  /** Runs the operation; it calls `finish` of the queue exactly once, now or later. */
  start(): void
}

/** Operations waiting at one replica; beyond it a peer gets OVERLOADED. */
export const WAITING_COUNT_MAX = 2048

export class OperationQueue {
  readonly #running: QueuedOperation[] = []
  #waiting: QueuedOperation[] = []
  #pumping = false
  #again = false

  get idle(): boolean {
    return this.#running.length === 0 && this.#waiting.length === 0
  }

  get runningCount(): number {
    return this.#running.length
  }

  /** False: refused, too many wait. */
  submit(operation: QueuedOperation): boolean {
    if (this.#running.length === 0 && this.#waiting.length === 0) {
      this.#running.push(operation)
      operation.start()
      return true
    }
    if (!this.#blocked(operation, this.#waiting.length)) {
      this.#running.push(operation)
      operation.start()
      return true
    }
    if (this.#waiting.length >= WAITING_COUNT_MAX && operation.hold !== Hold.barrier) return false
    this.#waiting.push(operation)
    return true
  }

  finish(operation: QueuedOperation): void {
    const running = this.#running
    const index = running.indexOf(operation)
    if (index < 0) return // refused before it was queued
    const last = running.pop()
    if (last !== undefined && last !== operation) running[index] = last
    if (this.#waiting.length > 0) this.#pump()
  }

  /** Starts what is free to run; flat, however many operations finish at once. */
  #pump(): void {
    if (this.#pumping) {
      this.#again = true
      return
    }
    this.#pumping = true
    do {
      this.#again = false
      for (let index = 0; index < this.#waiting.length; index++) {
        const operation = this.#waiting[index]
        if (operation === undefined || this.#blocked(operation, index)) continue
        this.#waiting.splice(index, 1)
        index--
        this.#running.push(operation)
        operation.start()
      }
    } while (this.#again)
    this.#pumping = false
  }

  #blocked(operation: QueuedOperation, earlierWaiting: number): boolean {
    for (const other of this.#running) if (conflicts(operation, other)) return true
    for (let index = 0; index < earlierWaiting; index++) {
      const other = this.#waiting[index]
      if (other !== undefined && conflicts(operation, other)) return true
    }
    return false
  }
}

function conflicts(a: QueuedOperation, b: QueuedOperation): boolean {
  if (a.hold === Hold.barrier || b.hold === Hold.barrier) return true
  if (a.hold === Hold.passive || b.hold === Hold.passive) return false
  if (a.hold === Hold.read && b.hold === Hold.read) return false
  return a.firstPage <= b.lastPage && b.firstPage <= a.lastPage
}
