/** Builds a client from its parts. The node platform comes in connect.ts; the simulator passes its own. */
import { CairnError } from '../base/errors.ts'
import { fixedServers, type MetadataServers } from '../discovery/metadata-servers.ts'
import type { Timer } from '../platform/clock.ts'
import type { Address } from '../platform/network.ts'
import type {
  BlockDevice,
  CacheInvalidation,
  Client,
  ConnectOptions,
  FileSystem,
  KeyValue,
  Snapshots,
} from './api.ts'
import { FileBlockDevice } from './block-device.ts'
import { Counters } from './session/counters.ts'
import { ByteBudget, type Engine, type Swept } from './session/engine.ts'
import { invalid } from './session/errors.ts'
import { withinHold } from './session/hold.ts'
import { ClientFileSystem } from './file-system.ts'
import { LeaseReturns } from './session/lease-returns.ts'
import { Files } from './file/files.ts'
import { ClientKeyValue, type WatchNumbers } from './key-value.ts'
import { ClientSnapshots } from './snapshots.ts'
import { CANCELLED_BYTES_MAX, IN_FLIGHT_BYTES_DEFAULT, SWEEP_INTERVAL_MS } from './session/limits.ts'
import { ServerPool } from './session/server-pool.ts'
import { Session } from './session/session.ts'
import type { ClientPlatform, ServedByClient, Transport } from './session/transport.ts'
import { WireTransport } from './session/wire-transport.ts'

const TEND_INTERVAL_MS = 1000
/** Each but the first because something else was told of the file meanwhile. */
const ROLLED_BACK_LOOKS_MAX = 8

/** Connects over core/wire. Resolves when the session is open. */
export async function connect(options: ConnectOptions, platform: ClientPlatform): Promise<Client> {
  return await connectOver(options, platform, new WireTransport(options, platform))
}

/** The same over any transport (tests). */
export async function connectOver(
  options: ConnectOptions,
  platform: ClientPlatform,
  transport: Transport,
): Promise<Client> {
  const client = new CairnClient(options, platform, transport)
  await client.open()
  return client
}

export class CairnClient implements Client {
  readonly fileSystem: FileSystem
  readonly snapshots: Snapshots
  readonly engine: Engine
  readonly files: Files
  readonly #session: Session
  readonly #pool: ServerPool
  readonly #counters = new Counters()
  readonly #listeners = new Set<(invalidation: CacheInvalidation) => void>()
  readonly #watches: WatchNumbers = { last: 0, running: 0 }
  #sweepTimer: Timer | null = null
  #lastTendMs = 0
  #closed = false

