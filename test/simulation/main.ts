/**
 * `npm run sim`: runs seeds of the whole-cluster simulation.
 *
 *   npm run sim -- --seed 17 --trace        one run, readable
 *   npm run sim -- --seeds 1000 --from 1    many, on two processes; failing seeds with the command to replay
 *
 * Options: --seconds S (simulated seconds of trouble, default 30), --faults KIND,KIND | none, --jobs J.
 */
import { spawn } from 'node:child_process'
import { createInterface } from 'node:readline'
import { parseArgs } from 'node:util'
import type { FaultKind } from './faults.ts'
import { allFaultKinds, type RunResult, runSimulation } from './simulation.ts'
import { Summary } from './summary.ts'

const JOBS_DEFAULT = 2

const { values } = parseArgs({
  options: {
    seed: { type: 'string' },
    seeds: { type: 'string' },
    from: { type: 'string', default: '1' },
    jobs: { type: 'string', default: String(JOBS_DEFAULT) },
    seconds: { type: 'string', default: '30' },
    faults: { type: 'string' },
    trace: { type: 'boolean', default: false },
    /** Internal: one worker of many; prints a line of JSON for each seed. */
    worker: { type: 'string' },
  },
})

function whole(text: string, what: string): number {
  const value = Number(text)
  if (!Number.isSafeInteger(value) || value < 0) throw new Error(`--${what} ${text} is no whole number`)
  return value
}

function kindsOf(text: string | undefined): readonly FaultKind[] | undefined {
  if (text === undefined) return undefined
  if (text === 'none') return []
  return text.split(',').map((kind) => {
    const known = allFaultKinds.find((candidate) => candidate === kind)
    if (known === undefined) throw new Error(`unknown fault ${kind}; there are ${allFaultKinds.join(', ')}`)
    return known
  })
}

const kinds = kindsOf(values.faults)
const durationMs = whole(values.seconds, 'seconds') * 1000
const common = { durationMs, ...(kinds === undefined ? {} : { kinds }) }

/** The run whose promise nobody waited for is the one under way. */
let strayRejection: unknown = null
process.on('unhandledRejection', (error) => {
  strayRejection ??= error
})

async function runSeed(seed: number, print: ((line: string) => void) | null): Promise<RunResult> {
  strayRejection = null
  const result = await runSimulation({ seed, print, ...common })
  if (strayRejection === null || result.failure !== null) return result
  const stack = strayRejection instanceof Error ? strayRejection.stack : JSON.stringify(strayRejection)
  return { ...result, failure: `a promise was rejected and nobody looked: ${stack}` }
}

async function runOne(seed: number): Promise<void> {
  const startedMs = performance.now()
  const result = await runSeed(seed, values.trace ? (line) => console.log(line) : null)
  const summary = new Summary(replayCommand)
  summary.add(result)
  summary.print((performance.now() - startedMs) / 1000)
  if (result.failure !== null) process.exitCode = 1
}

function replayCommand(seed: number): string {
  const faults = values.faults === undefined ? '' : ` --faults ${values.faults}`
  const seconds = values.seconds === '30' ? '' : ` --seconds ${values.seconds}`
  return `npm run sim -- --seed ${seed}${seconds}${faults} --trace`
}

/** Seeds `from + worker`, `+ jobs`, … */
async function runWorker(worker: number, from: number, count: number, jobs: number): Promise<void> {
  for (let seed = from + worker; seed < from + count; seed += jobs) {
    process.stdout.write(`${JSON.stringify(await runSeed(seed, null))}\n`)
  }
}

async function runMany(jobs: number): Promise<void> {
  const startedMs = performance.now()
  const summary = new Summary(replayCommand)
  const workers = Array.from({ length: jobs }, (_, worker) => {
    const child = spawn(process.execPath, [...process.argv.slice(1), '--worker', String(worker)], {
      stdio: ['ignore', 'pipe', 'inherit'],
    })
    createInterface({ input: child.stdout }).on('line', (line) => summary.add(JSON.parse(line) as RunResult))
    return new Promise<void>((resolve) => {
      child.on('close', (status) => {
        if (status !== 0) summary.workerFailed(`worker ${worker} ended with status ${status}`)
        resolve()
      })
    })
  })
  await Promise.all(workers)
  summary.print((performance.now() - startedMs) / 1000)
  if (summary.hasFailures) process.exitCode = 1
}

if (values.seeds === undefined) await runOne(whole(values.seed ?? values.from, 'seed'))
else {
  const count = whole(values.seeds, 'seeds')
  const from = whole(values.from, 'from')
  const jobs = Math.max(1, whole(values.jobs, 'jobs'))
  if (values.worker === undefined) await runMany(jobs)
  else await runWorker(whole(values.worker, 'worker'), from, count, jobs)
}
