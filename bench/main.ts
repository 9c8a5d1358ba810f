/**
 * `npm run bench [-- --vs moosefs]`: the workloads on Cairn's own mount, and on a peer in the same run:
 * rounds alternate, the median counts, the ratio is what matters. Also prints disk flushes per fsync,
 * because an fsync that flushes nothing is quick. Needs root.
 */
import fs from 'node:fs'
import os from 'node:os'
import path from 'node:path'
import { parseArgs } from 'node:util'
import { CairnPeer } from './peers/cairn.ts'
import { MooseFsPeer } from './peers/moosefs.ts'
import type { Peer } from './peers/peer.ts'
import { type Figure, runWorkload, WORKLOADS, type Workload, type WorkloadOptions } from './workloads.ts'

const USAGE = `usage: npm run bench -- [options]
  --vs moosefs       compare with a peer in the same run
  --vs experiment    compare with Cairn without intents and page checksums: what they cost
  --rounds N         alternating rounds (3)
  --workloads LIST   some of ${WORKLOADS.join(',')} (all)
  --runtime S        seconds of each timed job (10)
  --size MIB         size of the file (1024)
  --files N          files of W7 (5000)
  --concurrency LIST callers at once in W8 (1,16,64)
  --mds LIST         Cairn with so many metadata servers, each a system of its own (1)
  --dir DIR          where everything is put (a new folder below the temporary folder)
  --json FILE        figures as JSON
  --quick            1 round, 2 s, 256 MiB, 500 files: does everything still work?`

/** The complete protocol may be that much slower than without intents and page checksums. */
const COST_RATIO_MIN = 0.9
/** What `--vs experiment` runs unless told otherwise. */
const COST_WORKLOADS: readonly Workload[] = ['W1', 'W2', 'W3', 'W4', 'W5', 'W6']

const { values } = parseArgs({
  options: {
    vs: { type: 'string' },
    rounds: { type: 'string' },
    workloads: { type: 'string' },
    runtime: { type: 'string' },
    size: { type: 'string' },
    files: { type: 'string' },
    concurrency: { type: 'string' },
    mds: { type: 'string' },
    dir: { type: 'string' },
    json: { type: 'string' },
    quick: { type: 'boolean', default: false },
    help: { type: 'boolean', short: 'h', default: false },
  },
})

interface Row {
  readonly peer: string
  readonly round: number
  readonly figures: readonly Figure[]
}

async function main(): Promise<void> {
  if (values.help) return void process.stdout.write(`${USAGE}\n`)
  const root = values.dir ?? fs.mkdtempSync(path.join(os.tmpdir(), 'cairn-bench-'))
  const peers: Peer[] = counts(values.mds, [1]).map((count) => new CairnPeer(root, count))
  if (values.vs === 'moosefs') peers.push(new MooseFsPeer(root))
  else if (values.vs === 'experiment') peers.push(new CairnPeer(root, 1, true))
  else if (values.vs !== undefined)
    throw new Error(`--vs ${values.vs}: only moosefs and experiment are known\n${USAGE}`)
  const options: WorkloadOptions = {
    sizeMib: number(values.size, values.quick ? 256 : 1024),
    runtimeS: number(values.runtime, values.quick ? 2 : 10),
    rampS: values.quick ? 0 : 2,
    fileCount: number(values.files, values.quick ? 500 : 5000),
    concurrencies: counts(values.concurrency, [1, 16, 64]),
    processorMs: null,
  }
  const rounds = number(values.rounds, values.quick ? 1 : 3)
  const workloads = (values.workloads?.split(',') ??
    (values.vs === 'experiment' ? COST_WORKLOADS : WORKLOADS)) as readonly Workload[]
  for (const workload of workloads)
    if (!WORKLOADS.includes(workload)) throw new Error(`unknown workload ${workload}\n${USAGE}`)
  const rows: Row[] = []
  const descriptions: string[] = []
  for (let round = 1; round <= rounds; round++) {
    for (const peer of peers) {
      process.stderr.write(`round ${round} of ${rounds}: ${peer.name}\n`)
      const measured = { ...options, processorMs: peer.processorMs?.bind(peer) ?? null }
      rows.push({ peer: peer.name, round, figures: await runPeer(peer, workloads, measured) })
      if (round === 1) descriptions.push(await peer.describe())
    }
  }
  report(
    rows,
    peers.map((peer) => peer.name),
    descriptions,
    options,
  )
  if (values.dir === undefined) fs.rmSync(root, { recursive: true, force: true })
}

