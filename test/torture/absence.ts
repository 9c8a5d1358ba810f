/**
 * A chunk server is away while its chunks are written. When it comes back, only what was changed meanwhile may
 * travel: at most a tenth more than the distinct 4 KiB pages (COPIED_PART_MAX). Two cases:
 *
 *   before offline_tout   nobody has taken its place: all of its replicas join again
 *   after it              others have begun to: wherever such a replacement is not in sync yet, the one that
 *                         has come back joins instead, by comparison (rule J10)
 */
import { performance } from 'node:perf_hooks'
import { setTimeout as pause } from 'node:timers/promises'
import type { Client, File } from '../../core/client/api.ts'
import { SeededRandom } from '../../core/testing/simulation/seeded-random.ts'
import { slowDownArrivals } from '../integration/support/network.ts'
import { until } from '../integration/support/programs.ts'
import { PAGE_BYTES } from '../simulation/file-model.ts'
import { patternOf } from '../simulation/pattern.ts'
import { type ChunkServerPlace, startCluster } from './cluster.ts'
import { allWell, isHealthy, lookAt, statusOf, type World } from './world.ts'

export interface AbsenceOptions {
  /** How long the server is away. */
  readonly absentMs: number
  readonly offlineTimeout: string
  /** Others have begun to take its place when it comes back. */
  readonly isLate: boolean
  readonly seed: number
  /** Exists and is empty: for everything that is made. */
  readonly directory: string
  readonly progress: (line: string) => void
}

export interface AbsenceResult {
  readonly writes: number
  /** While it was away, in chunks that it has replicas of again. */
  readonly changedBytes: number
  readonly copiedBytes: number
  /** That joined again, and that it had. */
  readonly replicas: readonly [kept: number, had: number]
  readonly problems: readonly string[]
}

const COPIED_PART_MAX = 1.1
const MIBIBYTE = 1024 * 1024
/** One chunk each: so it is known which chunks have changed pages. */
const FILES = 6
/** Of each; as startCluster makes them. */
const REPLICAS = 3
const FILE_BYTES = 12 * MIBIBYTE
const BLOCK_BYTES = 256 * 1024
const THINK_MS = 15
const HEALTHY_TIMEOUT_MS = 300_000
/** Replacements do not get far on such a line. */
const SLOW_BITS_PER_SECOND = 4_000_000
const owner = { uid: 0, gid: 0 }

interface WorkedFile {
  readonly file: File
  readonly inode: number
  /** Its replica on the server that is away gets no writes. */
  isMissed: boolean
  /** While that was so. */
  readonly changedPages: Set<number>
  /** What was written last to each page. */
  readonly writes: Map<number, number>
}

/** Rejects when it could not be carried through; what it found is in the result. */
export async function runAbsence(options: AbsenceOptions): Promise<AbsenceResult> {
  const ends: (() => Promise<void>)[] = []
  try {
    return await new Absence(options, (end) => ends.push(end)).run()
  } finally {
    for (const end of ends.reverse()) await end()
  }
}

class Absence {
  readonly #options: AbsenceOptions
  readonly #after: (end: () => Promise<void>) => void
  readonly #random: SeededRandom
  readonly #files: WorkedFile[] = []
  readonly #problems: string[] = []
  #writeCount = 0
  #isOver = false

  constructor(options: AbsenceOptions, after: (end: () => Promise<void>) => void) {
    this.#options = options
    this.#after = after
    this.#random = new SeededRandom(options.seed)
  }

