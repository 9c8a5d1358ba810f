/**
 * Slows down guessing of the password: a few free attempts for each address, then growing pauses; and a budget
 * for all addresses together, so that many of them gain nothing. An attempt counts when it begins, and is
 * forgiven when the password was right. Bounded: addresses that tried longest ago make room.
 */
import { CairnError } from '../../base/errors.ts'
import type { Clock } from '../../platform/clock.ts'

const FREE_ATTEMPT_COUNT = 3
const PAUSE_MIN_MS = 1000
const PAUSE_MAX_MS = 300_000
const FORGOTTEN_AFTER_MS = 900_000
const ADDRESS_COUNT_MAX = 1024
const BUDGET_COUNT_MAX = 30
const BUDGET_REFILL_MS = 2000

interface Attempts {
  count: number
  lastMs: number
}

export class AttemptLimiter {
  readonly #clock: Clock
  /** Least recent attempt first. */
  readonly #addresses = new Map<string, Attempts>()
  #budget = BUDGET_COUNT_MAX
  #refilledMs: number

  constructor(clock: Clock) {
    this.#clock = clock
    this.#refilledMs = clock.nowMs()
  }

  get addressCount(): number {
    return this.#addresses.size
  }

  /** Throws TOO_MANY_ATTEMPTS; that attempt then does not count. */
  begin(address: string): void {
    const nowMs = this.#clock.nowMs()
    this.#refill(nowMs)
    let entry = this.#addresses.get(address)
    if (entry === undefined || nowMs - entry.lastMs > FORGOTTEN_AFTER_MS) entry = { count: 0, lastMs: nowMs }
    const waitMs = entry.lastMs + pauseMs(entry.count) - nowMs
    if (waitMs > 0) throw tooMany('this host tried too many wrong passwords', waitMs)
    if (this.#budget < 1)
      throw tooMany('too many passwords are being tried in this cluster', BUDGET_REFILL_MS)
    this.#budget -= 1
    entry.count += 1
    entry.lastMs = nowMs
    this.#addresses.delete(address)
    this.#addresses.set(address, entry)
    if (this.#addresses.size <= ADDRESS_COUNT_MAX) return
    const [first] = this.#addresses.keys()
    if (first !== undefined) this.#addresses.delete(first)
  }

  succeeded(address: string): void {
    this.#addresses.delete(address)
    this.#budget = Math.min(BUDGET_COUNT_MAX, this.#budget + 1)
  }

  #refill(nowMs: number): void {
    const count = Math.floor((nowMs - this.#refilledMs) / BUDGET_REFILL_MS)
    if (count <= 0) return
    this.#refilledMs += count * BUDGET_REFILL_MS
    this.#budget = Math.min(BUDGET_COUNT_MAX, this.#budget + count)
  }
}

/** After so many attempts. */
function pauseMs(count: number): number {
  if (count < FREE_ATTEMPT_COUNT) return 0
  return Math.min(PAUSE_MAX_MS, PAUSE_MIN_MS * 2 ** Math.min(16, count - FREE_ATTEMPT_COUNT))
}

function tooMany(what: string, waitMs: number): CairnError {
  const seconds = Math.ceil(waitMs / 1000)
  return new CairnError('TOO_MANY_ATTEMPTS', what, { next: `try again in ${seconds} s` })
}
