/**
 * `npm run torture`: a cluster of real processes under load and every fault that the machine can make; `--help`
 * says how (below). Runs itself again inside new namespaces of network, mounts and processes: whatever happens,
 * nothing of it is left behind.
 */
import { workInOwnNamespaces } from '../integration/support/own-namespaces.ts'
import { commandLine } from '../support/command-line.ts'
import { runAbsence } from './absence.ts'
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

const { values, choices, whole, positive } = commandLine('torture', USAGE, {
  minutes: { type: 'string', default: '5' },
  faults: { type: 'string' },
  'power-cuts': { type: 'string' },
  absence: { type: 'string' },
  'offline-tout': { type: 'string', default: '5min' },
  late: { type: 'boolean', default: false },
  seed: { type: 'string', default: '1' },
  json: { type: 'boolean', default: false },
  /** Internal: the run itself, everything in this directory. */
  inside: { type: 'string' },
})

async function inside(directory: string): Promise<number> {
  const progress = (line: string): void => void process.stderr.write(`${clock()} ${line}\n`)
  const seed = whole(values.seed, 'seed', 1)
  if (values['power-cuts'] !== undefined) {
    const rounds = whole(values['power-cuts'], 'power-cuts', 1)
    const result = await runPowerCuts({ rounds, seed, directory, progress })
    process.stdout.write(`${JSON.stringify(result)}\n`)
    return result.problems.length === 0 ? 0 : 1
  }
  if (values.absence !== undefined) {
    const absentMs = positive(values.absence, 'absence') * 60_000
    const how = { offlineTimeout: values['offline-tout'], isLate: values.late }
    const result = await runAbsence({ absentMs, ...how, seed, directory, progress })
    process.stdout.write(`${JSON.stringify(result)}\n`)
    return result.problems.length === 0 ? 0 : 1
  }
  const minutes = positive(values.minutes, 'minutes')
  const kinds = values.faults === undefined ? allKinds : choices(values.faults, 'faults', allKinds)
  const result = await runTorture({ minutes, seed, kinds, directory, progress })
  const report = reportOf(result)
  process.stdout.write(values.json ? `${JSON.stringify(report)}\n` : printable(report))
  return report.problems.length === 0 ? 0 : 1
}

function clock(): string {
  return new Date().toISOString().slice(11, 19)
}

await workInOwnNamespaces('torture', import.meta.filename, values.inside, inside)
