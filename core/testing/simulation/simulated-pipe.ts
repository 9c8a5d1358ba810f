/**
 * One end of a simulated connection and the bytes it sends. Bytes arrive in order, in pieces of random size,
 * after the latency of the way; while the way is blocked they wait. A close travels behind the bytes.
 */
import { BufferPool } from '../../base/buffer-pool.ts'
import { MIB } from '../../base/units.ts'
import type { Connection, ConnectionHandler } from '../../platform/network.ts'
import type { SimulatedNetwork } from './simulated-network.ts'

export interface Way {
  readonly network: SimulatedNetwork
  isBlocked(): boolean
  latencyMs(): number
  closed(): void
}

interface Packet {
  readonly atMs: number
  /** Null: the sender closed. */
  readonly data: Buffer | null
}

const POISON = 0xdb
/** What travels lies in memory that is used again and again. */
const packets = new BufferPool({ retainedBytesMax: 16 * MIB })

export class SimulatedPipe implements Connection {
  readonly remote: string
  readonly #way: Way
  #peer: SimulatedPipe | null = null
  #handler: ConnectionHandler | null = null
  #queue: Packet[] = []
  #buffered = 0
  #isFull = false
  #isPaused = false
  #isClosed = false
  #isSilent = false
  #isLost = false
  #lastArrivalMs = 0
  #isScheduled = false
  /** What arrived before `start`, or while paused. */
  #arrived: (Buffer | null)[] = []
  /** Writers that wait for the queue to drain. */
  readonly #unsent: (() => void)[] = []

  constructor(way: Way, remote: string) {
    this.#way = way
    this.remote = remote
  }

  get isClosed(): boolean {
    return this.#isClosed
  }

  get bufferedBytes(): number {
    return this.#buffered
  }

  pairWith(peer: SimulatedPipe): void {
    this.#peer = peer
    peer.#peer = this
  }

  start(handler: ConnectionHandler): void {
    this.#handler = handler
    this.#way.network.clock.defer(() => this.#deliverArrived())
  }

  opened(): void {
    if (!this.#isClosed) this.#handler?.onOpen()
  }

  write(ownedBuffers: readonly Buffer[], onSent?: () => void): boolean {
    if (this.#isClosed) {
      onSent?.()
      return false
    }
    // Copied: the sender's buffers may be pooled, and the receiver's are poisoned.
    this.#enqueue(inOnePacket(ownedBuffers))
    if (this.#buffered >= this.#way.network.tuning.highWaterBytes) this.#isFull = true
    if (onSent !== undefined) {
      if (this.#isFull) this.#unsent.push(onSent)
      else onSent()
    }
    return !this.#isFull
  }

  pause(): void {
    this.#isPaused = true
  }

  resume(): void {
    if (!this.#isPaused) return
    this.#isPaused = false
    this.#way.network.clock.defer(() => this.#deliverArrived())
  }

  destroy(reason: string): void {
    if (this.#isClosed) return
    this.#isClosed = true
    this.#enqueue(null)
    this.#way.network.clock.defer(() => this.#tellClosed(reason))
  }

  /** The connection ended from outside. */
  endWith(reason: string): void {
    if (this.#isClosed) return
    this.#isClosed = true
    this.#queue = []
    this.#way.network.clock.defer(() => this.#tellClosed(reason))
  }

  /** The process behind this end is gone: nobody is told, nothing more is sent. */
  silence(): void {
    this.#isSilent = true
    this.#isClosed = true
    this.#queue = []
    this.#handler = null
    this.#way.closed()
  }

  /** The other end vanished without a word: what is sent from here is lost. */
  lose(): void {
    this.#isLost = true
  }

  /** The way may be open again. */
  wake(): void {
    this.#schedule()
  }

  #tellSent(): void {
    for (const onSent of this.#unsent.splice(0)) onSent()
  }

  #tellClosed(reason: string): void {
    this.#tellSent()
    const handler = this.#handler
    this.#handler = null
    this.#arrived = []
    this.#way.closed()
    if (!this.#isSilent) handler?.onClose(reason)
  }

  #enqueue(data: Buffer | null): void {
    if (this.#isLost) return
    const { clock } = this.#way.network
    const atMs = Math.max(this.#lastArrivalMs, clock.nowMs() + this.#way.latencyMs())
    this.#lastArrivalMs = atMs
    this.#queue.push({ atMs, data })
    this.#buffered += data?.length ?? 0
    this.#schedule()
  }

  #schedule(): void {
    const next = this.#queue[0]
    if (next === undefined || this.#isScheduled) return
    const { clock } = this.#way.network
    this.#isScheduled = true
    clock.setTimer(Math.max(0, next.atMs - clock.nowMs()), this.#onDue)
  }

  readonly #onDue = (): void => {
    this.#isScheduled = false
    this.#transmit()
  }

  #transmit(): void {
    const { clock } = this.#way.network
    // Woken again when the partition heals.
    if (this.#way.isBlocked()) return
    for (;;) {
      const packet = this.#queue[0]
      if (packet === undefined || packet.atMs > clock.nowMs()) break
      this.#queue.shift()
      this.#buffered -= packet.data?.length ?? 0
      const peer = this.#peer
      if (peer !== null) peer.#arrive(packet.data)
    }
    if (this.#isFull && this.#buffered < this.#way.network.tuning.highWaterBytes / 2) {
      this.#isFull = false
      this.#tellSent()
      if (!this.#isClosed) this.#handler?.onDrain()
    }
    this.#schedule()
  }

  #arrive(data: Buffer | null): void {
    if (this.#isClosed) return
    this.#arrived.push(data)
    this.#deliverArrived()
  }

  #deliverArrived(): void {
    while (this.#handler !== null && !this.#isPaused && !this.#isClosed) {
      const data = this.#arrived.shift()
      if (data === undefined) return
      if (data === null) {
        this.#isClosed = true
        this.#tellClosed('closed by peer')
        return
      }
      this.#deliver(data)
    }
  }

  /** In one piece, or in two at a random place: parsers must not care. */
  #deliver(data: Buffer): void {
    const { random } = this.#way.network
    const splitAt = data.length > 1 && random.below(8) === 0 ? 1 + random.below(data.length - 1) : data.length
    const piece = data.subarray(0, splitAt)
    const isLast = splitAt === data.length
    if (!isLast) this.#arrived.unshift(data.subarray(splitAt))
    this.#handler?.onData(piece)
    piece.fill(POISON)
    if (isLast) packets.release(data)
  }
}

function inOnePacket(buffers: readonly Buffer[]): Buffer {
  let sizeBytes = 0
  for (const { length } of buffers) sizeBytes += length
  const packet = packets.acquire(sizeBytes)
  let at = 0
  for (const buffer of buffers) at += buffer.copy(packet, at)
  return packet
}
