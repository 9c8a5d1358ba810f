/**
 * Byte streams between simulated hosts, on simulated time. Deterministic: latency, splitting of data and
 * order come from one seeded source. Faults: partitions (also one-way: bytes and connection set-up wait, as
 * TCP would), extra delay, cuts of living connections, hosts that vanish with or without a word.
 * Buffers handed to `onData` are overwritten after the call, to catch whoever keeps them.
 */
import { CairnError } from '../../base/errors.ts'
import type { Address, Connection, Listener, Network } from '../../platform/network.ts'
import { formatAddress } from '../../platform/network.ts'
import type { SeededRandom } from './seeded-random.ts'
import type { SimulatedClock } from './simulated-clock.ts'
import { SimulatedPipe } from './simulated-pipe.ts'

export interface NetworkTuning {
  readonly latencyMinMs: number
  readonly latencyMaxMs: number
  /** Bytes on their way in one direction after which `write` says stop. */
  readonly highWaterBytes: number
}

const defaultTuning: NetworkTuning = { latencyMinMs: 0.05, latencyMaxMs: 0.5, highWaterBytes: 256 * 1024 }
const PORT_FIRST_FREE = 40_000

interface Listening {
  readonly host: string
  readonly onConnection: (connection: Connection) => void
}

export class SimulatedNetwork {
  readonly clock: SimulatedClock
  readonly random: SeededRandom
  readonly tuning: NetworkTuning
  readonly #listeners = new Map<string, Listening>()
  readonly #links = new Set<Link>()
  /** By sender and receiver: nothing gets through that way. */
  readonly #blocked = new Map<string, Set<string>>()
  readonly #delaysMs = new Map<string, Map<string, number>>()
  #nextPort = PORT_FIRST_FREE

  constructor(clock: SimulatedClock, random: SeededRandom, tuning: Partial<NetworkTuning> = {}) {
    this.clock = clock
    this.random = random
    this.tuning = { ...defaultTuning, ...tuning }
  }

  /** The network as one process on `hostName` sees it. Stop the returned object when the process dies. */
  host(hostName: string): SimulatedHost {
    return new SimulatedHost(this, hostName)
  }

  get connectionCount(): number {
    return this.#links.size
  }

  /** Nothing gets from `from` to `to`; the other way is open unless blocked as well. */
  blockOneWay(from: string, to: string): void {
    const receivers = this.#blocked.get(from) ?? new Set()
    this.#blocked.set(from, receivers.add(to))
  }

  partition(a: string, b: string): void {
    this.blockOneWay(a, b)
    this.blockOneWay(b, a)
  }

