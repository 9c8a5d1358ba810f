/**
 * The kinds of faults of the torture. Each is a function that does it, keeps it up for a while, undoes it, and
 * says what it did; that the cluster has recovered is for the nemesis to see.
 */
import { randomBytes } from 'node:crypto'
import fs from 'node:fs'
import path from 'node:path'
import { setTimeout as pause } from 'node:timers/promises'
import type { SeededRandom } from '../../core/testing/simulation/seeded-random.ts'
import { until } from '../integration/support/programs.ts'
import {
  type HostRole,
  isolate,
  isolations,
  losePackets,
  reconnect,
  slowDown,
} from '../integration/support/network.ts'
import type { ClientHost } from './clients.ts'
import type { ChunkServerPlace, Place, ServerPlace } from './cluster.ts'
import { delayed } from './delays.ts'
import { away, repairAll, serversOf, statusOf, type World } from './world.ts'

export interface FaultKind {
  readonly role: HostRole | 'any'
  /**
   * Nothing less than a disk or the memory of a host is lost, or all servers of a role are struck: only while all
   * chunk servers are well, and until it is repaired only few others may be away (nemesis.ts).
   */
  readonly harms?: boolean
  /** `place`: of that role. */
  run(world: World, place: Place, random: SeededRandom): Promise<string>
}

const OFFLINE_TIMEOUT_MS = 240_000
const KIBIBYTE = 1024

/** A server with what is common to both roles. */
function serverAt(world: World, { host }: Place): ServerPlace {
  return found(serversOf(world, host.role).find((place) => place.host === host))
}

function chunkServerAt(world: World, { host }: Place): ChunkServerPlace {
  return found(world.chunkServers.find((place) => place.host === host))
}

function clientAt(world: World, { host }: Place): ClientHost {
  return found(world.hosts.find((candidate) => candidate.place.host === host))
}

function found<T>(value: T | undefined): T {
  if (value === undefined) throw new Error('a fault for a host of another role')
  return value
}

/** Stopped or cut off: now and then for so long that sessions end and servers count as inactive. */
function absence(random: SeededRandom): Promise<number> {
  return random.below(3) === 0 ? away(random, 7_000, 12_000) : away(random, 500, 5_000)
}

const killed: FaultKind['run'] = async (world, place, random) => {
  const { server } = serverAt(world, place)
  await server.stop('SIGKILL')
  // A chunk server now and then past offline_tout: others take over its replicas.
  const isLong = place.host.role === 'cs' && random.below(4) === 0
  const downMs = isLong ? await away(random, 18_000, 24_000) : await away(random, 0, 4_000)
  server.start()
  return `down for ${downMs} ms`
}

/** Of its role; they come back one by one. */
const allKilled: FaultKind['run'] = async (world, { host }, random) => {
  const servers = serversOf(world, host.role).map(({ server }) => server)
  await Promise.all(servers.map((server) => server.stop('SIGKILL')))
  for (const server of servers) {
    await away(random, 0, 1_000)
    server.start()
  }
  return 'all killed at once'
}

const stopped: FaultKind['run'] = async (world, place, random) => {
  const process = place.host.role === 'client' ? clientAt(world, place) : serverAt(world, place).server
  process.signal('SIGSTOP')
  const awayMs = await absence(random)
  process.signal('SIGCONT')
  return `stopped for ${awayMs} ms`
}

const withoutPower: FaultKind['run'] = async (world, place, random) => {
  const { server, disk } = serverAt(world, place)
  await disk.cutPower()
  await away(random, 0, 500)
  await server.stop('SIGKILL')
  await disk.mountAgain()
  const downMs = await away(random, 0, 4_000)
  server.start()
  return `down for ${downMs} ms`
}

const hanging: FaultKind['run'] = async (world, place, random) => {
  const { disk } = serverAt(world, place)
  await disk.hang()
  const awayMs = await absence(random)
  await disk.release()
  return `hung for ${awayMs} ms`
}

