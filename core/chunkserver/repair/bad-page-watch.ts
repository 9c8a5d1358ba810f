/**
 * Remembers which pages are bad or lost here and says so to the metadata server again, ever less often, until
 * they are repaired or written over (rules R1, J7): whoever could supply them may have been away, and a report
 * can be lost with its connection. Forgets after a restart of the process: the next read or scrub finds them.
 */
import type { Clock, Timer } from '../../platform/clock.ts'
import type { ChunkStore } from '../store/chunk-store.ts'
import { Hold } from '../replica/operation-queue.ts'
import { effectiveState, withEffectivePages } from '../store/page-tasks.ts'
import { PageState } from '../format/region-records.ts'

/** More than that are found again by the next read or scrub. */
const PAGES_WATCHED_MAX = 10_000
/** Of one report. */
const PAGES_TOLD_MAX = 1024
const AGAIN_MS_MIN = 1000
const AGAIN_MS_MAX = 60_000

export type TellBadPages = (chunk: number, version: number, pages: number[], reason: string) => void

interface Watched {
  readonly chunk: number
  readonly page: number
}

export class BadPageWatch {
  readonly #store: ChunkStore
  readonly #clock: Clock
  readonly #tell: TellBadPages
  readonly #pages = new Map<string, Watched>()
  #againMs = AGAIN_MS_MIN
  #timer: Timer | null = null
  #isClosed = false

  constructor(store: ChunkStore, clock: Clock, tell: TellBadPages) {
    this.#store = store
    this.#clock = clock
    this.#tell = tell
  }

  /** Bad pages that somebody may still supply, and lost ones. */
  get count(): number {
    return this.#pages.size
  }

  /** They were found bad, and have just been reported. */
  note(chunk: number, pages: readonly number[]): void {
    let isNew = false
    for (const page of pages) {
      const key = `${chunk}/${page}`
      if (this.#pages.has(key) || this.#pages.size >= PAGES_WATCHED_MAX) continue
      this.#pages.set(key, { chunk, page })
      isNew = true
    }
    if (!isNew || this.#isClosed) return
    this.#againMs = AGAIN_MS_MIN
    this.#timer?.cancel()
    this.#wait()
  }

  close(): void {
    this.#isClosed = true
    this.#timer?.cancel()
    this.#timer = null
  }

  #wait(): void {
    this.#timer = this.#clock.setTimer(this.#againMs, () => {
      this.#timer = null
      this.#againMs = Math.min(AGAIN_MS_MAX, this.#againMs * 2)
      void this.#lookAgain().finally(() => {
        if (!this.#isClosed && this.#timer === null && this.#pages.size > 0) this.#wait()
      })
    })
  }

  async #lookAgain(): Promise<void> {
    const still = new Map<number, number[]>()
    for (const [key, { chunk, page }] of [...this.#pages]) {
      if (this.#isClosed) return
      if (!(await this.#isMissing(chunk, page))) {
        this.#pages.delete(key)
        continue
      }
      const pages = still.get(chunk)
      if (pages === undefined) still.set(chunk, [page])
      else if (pages.length < PAGES_TOLD_MAX) pages.push(page)
    }
    for (const [chunk, pages] of still) {
      const replica = this.#store.replicas.get(chunk)
      if (replica !== undefined) this.#tell(chunk, replica.state.version, pages, 'still not repaired')
    }
  }

  async #isMissing(chunk: number, page: number): Promise<boolean> {
    const replica = this.#store.replicas.get(chunk)
    if (replica === undefined || replica.deleted || !replica.serves || this.#store.closing) return false
    try {
      return await withEffectivePages(this.#store, replica, Hold.read, page, page, () => {
        const state = effectiveState(replica, page)
        return Promise.resolve(state === PageState.bad || state === PageState.lost)
      })
    } catch {
      // not readable now: asked again
      return true
    }
  }
}
