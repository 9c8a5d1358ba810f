/**
 * A master, some chunk servers and a network between them and one client, all in this process on a manual
 * clock. Messages of one connection arrive in order after `latencyMs`. A connection that is cut leaves what
 * was on its way to the server as ghosts that are applied later (rule E5), unless they are dropped.
 */
import { CairnError } from '../../base/errors.ts'
import { Prng } from '../../base/prng.ts'
import { silentLogger } from '../../platform/logger.ts'
import type { Address, Network } from '../../platform/network.ts'
import type { Random } from '../../platform/random.ts'
import type { DataCallback } from '../../wire/types.ts'
import type { ConnectOptions, File } from '../api.ts'
import { type CairnClient, connectOver } from '../client.ts'
import type {
  ClientPlatform,
  DataLink,
  LinkAttempt,
  LinkEvents,
  MetadataLink,
  ServedByClient,
  Transport,
} from '../session/transport.ts'
import { type DataReply, FakeChunkServer } from './fake-chunk-server.ts'
import { FakeMaster } from './fake-master.ts'
import { ManualClock } from './manual-clock.ts'

/** The client's port of the fake master: base port 1 and one more. */
const MASTER_PORT = 2
const disconnected = (): CairnError => new CairnError('DISCONNECTED', 'cut', { retryable: true })

interface OpenLink {
  readonly port: number
  cut(reason: string): void
}

export class FakeCluster implements Transport {
  readonly clock = new ManualClock()
  readonly servers: FakeChunkServer[]
  readonly master: FakeMaster
  readonly random: Random
  latencyMs = 1
  masterDown = false
  /** The master takes requests and answers nothing. */
  masterSilent = false
  /** How long after a cut the requests on their way still arrive. */
  ghostDelayMs = 50
  readonly drains: string[] = []
  readonly #links = new Set<OpenLink>()
  readonly #ghosts = new Map<number, number>()
  released = 0

  constructor(serverCount: number, seed = 1) {
    this.servers = Array.from({ length: serverCount }, (_, i) => new FakeChunkServer(i + 1))
    this.master = new FakeMaster(this.servers)
    const prng = new Prng(seed)
    this.random = {
      float: () => prng.float(),
      below: (bound) => prng.below(bound),
      bytes: (count) => Buffer.from(Array.from({ length: count }, () => prng.below(256))),
      hex: (count) => 'f'.repeat(count * 2),
    }
  }

  get platform(): ClientPlatform {
    const network: Network = {
      listen: () => Promise.reject(new Error('no sockets here')),
      connect: () => {
        throw new Error('no sockets here')
      },
    }
    return { clock: this.clock, network, random: this.random, logger: silentLogger }
  }

  async connect(options: Partial<ConnectOptions> = {}): Promise<CairnClient> {
    const base = { cluster: 'test', metadataServers: ['mds:1'], kind: 'test', name: 'client' }
    return (await this.clock.wait(connectOver({ ...base, ...options }, this.platform, this))) as CairnClient
  }

  async create(client: CairnClient, name = 'file'): Promise<File> {
    const owner = { uid: 0, gid: 0 }
    return (await this.clock.wait(client.fileSystem.create(1, name, 0o644, owner, true))).file
  }

  release(): void {
    this.released++
  }

  // --- faults ---

  cutMaster(): void {
    this.#cut(MASTER_PORT, 'cut')
  }

  cutServer(id: number): void {
    this.#cut(id, 'cut')
  }

  kill(id: number): void {
    this.master.server(id).isDown = true
    this.#cut(id, 'killed')
  }

  /** The process comes back with its page cache. */
  revive(id: number): void {
    const server = this.master.server(id)
    server.restart()
    server.isDown = false
    this.#cut(id, 'restarted')
  }

  crashHost(id: number): void {
    const server = this.master.server(id)
    server.crashHost()
    this.#cut(id, 'host crashed')
  }