/** Clients do not know each other. */
const isolated: FaultKind['run'] = async (_world, { host }, random) => {
  const ways = isolations.filter((isolation) => host.role !== 'client' || isolation !== 'client')
  const isolation = ways[random.below(ways.length)] ?? 'cable'
  await isolate(host, isolation)
  const awayMs = await absence(random)
  await reconnect(host)
  return `${isolation} for ${awayMs} ms`
}

const metadataServerFaults = {
  'mds-kill': { role: 'mds', run: killed },
  'mds-kill-all': { role: 'mds', run: allKilled },
  'mds-stop': { role: 'mds', run: stopped },
  'mds-power-cut': { role: 'mds', run: withoutPower },
  'mds-hanging-disk': { role: 'mds', run: hanging },
  'mds-isolation': { role: 'mds', run: isolated },
} as const satisfies Record<string, FaultKind>

const chunkServerFaults = {
  'cs-kill': { role: 'cs', run: killed },
  'cs-kill-all': { role: 'cs', harms: true, run: allKilled },
  'cs-stop': { role: 'cs', run: stopped },
  'cs-isolation': { role: 'cs', run: isolated },
  'cs-power-cut': { role: 'cs', harms: true, run: withoutPower },
  'cs-hanging-disk': { role: 'cs', run: hanging },
  'cs-dead-disk': {
    role: 'cs',
    harms: true,
    async run(world, place) {
      const here = chunkServerAt(world, place)
      const { server, disk } = here
      const id = server.id
      await disk.cutPower()
      await until(`nothing relies on CS#${id}`, () => relieved(world, here), OFFLINE_TIMEOUT_MS)
      await server.stop('SIGKILL')
      await disk.replace()
      await world.cluster.makeChunkServer(server)
      return `CS#${id} is given up, another disk is in its place`
    },
  },
  'cs-wiped': {
    role: 'cs',
    harms: true,
    async run(world, place, random) {
      const { server } = chunkServerAt(world, place)
      const id = server.id
      const isRunning = random.below(2) === 0
      if (!isRunning) await server.stop('SIGKILL')
      fs.rmSync(server.place.repository, { recursive: true })
      await away(random, 0, 3_000)
      await server.stop('SIGKILL')
      // It may have written something again.
      fs.rmSync(server.place.repository, { recursive: true, force: true })
      await world.cluster.makeChunkServer(server)
      return `the directory of CS#${id} is emptied ${isRunning ? 'under it' : 'while it is down'}, made anew`
    },
  },
  'cs-full-disk': {
    role: 'cs',
    async run(world, place, random) {
      const { disk } = chunkServerAt(world, place)
      await disk.fill()
      const awayMs = await away(random, 3_000, 10_000)
      disk.free()
      return `full for ${awayMs} ms`
    },
  },
  'cs-read-only': {
    role: 'cs',
    harms: true,
    async run(world, place, random) {
      const { server, disk } = chunkServerAt(world, place)
      disk.becomeReadOnly()
      const awayMs = await away(random, 1_000, 6_000)
      await server.stop('SIGKILL')
      await disk.repair()
      server.start()
      return `read-only for ${awayMs} ms`
    },
  },
  'cs-rot': {
    role: 'cs',
    harms: true,
    run: (world, place, random) => damage(world, place, random, rot),
  },
  'cs-truncated': {
    role: 'cs',
    harms: true,
    run: (world, place, random) => damage(world, place, random, truncate),
  },
} as const satisfies Record<string, FaultKind>

async function relieved(world: World, place: ChunkServerPlace): Promise<boolean | string> {
  const status = await statusOf(world, place)
  return status.endsWith(' 0') || status
}

function chunkFiles(repository: string): string[] {
  const top = path.join(repository, 'chunks')
  return fs
    .readdirSync(top)
    .flatMap((directory) =>
      fs.readdirSync(path.join(top, directory)).map((name) => path.join(top, directory, name)),
    )
}

type Hurt = (file: string, random: SeededRandom) => void

