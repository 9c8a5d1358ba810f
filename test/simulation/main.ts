/** `npm run sim`: runs seeds of the whole-cluster simulation; `--help` says how (below). */
import { spawn } from 'node:child_process'
import { availableParallelism } from 'node:os'
import { createInterface } from 'node:readline'
import { commandLine } from '../support/command-line.ts'
import { plantedBugs } from './planted-bugs.ts'
import { allFaultKinds } from './fault-choice.ts'
import { minimise, shortestText } from './minimise.ts'
import { isFoundBySimulation } from './planted-line.ts'
import { plantedLines } from './planted-lines.ts'
import { againWithLine } from './planted-processes.ts'
import { printPlanted } from './planted-table.ts'
import { ROUNDS_PER_RUN } from './power-cuts.ts'
import { runWatched, watchRejections } from './run-watched.ts'
import type { RunOptions, RunResult } from './simulation.ts'
import { Summary } from './summary.ts'

const simulatedLines = plantedLines.flatMap((line) =>
  isFoundBySimulation(line.found) ? [{ ...line, ...line.found }] : [],
)
const simulated = [...plantedBugs, ...simulatedLines]

const USAGE = `npm run sim -- OPTIONS

  --seed 17 --trace           one run, readable
  --seeds 1000 --from 1       many; failing seeds with the command to replay
  --hours H --from 1          as many as fit into the time; with --seeds: no more than these
  --minutes M                 the same
  --power-cuts 10000          everything loses power that often, in the middle of overwrites
  --seed 17 --minimise        of a run that fails: the faults it takes, as few as possible
  --seed 17 --only 3,8        only these of its faults
  --planted KEY --seeds 20    must fail: a bug is planted (${simulated.map(({ key }) => key).join(', ')})
  --planted all               every planted bug, the scenario that finds it, and the first seed
  --profile KEY               the trouble of a planted bug without the bug
  --seconds S                 simulated seconds of trouble (27.5, with --faults 30; longer until the run counts)
  --faults KIND,KIND | none   of: ${allFaultKinds.join(', ')}
  --mds N, --cs N, --clients N, --snapshots PERCENT-OF-STEPS
                              (default: the seed draws them; with --faults 1, 4, 2 and 0)
  --fault-pause-ms P, --faults-at-once N   (default: the seed decides)
  --jobs J                    worker processes (one for each processor)
`

/** A larger young generation: most of what a run makes is garbage a moment later. */
const WORKER_FLAGS = ['--max-semi-space-size=64']
const PROGRESS_MS = 15_000
/** A seed takes half a second; on a very busy machine some more. */
const SEED_LIMIT_MS = 300_000

const { values, fail, choices, whole } = commandLine('sim', USAGE, {
  seed: { type: 'string' },
  seeds: { type: 'string' },
  from: { type: 'string', default: '1' },
  jobs: { type: 'string', default: String(availableParallelism()) },
  seconds: { type: 'string' },
  faults: { type: 'string' },
  mds: { type: 'string' },
  cs: { type: 'string' },
  clients: { type: 'string' },
  snapshots: { type: 'string' },
  hours: { type: 'string' },
  minutes: { type: 'string' },
  'power-cuts': { type: 'string' },
  only: { type: 'string' },
  minimise: { type: 'boolean', default: false },
  'fault-pause-ms': { type: 'string' },
  'faults-at-once': { type: 'string' },
  planted: { type: 'string' },
  profile: { type: 'string' },
  trace: { type: 'boolean', default: false },
  /** Internal: one worker of many; prints a line of JSON for each seed. */
  worker: { type: 'string' },
})

const kinds =
  values.faults === undefined
    ? undefined
    : values.faults === 'none'
      ? []
      : choices(values.faults, 'faults', allFaultKinds)
if (values['power-cuts'] !== undefined && values.seed === undefined)
  values.seeds = String(Math.ceil(whole(values['power-cuts'], 'power-cuts') / ROUNDS_PER_RUN))
const isAllPlanted = values.planted === 'all'
const bug = isAllPlanted ? undefined : bugOf(values.planted ?? values.profile)
if (values.planted !== undefined && bug !== undefined && 'line' in bug) againWithLine(bug)
const planted = values.planted === undefined || bug === undefined || 'line' in bug ? undefined : bug.plant()
const common = {
  ...bug?.profile,
  ...(values['power-cuts'] === undefined ? {} : { powerCuts: true, kinds: [] }),
  shape: {
    ...bug?.profile.shape,
    ...numberOption('mds', 'metadataServerCount'),
    ...numberOption('cs', 'chunkServerCount'),
    ...numberOption('clients', 'clientCount'),
    ...numberOption('snapshots', 'snapshotPercent'),
  },
  ...(values.seconds === undefined ? {} : { durationMs: whole(values.seconds, 'seconds') * 1000 }),
  ...(values.only === undefined
    ? {}
    : { onlyFaults: values.only.split(',').map((one) => whole(one, 'only')) }),
  ...planted?.options,
  ...(kinds === undefined ? {} : { kinds }),
  ...numberOption('fault-pause-ms', 'faultPauseMs'),
  ...numberOption('faults-at-once', 'faultsAtOnce'),
}

function numberOption(
  option: 'fault-pause-ms' | 'faults-at-once' | 'mds' | 'cs' | 'clients' | 'snapshots',
  name: string,
): Record<string, number> {
  const text = values[option]
  return text === undefined ? {} : { [name]: whole(text, option) }
}

