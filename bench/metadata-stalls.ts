/**
 * How long the event loop of a metadata server stalls in all that concerns very many of anything, at full size five
 * million chunks: starting and becoming the master, reports of chunk servers, sending a copy of the store and
 * installing one, cutting and deleting a file of a million chunks, deleting 100,000 files. Real processes; the chunk
 * servers and the client are connections that say what those would say.
 */
import fs from 'node:fs'
import os from 'node:os'
import path from 'node:path'
import { setTimeout as pause } from 'node:timers/promises'
import { hostAuthenticator } from '../core/cli/authentication.ts'
import { dial } from '../core/cli/dial.ts'
import { EtcDirectory } from '../core/cli/etc.ts'
import { joinMetadataServer } from '../core/node/commands/join-mds.ts'
import { codeOf } from '../core/base/errors.ts'
import { CHUNK_SIZE_BYTES } from '../core/base/units.ts'
import { chunkServerOrderMethods, chunkServerUpMethods } from '../core/wire/messages/chunk.ts'
import { clientMethods, type MetadataMethods, metadataMethods } from '../core/wire/messages/metadata.ts'
import type { ParamsOf, ResultOf } from '../core/wire/messages/method.ts'
import type { Caller, Peer } from '../core/wire/types.ts'
import { fillRepository, makeRepository, REPOSITORY } from './metadata-repository.ts'
import { type StateSize, storeUuidOf } from './metadata-state.ts'
import { CLUSTER, type Stall, WatchedServer } from './watched-server.ts'

const FIRST_SERVER = 1025
const SERVER_COUNT = 3
const REPORTED_AT_ONCE = 1_024
const REQUESTS_AT_ONCE = 64
const REQUEST_TIMEOUT_MS = 60_000
const SETTLE_MS = 5_000
const DEADLINE_MS = 600_000
const SECOND_PORTS = 10
const SECOND = 'second'
/** Of the log of a member, when something failed. */
const TOLD_CHARACTERS = 4_000

/** Called with the longest stall of a member in one part. */
export type Tell = (what: string, stall: Stall) => void

class Bench {
  readonly #directory: string
  readonly #port: number
  readonly #tell: Tell
  readonly #servers: WatchedServer[] = []
  readonly #peers: Peer[] = []
  #sequence = 0
  #client: Caller<MetadataMethods> | null = null

  constructor(directory: string, port: number, tell: Tell) {
    this.#directory = directory
    this.#port = port
    this.#tell = tell
  }