  unhang(id: number): void {
    this.master.server(id).isHanging = false
    for (const wake of this.#hanging.splice(0)) wake()
  }

  readonly #hanging: (() => void)[] = []

  #cut(port: number, reason: string): void {
    for (const link of [...this.#links]) if (link.port === port) link.cut(reason)
  }

  // --- connections ---

  connectMetadata(_address: Address, served: ServedByClient, events: LinkEvents<MetadataLink>): LinkAttempt {
    let closed = false
    const unanswered = new Set<(error: CairnError) => void>()
    const close = (reason: string): void => {
      if (closed) return
      closed = true
      this.#links.delete(link)
      this.clock.defer(() => {
        for (const reject of unanswered) reject(disconnected())
      })
      this.clock.setTimer(0, () => events.onClosed(reason, 'DISCONNECTED'))
    }
    const link: OpenLink = { port: MASTER_PORT, cut: close }
    const call = (method: string, params: unknown): Promise<unknown> =>
      new Promise((resolve, reject) => {
        unanswered.add(reject)
        this.clock.setTimer(this.latencyMs, () => {
          if (closed || this.masterDown) return reject(disconnected())
          if (this.masterSilent) return
          let settle: () => void
          try {
            const value = this.master.serve(method, params as never)
            settle = () => resolve(structuredClone(value))
          } catch (error) {
            settle = () => reject(error as Error)
          }
          // Applied; the answer may still be lost.
          this.clock.setTimer(this.latencyMs, () => (closed ? reject(disconnected()) : settle()))
        })
      })
    this.clock.setTimer(this.latencyMs, () => {
      if (closed) return
      if (this.masterDown) return close('refused')
      this.#links.add(link)
      this.master.notify = (method, params) => {
        this.clock.setTimer(this.latencyMs, () => {
          if (!closed) void served[method as 'chunk.moved'](params as never, undefined as never)
        })
      }
      events.onReady({ caller: { call: call as never, notify: () => true }, close })
    })
    return { close }
  }

  connectData(address: Address, _session: number, events: LinkEvents<DataLink>): LinkAttempt {
    const server = this.master.server(address.port)
    let closed = false
    const pending = new Set<DataCallback>()
    const close = (reason: string): void => {
      if (closed) return
      closed = true
      this.#links.delete(link)
      this.clock.defer(() => {
        for (const callback of pending) callback(disconnected(), null, null, null)
        pending.clear()
        events.onClosed(reason, 'DISCONNECTED')
      })
    }
    const link: OpenLink = { port: address.port, cut: close }
    this.clock.setTimer(this.latencyMs, () => {
      if (closed) return
      if (server.isDown) return close('refused')
      this.#links.add(link)
      events.onReady(dataLink)
    })
    const dataLink: DataLink = {
      sendData: (request, table, payload, _timeoutMs, callback) => {
        if (closed) return callback(disconnected(), null, null, null)
        pending.add(callback)
        const copy = { ...request }
        const bytes = table === null ? Buffer.alloc(0) : Buffer.from(new Uint32Array(table).buffer)
        const arrive = (): void => {
          if (server.isDown) return
          if (server.isHanging) return void this.#hanging.push(arrive)
          // Read when it leaves the socket: a caller that reuses its buffer too early is found out.
          const reply = server.handle(copy, bytes, payload === null ? null : Buffer.from(payload))
          if (closed) return
          this.clock.setTimer(this.latencyMs, () => deliver(callback, reply))
        }
        this.#ghosts.set(server.id, (this.#ghosts.get(server.id) ?? 0) + 1)
        this.clock.setTimer(this.latencyMs, () => {
          const done = (): void => {
            this.#ghosts.set(server.id, (this.#ghosts.get(server.id) ?? 1) - 1)
            arrive()
          }
          if (closed) this.clock.setTimer(this.ghostDelayMs, done)
          else done()
        })
      },
      drain: () => {
        this.drains.push(`asked ${server.id}`)
        return new Promise((resolve, reject) => {
          const check = (): void => {
            if (closed) return reject(disconnected())
            if ((this.#ghosts.get(server.id) ?? 0) > 0) return void this.clock.setTimer(5, check)
            this.drains.push(`answered ${server.id}`)
            resolve(server.incarnation)
          }
          this.clock.setTimer(this.latencyMs, check)
        })
      },
      close,
    }
    const deliver = (callback: DataCallback, reply: DataReply): void => {
      if (closed || !pending.delete(callback)) return
      callback(null, reply.answer, reply.table ?? Buffer.alloc(0), reply.payload)
    }
    return { close }
  }
}

/** Callback calls as promises. */
export function writeOf(file: Pick<File, 'write'>, offset: number, data: Buffer): Promise<void> {
  return new Promise((resolve, reject) => {
    file.write(offset, data, (error) => (error === null ? resolve() : reject(error)))
  })
}

export function readOf(file: Pick<File, 'read'>, offset: number, length: number): Promise<Buffer> {
  return new Promise((resolve, reject) => {
    file.read(offset, length, (error, borrowed) =>
      error === null ? resolve(Buffer.from(borrowed)) : reject(error),
    )
  })
}

export function flushOf(file: Pick<File, 'flush'>): Promise<void> {
  return new Promise((resolve, reject) => {
    file.flush((error) => (error === null ? resolve() : reject(error)))
  })
}
