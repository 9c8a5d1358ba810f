/**
 * The power of everything at once, again and again, in the middle of overwrites of what was flushed: the file
 * systems of all servers are shut down together, all of them killed, mounted again, started; every other time
 * the clients are killed, too. Then all chunks must become healthy, fsck must find all replicas equal, and a new
 * client must read every page, with everything in it that was flushed.
 */
import path from 'node:path'
import { performance } from 'node:perf_hooks'
import { setTimeout as pause } from 'node:timers/promises'
import { SeededRandom } from '../../core/testing/simulation/seeded-random.ts'
import { startCluster, type TorturedCluster } from './cluster.ts'
import { Load } from './load.ts'
import { allWell, type World } from './world.ts'

export interface PowerCutOptions {
  readonly rounds: number
  readonly seed: number
  /** Exists and is empty: for everything that is made. */
  readonly directory: string
  readonly progress: (line: string) => void
}

export interface PowerCutResult {
  readonly rounds: number
  readonly counts: Readonly<Record<string, number>>
  /** Each of them a broken promise. */
  readonly problems: readonly string[]
}

const LOAD_MS_MIN = 1_000
const LOAD_MS_MAX = 4_000
/** Between the shutdown of the first disk and the end of the processes. */
const DYING_MS_MAX = 300
const ROUNDS_PER_FILE = 8
/** A power cut ends sessions, and what was under way under them. */
const mayFail = ['EIO', 'NO_LEASE', 'NO_SESSION', 'EBUSY', 'ENOSPC']

/** Rejects when it could not be carried through; what it found is in the result. */
export async function runPowerCuts(options: PowerCutOptions): Promise<PowerCutResult> {
  const ends: (() => Promise<void>)[] = []
  try {
    return await run(options, (end) => ends.push(end))
  } finally {
    for (const end of ends.reverse()) await end()
  }
}

async function run(
  { rounds, seed, directory, progress }: PowerCutOptions,
  after: (end: () => Promise<void>) => void,
): Promise<PowerCutResult> {
  const random = new SeededRandom(seed)
  const config = { 'mds.wd.offline_tout': '5min' }
  const tortured = await startCluster(after, { directory, config })
  const load = new Load({
    ...{ cluster: tortured.cluster, places: tortured.clients, random: random.fork('load') },
    excuse: (_client, code) => (mayFail.includes(code) ? 'the power was cut' : null),
    isUnderFault: () => false,
    excuseFio: null,
    traceFile: path.join(directory, 'trace.log'),
  })
  after(() => load.close())
  const world: World = { ...tortured, hosts: load.hosts, random }
  await load.start()
  const problems: string[] = []
  const startedMs = performance.now()
  let done = 0
  while (done < rounds && problems.length === 0 && load.problems.length === 0) {
    const roundMs = performance.now()
    const stages: string[] = []
    const timed = async (what: string, work: Promise<void>): Promise<void> => {
      const fromMs = performance.now()
      await work
      stages.push(`${what} ${secondsSince(fromMs)}`)
    }
    await pause(LOAD_MS_MIN + random.below(LOAD_MS_MAX - LOAD_MS_MIN))
    const withClients = random.below(2) === 0
    try {
      await timed('cut', cutPower(tortured, load, random, withClients))
      await timed('answered', load.stop())
      await timed('published', load.publish())
      await timed('compared', allWell(world, problems))
      await timed('read', load.verify())
      if (done % ROUNDS_PER_FILE === 0) await load.addFile()
      load.goOn()
    } catch (error) {
      problems.push(error instanceof Error ? error.message : String(error))
    }
    done += 1
    const clients = withClients ? 'with' : 'without'
    progress(`${done}/${rounds} ${clients} the clients: ${secondsSince(roundMs)} s (${stages.join(', ')})`)
  }
  return {
    rounds: done,
    counts: {
      seconds: Math.round((performance.now() - startedMs) / 1000),
      checkedOperations: load.oracle.checkedOperationCount,
      ...load.counts,
    },
    problems: [...load.problems, ...problems],
  }
}

function secondsSince(fromMs: number): number {
  return Math.round((performance.now() - fromMs) / 100) / 10
}

/** All servers at once; resolves when they have been started again. */
async function cutPower(
  { metadataServers, chunkServers, cluster }: TorturedCluster,
  load: Load,
  random: SeededRandom,
  withClients: boolean,
): Promise<void> {
  const disks = [...chunkServers, ...metadataServers].map(({ disk }) => disk)
  await Promise.all(disks.map((disk) => disk.cutPower()))
  await pause(random.below(2) * random.below(DYING_MS_MAX))
  load.lostPower()
  if (withClients) await Promise.all(load.hosts.map((host) => host.killWorkload()))
  await cluster.killEverything()
  await Promise.all(disks.map((disk) => disk.mountAgain()))
  await cluster.startEverything()
  if (withClients) await Promise.all(load.hosts.map((host) => host.startWorkload()))
}
