/**
 * Commands on their way through the log: those that wait to be proposed, and those that are proposed and wait
 * to be applied, by their place in the log. Whoever proposed hears exactly once.
 */
import { Deque } from '../../base/deque.ts'
import { assert } from '../../base/assert.ts'
import type { LogCommand } from '../state/commands.ts'
import type { CommandResult } from '../state/result.ts'

/** Proposals that wait for a batch. */
export const PROPOSALS_QUEUED_MAX = 10_000

export interface Proposal {
  readonly entry: LogCommand
  readonly resolve: (result: CommandResult) => void
}

interface Placed extends Proposal {
  readonly term: number
}

export class Proposals {
  readonly #queue = new Deque<Proposal>(PROPOSALS_QUEUED_MAX)
  /** Bounded by what consensus takes. */
  readonly #placed = new Map<number, Placed>()

  get queuedCount(): number {
    return this.#queue.count
  }

  get placedCount(): number {
    return this.#placed.size
  }

  /** False when there are too many. */
  add(proposal: Proposal): boolean {
    return this.#queue.push(proposal)
  }

  peek(): Proposal | undefined {
    return this.#queue.peek()
  }

  /** The first of the queue is in the log now. */
  place(index: number, term: number): void {
    const proposal = this.take()
    this.#placed.set(index, { ...proposal, term })
  }

  /** The first of the queue, to be answered. */
  take(): Proposal {
    const proposal = this.#queue.shift()
    assert(proposal !== undefined, 'a proposal waits')
    return proposal
  }

  /** The proposal that is now committed at `index`; one of another term at this place was not and never will be. */
  committed(index: number, term: number): { readonly won?: Proposal; readonly lost?: Proposal } {
    const placed = this.#placed.get(index)
    if (placed === undefined) return {}
    this.#placed.delete(index)
    return placed.term === term ? { won: placed } : { lost: placed }
  }

  /** Answers everything with the same result. */
  settle(result: CommandResult): void {
    const all = [...this.#placed.values()]
    this.#placed.clear()
    while (this.#queue.count > 0) all.push(this.take() as Placed)
    for (const { resolve } of all) resolve(result)
  }

  forget(): void {
    this.#placed.clear()
    this.#queue.clear()
  }
}
