/**
 * Shrinks a run that fails: leaves faults out, as long as it still fails in the same way, until each that is left is
 * needed (delta debugging, Zeller and Hildebrandt). Leaving one out does not change the others (nemesis.ts), but what
 * happens around them. Bounded in runs; what is printed fits on a screen.
 */
import type { RunOptions, RunResult } from './simulation.ts'

const RUN_COUNT_MAX = 150
const FAULTS_SHOWN_MAX = 24
const FAILURE_LINES_MAX = 6
const LINE_LENGTH_MAX = 160

export interface Shortest {
  readonly result: RunResult
  readonly runCount: number
  /** The faults alone, once more: the same run. */
  readonly isReplayed: boolean
}

/** Null: the run does not fail. */
export async function minimise(
  run: (options: Pick<RunOptions, 'onlyFaults'>) => Promise<RunResult>,
): Promise<Shortest | null> {
  let best = await run({})
  let runCount = 1
  if (best.failure === null) return null
  const wanted = wayOf(best.failure)
  let numbers = best.faultList.map(({ number }) => number)
  const fails = async (some: readonly number[]): Promise<boolean> => {
    runCount += 1
    const result = await run({ onlyFaults: some })
    if (result.failure === null || wayOf(result.failure) !== wanted) return false
    best = result
    // some may not have suited the moment any more
    numbers = result.faultList.map(({ number }) => number)
    return true
  }
  if (!(await fails([]))) {
    for (let partCount = 2; numbers.length > 1 && runCount < RUN_COUNT_MAX; ) {
      const size = Math.ceil(numbers.length / partCount)
      let isShorter = false
      for (let begin = 0; begin < numbers.length && !isShorter && runCount < RUN_COUNT_MAX; begin += size)
        isShorter = await fails([...numbers.slice(0, begin), ...numbers.slice(begin + size)])
      if (isShorter) partCount = Math.max(2, partCount - 1)
      else if (size === 1) break
      else partCount = Math.min(numbers.length, partCount * 2)
    }
  }
  const again = await run({ onlyFaults: numbers })
  return { result: best, runCount: runCount + 1, isReplayed: again.hash === best.hash }
}

/** Which check fails: the same at another place, time or client is the same way. */
function wayOf(failure: string): string {
  const [line = ''] = failure.split('\n')
  return line
    .replace(/^(client[\d.]+|reader) /, '')
    .replace(/\b(f\d+|client[\d.]+)/g, 'FILE')
    .replace(/[\d.]+/g, '#')
    .replace(/:.*$/, '')
}

/** For people: what fails, where, and the faults that it takes. `replay` makes a command of the options of a run. */
export function shortestText(
  { result, runCount, isReplayed }: Shortest,
  replay: (options: string) => string,
): string[] {
  const { seed, shape, faultList, failure } = result
  const numbers = faultList.length === 0 ? '0' : faultList.map(({ number }) => number).join(',')
  const faults = faultList.map(
    ({ number, kind, atMs, durationMs, description }) =>
      `  ${number}: at ${(atMs / 1000).toFixed(2)} s, for ${durationMs} ms, ${kind}: ${description}`,
  )
  const left = faults.length - FAULTS_SHOWN_MAX
  const lines = [
    `seed ${seed}, ${shape}; ${runCount} runs`,
    ...(failure ?? '').split('\n').slice(0, FAILURE_LINES_MAX),
    faults.length === 0 ? 'without any fault' : `takes ${faults.length} faults:`,
    ...faults.slice(0, FAULTS_SHOWN_MAX),
    ...(left > 0 ? [`  and ${left} more`] : []),
    ...(isReplayed
      ? []
      : ['the same faults once more gave another run: the run is not determined by its seed']),
  ].map((line) => (line.length > LINE_LENGTH_MAX ? `${line.slice(0, LINE_LENGTH_MAX - 1)}…` : line))
  return [...lines, `replay: ${replay(` --only ${numbers} --trace`)}`]
}