/** Some bytes of the file, wherever there is something. */
const rot: Hurt = (file, random) => {
  const { size } = fs.statSync(file)
  if (size === 0) return
  const descriptor = fs.openSync(file, 'r+')
  try {
    for (let spot = 0; spot < 4; spot++) {
      // Files are sparse, and full at the front: half of the spots go there.
      const reach = spot % 2 === 0 ? Math.min(size, 64 * KIBIBYTE) : size
      const noise = randomBytes(1 + random.below(64))
      fs.writeSync(descriptor, noise, 0, noise.length, random.below(reach))
    }
  } finally {
    fs.closeSync(descriptor)
  }
}

const truncate: Hurt = (file, random) => {
  const { size } = fs.statSync(file)
  const kept = random.below(2) === 0 ? Math.min(size, 64 * KIBIBYTE) : size
  fs.truncateSync(file, random.below(kept + 1))
}

/** Every third chunk file of one server, while it runs or is down; then everything is read and repaired. */
async function damage(world: World, place: Place, random: SeededRandom, hurt: Hurt): Promise<string> {
  const { server } = chunkServerAt(world, place)
  const isDown = random.below(2) === 0
  if (isDown) await server.stop('SIGKILL')
  let count = 0
  for (const file of chunkFiles(server.place.repository)) {
    if (random.below(3) !== 0) continue
    try {
      hurt(file, random)
      count += 1
    } catch (error) {
      // Deleted meanwhile.
      if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error
    }
  }
  if (isDown) server.start()
  await pause(1_000)
  const problems = await repairAll(world)
  return `${count} files hurt ${isDown ? 'while it was down' : 'under it'}; the first look found ${problems} problems`
}

const clientFaults = {
  'client-kill': {
    role: 'client',
    async run(world, place, random) {
      const host = clientAt(world, place)
      await host.killWorkload()
      const withMount = random.below(2) === 0
      if (withMount) await host.killMount()
      const downMs = await away(random, 0, 8_000)
      await host.startWorkload()
      if (withMount) await host.startMount()
      return `${withMount ? 'workload and mount' : 'workload'} down for ${downMs} ms`
    },
  },
  'client-stop': { role: 'client', run: stopped },
  'client-isolation': { role: 'client', run: isolated },
} as const satisfies Record<string, FaultKind>

const lineFaults = {
  'packet-loss': {
    role: 'any',
    async run(_world, { host }, random) {
      const percent = 5 + random.below(25)
      await losePackets(host, percent)
      const awayMs = await away(random, 3_000, 10_000)
      await reconnect(host)
      return `${percent} % lost for ${awayMs} ms`
    },
  },
  'slow-line': {
    role: 'any',
    async run(_world, { host }, random) {
      const kilobits = 500 + random.below(4_000)
      await slowDown(host, kilobits * 1_000, 400)
      const awayMs = await away(random, 3_000, 10_000)
      await reconnect(host)
      return `${kilobits} kbit/s for ${awayMs} ms`
    },
  },
  latency: {
    role: 'cs',
    async run(world, place, random) {
      const delayMs = 10 + random.below(190)
      const delay = await delayed(world.cluster.host, place.host, delayMs)
      const awayMs = await away(random, 3_000, 10_000)
      await delay.end()
      return `${delayMs} ms each way for ${awayMs} ms`
    },
  },
  'clock-step': {
    role: 'any',
    async run(_world, { clock }, random) {
      const seconds = (random.below(2) === 0 ? 1 : -1) * (1 + random.below(30 * 24 * 3600))
      clock.step(seconds)
      const awayMs = await away(random, 3_000, 10_000)
      clock.step(0)
      return `${seconds} s off for ${awayMs} ms`
    },
  },
} as const satisfies Record<string, FaultKind>

export const faultKinds = {
  ...metadataServerFaults,
  ...chunkServerFaults,
  ...clientFaults,
  ...lineFaults,
} as const
export type FaultName = keyof typeof faultKinds
