/**
 * A model of the HardStateFile (core/platform/hard-state.ts) with the same crash contract: a save is durable
 * when its promise resolves; when the process ends before, either way. What is durable outlives the handle.
 */
import { assert } from '../../base/assert.ts'
import type { HardStateFile, MemberHardState } from '../../platform/hard-state.ts'

/** What is durable. */
export class SimulatedHardStateContents {
  state: MemberHardState | null = null
  saveCount = 0
}

export interface SimulatedHardStateOptions {
  /** Runs the end of a save later; a simulator gives it its clock. Default: the next microtask. */
  readonly schedule?: (callback: () => void) => void
  /** Is it durable before the caller hears? Default: only when the caller hears. */
  readonly isEarly?: () => boolean
}

export class SimulatedHardState implements HardStateFile {
  readonly #contents: SimulatedHardStateContents
  readonly #schedule: (callback: () => void) => void
  readonly #isEarly: () => boolean
  #isSaving = false

  constructor(contents: SimulatedHardStateContents, options: SimulatedHardStateOptions = {}) {
    this.#contents = contents
    this.#schedule = options.schedule ?? queueMicrotask
    this.#isEarly = options.isEarly ?? (() => false)
  }

  load(): Promise<MemberHardState | null> {
    return Promise.resolve(this.#contents.state)
  }

  save(state: MemberHardState): Promise<void> {
    assert(!this.#isSaving, 'one save at a time')
    assert(state.term >= (this.#contents.state?.term ?? 0), 'terms never go backward')
    this.#isSaving = true
    if (this.#isEarly()) this.#contents.state = state
    return new Promise((resolve) => {
      this.#schedule(() => {
        this.#isSaving = false
        this.#contents.state = state
        this.#contents.saveCount++
        resolve()
      })
    })
  }
}
