/**
 * `npm run torture`: a cluster of real processes under load and every fault that the machine can make; `--help`
 * says how (below). Runs itself again inside new namespaces of network, mounts and processes: whatever happens,
 * nothing of it is left behind.
 */
import { parseArgs } from 'node:util'
import { enterOwnNamespaces, runInOwnNamespaces } from '../integration/support/own-namespaces.ts'
import { runAbsence } from './absence.ts'
import type { FaultName } from './faults.ts'
import { runPowerCuts } from './power-cuts.ts'
import { printable, reportOf } from './report.ts'
import { allKinds, runTorture } from './torture.ts'

const USAGE = `npm run torture -- OPTIONS        as root; the tests' packages (scripts/packages.txt) are needed

  --minutes 5         of faults, on 3 metadata servers, 6 chunk servers and 3 clients
  --power-cuts 200    instead of that: so many times the power of everything at once
  --absence 4         instead of that: a chunk server is away for so many minutes while its chunks are written;
                      what is copied when it is back is compared with what changed
  --offline-tout 5min with --absence: after this time others take its place
  --late              with --absence: it comes back while others take its place, not before
  --faults KIND,...   only these: ${allKinds.join(' ')}
  --seed 1            decides what happens when; the processes themselves run as they run
  --json              the report as JSON on standard output; progress goes to standard error

With CAIRN_KEEP=1 in the environment logs, the trace of all operations and disks are kept.
`

function fail(problem: string): never {
  process.stderr.write(`torture: ${problem}\n\n${USAGE}`)
  process.exit(2)
}

function options() {
  try {
    return parseArgs({
      options: {
        minutes: { type: 'string', default: '5' },
        faults: { type: 'string' },
        'power-cuts': { type: 'string' },
        absence: { type: 'string' },
        'offline-tout': { type: 'string', default: '5min' },
        late: { type: 'boolean', default: false },
        seed: { type: 'string', default: '1' },
        json: { type: 'boolean', default: false },
        help: { type: 'boolean', default: false },
        /** Internal: the run itself, everything in this directory. */
        inside: { type: 'string' },
      },
    }).values
  } catch (error) {
    return fail((error as Error).message)
  }
}

const values = options()
if (values.help) {
  process.stdout.write(USAGE)
  process.exit(0)
}

function positive(name: 'minutes' | 'seed' | 'power-cuts' | 'absence'): number {
  const value = Number(values[name])
  return value > 0 ? value : fail(`--${name} ${values[name]} is no number`)
}

function kinds(): FaultName[] {
  if (values.faults === undefined) return allKinds
  return values.faults.split(',').map((text) => {
    return allKinds.find((kind) => kind === text) ?? fail(`--faults: there is no kind ${text}`)
  })
}

async function inside(directory: string): Promise<number> {
  await enterOwnNamespaces()
  const progress = (line: string): void => void process.stderr.write(`${clock()} ${line}\n`)
  const seed = positive('seed')
  if (values['power-cuts'] !== undefined) {
    const result = await runPowerCuts({ rounds: positive('power-cuts'), seed, directory, progress })
    process.stdout.write(`${JSON.stringify(result)}\n`)
    return result.problems.length === 0 ? 0 : 1
  }
  if (values.absence !== undefined) {
    const absentMs = positive('absence') * 60_000
    const how = { offlineTimeout: values['offline-tout'], isLate: values.late }
    const result = await runAbsence({ absentMs, ...how, seed, directory, progress })
    process.stdout.write(`${JSON.stringify(result)}\n`)
    return result.problems.length === 0 ? 0 : 1
  }
  const minutes = positive('minutes')
  const result = await runTorture({ minutes, seed, kinds: kinds(), directory, progress })
  const report = reportOf(result)
  process.stdout.write(values.json ? `${JSON.stringify(report)}\n` : printable(report))
  return report.problems.length === 0 ? 0 : 1
}

function clock(): string {
  return new Date().toISOString().slice(11, 19)
}

try {
  const status =
    values.inside === undefined
      ? await runInOwnNamespaces('torture', import.meta.filename)
      : await inside(values.inside)
  process.exit(status)
} catch (error) {
  process.stderr.write(
    `torture: ${error instanceof Error ? (error.stack ?? error.message) : String(error)}\n`,
  )
  process.exit(1)
}
