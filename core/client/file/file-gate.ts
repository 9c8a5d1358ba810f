/**
 * The gate of one file: operations pass it in order of issue. It is closed while an exclusive task (truncate,
 * zeroing of the tail, return of the lease) waits for what has begun and runs alone.
 */
import type { CairnError } from '../../base/errors.ts'
import { leaseLost, overloaded } from '../session/errors.ts'
import type { FileState } from './file-state.ts'
import { OPERATIONS_PER_FILE_MAX } from '../session/limits.ts'
import type { WriteOperation } from './write-operation.ts'

/** Something that passes the gate in order. */
export interface GateItem {
  readonly sequence: number
  readonly startedMs: number
  readonly needsLease: boolean
  /** End of the range it writes; 0 when it writes nothing (rule T1). */
  readonly end: number
  begin(): void
  /** It did not get through. */
  fail(error: CairnError): void
  /** Answers with `error`; the wait before the gate ends. */
  giveUp(error: CairnError): void
}

export class FileGate {
  readonly #file: FileState
  #items: GateItem[] = []
  #exclusiveCount = 0
  #exclusiveTail: Promise<unknown> = Promise.resolve()
  #idleWaiters: (() => void)[] = []
  #begunFlushes = 0
  #kicking = false

  constructor(file: FileState) {
    this.#file = file
  }

  get isClosed(): boolean {
    return this.#exclusiveCount > 0
  }

  get isEmpty(): boolean {
    return this.#items.length === 0
  }

  enter(item: GateItem): void {
    if (this.#file.dead) return item.fail(leaseLost(this.#file.inode))
    if (this.#items.length >= OPERATIONS_PER_FILE_MAX) return item.fail(overloaded('operations on one file'))
    if (item.end > 0) this.#file.readAhead.clear()
    this.#items.push(item)
    this.kick()
  }

  leave(item: GateItem): void {
    const at = this.#items.indexOf(item)
    if (at < 0) return
    this.#items.splice(at, 1)
    this.#file.writerProgress()
    this.kick()
  }

  /** hold_timeout, for what waits here. */
  giveUpBefore(startedMs: number, error: CairnError): void {
    for (const item of [...this.#items]) {
      if (item.startedMs > startedMs) break
      item.giveUp(error)
    }
  }

  /** Is an earlier write over these bytes still in front of the gate? (rule E10) */
  overlaps(begin: number, end: number, sequence: number): boolean {
    for (const item of this.#items) {
      if (item.sequence >= sequence || item.end === 0) continue
      const write = item as WriteOperation
      if (write.offset < end && begin < write.end) return true
    }
    return false
  }

  /** Lets through what may pass. */
  kick(): void {
    if (this.#kicking || this.#exclusiveCount > 0) return
    this.#kicking = true
    let passed = 0
    for (; passed < this.#items.length && this.#exclusiveCount === 0; passed++) {
      const item = this.#items[passed] as GateItem
      if (item.needsLease && !this.#file.lease.isHeld) {
        this.#file.lease.want()
        break
      }
      if (item.end > 0 && this.#file.zeroFrom !== undefined && item.end > this.#file.zeroFrom) {
        // Rule T1; the gate opens again when the tail is zeroed.
        this.#file.lease.zeroTailSoon()
        break
      }
      item.begin()
    }
    this.#items.splice(0, passed)
    this.#kicking = false
  }

  /** The lease was refused, or ended: nothing that waits for it gets through. */
  fail(error: CairnError): void {
    const items = this.#items
    this.#items = []
    for (const item of items) {
      if (item.needsLease) item.fail(error)
      else this.#items.push(item)
    }
    this.#file.writerProgress()
    this.kick()
  }

  /**
   * Runs `task` alone: after everything that has begun, before everything else. Tasks run one by one.
   * `giveUpAfterMs`: rejects with TRY_AGAIN when what has begun does not end in time (rule L9).
   */
  exclusive<T>(task: () => Promise<T>, giveUpAfterMs = 0): Promise<T> {
    this.#exclusiveCount++
    const run = async (): Promise<T> => {
      try {
        await this.#idle(giveUpAfterMs)
        return await task()
      } finally {
        this.#exclusiveCount--
        this.kick()
      }
    }
    const result = this.#exclusiveTail.then(run, run)
    this.#exclusiveTail = result.catch(() => undefined)
    return result
  }

  #isIdle(): boolean {
    return this.#file.unfinishedWrites.size === 0 && this.#begunFlushes === 0
  }

  #idle(giveUpAfterMs: number): Promise<void> {
    if (this.#isIdle()) return Promise.resolve()
    return new Promise((resolve, reject) => {
      const waiter = (): void => {
        timer?.cancel()
        resolve()
      }
      const timer =
        giveUpAfterMs > 0
          ? this.#file.engine.clock.setTimer(giveUpAfterMs, () => {
              this.#idleWaiters = this.#idleWaiters.filter((other) => other !== waiter)
              reject(overloaded('writes that are held'))
            })
          : null
      this.#idleWaiters.push(waiter)
    })
  }

  maybeWakeIdle(): void {
    if (!this.#isIdle() || this.#idleWaiters.length === 0) return
    const waiters = this.#idleWaiters
    this.#idleWaiters = []
    for (const waiter of waiters) waiter()
  }

  flushBegan(): void {
    this.#begunFlushes++
  }

  flushEnded(): void {
    this.#begunFlushes--
    this.maybeWakeIdle()
  }
}
