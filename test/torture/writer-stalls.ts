/**
 * How long a steady writer stands still when one of its chunk servers is gone: killed, stopped, cut off, or on a disk
 * that hangs. It writes 4 KiB, flushes, and so on; a stall is the longest time between two flushes around the fault.
 *   node test/torture/writer-stalls.ts     prints one line of JSON
 */
import { parseArgs } from 'node:util'
import { CHUNK_SIZE_BYTES, PAGE_SIZE_BYTES } from '../../core/base/units.ts'
import type { File } from '../../core/client/api.ts'
import { isolate, reconnect } from '../integration/support/network.ts'
import { workInOwnNamespaces } from '../integration/support/own-namespaces.ts'
import { until } from '../integration/support/programs.ts'
import { type ChunkServerPlace, startCluster, type TorturedCluster } from './cluster.ts'

const CHUNK_SERVERS = 4
const owner = { uid: 0, gid: 0 }
/** Flushes before a fault. */
const WARM_UP_COUNT = 20
/** Without a stall for this long it is over. */
const STEADY_MS = 4_000

interface Stall {
  readonly stallMs: number
  /** The longest time between two flushes before. */
  readonly usualMs: number
  /** Of the chunk server, as `stat` shows them at the end of the fault. */
  readonly flags: string
}

interface Fault {
  begin(place: ChunkServerPlace): Promise<void>
  end(place: ChunkServerPlace): Promise<void>
}

const faults: Readonly<Record<string, Fault>> = {
  kill: {
    begin: ({ server }) => server.stop('SIGKILL'),
    end: async ({ server }) => server.start(),
  },
  stop: {
    begin: async ({ server }) => server.signal('SIGSTOP'),
    end: async ({ server }) => server.signal('SIGCONT'),
  },
  cut: {
    begin: ({ host }) => isolate(host, 'cable'),
    end: ({ host }) => reconnect(host),
  },
  freeze: {
    begin: ({ disk }) => disk.hang(),
    end: ({ disk }) => disk.release(),
  },
}

/** Flushes of one writer, from its start on. */
class SteadyWriter {
  readonly #file: File
  #isStopped = false
  #lastMs = performance.now()
  count = 0
  longestMs = 0
  readonly ended: Promise<void>

  constructor(file: File) {
    this.#file = file
    this.ended = this.#run()
  }

  /** Since the last flush. */
  get quietMs(): number {
    return performance.now() - this.#lastMs
  }

  stop(): Promise<void> {
    this.#isStopped = true
    return this.ended
  }

  async #run(): Promise<void> {
    const page = Buffer.alloc(PAGE_SIZE_BYTES, 1)
    const pages = CHUNK_SIZE_BYTES / PAGE_SIZE_BYTES
    while (!this.#isStopped) {
      const offset = ((this.count * 17) % pages) * PAGE_SIZE_BYTES
      await new Promise<void>((resolve, reject) => {
        const done = (error: Error | null): void => (error === null ? resolve() : reject(error))
        this.#file.write(offset, page, (error) => {
          if (error === null) this.#file.flush(done)
          else reject(error)
        })
      })
      const nowMs = performance.now()
      this.longestMs = Math.max(this.longestMs, nowMs - this.#lastMs)
      this.#lastMs = nowMs
      this.count += 1
    }
  }
}

async function measure(tortured: TorturedCluster, name: string, fault: Fault): Promise<Stall> {
  const { cluster, chunkServers } = tortured
  const client = await cluster.connect(`writer-${name}`)
  const { file } = await client.fileSystem.create(1, name, 0o600, owner, true)
  const writer = new SteadyWriter(file)
  await until('the writer writes', () => writer.count > WARM_UP_COUNT)
  const usualMs = writer.longestMs
  const inode = file.attributes().inode
  const members = await cluster.ask(async (admin) => {
    const { chunks } = await admin.metadata.call('admin.chunks', { after: 0, limit: 1000 })
    const listed = chunks.find(({ location, inode: of }) => of === inode && location.index === 0)
    return listed?.location.members.map(({ server }) => server) ?? []
  })
  const victim = chunkServers.find(({ server }) => members.includes(server.id))
  if (victim === undefined) throw new Error('nobody has the chunk')
  writer.longestMs = 0
  const { count } = writer
  await fault.begin(victim)
  let longestMs = 0
  let sinceMs = performance.now()
  await until('the writer goes on', () => {
    if (writer.longestMs > longestMs || writer.quietMs > STEADY_MS / 4) sinceMs = performance.now()
    longestMs = writer.longestMs
    return (writer.count > count + 3 && performance.now() - sinceMs > STEADY_MS) || `longest ${longestMs} ms`
  })
  const { cs } = await cluster.statistics()
  const { flags = '' } = cs.find(({ id }) => id === victim.server.id) ?? {}
  await fault.end(victim)
  await writer.stop()
  await client.close()
  await until(
    'all healthy',
    async () => {
      const { chunks, cs: servers } = await cluster.statistics()
      const isWhole = chunks.healthy === chunks.total && chunks.replicating === 0
      return (isWhole && servers.every(({ status }) => status === 'active')) || JSON.stringify(chunks)
    },
    120_000,
  )
  return { stallMs: Math.round(writer.longestMs), usualMs: Math.round(usualMs), flags }
}

const { values } = parseArgs({ options: { inside: { type: 'string' } } })
await workInOwnNamespaces('writer-stalls', import.meta.filename, values.inside, async (directory) => {
  const ends: (() => Promise<void>)[] = []
  const tortured = await startCluster((end) => ends.push(end), {
    directory,
    config: { 'mds.wd.inactive_tout': '3s' },
    count: { metadataServers: 3, chunkServers: CHUNK_SERVERS, clients: 0 },
  })
  await tortured.cluster.allThere()
  const stalls: Record<string, Stall> = {}
  for (const [name, fault] of Object.entries(faults)) stalls[name] = await measure(tortured, name, fault)
  process.stdout.write(`${JSON.stringify(stalls)}\n`)
  for (const end of ends.reverse()) await end()
  return 0
})
