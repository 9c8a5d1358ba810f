/** Connections to other chunk servers, for joining and repair: few, reused, closed when idle. */
import type { BufferPool } from '../../base/buffer-pool.ts'
import type { Clock } from '../../platform/clock.ts'
import type { Logger } from '../../platform/logger.ts'
import { formatAddress, type Network } from '../../platform/network.ts'
import type { Random } from '../../platform/random.ts'
import { Dialer } from '../../wire/dialer.ts'
import type { Authenticator, Identity } from '../../wire/types.ts'
import { type PageSource, RemoteSource, type SourceAddress } from './page-source.ts'

const DIALER_COUNT_MAX = 64
const IDLE_MS = 60_000
const READY_TIMEOUT_MS = 3000

export interface SourcePoolOptions {
  readonly network: Network
  readonly clock: Clock
  readonly random: Random
  readonly logger: Logger
  readonly pool: BufferPool
  readonly identity: () => Identity
  readonly authenticator?: Authenticator
}

export class SourcePool {
  readonly #options: SourcePoolOptions
  /** Least recently used first. */
  readonly #dialers = new Map<string, { dialer: Dialer; usedMs: number }>()

  constructor(options: SourcePoolOptions) {
    this.#options = options
  }

  readonly open = async (address: SourceAddress): Promise<PageSource> => {
    const key = formatAddress(address)
    let entry = this.#dialers.get(key)
    if (entry === undefined) {
      const { host, port } = address
      entry = { dialer: new Dialer({ ...this.#options, address: { host, port } }).start(), usedMs: 0 }
    }
    entry.usedMs = this.#options.clock.nowMs()
    this.#dialers.delete(key)
    this.#dialers.set(key, entry)
    this.#closeIdle(entry.usedMs)
    const peer = await entry.dialer.ready(READY_TIMEOUT_MS)
    return RemoteSource.ofPeer(peer, this.#options.pool)
  }

  #closeIdle(nowMs: number): void {
    for (const [key, entry] of this.#dialers) {
      if (this.#dialers.size <= DIALER_COUNT_MAX && nowMs - entry.usedMs < IDLE_MS) return
      entry.dialer.close('idle')
      this.#dialers.delete(key)
    }
  }

  close(): void {
    for (const { dialer } of this.#dialers.values()) dialer.close('shutting down')
    this.#dialers.clear()
  }
}
