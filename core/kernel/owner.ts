/** The kernel's account of one plugin's faults: it owns the taps, counts errors in a window, and trips. */
import type { Clock, Timer } from '../platform/clock.ts'
import type { Logger } from '../platform/logger.ts'
import { messageOf } from './errors.ts'
import type { TapOwner } from './hook.ts'

export interface FaultLimits {
  /** This many faults within the window trip the plugin. */
  readonly faultsPerWindowMax: number
  readonly faultWindowMs: number
}

export interface OwnerEvents {
  /** A fault that did not trip. */
  onFault(where: string, error: unknown): void
  /** No fault for a whole window. */
  onCalm(): void
  onTrip(where: string, error: unknown): void
}

export class PluginOwner implements TapOwner {
  readonly plugin: string
  readonly held = new Set<() => void>()
  rank = 0
  holding = false
  muted = false
  /** Since the process began. */
  faultCount = 0
  readonly #clock: Clock
  readonly #logger: Logger
  readonly #limits: FaultLimits
  readonly #events: OwnerEvents
  /** Times of the latest faults; never longer than the limit. */
  #recentMs: number[] = []
  #calm: Timer | undefined

  constructor(plugin: string, clock: Clock, logger: Logger, limits: FaultLimits, events: OwnerEvents) {
    this.plugin = plugin
    this.#clock = clock
    this.#logger = logger
    this.#limits = limits
    this.#events = events
  }

  /** No fault within the last window. */
  get isCalm(): boolean {
    return this.#calm === undefined
  }

  reportFault(where: string, error: unknown): void {
    if (this.muted) return
    this.faultCount += 1
    this.#logger.error(`plugin ${this.plugin} failed in ${where}: ${messageOf(error)}`, {
      plugin: this.plugin,
      where,
    })
    const nowMs = this.#clock.nowMs()
    const { faultsPerWindowMax, faultWindowMs } = this.#limits
    this.#recentMs = [...this.#recentMs.filter((atMs) => nowMs - atMs < faultWindowMs), nowMs]
    if (this.#recentMs.length >= faultsPerWindowMax) {
      this.muted = true
      this.reset()
      this.#events.onTrip(where, error)
      return
    }
    this.#calm?.cancel()
    this.#calm = this.#clock.setTimer(faultWindowMs, () => {
      this.#calm = undefined
      this.#events.onCalm()
    })
    this.#events.onFault(where, error)
  }

  /** Forgets recent faults. */
  reset(): void {
    this.#recentMs = []
    this.#calm?.cancel()
    this.#calm = undefined
  }

  /** Takes away the placeholders of fail-closed taps: the plugin runs again, or an administrator disabled it. */
  release(): void {
    this.holding = false
    for (const remove of this.held) remove()
    this.held.clear()
  }
}
