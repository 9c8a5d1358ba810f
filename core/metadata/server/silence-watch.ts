/**
 * A master that no client reaches, while the other members do, would keep its place until every session has ended.
 * When all sessions with a connection fall silent at once it lets another member try; each renews ten times in
 * `mds.session_tout`. Once only: the next master has heard nobody yet, so it stays when they are really gone.
 *
 * Connections that were closed do not count: a client that was killed says so. Silence is counted in turns of this
 * watch, so that a stop of this very process, after which renewals still wait to be read, is not taken for it.
 */
import type { MemberId } from '../../raft/index.ts'
import type { Master } from '../control/servers/master.ts'

const LOOK_MS = 250
/** With the hand-over and the clients' own search the pause stays below 3 s. */
const SILENT_LOOKS_MAX = 5

export interface SilenceWatchParts {
  readonly master: Master
  /** When the last session with a connection was confirmed; null without any. */
  readonly lastConfirmedMs: () => number | null
  /** Null: nobody could. */
  readonly successor: () => MemberId | null
  readonly handOver: (to: MemberId) => void
}

export class SilenceWatch {
  readonly #parts: SilenceWatchParts
  #lastMs: number | null = null
  #silentLooks = 0

  constructor(parts: SilenceWatchParts) {
    this.#parts = parts
  }

  start(): void {
    this.#parts.master.every(LOOK_MS, () => this.#look())
  }

  #look(): void {
    const { master, lastConfirmedMs, successor, handOver } = this.#parts
    const lastMs = lastConfirmedMs()
    const isSilent = lastMs !== null && lastMs === this.#lastMs
    this.#lastMs = lastMs
    this.#silentLooks = isSilent ? this.#silentLooks + 1 : 0
    if (this.#silentLooks <= SILENT_LOOKS_MAX) return
    this.#silentLooks = 0
    const to = successor()
    if (to === null) return
    master.logger.warn('no client is heard any more; another member may be', { to })
    handOver(to)
  }
}
