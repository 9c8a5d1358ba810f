/**
 * Deadlines of one connection, counted by its tick. A tick counts for two periods at most, however late it
 * comes: time in which this process did not run is not held against the peer.
 */
import type { WireLimits } from './types.ts'

export interface LivenessView {
  readonly handshaking: boolean
  readonly connected: boolean
  /** We stopped reading: silence and incomplete frames are our own doing. */
  readonly paused: boolean
  readonly frameIncomplete: boolean
  readonly sending: boolean
  readonly sentCount: number
}

export type Verdict = 'fine' | 'ping' | { readonly close: string }

export class Liveness {
  readonly #limits: WireLimits
  #lastTickMs = 0
  /** Time this connection has seen. */
  #elapsedMs = 0
  #silentMs = 0
  #frameMs = 0
  #stuckMs = 0
  #heard = false
  #frameDone = false
  #pinged = false
  #sentCount = 0

  constructor(limits: WireLimits) {
    this.#limits = limits
  }

  start(nowMs: number): void {
    this.#lastTickMs = nowMs
  }

  get elapsedMs(): number {
    return this.#elapsedMs
  }

  deadline(timeoutMs: number): number {
    return this.#elapsedMs + timeoutMs
  }

  heard(): void {
    this.#heard = true
  }

  frameDone(): void {
    this.#frameDone = true
  }

  tick(nowMs: number, view: LivenessView): Verdict {
    const passedMs = Math.min(nowMs - this.#lastTickMs, 2 * this.#limits.tickMs)
    this.#lastTickMs = nowMs
    this.#elapsedMs += passedMs
    this.#count(passedMs, view)
    const limits = this.#limits
    if (view.handshaking && this.#elapsedMs >= limits.handshakeTimeoutMs)
      return { close: `no handshake in ${limits.handshakeTimeoutMs} ms` }
    if (this.#frameMs >= limits.frameTimeoutMs)
      return { close: `a frame was not complete in ${limits.frameTimeoutMs} ms` }
    if (this.#stuckMs >= limits.deadMs) return { close: `the peer took no data for ${limits.deadMs} ms` }
    if (!this.#pinged && this.#silentMs >= limits.idleMs && view.connected && !view.handshaking) {
      this.#pinged = true
      return 'ping'
    }
    if (this.#pinged && this.#silentMs >= limits.idleMs + limits.deadMs)
      return { close: `no sign of life in ${limits.deadMs} ms after a ping` }
    return 'fine'
  }

  #count(passedMs: number, view: LivenessView): void {
    if (this.#heard || view.paused) {
      this.#silentMs = 0
      this.#pinged = false
    } else this.#silentMs += passedMs
    this.#frameMs = view.frameIncomplete && !view.paused && !this.#frameDone ? this.#frameMs + passedMs : 0
    this.#stuckMs = view.sending && view.sentCount === this.#sentCount ? this.#stuckMs + passedMs : 0
    this.#sentCount = view.sentCount
    this.#heard = false
    this.#frameDone = false
  }
}