/** '1,16,64' */
function counts(text: string | undefined, byDefault: readonly number[]): readonly number[] {
  return text === undefined ? byDefault : text.split(',').map((part) => number(part, 1))
}

async function runPeer(
  peer: Peer,
  workloads: readonly Workload[],
  options: WorkloadOptions,
): Promise<Figure[]> {
  const figures: Figure[] = []
  try {
    const directory = await peer.up()
    for (const workload of workloads) {
      const results = await runWorkload(directory, workload, options)
      for (const figure of results)
        process.stderr.write(`  ${figure.name.padEnd(11)} ${shown(figure.value)} ${figure.unit}\n`)
      figures.push(...results)
    }
  } finally {
    await peer.down()
  }
  return figures
}

function report(
  rows: readonly Row[],
  peers: readonly string[],
  descriptions: readonly string[],
  options: WorkloadOptions,
): void {
  const names = [...new Set(rows.flatMap((row) => row.figures.map((figure) => figure.name)))]
  const of = (peer: string, name: string): Figure[] =>
    rows
      .filter((row) => row.peer === peer)
      .flatMap((row) => row.figures.filter((figure) => figure.name === name))
  const table = names.map((name) => {
    const medians = peers.map((peer) => median(of(peer, name).map((figure) => figure.value)))
    const flushes = peers.map((peer) =>
      median(of(peer, name).flatMap((figure) => figure.flushesPerFsync ?? [])),
    )
    const processor = peers.map((peer) =>
      median(of(peer, name).flatMap((figure) => figure.processorUs ?? [])),
    )
    const unit = of(peers[0] ?? '', name)[0]?.unit ?? ''
    return {
      name,
      unit,
      medians,
      flushes,
      processor,
      ratios: values.vs === undefined ? [] : medians.slice(0, -1).map((own) => own / (medians.at(-1) ?? 1)),
    }
  })
  const lines = [
    '',
    ...descriptions,
    `${os.cpus().length} processors, file of ${options.sizeMib} MiB, ${options.runtimeS} s a job, medians of ${rows.length / peers.length} alternating rounds`,
    '',
    `| workload | unit | ${peers.join(' | ')} |${values.vs === undefined ? '' : ' ratio |'} disk flushes per fsync | processor µs per operation |`,
    `|---|---|${'---|'.repeat(peers.length)}${values.vs === undefined ? '' : '---|'}---|---|`,
    ...table.map(
      (row) =>
        `| ${row.name} | ${row.unit} | ${row.medians.map(shown).join(' | ')} |` +
        `${row.ratios.length === 0 ? '' : ` ${row.ratios.map((ratio) => ratio.toFixed(2)).join(' / ')} |`} ` +
        `${shownAll(row.flushes, (value) => value.toFixed(2))} | ${shownAll(row.processor, shown)} |`,
    ),
    ...(values.vs === 'experiment' ? ['', ...table.map(costVerdict)] : []),
  ]
  process.stdout.write(`${lines.join('\n')}\n`)
  if (values.json !== undefined)
    fs.writeFileSync(values.json, `${JSON.stringify({ options, descriptions, rows, table }, null, 2)}\n`)
}

interface CostRow {
  readonly name: string
  readonly ratios: readonly number[]
  readonly processor: readonly number[]
}

function costVerdict({ name, ratios: [ratio = 0], processor: [own = 0, without = 1] }: CostRow): string {
  const verdict = ratio >= COST_RATIO_MIN ? 'within the limit' : 'BELOW THE LIMIT'
  return `${name}: ${ratio.toFixed(3)} of the experiment's speed, limit ${COST_RATIO_MIN}: ${verdict}; processor time × ${(own / without).toFixed(3)}`
}

function shownAll(numbers: readonly number[], show: (value: number) => string): string {
  return numbers.every(Number.isNaN) ? '' : numbers.map(show).join(' / ')
}

function median(numbers: readonly number[]): number {
  const sorted = [...numbers].sort((a, b) => a - b)
  const middle = Math.floor(sorted.length / 2)
  if (sorted.length === 0) return Number.NaN
  return sorted.length % 2 === 1
    ? (sorted[middle] ?? Number.NaN)
    : ((sorted[middle - 1] ?? 0) + (sorted[middle] ?? 0)) / 2
}

function shown(value: number): string {
  return value >= 100 ? String(Math.round(value)) : value.toFixed(1)
}

function number(text: string | undefined, byDefault: number): number {
  if (text === undefined) return byDefault
  const value = Number(text)
  if (!Number.isInteger(value) || value < 1) throw new Error(`'${text}' is no count\n${USAGE}`)
  return value
}

await main()
