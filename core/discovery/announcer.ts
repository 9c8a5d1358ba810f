/**
 * Tells discovery plugins which metadata servers run in this process (hook `discovery.announce`). Calls are made
 * one after the other, the latest state wins, and what a plugin answers is logged when it changes. Never rejects.
 */
import type { Collected } from '../kernel/hook.ts'
import type { AnnounceReport, Announcement } from '../kernel/hooks.ts'
import type { Logger } from '../platform/logger.ts'

export type AnnounceHook = (
  announcements: readonly Announcement[],
) => Promise<readonly Collected<readonly AnnounceReport[]>[]>

export class Announcer {
  readonly #call: AnnounceHook
  readonly #logger: Logger
  #announcements: readonly Announcement[] = []
  #tail: Promise<void> = Promise.resolve()
  #isWaiting = false
  #lastReports = ''

  constructor(call: AnnounceHook, logger: Logger) {
    this.#call = call
    this.#logger = logger
  }

  /** Resolves when the plugins have been told; an empty list withdraws everything. */
  announce(announcements: readonly Announcement[]): Promise<void> {
    this.#announcements = announcements
    return this.again()
  }

  /** A plugin came up: it has not heard yet. */
  again(): Promise<void> {
    // One call waits at most: it will tell the latest state.
    if (this.#isWaiting) return this.#tail
    this.#isWaiting = true
    this.#tail = this.#tail.then(() => {
      this.#isWaiting = false
      return this.#tell()
    })
    return this.#tail
  }

  async #tell(): Promise<void> {
    try {
      const reports = (await this.#call(this.#announcements)).flatMap(({ value }) => value)
      const described = JSON.stringify(reports)
      if (described === this.#lastReports) return
      this.#lastReports = described
      for (const { method, problem, skipped = [] } of reports) {
        if (problem === undefined)
          this.#logger.info('announced', { method, count: this.#announcements.length })
        else this.#logger.warn('not announced', { method, problem })
        for (const reason of skipped) this.#logger.warn('not announced', { method, problem: reason })
      }
    } catch (error) {
      this.#logger.error('announcing failed', { problem: String(error) })
    }
  }
}