  async run(): Promise<AbsenceResult> {
    const { directory, offlineTimeout, isLate, progress } = this.#options
    // As many as there are replicas; late: one more, which can take the place of the one that is away.
    const count = { metadataServers: 1, chunkServers: isLate ? REPLICAS + 1 : REPLICAS, clients: 0 }
    const config = { 'mds.wd.offline_tout': offlineTimeout, 'mds.gc.grace': '1s' }
    const tortured = await startCluster(this.#after, { directory, config, count })
    const world: World = { ...tortured, hosts: [], random: this.#random }
    const client = await tortured.cluster.connect('writer')
    this.#after(() => client.close())
    const [victim, , , spare] = tortured.chunkServers
    if (victim === undefined) throw new Error('there are no chunk servers')
    // Not there while the replicas are made: all of those that are replaced later come to it.
    await spare?.server.stop('SIGKILL')
    await until('there are enough without it', async () => {
      const active = (await lookAt(world))?.cs.filter(({ status }) => status === 'active').length
      return active === REPLICAS || `${active} chunk servers`
    })
    for (let number = 0; number < FILES; number++) this.#files.push(await this.#fill(client, number))
    await this.#healthy(world)
    if (spare !== undefined) {
      await slowDownArrivals(spare.host, SLOW_BITS_PER_SECOND, 400)
      spare.server.start()
      await tortured.cluster.allThere()
    }
    progress(`${victim.server.name} goes away`)
    const working = this.#work()
    await this.#absence(world, victim)
    progress(`${victim.server.name} is back`)
    const replaced = spare === undefined ? 0 : await inSyncOn(world, spare)
    await this.#joined(world, victim)
    this.#isOver = true
    await working
    await this.#healthy(world)
    const result = await this.#measure(world, victim, replaced)
    await this.#verify(world)
    return { ...result, problems: this.#problems }
  }

  async #fill(client: Client, number: number): Promise<WorkedFile> {
    const { file, attributes } = await client.fileSystem.create(1, `file${number}`, 0o644, owner, true)
    const worked = {
      file,
      inode: attributes.inode,
      isMissed: false,
      changedPages: new Set<number>(),
      writes: new Map(),
    }
    for (let offset = 0; offset < FILE_BYTES; offset += BLOCK_BYTES)
      await this.#write(worked, offset, BLOCK_BYTES)
    await flush(file)
    return worked
  }

  async #write(worked: WorkedFile, offset: number, length: number): Promise<void> {
    const id = ++this.#writeCount
    const data = patternOf(id, offset, length)
    for (let at = offset; at < offset + length; at += PAGE_BYTES) {
      const page = at / PAGE_BYTES
      worked.writes.set(page, id)
      if (worked.isMissed) worked.changedPages.add(page)
    }
    await new Promise<void>((resolve, reject) => {
      worked.file.write(offset, data, (error) => (error === null ? resolve() : reject(error)))
    })
  }

  /** Random pages of all files, some of them flushed now and then. */
  async #work(): Promise<void> {
    while (!this.#isOver) {
      const worked = this.#files[this.#random.below(this.#files.length)]
      if (worked === undefined) return
      const pages = 1 + this.#random.below(3)
      const first = this.#random.below(FILE_BYTES / PAGE_BYTES - pages)
      try {
        await this.#write(worked, first * PAGE_BYTES, pages * PAGE_BYTES)
        if (this.#random.below(20) === 0) await flush(worked.file)
      } catch (error) {
        this.#problems.push(`a write or flush failed: ${String(error)}`)
        return
      }
      await pause(THINK_MS)
    }
    for (const { file } of this.#files) await flush(file)
  }

  async #absence(world: World, victim: ChunkServerPlace): Promise<void> {
    const { absentMs, isLate } = this.#options
    const endMs = performance.now() + absentMs
    for (const worked of this.#files) worked.isMissed = true
    await victim.server.stop('SIGKILL')
    if (isLate)
      await until('others take its place', async () => {
        const seen = await lookAt(world)
        return (seen?.chunks.replicating ?? 0) > 0 || JSON.stringify(seen?.chunks)
      })
    await pause(Math.max(0, endMs - performance.now()))
    victim.server.start()
    await until('it is active again', async () => {
      const status = await statusOf(world, victim)
      return status.startsWith('active') || status
    })
  }

  /** From the moment a replica begins to join it gets what is written. */
  async #joined(world: World, victim: ChunkServerPlace): Promise<void> {
    await until(
      'all chunks are healthy again',
      async () => {
        const on = await chunksOn(world, victim)
        for (const worked of this.#files) if (on.has(worked.inode)) worked.isMissed = false
        const seen = await lookAt(world)
        return (seen !== null && isHealthy(seen)) || JSON.stringify(seen?.chunks)
      },
      HEALTHY_TIMEOUT_MS,
    )
  }

  async #healthy(world: World): Promise<void> {
    await until(
      'all chunks are healthy',
      async () => {
        const seen = await lookAt(world)
        return (seen !== null && isHealthy(seen)) || JSON.stringify(seen?.chunks)
      },
      HEALTHY_TIMEOUT_MS,
    )
  }

  /** `replaced`: so many replicas had been replaced when it came back. */
  async #measure(
    world: World,
    victim: ChunkServerPlace,
    replaced: number,
  ): Promise<Omit<AbsenceResult, 'problems'>> {
    const on = await chunksOn(world, victim)
    const kept = this.#files.filter(({ inode }) => on.has(inode))
    const changedBytes = PAGE_BYTES * kept.reduce((total, { changedPages }) => total + changedPages.size, 0)
    const copiedBytes = await copiedBytesOf(world, victim)
    if (copiedBytes > COPIED_PART_MAX * changedBytes)
      this.#problems.push(`${copiedBytes} bytes were copied, ${changedBytes} had changed`)
    if (copiedBytes === 0) this.#problems.push('nothing was copied')
    const keptCount = kept.length
    if (keptCount + replaced < FILES)
      this.#problems.push(
        `${keptCount} of its ${FILES} replicas have joined again, ${replaced} were replaced`,
      )
    return { writes: this.#writeCount, changedBytes, copiedBytes, replicas: [keptCount, FILES] }
  }

