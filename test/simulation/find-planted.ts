/**
 * A process with one planted bug: `node [--import plant-line.ts] find-planted.ts KEY`. Prints a line of JSON, what the
 * first seed said that found it, or null.
 */
import { isFoundBySimulation } from './planted-line.ts'
import { plantedBugs } from './planted-bugs.ts'
import { plantedLines } from './planted-lines.ts'
import { runWatched, watchRejections } from './run-watched.ts'

const [key] = process.argv.slice(2)
const method = plantedBugs.find((bug) => bug.key === key)
const line = plantedLines.find((bug) => bug.key === key)?.found
const how = method ?? (line !== undefined && isFoundBySimulation(line) ? line : undefined)
if (how === undefined) throw new Error(`the simulation has no planted bug ${key}`)
const options = { ...how.profile, ...method?.plant().options }
watchRejections()
let found: { seed: number; failure: string } | null = null
for (let seed = 1; seed <= how.seedsToFind && found === null; seed++) {
  const { failure } = await runWatched({ seed, ...options })
  if (failure !== null) found = { seed, failure }
}
process.stdout.write(`${JSON.stringify(found)}\n`)
