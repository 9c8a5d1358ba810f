/**
 * One run of the torture: a cluster under load, faults for so many minutes, then everything must be well and all
 * that was promised must be there. Runs inside the namespaces that main.ts made.
 */
import path from 'node:path'
import { performance } from 'node:perf_hooks'
import { setTimeout as pause } from 'node:timers/promises'
import { SeededRandom } from '../../core/testing/simulation/seeded-random.ts'
import { startCluster } from './cluster.ts'
import { Excuses } from './excuses.ts'
import { faultKinds, type FaultName } from './faults.ts'
import { Load } from './load.ts'
import { MachineWatch } from './machine-watch.ts'
import { Nemesis, type StruckFault } from './nemesis.ts'
import { RepairWatch } from './repair-watch.ts'
import type { Stall } from './stalls.ts'
import { allWell, type World } from './world.ts'

export interface TortureOptions {
  readonly minutes: number
  readonly seed: number
  readonly kinds: readonly FaultName[]
  /** Exists and is empty: for everything that is made. */
  readonly directory: string
  readonly progress: (line: string) => void
}

export interface TortureResult {
  readonly struck: readonly StruckFault[]
  readonly stalls: readonly Stall[]
  readonly counts: Readonly<Record<string, number>>
  /** Each of them a broken promise. */
  readonly problems: readonly string[]
}

export const allKinds = Object.keys(faultKinds) as FaultName[]
const NEW_FILE_PAUSE_MS = 45_000
const FAULT_PAUSE_MS = 5_000
/** For the last recovery and the checks in the end; longer runs have more to check. */
const END_MS = 195_000
const END_PART = 0.05
const config = { 'mds.wd.offline_tout': '15s', 'mds.gc.grace': '1s', 'mds.gc.stale_grace': '10s' }
/** Rejects when it could not be carried through; what it found is in the result. */
export async function runTorture(options: TortureOptions): Promise<TortureResult> {
  const ends: (() => Promise<void>)[] = []
  try {
    return await run(options, (end) => ends.push(end))
  } finally {
    for (const end of ends.reverse()) await end()
  }
}

async function run(
  { seed, kinds, minutes, directory, progress }: TortureOptions,
  after: (end: () => Promise<void>) => void,
): Promise<TortureResult> {
  const random = new SeededRandom(seed)
  const machine = new MachineWatch()
  const tortured = await startCluster(after, { directory, config })
  const { cluster, clients } = tortured
  let nemesis: Nemesis | null = null
  let excuses: Excuses | null = null
  const load = new Load({
    ...{ cluster, places: clients, random: random.fork('load') },
    isUnderFault: () => nemesis?.isStriking === true,
    excuse: (client, code) => excuses?.of(client, code) ?? null,
    excuseFio: (client, sinceMs) => excuses?.wasCutOff(client, sinceMs) === true,
    traceFile: path.join(directory, 'trace.log'),
  })
  after(() => load.close())
  const repairs = new RepairWatch(cluster)
  after(() => repairs.stop())
  const world: World = { ...tortured, hosts: load.hosts, random }
  nemesis = new Nemesis(world, { kinds, pauseMs: FAULT_PAUSE_MS, progress })
  excuses = new Excuses(nemesis, machine)
  await load.start()
  progress('the cluster is under load')
  const startedMs = performance.now()
  const endMs = startedMs + minutes * (1 + END_PART) * 60_000 + END_MS
  nemesis.start()
  const problems: string[] = []
  const stages = new Stages(progress)
  try {
    await within(endMs, stages, carryThrough(world, load, nemesis, minutes, stages, problems))
  } catch (error) {
    problems.push(error instanceof Error ? error.message : String(error))
  }
  machine.stop()
  return {
    struck: nemesis.struck,
    stalls: load.stalls.longest,
    counts: {
      seconds: Math.round((performance.now() - startedMs) / 1000),
      checkedOperations: load.oracle.checkedOperationCount,
      checkedDuringFaults: load.checkedDuringFaults,
      ...load.counts,
      fioRounds: sum(load.fio.map(({ roundCount }) => roundCount)),
      fioRoundsExcused: sum(load.fio.map(({ excusedCount }) => excusedCount)),
      bytesRepaired: repairs.bytes,
      machineLateMs: Math.round(machine.latestMs),
      machineLoad: Math.round(machine.highestLoad),
    },
    problems: [...load.problems, ...nemesis.problems, ...problems],
  }
}

/** What is under way, for people, and for the problem when it takes too long. */
class Stages {
  readonly #progress: (line: string) => void
  current = ''

  constructor(progress: (line: string) => void) {
    this.#progress = progress
  }

  begin(what: string): void {
    this.current = what
    this.#progress(what)
  }
}

async function carryThrough(
  world: World,
  load: Load,
  nemesis: Nemesis,
  minutes: number,
  stages: Stages,
  problems: string[],
): Promise<void> {
  stages.begin('the trouble begins')
  await trouble(load, nemesis, minutes)
  stages.begin('the trouble ends')
  await nemesis.stop()
  stages.begin('all is well again: waiting for what has no answer yet')
  await load.stop()
  if (load.problems.length > 0) return
  stages.begin('all replicas are compared')
  await allWell(world, problems)
  stages.begin('everything is read')
  await load.verify()
}

/** Rejects when it is not over by then; it may go on. */
async function within(endMs: number, stages: Stages, work: Promise<void>): Promise<void> {
  const timer = new AbortController()
  const limit = pause(endMs - performance.now(), null, { signal: timer.signal }).then(() => {
    throw new Error(`it takes too long: ${stages.current}`)
  })
  try {
    await Promise.race([work, limit])
  } finally {
    timer.abort()
    limit.catch(() => undefined)
    work.catch(() => undefined)
  }
}

/** Ends early when something is wrong. */
async function trouble(load: Load, nemesis: Nemesis, minutes: number): Promise<void> {
  const endMs = performance.now() + minutes * 60_000
  let fileMs = performance.now() + NEW_FILE_PAUSE_MS
  while (performance.now() < endMs && load.problems.length === 0 && nemesis.problems.length === 0) {
    await pause(500)
    if (performance.now() < fileMs) continue
    fileMs += NEW_FILE_PAUSE_MS
    await load.addFile()
  }
}

function sum(values: readonly number[]): number {
  return values.reduce((total, value) => total + value, 0)
}
