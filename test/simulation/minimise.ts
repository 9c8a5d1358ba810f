/**
 * Shrinks a run that fails: leaves faults out, as long as it still fails, until each that is left is needed (delta
 * debugging, Zeller and Hildebrandt). Leaving one out does not change the others (nemesis.ts), but what happens around
 * them: so a shorter run may fail for another reason than the first one, which is as good.
 */
import type { RunOptions, RunResult } from './simulation.ts'

const RUN_COUNT_MAX = 300

export interface Shortest {
  readonly result: RunResult
  readonly runCount: number
}

/** Null: the run does not fail. */
export async function minimise(
  run: (options: Pick<RunOptions, 'onlyFaults'>) => Promise<RunResult>,
): Promise<Shortest | null> {
  let best = await run({})
  let runCount = 1
  if (best.failure === null) return null
  let numbers = best.faultList.map(({ number }) => number)
  const fails = async (some: readonly number[]): Promise<boolean> => {
    runCount += 1
    const result = await run({ onlyFaults: some })
    if (result.failure === null) return false
    best = result
    // some may not have suited the moment any more
    numbers = result.faultList.map(({ number }) => number)
    return true
  }
  if (await fails([])) return { result: best, runCount }
  for (let partCount = 2; numbers.length > 1 && runCount < RUN_COUNT_MAX; ) {
    const size = Math.ceil(numbers.length / partCount)
    let isShorter = false
    for (let begin = 0; begin < numbers.length && !isShorter && runCount < RUN_COUNT_MAX; begin += size)
      isShorter = await fails([...numbers.slice(0, begin), ...numbers.slice(begin + size)])
    if (isShorter) partCount = Math.max(2, partCount - 1)
    else if (size === 1) break
    else partCount = Math.min(numbers.length, partCount * 2)
  }
  return { result: best, runCount }
}
