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
  type Isolation,
  losePackets,
  reconnect,
  slowDown,
} from '../integration/support/network.ts'
import type { ClientHost } from './clients.ts'
import type { ChunkServerPlace, MetadataServerPlace, Place } from './cluster.ts'
import { delayed } from './delays.ts'
import { away, repairAll, statusOf, type World } from './world.ts'

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

function metadataServer(world: World, place: Place): MetadataServerPlace {
  return found(world.metadataServers.find(({ host }) => host === place.host))
}

function chunkServer(world: World, place: Place): ChunkServerPlace {
  return found(world.chunkServers.find(({ host }) => host === place.host))
}

function client(world: World, place: Place): ClientHost {
  return found(world.hosts.find((candidate) => candidate.place.host === place.host))
}

function found<T>(value: T | undefined): T {
  if (value === undefined) throw new Error('a fault for a host of another role')
  return value
}

/** Stopped or cut off: now and then for so long that sessions end and servers count as inactive. */
function absence(random: SeededRandom): Promise<number> {
  return random.below(3) === 0 ? away(random, 7_000, 12_000) : away(random, 500, 5_000)
}

async function cutOff(
  { host }: Place,
  random: SeededRandom,
  isolations: readonly Isolation[],
): Promise<string> {
  const isolation = isolations[random.below(isolations.length)] ?? 'cable'
  await isolate(host, isolation)
  const awayMs = await absence(random)
  await reconnect(host)
  return `${isolation} for ${awayMs} ms`
}

const metadataServerFaults = {
  'mds-kill': {
    role: 'mds',
    async run(world, place, random) {
      const { member } = metadataServer(world, place)
      await member.stop('SIGKILL')
      const downMs = await away(random, 0, 4_000)
      member.start()
      return `down for ${downMs} ms`
    },
  },
  'mds-kill-all': {
    role: 'mds',
    async run(world, _place, random) {
      await Promise.all(world.metadataServers.map(({ member }) => member.stop('SIGKILL')))
      for (const { member } of world.metadataServers) {
        await away(random, 0, 1_000)
        member.start()
      }
      return 'all killed at once'
    },
  },
  'mds-stop': {
    role: 'mds',
    async run(world, place, random) {
      const { member } = metadataServer(world, place)
      member.signal('SIGSTOP')
      const awayMs = await absence(random)
      member.signal('SIGCONT')
      return `stopped for ${awayMs} ms`
    },
  },
  'mds-power-cut': {
    role: 'mds',
    async run(world, place, random) {
      const { member, disk } = metadataServer(world, place)
      await disk.cutPower()
      await away(random, 0, 500)
      await member.stop('SIGKILL')
      await disk.mountAgain()
      const downMs = await away(random, 0, 4_000)
      member.start()
      return `down for ${downMs} ms`
    },
  },
  'mds-hanging-disk': {
    role: 'mds',
    async run(world, place, random) {
      const { disk } = metadataServer(world, place)
      await disk.hang()
      const awayMs = await absence(random)
      await disk.release()
      return `hung for ${awayMs} ms`
    },
  },
  'mds-isolation': {
    role: 'mds',
    run: (_world, place, random) => cutOff(place, random, ['cable', 'deaf', 'mute', 'mds', 'cs', 'client']),
  },
} as const satisfies Record<string, FaultKind>

const chunkServerFaults = {
  'cs-kill': {
    role: 'cs',
    async run(world, place, random) {
      const { server } = chunkServer(world, place)
      await server.stop('SIGKILL')
      // Now and then past offline_tout: others take over its replicas.
      const downMs = random.below(4) === 0 ? await away(random, 18_000, 24_000) : await away(random, 0, 4_000)
      server.start()
      return `down for ${downMs} ms`
    },
  },
  'cs-kill-all': {
    role: 'cs',
    harms: true,
    async run(world, _place, random) {
      await Promise.all(world.chunkServers.map(({ server }) => server.stop('SIGKILL')))
      await away(random, 0, 2_000)
      for (const { server } of world.chunkServers) server.start()
      return 'all killed at once'
    },
  },
  'cs-stop': {
    role: 'cs',
    async run(world, place, random) {
      const { server } = chunkServer(world, place)
      server.signal('SIGSTOP')
      const awayMs = await absence(random)
      server.signal('SIGCONT')
      return `stopped for ${awayMs} ms`
    },
  },
  'cs-isolation': {
    role: 'cs',
    run: (_world, place, random) => cutOff(place, random, ['cable', 'deaf', 'mute', 'mds', 'cs', 'client']),
  },
  'cs-power-cut': {
    role: 'cs',
    harms: true,
    async run(world, place, random) {
      const { server, disk } = chunkServer(world, place)
      await disk.cutPower()
      await away(random, 0, 500)
      await server.stop('SIGKILL')
      await disk.mountAgain()
      const downMs = await away(random, 0, 4_000)
      server.start()
      return `down for ${downMs} ms`
    },
  },
  'cs-dead-disk': {
    role: 'cs',
    harms: true,
    async run(world, place) {
      const here = chunkServer(world, place)
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
      const { server } = chunkServer(world, place)
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
      const { disk } = chunkServer(world, place)
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
      const { server, disk } = chunkServer(world, place)
      disk.becomeReadOnly()
      const awayMs = await away(random, 1_000, 6_000)
      await server.stop('SIGKILL')
      await disk.repair()
      server.start()
      return `read-only for ${awayMs} ms`
    },
  },
  'cs-hanging-disk': {
    role: 'cs',
    async run(world, place, random) {
      const { disk } = chunkServer(world, place)
      await disk.hang()
      const awayMs = await absence(random)
      await disk.release()
      return `hung for ${awayMs} ms`
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
  const { server } = chunkServer(world, place)
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
      const host = client(world, place)
      await host.killWorkload()
      const withMount = random.below(2) === 0
      if (withMount) await host.killMount()
      const downMs = await away(random, 0, 8_000)
      await host.startWorkload()
      if (withMount) await host.startMount()
      return `${withMount ? 'workload and mount' : 'workload'} down for ${downMs} ms`
    },
  },
  'client-stop': {
    role: 'client',
    async run(world, place, random) {
      const host = client(world, place)
      host.signal('SIGSTOP')
      const awayMs = await absence(random)
      host.signal('SIGCONT')
      return `stopped for ${awayMs} ms`
    },
  },
  'client-isolation': {
    role: 'client',
    run: (_world, place, random) => cutOff(place, random, ['cable', 'deaf', 'mute', 'mds', 'cs']),
  },
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