  /** All replicas are equal, and everything is as it was written last. */
  async #verify(world: World): Promise<void> {
    for (const { file } of this.#files) file.close()
    await allWell(world, this.#problems)
    const client = await world.cluster.connect('last')
    try {
      for (const worked of this.#files) await this.#compare(client, worked)
    } finally {
      await client.close()
    }
  }

  async #compare(client: Client, { inode, writes }: WorkedFile): Promise<void> {
    const file = await client.fileSystem.open(inode)
    for (const [page, id] of writes) {
      const offset = page * PAGE_BYTES
      const seen = await new Promise<Buffer>((resolve, reject) => {
        file.read(offset, PAGE_BYTES, (error, borrowedData) => {
          if (error === null) resolve(Buffer.from(borrowedData))
          else reject(error)
        })
      })
      if (!seen.equals(patternOf(id, offset, PAGE_BYTES)))
        this.#problems.push(`inode ${inode}: page ${page} is not what was written last`)
    }
    file.close()
  }
}

function flush(file: File): Promise<void> {
  return new Promise((resolve, reject) => {
    file.flush((error) => (error === null ? resolve() : reject(error)))
  })
}

async function inSyncOn(world: World, { server }: ChunkServerPlace): Promise<number> {
  const { chunks } = await listed(world)
  const isIt = (member: { server: number; role: string }): boolean =>
    member.server === server.id && member.role === 'in-sync'
  return chunks.filter(({ location }) => location.members.some(isIt)).length
}

/** Inodes of the files of which it has a replica, joining ones included. */
async function chunksOn(world: World, { server }: ChunkServerPlace): Promise<Set<number>> {
  const { chunks } = await listed(world)
  const on = chunks.filter(({ location }) => location.members.some((member) => member.server === server.id))
  return new Set(on.map(({ inode }) => inode))
}

async function listed({ cluster }: World) {
  return await cluster.ask((admin) => admin.metadata.call('admin.chunks', { after: 0, limit: 1000 }))
}

async function copiedBytesOf(world: World, { server }: ChunkServerPlace): Promise<number> {
  const { id } = server
  const bytes = async (): Promise<number> =>
    (await world.cluster.statistics()).cs.find((candidate) => candidate.id === id)?.pulledBytes ?? 0
  // Told with the next heartbeats.
  let last = -1
  await until('the count stands still', async () => {
    const now = await bytes()
    const isStill = now === last
    last = now
    if (!isStill) await pause(3_000)
    return isStill
  })
  return last
}
