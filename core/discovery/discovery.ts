/**
 * The metadata servers of one cluster: addresses given by an administrator (-b, bs.list), then what discovery
 * plugins answer. Architecture: docs/administration.md, Discovery.
 *
 * Promises: what the administrator gave comes first and never waits for a plugin; every method has its own
 * deadline, and its last good answer stays in use when it fails later; answers that are no addresses are left
 * out with a logged reason; the list has no doubles and is bounded. Questions are spread out, less and less
 * often while nothing helps. It does not know which address is right: an answer is only a hint.
 */
import type { Collected } from '../kernel/hook.ts'
import type { DiscoveredServer, ResolveReport } from '../kernel/hooks.ts'
import type { Clock } from '../platform/clock.ts'
import type { Logger } from '../platform/logger.ts'
import { type Address, formatAddress } from '../platform/network.ts'
import type { Random } from '../platform/random.ts'
import { addressKey, type MetadataServers, SERVERS_MAX } from './metadata-servers.ts'
import { rankedOrder } from './order.ts'

/** Between two questions; doubles up to the maximum. */
const ASK_INTERVAL_MS_MIN = 2000
const ASK_INTERVAL_MS_MAX = 30_000
/** Methods whose last good answer is kept. */
const METHODS_MAX = 32
/** The base port plus one is dialled. */
const BASE_PORT_MAX = 65_534
/** A DNS name, or an IP address. */
const HOST = /^(?:[A-Za-z0-9_][A-Za-z0-9._-]{0,252}|[0-9a-fA-F:.]{2,45})$/

export interface DiscoveryOptions {
  readonly cluster: string
  /** Base addresses an administrator gave, best first; read anew at every question. May throw for people. */
  readonly configured: () => readonly Address[]
  /** Fires `discovery.resolve`. */
  readonly resolve: (cluster: string) => Promise<readonly Collected<readonly ResolveReport[]>[]>
  readonly clock: Clock
  readonly random: Random
  readonly logger: Logger
}

export class Discovery implements MetadataServers {
  readonly #options: DiscoveryOptions
  /** By method, in the order in which the methods first answered; each list in the order to try. */
  readonly #found = new Map<string, readonly Address[]>()
  #problems: readonly string[] = []
  #list: readonly Address[]
  #asking: Promise<readonly Address[]> | undefined
  #askedMs = Number.NEGATIVE_INFINITY
  #intervalMs = ASK_INTERVAL_MS_MIN

  /** Throws what `configured` throws: a file that cannot be read is told at once. */
  constructor(options: DiscoveryOptions) {
    this.#options = options
    this.#list = merged([options.configured()])
  }

  list(): readonly Address[] {
    return this.#list
  }

  problems(): readonly string[] {
    return this.#problems
  }

  ask(): Promise<readonly Address[]> {
    const nowMs = this.#options.clock.nowMs()
    const sinceMs = nowMs - this.#askedMs
    if (this.#asking === undefined && sinceMs < this.#intervalMs) return Promise.resolve(this.#list)
    if (this.#asking !== undefined) return this.#asking
    // Nobody asked for a while: the last trouble is over.
    const isNew = sinceMs > 2 * ASK_INTERVAL_MS_MAX
    this.#intervalMs = isNew ? ASK_INTERVAL_MS_MIN : Math.min(ASK_INTERVAL_MS_MAX, this.#intervalMs * 2)
    this.#asking = this.#ask().finally(() => {
      this.#asking = undefined
      this.#askedMs = this.#options.clock.nowMs()
    })
    return this.#asking
  }

  async #ask(): Promise<readonly Address[]> {
    const { cluster, configured, resolve, logger } = this.#options
    const problems: string[] = []
    try {
      for (const { value } of await resolve(cluster)) this.#take(value, problems)
    } catch (error) {
      problems.push(error instanceof Error ? error.message : String(error))
    }
    let given: readonly Address[] = []
    try {
      given = configured()
    } catch (error) {
      problems.push(error instanceof Error ? error.message : String(error))
    }
    for (const problem of problems) {
      if (!this.#problems.includes(problem)) logger.warn('discovery', { cluster, problem })
    }
    this.#problems = problems
    const list = merged([given, ...this.#found.values()])
    if (shown(list) !== shown(this.#list)) logger.info('metadata servers', { cluster, servers: shown(list) })
    this.#list = list
    return list
  }

  #take(reports: readonly ResolveReport[], problems: string[]): void {
    for (const { method, problem, servers, skipped = [] } of reports) {
      if (problem !== undefined) problems.push(`${method}: ${problem}`)
      for (const reason of skipped.slice(0, SERVERS_MAX)) problems.push(`${method}: skipped ${reason}`)
      const usable = servers.slice(0, SERVERS_MAX).filter((server) => {
        const isUsable = isServer(server)
        if (!isUsable) problems.push(`${method}: skipped ${describe(server)}: not an address`)
        return isUsable
      })
      // An empty answer says less than the last one: servers that were moved would take the old with them.
      if (usable.length === 0 || (!this.#found.has(method) && this.#found.size >= METHODS_MAX)) continue
      const ordered = rankedOrder(usable, this.#options.random)
      this.#found.set(
        method,
        ordered.map(({ host, port }) => ({ host, port })),
      )
    }
  }
}

function isServer(server: DiscoveredServer): boolean {
  const { host, port, priority, weight } = server
  const isRank = (value: number): boolean => Number.isInteger(value) && value >= 0 && value <= 65_535
  return (
    typeof host === 'string' &&
    HOST.test(host) &&
    isRank(priority) &&
    isRank(weight) &&
    isRank(port) &&
    port > 0 &&
    port <= BASE_PORT_MAX
  )
}

function describe(server: DiscoveredServer): string {
  return JSON.stringify(`${server.host}:${server.port}`).slice(0, 100)
}

function merged(lists: readonly (readonly Address[])[]): readonly Address[] {
  const byKey = new Map<string, Address>()
  for (const address of lists.flat()) {
    const key = addressKey(address)
    if (!byKey.has(key) && byKey.size < SERVERS_MAX) byKey.set(key, address)
  }
  return [...byKey.values()]
}

function shown(list: readonly Address[]): string {
  return list.map(formatAddress).join(', ')
}