  heal(a?: string, b?: string): void {
    if (a === undefined || b === undefined) this.#blocked.clear()
    else {
      this.#blocked.get(a)?.delete(b)
      this.#blocked.get(b)?.delete(a)
    }
    for (const link of this.#links) link.wake()
  }

  isBlocked(from: string, to: string): boolean {
    return this.#blocked.size > 0 && from !== to && this.#blocked.get(from)?.has(to) === true
  }

  /** Adds to the latency of everything sent from `from` to `to`. */
  setDelay(from: string, to: string, delayMs: number): void {
    const receivers = this.#delaysMs.get(from) ?? new Map<string, number>()
    this.#delaysMs.set(from, receivers.set(to, delayMs))
  }

  latencyMs(from: string, to: string): number {
    const { latencyMinMs, latencyMaxMs } = this.tuning
    const base = latencyMinMs + this.random.float() * (latencyMaxMs - latencyMinMs)
    if (this.#delaysMs.size === 0) return base
    return base + (this.#delaysMs.get(from)?.get(to) ?? 0)
  }

  /** Resets every connection between two hosts; both sides are told. */
  cut(a: string, b: string): void {
    for (const link of [...this.#links]) {
      if (link.joins(a, b)) link.reset('connection reset')
    }
  }

  /** A process is gone: its connections are reset (kill -9), or die in silence (power cut). */
  vanish(owner: SimulatedHost, isSilent: boolean): void {
    for (const [key, listening] of this.#listeners) {
      if (owner.keys.has(key) && listening.host === owner.name) this.#listeners.delete(key)
    }
    for (const link of [...this.#links]) {
      if (link.isOf(owner)) link.abandon(owner, isSilent)
    }
  }

  listen(owner: SimulatedHost, wanted: Address, onConnection: Listening['onConnection']): Address {
    const port = wanted.port === 0 ? this.#nextPort++ : wanted.port
    const address = { host: wanted.host, port }
    const key = formatAddress(address)
    if (this.#listeners.has(key)) throw new CairnError('ADDRESS_IN_USE', `${key} is in use`)
    this.#listeners.set(key, { host: owner.name, onConnection })
    owner.keys.add(key)
    return address
  }

  unlisten(key: string): void {
    this.#listeners.delete(key)
  }

  connect(owner: SimulatedHost, address: Address, timeoutMs: number): Connection {
    const link = new Link(this, owner, address)
    // Nothing of a process that is gone reaches anybody, whatever its code still does.
    if (owner.isStopped) return link.near
    this.#links.add(link)
    link.open(timeoutMs)
    return link.near
  }

  listenerAt(address: Address): Listening | undefined {
    return this.#listeners.get(formatAddress(address))
  }

  forget(link: Link): void {
    this.#links.delete(link)
  }
}

/** What one simulated process gets as its Network. */
export class SimulatedHost implements Network {
  readonly name: string
  readonly keys = new Set<string>()
  readonly #network: SimulatedNetwork
  #isStopped = false

  constructor(network: SimulatedNetwork, name: string) {
    this.#network = network
    this.name = name
  }

  get isStopped(): boolean {
    return this.#isStopped
  }

  listen(address: Address, onConnection: (connection: Connection) => void): Promise<Listener> {
    // Of a process that is gone: the port is its successor's.
    if (this.#isStopped) return new Promise(() => {})
    try {
      const bound = this.#network.listen(this, address, onConnection)
      return Promise.resolve({
        address: bound,
        close: () => {
          this.#network.unlisten(formatAddress(bound))
          return Promise.resolve()
        },
      })
    } catch (error) {
      return Promise.reject(error as Error)
    }
  }

  connect(address: Address, timeoutMs: number): Connection {
    return this.#network.connect(this, address, timeoutMs)
  }

  /** The process dies; `isSilent` as in a power cut: peers learn nothing until they time out. */
  stop(isSilent = false): void {
    this.#isStopped = true
    this.#network.vanish(this, isSilent)
  }
}

/** One connection: two pipes and their fate. `near` is the side that connected. */
export class Link {
  readonly near: SimulatedPipe
  readonly far: SimulatedPipe
  readonly #network: SimulatedNetwork
  readonly #nearHost: SimulatedHost
  readonly #address: Address
  #farHostName: string
  #isOpen = false

  constructor(network: SimulatedNetwork, owner: SimulatedHost, address: Address) {
    this.#network = network
    this.#nearHost = owner
    this.#address = address
    this.#farHostName = network.listenerAt(address)?.host ?? address.host
    const way = (from: () => string, to: () => string) => ({
      network,
      isBlocked: () => network.isBlocked(from(), to()),
      latencyMs: () => network.latencyMs(from(), to()),
      closed: () => this.#maybeForget(),
    })
    const nearName = () => owner.name
    const farName = () => this.#farHostName
    this.near = new SimulatedPipe(way(nearName, farName), formatAddress(address))
    this.far = new SimulatedPipe(
      way(farName, nearName),
      `${owner.name}:${network.random.below(20_000) + 40_000}`,
    )
    this.near.pairWith(this.far)
  }

  open(timeoutMs: number): void {
    const { clock } = this.#network
    const name = this.#nearHost.name
    clock.setTimer(timeoutMs, () => {
      if (!this.#isOpen) this.near.endWith('timed out')
    })
    clock.setTimer(this.#network.latencyMs(name, this.#farHostName) * 2, () => this.#tryOpen())
  }

  #tryOpen(): void {
    const name = this.#nearHost.name
    if (this.#isOpen || this.near.isClosed) return
    const isBlocked =
      this.#network.isBlocked(name, this.#farHostName) || this.#network.isBlocked(this.#farHostName, name)
    // Set-up is repeated by `wake` when the partition heals, or times out.
    if (isBlocked) return
    const listening = this.#network.listenerAt(this.#address)
    if (listening === undefined) return this.near.endWith('connection refused')
    this.#farHostName = listening.host
    this.#isOpen = true
    listening.onConnection(this.far)
    this.near.opened()
  }

  wake(): void {
    this.#tryOpen()
    this.near.wake()
    this.far.wake()
  }

  joins(a: string, b: string): boolean {
    const names = [this.#nearHost.name, this.#farHostName]
    return names.includes(a) && names.includes(b)
  }

  isOf(host: SimulatedHost): boolean {
    return this.#nearHost === host || host.keys.has(formatAddress(this.#address))
  }

  reset(reason: string): void {
    this.near.endWith(reason)
    this.far.endWith(reason)
  }

  /** One side's process is gone: it hears nothing any more. */
  abandon(host: SimulatedHost, isSilent: boolean): void {
    const [dead, living] = this.#nearHost === host ? [this.near, this.far] : [this.far, this.near]
    dead.silence()
    if (!isSilent) living.endWith('connection reset')
    else living.lose()
  }

  #maybeForget(): void {
    if (this.near.isClosed && this.far.isClosed) this.#network.forget(this)
  }
}