  constructor(options: ConnectOptions, platform: ClientPlatform, transport: Transport) {
    const servers = serversOf(options.metadataServers)
    const served: ServedByClient = {
      'lease.recall': ({ inode, lease, deadlineMs }) => {
        this.#tell({ all: false, inodes: [inode], entries: [] })
        this.files.recalled(inode, lease, deadlineMs)
        return {}
      },
      'intent.recall': ({ inode, lease, chunks }) => {
        this.files.intentsRecalled(inode, lease, chunks)
        return {}
      },
      'lease.pause': ({ inode, lease, deadlineMs }) => {
        this.files.paused(inode, lease, deadlineMs)
        return {}
      },
      'chunk.moved': ({ inode, locations, servers }) => {
        this.files.moved(inode, locations, servers)
        return {}
      },
      'mds.members': ({ servers: members }) => {
        this.#session.membersTold(members)
        return {}
      },
      'cache.invalidate': (invalidation) => {
        this.files.invalidated(invalidation.all, invalidation.inodes)
        this.#tell(invalidation)
        return {}
      },
    }
    this.#session = new Session(
      {
        servers,
        name: options.name,
        hostName: platform.hostName ?? '',
        kind: options.kind,
        holdTimeoutMs: options.holdTimeoutMs ?? 0,
      },
      platform,
      transport,
      served,
      {
        openInodes: () => this.files.openInodes(),
        onExpired: () => this.#expired(),
        counters: () => this.counters() as Record<string, number>,
      },
    )
    this.#pool = new ServerPool(platform, transport, () => this.#session.id)
    this.engine = this.#makeEngine(options, platform)
    this.files = new Files(this.engine)
    this.fileSystem = new ClientFileSystem(this.#session, this.files)
    this.snapshots = new ClientSnapshots(this.#session, (inode) => this.#rolledBack(inode))
  }

  #makeEngine(options: ConnectOptions, platform: ClientPlatform): Engine {
    let sequence = 0
    let cancelledBytes = 0
    return {
      clock: platform.clock,
      logger: platform.logger,
      random: platform.random,
      session: this.#session,
      pool: this.#pool,
      budget: new ByteBudget(options.inFlightBytesMax ?? IN_FLIGHT_BYTES_DEFAULT),
      counters: this.#counters,
      leaseReturns: new LeaseReturns(this.#session, platform.clock),
      holdTimeoutMs: options.holdTimeoutMs ?? 0,
      preferredServer: options.preferredServer ?? 0,
      swept: new Set<Swept>(),
      readAhead: { blockCount: 0 },
      eras: { last: 0 },
      returnIdleLeases: () => this.files.returnIdle(),
      nextSequence: () => ++sequence,
      takeCancelledBytes: (sizeBytes) => {
        if (cancelledBytes + sizeBytes > CANCELLED_BYTES_MAX) return false
        cancelledBytes += sizeBytes
        return true
      },
      giveCancelledBytes: (sizeBytes) => {
        cancelledBytes -= sizeBytes
      },
    }
  }

  async open(): Promise<void> {
    this.#armSweep()
    try {
      await this.#session.open()
    } catch (error) {
      await this.#stop()
      throw error
    }
  }

  keyValue(namespace: string): KeyValue {
    return new ClientKeyValue(this.#session, namespace, this.#watches)
  }

  async openBlockDevice(path: string): Promise<BlockDevice> {
    const attributes = await this.fileSystem.resolve(path)
    if (attributes.type !== 'file') throw invalid(`${path} is a ${attributes.type}, not a file`)
    const mark = this.files.mark()
    const open = await this.#session.call('fs.open', { inode: attributes.inode, truncate: false })
    const handle = this.files.opened(open.attributes, mark)
    const { state } = handle
    try {
      if (state.pinned) throw new CairnError('EBUSY', `${path} is already open as a block device here`)
      state.pinned = true
      state.dead = false
      // A lease taken by a write before is not pinned.
      await withinHold(state.engine, state.lease.giveBack(state.engine.holdTimeoutMs))
      await state.lease.ensure()
      return new FileBlockDevice(handle)
    } catch (error) {
      state.pinned = false
      handle.close()
      throw error
    }
  }

  onInvalidate(listener: (invalidation: CacheInvalidation) => void): () => void {
    this.#listeners.add(listener)
    return () => this.#listeners.delete(listener)
  }

  counters(): Readonly<Record<string, number>> {
    return {
      ...this.#counters.snapshot(),
      openFiles: this.files.count,
      inFlightBytes: this.engine.budget.usedBytes,
      inFlightRequests: this.#pool.requestsInFlight,
    }
  }

  async close(): Promise<void> {
    if (this.#closed) return
    this.#closed = true
    try {
      await this.files.close()
    } finally {
      await this.#stop()
    }
  }

  async #stop(): Promise<void> {
    this.#closed = true
    await this.#session.close()
    this.#sweepTimer?.cancel()
    this.#pool.close()
  }

  /** Rule E3; then listeners drop what they cached: anybody may have written meanwhile. */
  #expired(): void {
    this.files.sessionExpired()
    this.#pool.sessionExpired()
    this.#tell({ all: true, inodes: [], entries: [] })
  }

  /** The master tells all sessions but the one that asked for it. */
  async #rolledBack(inode: number): Promise<void> {
    this.files.invalidated(false, [inode])
    this.#tell({ all: false, inodes: [inode], entries: [] })
    for (let era = -1, count = 0; count < ROLLED_BACK_LOOKS_MAX; count++) {
      const file = this.files.get(inode)
      if (file === undefined || file.era === era) return
      // the answer to the return of its lease, for one, may still be on its way: then this one counts as older
      era = file.era
      await this.fileSystem.attributes(inode)
    }
  }

  #tell(invalidation: CacheInvalidation): void {
    for (const listener of this.#listeners) listener(invalidation)
  }

  #armSweep(): void {
    this.#sweepTimer = this.engine.clock.setTimer(SWEEP_INTERVAL_MS, () => {
      const nowMs = this.engine.clock.nowMs()
      for (const swept of [...this.engine.swept]) swept.sweep(nowMs)
      if (nowMs - this.#lastTendMs >= TEND_INTERVAL_MS) {
        this.#lastTendMs = nowMs
        if (!this.#closed) this.files.tend(nowMs)
        this.#pool.closeIdle()
      }
      this.#armSweep()
    })
  }
}

function serversOf(given: ConnectOptions['metadataServers']): MetadataServers {
  if (!isList(given)) return given
  if (given.length === 0) throw invalid('no metadata server is named')
  return fixedServers(given.map(baseAddressOf))
}

function isList(given: ConnectOptions['metadataServers']): given is readonly string[] {
  return Array.isArray(given)
}

/** "HOST:PORT" or "[V6]:PORT" of the base port. */
function baseAddressOf(text: string): Address {
  const match = /^(?:\[([^\]]+)\]|([^:]+)):(\d{1,5})$/.exec(text)
  const host = match?.[1] ?? match?.[2]
  const port = Number(match?.[3])
  if (host === undefined || !(port < 65_535)) throw invalid(`not an address HOST:PORT: ${text}`)
  return { host, port }
}
