/**
 * Carries chunk lists that are being taken over to their end (docs/formats/snapshots.md), one after the other, a
 * bounded number of indexes in a command. A new master goes on with what it finds.
 */
import type { Master } from '../control/servers/master.ts'
import type { CopyRow } from '../state/rows.ts'
import { COPY_STEP_INDEXES_MAX } from './limits.ts'

/** A page has up to 31 more. */
const PAGE_INDEXES = COPY_STEP_INDEXES_MAX - 31
const RETRY_MS = 200

export class ListCopier {
  readonly #master: Master
  readonly #waiting = new Map<number, Set<() => void>>()
  #isRunning = false

  constructor(master: Master) {
    this.#master = master
  }

  /** Something may have begun, or this member became master. */
  kick(): void {
    if (this.#isRunning || this.#master.state.copies.size === 0) return
    this.#isRunning = true
    this.#run()
      .catch((error: unknown) =>
        this.#master.logger.error('a chunk list is not taken over', { error: String(error) }),
      )
      .finally(() => {
        this.#isRunning = false
        if (this.#master.state.copies.size > 0) this.#master.after(RETRY_MS, () => this.kick())
      })
  }

  /** True: it has ended. False: it goes on after that time. */
  ended(target: number, timeoutMs: number): Promise<boolean> {
    const { state } = this.#master
    if (!state.copies.has(target)) return Promise.resolve(true)
    this.kick()
    return new Promise((resolve) => {
      const timer = this.#master.after(timeoutMs, () => {
        waiters.delete(wake)
        resolve(false)
      })
      const wake = (): void => {
        timer.cancel()
        resolve(true)
      }
      const waiters = this.#waiting.get(target) ?? new Set()
      this.#waiting.set(target, waiters.add(wake))
    })
  }

  async #run(): Promise<void> {
    const { state } = this.#master
    for (let copy = first(state.copies.values()); copy !== undefined; copy = first(state.copies.values())) {
      if (this.#master.isStopped) return
      await this.#copy(copy)
      if (state.copies.has(copy.target)) return
      const waiters = this.#waiting.get(copy.target) ?? []
      this.#waiting.delete(copy.target)
      for (const wake of waiters) wake()
    }
  }

  async #copy({ source, target }: CopyRow): Promise<void> {
    const { state } = this.#master
    const from = state.inodes.get(source)?.chunks
    const to = state.inodes.get(target)?.chunks
    if (from === undefined || to === undefined) return
    // First what the source has, then what only the target has: there its indexes are the only ones that change.
    for (const list of [from, to]) {
      for (let place = 0, isMore = true; isMore; isMore = place !== 0) {
        const { indexes, next } = list.page(place, PAGE_INDEXES)
        place = next
        const part = indexes.filter((index) => from.get(index) !== to.get(index))
        if (part.length > 0 && !(await this.#step(target, part, false))) return
        if (part.length === 0) await new Promise<void>((resolve) => this.#master.defer(resolve))
      }
    }
    await this.#step(target, [], true)
  }

  /** False: there is nothing to go on with. */
  async #step(target: number, indexes: number[], finish: boolean): Promise<boolean> {
    const result = await this.#master.log.propose({ type: 'snapshot.step', target, indexes, finish })
    return 'ok' in result && !result.ok.finished && !this.#master.isStopped
  }
}

function first<Value>(values: Iterator<Value>): Value | undefined {
  const next = values.next()
  return next.done === true ? undefined : next.value
}
