/**
 * Reads that wait until a majority has confirmed that this leader is still the leader (thesis, section 6.4).
 * All reads that were asked for since the last round share one round: one sequence number on a heartbeat.
 * A read is answered from the state at the commit index of its round, or later.
 */
import { present } from '../base/assert.ts'
import { Deque } from '../base/deque.ts'
import type { ReadState } from './types.ts'

interface Round {
  readonly sequence: number
  readonly index: number
  readonly ids: readonly number[]
}

export class ReadQueue {
  /** The newest round; heartbeats carry it. Never falls, also not over a change of role. */
  sequence = 0
  readonly #countMax: number
  #waiting: number[] = []
  readonly #rounds: Deque<Round>
  #roundReadCount = 0
  #confirmed: ReadState[] = []
  #lost: number[] = []

  constructor(countMax: number) {
    this.#countMax = countMax
    this.#rounds = new Deque(countMax)
  }

  get hasWaiting(): boolean {
    return this.#waiting.length > 0
  }

  get hasRounds(): boolean {
    return this.#rounds.count > 0
  }

  get hasOutcome(): boolean {
    return this.#confirmed.length > 0 || this.#lost.length > 0
  }

  /** False when there are too many, waiting or not yet fetched by a Ready. */
  add(id: number): boolean {
    const outcomeCount = this.#confirmed.length + this.#lost.length
    if (this.#waiting.length + this.#roundReadCount + outcomeCount >= this.#countMax) return false
    this.#waiting.push(id)
    return true
  }

  startRound(commit: number): void {
    this.sequence++
    this.#rounds.push({ sequence: this.sequence, index: commit, ids: this.#waiting })
    this.#roundReadCount += this.#waiting.length
    this.#waiting = []
  }

  /** A majority has answered a heartbeat of this round or a later one. */
  confirmThrough(sequence: number): void {
    for (let round = this.#rounds.peek(); round !== undefined && round.sequence <= sequence; ) {
      this.#rounds.shift()
      this.#roundReadCount -= round.ids.length
      for (const id of round.ids) this.#confirmed.push({ id, index: round.index })
      round = this.#rounds.peek()
    }
  }

  loseAll(): void {
    while (this.#rounds.count > 0) this.#lost.push(...present(this.#rounds.shift(), 'counted').ids)
    this.#lost.push(...this.#waiting)
    this.#waiting = []
    this.#roundReadCount = 0
  }

  take(): { readonly confirmed: ReadState[]; readonly lost: number[] } {
    const taken = { confirmed: this.#confirmed, lost: this.#lost }
    this.#confirmed = []
    this.#lost = []
    return taken
  }
}
