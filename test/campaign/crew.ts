/** The workers of all loads: who is still at work, and what went wrong in any of them. */
import { codeOf } from '../../core/base/errors.ts'

const PROBLEMS_MAX = 50

export class Crew {
  readonly problems: string[] = []
  #pendingCount = 0

  /** Workers that have not ended. */
  get pendingCount(): number {
    return this.#pendingCount
  }

  add(name: string, work: Promise<void>): void {
    this.#pendingCount += 1
    work.then(
      () => {
        this.#pendingCount -= 1
      },
      (error: unknown) => {
        this.#pendingCount -= 1
        this.report(name, error)
      },
    )
  }

  report(name: string, error: unknown): void {
    if (this.problems.length >= PROBLEMS_MAX) return
    const text = error instanceof Error ? error.message : String(error)
    const cause = error instanceof Error && error.cause instanceof Error ? ` (${error.cause.message})` : ''
    this.problems.push(`${name}: ${codeOf(error)} ${text}${cause}`)
  }
}