function bugOf(key: string | undefined): (typeof simulated)[number] | undefined {
  if (key === undefined) return undefined
  return simulated.find((candidate) => candidate.key === key) ?? fail(`no planted bug ${key}`)
}

watchRejections()

function runSeed(seed: number, more: Pick<RunOptions, 'print' | 'onlyFaults'>): Promise<RunResult> {
  return runWatched({ seed, ...common, ...more })
}

async function runOne(seed: number): Promise<void> {
  const startedMs = performance.now()
  const result = await runSeed(seed, { print: values.trace ? (line) => console.log(line) : null })
  const summary = new Summary(replayCommand)
  summary.add(result)
  summary.print((performance.now() - startedMs) / 1000)
  if (result.failure !== null) process.exitCode = 1
}

function replayCommand(seed: number, more = ' --trace'): string {
  const options = [
    'seconds',
    'faults',
    'planted',
    'profile',
    'power-cuts',
    'fault-pause-ms',
    'faults-at-once',
    'mds',
    'cs',
    'clients',
    'snapshots',
  ] as const
  const given = options
    .filter((option) => values[option] !== undefined)
    .map((option) => ` --${option} ${values[option]}`)
    .join('')
  return `npm run sim -- --seed ${seed}${given}${more}`
}

async function runMinimise(seed: number): Promise<void> {
  const shortest = await minimise((only) => runSeed(seed, only))
  if (shortest === null) return console.log(`seed ${seed} does not fail`)
  for (const line of shortestText(shortest, (options) => replayCommand(seed, options))) console.log(line)
}

/** Seeds `from + worker`, `+ jobs`, … */
async function runWorker(
  worker: number,
  from: number,
  count: number,
  jobs: number,
  endMs: number,
): Promise<void> {
  for (let seed = from + worker; seed < from + count && performance.now() < endMs; seed += jobs) {
    process.stdout.write(`${JSON.stringify(await runSeed(seed, {}))}\n`)
  }
}

/** Runs `count` seeds from `from` in `jobs` processes, each of which takes every `jobs`th seed. */
async function runMany(from: number, count: number, jobs: number): Promise<void> {
  const startedMs = performance.now()
  const summary = new Summary(replayCommand)
  const seconds = (): number => (performance.now() - startedMs) / 1000
  const workers = Array.from({ length: jobs }, (_, worker) => runProcess(worker, from, jobs, summary))
  const progress = setInterval(() => {
    for (const { maybeEnd } of workers) maybeEnd()
    console.log(summary.progress(count, seconds()))
  }, PROGRESS_MS)
  await Promise.all(workers.map(({ ended }) => ended))
  clearInterval(progress)
  summary.print(seconds(), count)
  if (summary.hasFailures) process.exitCode = 1
}

/** One worker. `maybeEnd` ends it when its seed does not come to an end. */
function runProcess(
  worker: number,
  from: number,
  jobs: number,
  summary: Summary,
): { readonly ended: Promise<void>; readonly maybeEnd: () => void } {
  const workerArguments = [
    ...process.execArgv,
    ...WORKER_FLAGS,
    ...process.argv.slice(1),
    '--worker',
    String(worker),
  ]
  const child = spawn(process.execPath, workerArguments, { stdio: ['ignore', 'pipe', 'inherit'] })
  let seed = from + worker
  let sinceMs = performance.now()
  createInterface({ input: child.stdout }).on('line', (line) => {
    summary.add(JSON.parse(line) as RunResult)
    seed += jobs
    sinceMs = performance.now()
  })
  const ended = new Promise<void>((resolve) => {
    child.on('close', (status, signal) => {
      if (status !== 0)
        summary.workerFailed(
          `seed ${seed}: its process ended with ${signal ?? `status ${status}`}; replay: ${replayCommand(seed)}`,
        )
      resolve()
    })
  })
  const maybeEnd = (): void => {
    if (performance.now() - sinceMs > SEED_LIMIT_MS) child.kill('SIGKILL')
  }
  return { ended, maybeEnd }
}

/** When no seed begins any more. */
function timeLimitMs(): number {
  const limits = [values.hours ?? 'none', values.minutes ?? 'none'].map((text, index) =>
    text === 'none' ? Number.POSITIVE_INFINITY : Number(text) * (index === 0 ? 3_600_000 : 60_000),
  )
  const limitMs = Math.min(...limits)
  return limitMs > 0 ? limitMs : fail('--hours or --minutes is no time')
}

if (isAllPlanted) {
  if (!(await printPlanted(Math.max(1, whole(values.jobs, 'jobs'))))) process.exitCode = 1
} else if (values.seeds === undefined && values.hours === undefined && values.minutes === undefined) {
  const seed = whole(values.seed ?? values.from, 'seed')
  await (values.minimise ? runMinimise(seed) : runOne(seed))
} else {
  const count = values.seeds === undefined ? Number.MAX_SAFE_INTEGER : whole(values.seeds, 'seeds')
  const from = whole(values.from, 'from')
  const jobs = Math.max(1, whole(values.jobs, 'jobs'))
  if (values.worker === undefined) await runMany(from, count, jobs)
  else await runWorker(whole(values.worker, 'worker'), from, count, jobs, timeLimitMs())
}
