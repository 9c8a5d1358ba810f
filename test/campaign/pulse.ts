/**
 * How long each client heard nothing: gaps between acknowledged operations, by client, for one fault after the
 * other. A window begins with a fault and ends with the next one, so nothing falls between two of them.
 */
import { performance } from 'node:perf_hooks'

interface Gaps {
  lastMs: number
  longestMs: number
}

/** Client to its longest gap, in ms. */
export type WindowGaps = ReadonlyMap<string, number>

export class Pulse {
  readonly #clients = new Map<string, Gaps>()
  #count = 0

  /** Acknowledged operations of all clients. */
  get count(): number {
    return this.#count
  }

  /** An operation of this client was acknowledged. */
  beat(client: string): void {
    const nowMs = performance.now()
    this.#count += 1
    const gaps = this.#clients.get(client)
    if (gaps === undefined) {
      this.#clients.set(client, { lastMs: nowMs, longestMs: 0 })
      return
    }
    gaps.longestMs = Math.max(gaps.longestMs, nowMs - gaps.lastMs)
    gaps.lastMs = nowMs
  }

  /** Ends the window and begins the next; a gap that is still open counts in both, as far as it has come. */
  takeWindow(): WindowGaps {
    const nowMs = performance.now()
    const window = new Map<string, number>()
    for (const [client, gaps] of this.#clients) {
      window.set(client, Math.max(gaps.longestMs, nowMs - gaps.lastMs))
      gaps.longestMs = 0
    }
    return window
  }

  /** How long ago the client that waits longest was answered. */
  get silenceMs(): number {
    const nowMs = performance.now()
    return Math.max(0, ...[...this.#clients.values()].map(({ lastMs }) => nowMs - lastMs))
  }
}
