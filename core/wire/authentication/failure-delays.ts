/**
 * How long the refusal of a failed handshake is held back, for each remote address: doubles with each failure,
 * is forgotten after a quiet time. Bounded: the address that failed longest ago makes room. A right proof never
 * waits, so that one bad process cannot keep out the others of its host.
 */
import type { Clock } from '../../platform/clock.ts'

const DELAY_MIN_MS = 100
/** Below the handshake's time-out: the peer should hear why. */
const DELAY_MAX_MS = 4000
const FORGOTTEN_AFTER_MS = 60_000
const ADDRESS_COUNT_MAX = 1024
const LOG_PAUSE_MS = 10_000

interface Failures {
  count: number
  unloggedCount: number
  lastMs: number
  loggedMs: number
}

export class FailureDelays {
  readonly #clock: Clock
  /** Least recent failure first. */
  readonly #failures = new Map<string, Failures>()

  constructor(clock: Clock) {
    this.#clock = clock
  }

  /** `log`: how many failures one line in the log stands for; 0: none now. */
  failed(address: string): { readonly delayMs: number; readonly log: number } {
    const nowMs = this.#clock.nowMs()
    let entry = this.#failures.get(address)
    if (entry === undefined || nowMs - entry.lastMs > FORGOTTEN_AFTER_MS)
      entry = { count: 0, unloggedCount: 0, lastMs: nowMs, loggedMs: Number.NEGATIVE_INFINITY }
    entry.count += 1
    entry.unloggedCount += 1
    entry.lastMs = nowMs
    this.#failures.delete(address)
    this.#failures.set(address, entry)
    if (this.#failures.size > ADDRESS_COUNT_MAX) {
      const [first] = this.#failures.keys()
      if (first !== undefined) this.#failures.delete(first)
    }
    const delayMs = Math.min(DELAY_MAX_MS, DELAY_MIN_MS * 2 ** Math.min(16, entry.count - 1))
    if (nowMs - entry.loggedMs < LOG_PAUSE_MS) return { delayMs, log: 0 }
    const log = entry.unloggedCount
    entry.unloggedCount = 0
    entry.loggedMs = nowMs
    return { delayMs, log }
  }

  get addressCount(): number {
    return this.#failures.size
  }
}

/** Without the port, which is another one for each connection. */
export function hostOf(remoteAddress: string): string {
  return remoteAddress.replace(/:\d+$/, '')
}