  async run(scale: number): Promise<void> {
    const huge = Math.round(1_000_000 * scale)
    const small = Math.round(100_000 * scale)
    const sizes: StateSize[] = [
      { kind: 'large', files: Math.round(30_000 * scale), chunksPerFile: 100 },
      { kind: 'huge', files: 2, chunksPerFile: huge },
      { kind: 'small', files: small, chunksPerFile: 1 },
    ]
    const chunkCount = sizes.reduce((sum, { files, chunksPerFile }) => sum + files * chunksPerFile, 0)
    await makeRepository(this.#directory, this.#port)
    await fillRepository(this.#directory, sizes)
    const first = this.#spawn(REPOSITORY)
    await first.untilListening(this.#port)
    await this.#settled('start, and becoming the master', first)
    for (let number = 1; number <= SERVER_COUNT; number++) await this.#report(number, chunkCount)
    await this.#settled(`reports of ${SERVER_COUNT} chunk servers with ${chunkCount} replicas each`, first)
    await this.#connect()
    await this.#truncate('file-0.dat')
    await this.#settled(`truncation of a file of ${huge} chunks`, first)
    const second = await this.#addMember(first)
    await this.#delete('huge-0', ['file-1.dat'])
    await this.#settled(`deletion of a file of ${huge} chunks`, first, second)
    for (let directory = 0; directory * 1_000 < small; directory++)
      await this.#delete(
        `small-${directory}`,
        Array.from({ length: Math.min(1_000, small - directory * 1_000) }, (_, file) => `file-${file}.dat`),
      )
    await this.#settled(`deletion of ${small} files of one chunk`, first, second)
    await pause(4 * SETTLE_MS)
    await this.#settled('replicas deleted, and all confirmed', first, second)
    await first.stop()
    await this.#settled('the other member becomes the master', second)
  }

  tellAll(what: string): void {
    for (const server of this.#servers) this.#tell(what, server.longestStall())
  }

  async end(): Promise<void> {
    for (const peer of this.#peers) peer.close('the bench is over')
    for (const server of this.#servers) await server.stop()
  }

  #spawn(repository: string): WatchedServer {
    const server = WatchedServer.spawn(this.#directory, repository)
    this.#servers.push(server)
    return server
  }

  async #settled(what: string, master: WatchedServer, follower?: WatchedServer): Promise<void> {
    await pause(SETTLE_MS)
    this.#tell(what, master.longestStall())
    if (follower !== undefined) this.#tell(`${what}: the other member`, follower.longestStall())
  }

  get #etc(): EtcDirectory {
    return new EtcDirectory(path.join(this.#directory, 'etc'))
  }

  async #dial(role: string): Promise<Peer> {
    const identity = { role, clusterName: CLUSTER, clusterUuid: '', session: 0, name: 'bench' }
    const address = { host: '127.0.0.1', port: this.#port + 1 }
    const peer = await dial(address, identity, hostAuthenticator(this.#etc, CLUSTER))
    this.#peers.push(peer)
    return peer
  }

  /** As a chunk server that has a replica of every chunk, beats, and deletes what it is told to. */
  async #report(number: number, chunkCount: number): Promise<void> {
    const peer = await this.#dial('cs')
    peer.serve(chunkServerOrderMethods, {
      ...refusals,
      'replica.delete': ({ replicas }) => ({
        deleted: replicas.map(({ chunk }) => chunk),
        refused: [],
        codes: [],
      }),
      'cs.ping': () => ({ incarnation: 1 }),
    })
    const up = peer.caller(chunkServerUpMethods)
    const space = { totalBytes: 2 ** 50, freeBytes: 2 ** 49 }
    const { heartbeatMs } = await up.call('cs.register', {
      ...{
        server: FIRST_SERVER + number - 1,
        storeUuid: storeUuidOf(number),
        registration: 1,
        incarnation: 2,
      },
      ...{ crashes: 0, uncleanStop: 'none', hostId: `h${number}`, hostName: `host-${number}`, location: '' },
      ...{ tier: 0, host: '127.0.0.1', port: 9, space, checksums: true, replicaCount: chunkCount },
    })
    let counter = 0
    const timer = setInterval(() => {
      counter += 1
      const beat = { counter, space, flags: 'C', oldestIoAgeMs: 0, counters: {} }
      if (!up.notify('cs.heartbeat', beat)) clearInterval(timer)
    }, heartbeatMs)
    for (let from = 1; from <= chunkCount; from += REPORTED_AT_ONCE) {
      const end = Math.min(chunkCount + 1, from + REPORTED_AT_ONCE)
      const replicas = Array.from({ length: end - from }, (_, count) => ({
        ...{ chunk: from + count, version: 1, role: 'in-sync' as const, lease: 0, unclean: false },
        ...{ crashed: false, restarted: false, damaged: false },
      }))
      await up.call('cs.report', { replicas, last: end > chunkCount }, { timeoutMs: REQUEST_TIMEOUT_MS })
    }
  }

  /** It lacks everything, so it gets a copy of the store. */
  async #addMember(master: WatchedServer): Promise<WatchedServer> {
    const port = this.#port + SECOND_PORTS
    await joinMetadataServer({
      ...{ cluster: CLUSTER, repository: path.join(this.#directory, SECOND), etc: this.#etc },
      address: { host: '127.0.0.1', port },
      metadataServers: [{ host: '127.0.0.1', port: this.#port }],
    })
    const server = this.#spawn(SECOND)
    const log = path.join(this.#directory, `${SECOND}.log`)
    const loaded = (): number => fs.readFileSync(log, 'utf8').split('metadata state loaded').length - 1
    await until('the copy is installed', () => loaded() >= 2)
    const installed = `(peak ${Math.round(server.memoryBytes('VmHWM') / 2 ** 20)} MiB)`
    await this.#settled(
      `a copy of the store is sent, and installed by the other member ${installed}`,
      master,
      server,
    )
    return server
  }

  async #connect(): Promise<void> {
    const peer = await this.#dial('client')
    const nothing = (): Record<string, never> => ({})
    peer.serve(clientMethods, {
      ...{ 'mds.members': nothing, 'lease.recall': nothing, 'intent.recall': nothing },
      ...{ 'chunk.moved': nothing, 'cache.invalidate': nothing, 'lease.pause': nothing },
    })
    const client = peer.caller(metadataMethods)
    await client.call('session.open', { name: 'bench', host: 'bench', kind: 'bench' })
    const timer = setInterval(() => {
      if (!client.notify('session.renew', {})) clearInterval(timer)
    }, 1_000)
    this.#client = client
  }

  #call<N extends keyof MetadataMethods>(
    method: N,
    params: Omit<ParamsOf<MetadataMethods, N>, 'mutation'>,
    mutation = this.#nextMutation(),
  ): Promise<ResultOf<MetadataMethods, N>> {
    const all = { ...params, mutation } as unknown as ParamsOf<MetadataMethods, N>
    if (this.#client === null) throw new Error('no client yet')
    return this.#client.call(method, all, { timeoutMs: REQUEST_TIMEOUT_MS })
  }

  #nextMutation(): { sequence: number; acknowledgedBelow: number } {
    this.#sequence += 1
    return { sequence: this.#sequence, acknowledgedBelow: Math.max(1, this.#sequence - 2 * REQUESTS_AT_ONCE) }
  }

  async #truncate(name: string): Promise<void> {
    const { attributes } = await this.#call('fs.resolve', { path: `/huge-0/${name}` })
    const { inode } = attributes
    const { lease } = await this.#call('lease.acquire', { inode, pinned: false })
    const mutation = this.#nextMutation()
    await until('the file is cut', async () => {
      try {
        await this.#call('lease.truncate', { inode, lease, size: CHUNK_SIZE_BYTES }, mutation)
        return true
      } catch (error) {
        if (codeOf(error) !== 'TRY_AGAIN') throw error
        return false
      }
    })
    await this.#call('lease.release', { inode, lease })
  }

  /** Resolves when the last of them is gone for good. */
  async #delete(directory: string, names: readonly string[]): Promise<void> {
    const parent = (await this.#call('fs.resolve', { path: `/${directory}` })).attributes.inode
    let last = 0
    for (let from = 0; from < names.length; from += REQUESTS_AT_ONCE)
      await Promise.all(
        names.slice(from, from + REQUESTS_AT_ONCE).map(async (name) => {
          last = (await this.#call('fs.unlink', { parent, name })).inode
        }),
      )
    await until('files without a name are gone', async () => {
      const answer = await this.#call('fs.getattr', { inode: last }).catch(codeOf)
      return answer === 'ESTALE'
    })
  }
}

function refuse(): never {
  throw new Error('the bench holds no data')
}

const refusals = {
  ...{
    'replica.create': refuse,
    'replica.persist': refuse,
    'replica.describe': refuse,
    'replica.join': refuse,
  },
  ...{
    'replica.heal': refuse,
    'replica.repair': refuse,
    'replica.verify': refuse,
    'replica.records': refuse,
  },
  ...{
    'replica.promote': refuse,
    'replica.close': refuse,
    'replica.merge': refuse,
    'replica.reject': refuse,
  },
  ...{ 'replica.verified': refuse },
}

async function until(what: string, isSo: () => boolean | Promise<boolean>): Promise<void> {
  const endMs = performance.now() + DEADLINE_MS
  while (!(await isSo())) {
    if (performance.now() > endMs) throw new Error(`${what}: not within ${DEADLINE_MS / 1_000} s`)
    await pause(50)
  }
}

/** `scale` 1: five million chunks. Rejects when something does not come to its end. */
export async function measureStalls(scale: number, port: number, tell: Tell): Promise<void> {
  const directory = fs.mkdtempSync(path.join(os.tmpdir(), 'cairn-stalls-'))
  const bench = new Bench(directory, port, tell)
  try {
    await bench.run(scale)
  } catch (error) {
    bench.tellAll('until it failed')
    for (const name of [REPOSITORY, SECOND]) {
      const log = path.join(directory, `${name}.log`)
      if (fs.existsSync(log))
        process.stderr.write(`${name}: …${fs.readFileSync(log, 'utf8').slice(-TOLD_CHARACTERS)}\n`)
    }
    throw error
  } finally {
    await bench.end()
    fs.rmSync(directory, { recursive: true, force: true })
  }
}
