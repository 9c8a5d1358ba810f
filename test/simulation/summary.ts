/** What many runs did, for people. */
import type { RunResult } from './simulation.ts'
import { neverVisited } from './situations.ts'

/** So many runs should have seen every situation. */
const VISITS_EXPECTED_RUNS = 100
/** Later ones are one line each. */
const FAILURES_EXPLAINED_MAX = 20
/** What a seed must have had to count (goals, Reliability). */
export const COUNTED = { simulatedMs: 30_000, operations: 300, faults: 5, kinds: 3 }

export function counts(result: RunResult): boolean {
  const faults = Object.values(result.faults)
  return (
    result.simulatedMs >= COUNTED.simulatedMs &&
    result.operationCount >= COUNTED.operations &&
    faults.reduce((sum, count) => sum + count, 0) >= COUNTED.faults &&
    faults.length >= COUNTED.kinds
  )
}

export class Summary {
  readonly #replayCommand: (seed: number) => string
  readonly #failures: RunResult[] = []
  readonly #problems: string[] = []
  readonly #operations = new Map<string, number>()
  readonly #faults = new Map<string, number>()
  readonly #marks = new Map<string, number>()
  #runs = 0
  #counted = 0
  #checked = 0
  #simulatedMs = 0
  #lastHash = ''

  constructor(replayCommand: (seed: number) => string) {
    this.#replayCommand = replayCommand
  }

  get hasFailures(): boolean {
    return this.#failures.length > 0 || this.#problems.length > 0
  }

  add(result: RunResult): void {
    this.#runs++
    if (counts(result)) this.#counted++
    this.#checked += result.operationCount
    this.#simulatedMs += result.simulatedMs
    this.#lastHash = result.hash
    addAll(this.#operations, result.operations)
    addAll(this.#faults, result.faults)
    addAll(this.#marks, result.marks)
    if (result.failure === null) return
    this.#failures.push(result)
    const [firstLine] = result.failure.split('\n')
    const what = this.#failures.length > FAILURES_EXPLAINED_MAX ? firstLine : result.failure
    console.log(`seed ${result.seed} FAILED: ${what}\n  replay: ${this.#replayCommand(result.seed)}`)
  }

  workerFailed(problem: string): void {
    this.#problems.push(problem)
  }

  /** One line while it goes on. */
  progress(wantedCount: number, realSeconds: number): string {
    const wanted = wantedCount === Number.MAX_SAFE_INTEGER ? '' : ` of ${wantedCount}`
    const counted = `${this.#counted} count, ${this.#failures.length + this.#problems.length} failed`
    return `${realSeconds.toFixed(0).padStart(4)} s: ${this.#runs}${wanted} seeds (${counted})`
  }

  /** `wantedCount`: of the seeds, when time may not have been enough for all. */
  print(realSeconds: number, wantedCount = Number.MAX_SAFE_INTEGER): void {
    const seeds = (this.#runs / realSeconds).toFixed(1)
    console.log(
      `${this.#runs} seeds (${this.#counted} count), ${(this.#simulatedMs / 3_600_000).toFixed(2)} simulated hours ` +
        `in ${realSeconds.toFixed(0)} s (${seeds} seeds/s), ${this.#checked} checked operations`,
    )
    if (wantedCount < Number.MAX_SAFE_INTEGER && this.#runs < wantedCount)
      console.log(`${wantedCount - this.#runs} of ${wantedCount} seeds were not run`)
    console.log(`operations: ${listed(this.#operations)}`)
    console.log(`faults: ${listed(this.#faults)}`)
    if (this.#marks.size > 0) console.log(`visited: ${listed(this.#marks)}`)
    const missing = neverVisited(this.#marks)
    if (this.#runs >= VISITS_EXPECTED_RUNS && missing.length > 0)
      console.log(`never visited: ${missing.join(', ')}`)
    if (this.#runs === 1) console.log(`trace hash ${this.#lastHash}`)
    for (const problem of this.#problems) console.log(problem)
    const failed = this.#failures.map(({ seed }) => seed).toSorted((a, b) => a - b)
    console.log(failed.length === 0 ? 'no failures' : `${failed.length} FAILED: seeds ${failed.join(' ')}`)
  }
}

function addAll(into: Map<string, number>, from: Readonly<Record<string, number>>): void {
  for (const [key, count] of Object.entries(from)) into.set(key, (into.get(key) ?? 0) + count)
}

function listed(map: ReadonlyMap<string, number>): string {
  return [...map]
    .toSorted(([a], [b]) => (a < b ? -1 : 1))
    .map(([key, count]) => `${key} ${count}`)
    .join(', ')
}
