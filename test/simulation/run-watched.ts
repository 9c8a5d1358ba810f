/** One run, which also fails when a promise was rejected and nobody looked. */
import { type RunOptions, type RunResult, runSimulation } from './simulation.ts'

/** The run whose promise nobody waited for is the one under way. */
let strayRejection: unknown = null

/** Of a process that only runs seeds: stray rejections do not end it any more. */
export function watchRejections(): void {
  process.on('unhandledRejection', (error) => {
    strayRejection ??= error
  })
}

export async function runWatched(options: RunOptions): Promise<RunResult> {
  strayRejection = null
  const result = await runSimulation(options)
  if (strayRejection === null || result.failure !== null) return result
  const stack = strayRejection instanceof Error ? strayRejection.stack : JSON.stringify(strayRejection)
  return { ...result, failure: `a promise was rejected and nobody looked: ${stack}` }
}
