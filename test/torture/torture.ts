/**
 * One run of the torture: a cluster under load, faults for so many minutes, then everything must be well and all
 * that was promised must be there. Runs inside the namespaces that main.ts made.
 */
import path from 'node:path'
import { performance } from 'node:perf_hooks'
import { setTimeout as pause } from 'node:timers/promises'
import { SeededRandom } from '../../core/testing/simulation/seeded-random.ts'
import { startCluster } from './cluster.ts'
import { excuseOf, wasCutOff } from './excuses.ts'
import { faultKinds, type FaultName } from './faults.ts'
import { Load } from './load.ts'
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
  const tortured = await startCluster(after, { directory, config })
  const { cluster, clients } = tortured
  let nemesis: Nemesis | null = null
  const load = new Load({
    ...{ cluster, places: clients, random: random.fork('load') },
    excuse: (client, code) => (nemesis === null ? null : excuseOf(nemesis, client, code)),
    isUnderFault: () => nemesis?.isStriking === true,
    excuseFio: (client, sinceMs) => nemesis !== null && wasCutOff(nemesis, client, sinceMs),
    traceFile: path.join(directory, 'trace.log'),
  })
  after(() => load.close())
  const repairs = new RepairWatch(cluster)
  after(() => repairs.stop())
  const world: World = { ...tortured, hosts: load.hosts, random }
  nemesis = new Nemesis(world, { kinds, pauseMs: FAULT_PAUSE_MS, progress })
  await load.start()
  progress('the cluster is under load')
  const startedMs = performance.now()
  nemesis.start()
  const problems: string[] = []
  try {
    await trouble(load, nemesis, minutes)
    progress('the trouble ends')
    await nemesis.stop()
    await load.stop()
    if (load.problems.length === 0) {
      await allWell(world, problems)
      await load.verify()
    }
  } catch (error) {
    problems.push(error instanceof Error ? error.message : String(error))
  }
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
    },
    problems: [...load.problems, ...nemesis.problems, ...problems],
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
