/**
 * The cluster that is tortured: three metadata servers and six chunk servers, each in a network namespace, on a
 * file system and with a clock of its own. Runs inside own-namespaces.ts; what it makes ends with them.
 */
import fs from 'node:fs'
import path from 'node:path'
import { LoopDisk } from '../integration/support/loop-disk.ts'
import { type HostRole, hostOf, makeNetwork, type NetworkHost } from '../integration/support/network.ts'
import { type ChunkServer, type Member, QuorumCluster } from '../integration/support/quorum-cluster.ts'

const PORT = 2510
export const CHUNK_SERVER_PORT = 2520
/** Of the torture itself. */
const standard = { metadataServers: 3, chunkServers: 6, clients: 3 }
const REPLICAS = '3:2'
const DISK_BYTES = 2 * 1024 * 1024 * 1024

/** Another time of day for one process (libfaketime, read anew every second); other clocks stay what they are. */
export class FakeClock {
  readonly #file: string

  constructor(file: string) {
    this.#file = file
    this.step(0)
  }

  /** From now on so many seconds ahead of the true time; negative: behind. */
  step(seconds: number): void {
    fs.writeFileSync(this.#file, `${seconds < 0 ? '' : '+'}${seconds}\n`)
  }

  /** Put in front of a command. */
  get prefix(): readonly string[] {
    const library = '/usr/$LIB/faketime/libfaketimeMT.so.1'
    const monotonicStays = ['FAKETIME_DONT_FAKE_MONOTONIC=1', 'NO_FAKE_STAT=1', 'FAKETIME_CACHE_DURATION=1']
    return ['env', `LD_PRELOAD=${library}`, `FAKETIME_TIMESTAMP_FILE=${this.#file}`, ...monotonicStays]
  }
}

/** Where a process runs. */
export interface Place {
  readonly host: NetworkHost
  readonly clock: FakeClock
  /** In front of its command. */
  readonly prefix: readonly string[]
}

/** Of either role. */
export interface ServerPlace extends Place {
  readonly server: Member | ChunkServer
  readonly disk: LoopDisk
}

export interface ChunkServerPlace extends ServerPlace {
  readonly server: ChunkServer
}

export interface TorturedCluster {
  readonly cluster: QuorumCluster
  readonly metadataServers: readonly ServerPlace[]
  readonly chunkServers: readonly ChunkServerPlace[]
  readonly clients: readonly Place[]
}

export interface TorturedClusterOptions {
  /** Exists and is empty. */
  readonly directory: string
  readonly config: Readonly<Record<string, string>>
  /** Default: as many as the torture has. */
  readonly count?: {
    readonly metadataServers: number
    readonly chunkServers: number
    readonly clients: number
  }
}

export async function startCluster(
  after: (end: () => Promise<void>) => void,
  { directory, config, count = standard }: TorturedClusterOptions,
): Promise<TorturedCluster> {
  const placesOf = (role: HostRole, length: number): Place[] =>
    Array.from({ length }, (_, index) => placeOf(hostOf(role, index + 1), directory))
  const [mds, cs, clients] = [
    placesOf('mds', count.metadataServers),
    placesOf('cs', count.chunkServers),
    placesOf('client', count.clients),
  ]
  await makeNetwork([...mds, ...cs, ...clients].map(({ host }) => host))
  const diskOf = (place: Place, fileSystem: 'xfs' | 'ext4', sizeBytes?: number): Promise<LoopDisk> =>
    LoopDisk.make(path.join(directory, place.host.name), {
      fileSystem,
      ...(sizeBytes === undefined ? {} : { sizeBytes }),
    })
  const mdsDisks = await Promise.all(mds.map((place) => diskOf(place, 'xfs')))
  const csDisks = await Promise.all(cs.map((place) => diskOf(place, 'ext4', DISK_BYTES)))
  const repositoryOn = (disk: LoopDisk | undefined, name: string): string =>
    path.join(disk?.mountPoint ?? '', name)
  const cluster = await QuorumCluster.start(after, {
    places: mds.map(({ host, prefix }, index) => ({
      address: `${host.address}:${PORT}`,
      repository: repositoryOn(mdsDisks[index], 'mds'),
      prefix,
    })),
    chunkServers: cs.map(({ host, prefix }, index) => ({
      address: `${host.address}:${CHUNK_SERVER_PORT}`,
      repository: repositoryOn(csDisks[index], 'cs'),
      prefix,
    })),
    replicas: REPLICAS,
  })
  for (const [key, value] of Object.entries(config))
    await cluster.host.cairn('-c', 'demo', 'set-config', `${key}=${value}`)
  return {
    cluster,
    metadataServers: cluster.members.map((server, index) => ({
      ...at(mds, index),
      server,
      disk: at(mdsDisks, index),
    })),
    chunkServers: cluster.chunkServers.map((server, index) => ({
      ...at(cs, index),
      server,
      disk: at(csDisks, index),
    })),
    clients,
  }
}

function placeOf(host: NetworkHost, directory: string): Place {
  const clock = new FakeClock(path.join(directory, `${host.name}.clock`))
  return { host, clock, prefix: [...host.prefix, ...clock.prefix] }
}

function at<T>(list: readonly T[], index: number): T {
  const found = list[index]
  if (found === undefined) throw new Error(`there is no ${index}`)
  return found
}
