/**
 * For the tests of this room: two connections joined in memory, and a clock that is turned by hand. Bytes
 * move when `run` is called; a side that is paused is given nothing; a side that `takesNothing` leaves
 * the writes of the other one unsent.
 */
import { BufferPool } from '../base/buffer-pool.ts'
import type { Clock, Timer } from '../platform/clock.ts'
import type { LogFields, Logger } from '../platform/logger.ts'
import type { Connection, ConnectionHandler } from '../platform/network.ts'
import { WirePeer, type WirePeerOptions } from './peer.ts'
import type { Identity, Peer } from './types.ts'

interface ManualTimer {
  dueMs: number
  callback: () => void
}

export class ManualClock implements Clock {
  #timeMs = 1000
  readonly #timers = new Set<ManualTimer>()
  #deferred: (() => void)[] = []

  nowMs(): number {
    return this.#timeMs
  }
  bootMs(): number {
    return this.#timeMs
  }
  wall(): { seconds: number; nanoseconds: number } {
    return { seconds: Math.floor(this.#timeMs / 1000), nanoseconds: 0 }
  }
  setTimer(delayMs: number, callback: () => void): Timer {
    const timer = { dueMs: this.#timeMs + delayMs, callback }
    this.#timers.add(timer)
    return { cancel: () => this.#timers.delete(timer) }
  }
  defer(callback: () => void): void {
    this.#deferred.push(callback)
  }

  /** True when something ran. */
  runDeferred(): boolean {
    const callbacks = this.#deferred
    this.#deferred = []
    for (const callback of callbacks) callback()
    return callbacks.length > 0
  }

  /** Time passes and nothing runs: the process was stopped. */
  stall(durationMs: number): void {
    this.#timeMs += durationMs
  }

  advanceTo(timeMs: number): void {
    for (;;) {
      const due = [...this.#timers].filter((timer) => timer.dueMs <= timeMs)
      const next = due.reduce<ManualTimer | null>(
        (first, timer) => (first === null || timer.dueMs < first.dueMs ? timer : first),
        null,
      )
      if (next === null) break
      this.#timers.delete(next)
      this.#timeMs = Math.max(this.#timeMs, next.dueMs)
      next.callback()
      this.runDeferred()
    }
    this.#timeMs = timeMs
  }
}

export class ManualConnection implements Connection {
  readonly remote: string
  other: ManualConnection | null = null
  handler: ConnectionHandler | null = null
  paused = false
  takesNothing = false
  closed = false
  closeReason = ''
  bufferedBytes = 0
  /** Somebody in the middle: what arrives instead of each write. */
  onTheWay: (written: Buffer) => Buffer = (written) => written
  readonly #clock: ManualClock
  readonly #outgoing: { buffers: readonly Buffer[]; onSent: (() => void) | undefined }[] = []

  constructor(remote: string, clock: ManualClock) {
    this.remote = remote
    this.#clock = clock
  }

  start(handler: ConnectionHandler): void {
    this.handler = handler
  }
  write(ownedBuffers: readonly Buffer[], onSent?: () => void): boolean {
    if (this.closed) {
      onSent?.()
      return true
    }
    this.#outgoing.push({ buffers: ownedBuffers, onSent })
    for (const buffer of ownedBuffers) this.bufferedBytes += buffer.length
    return true
  }
  pause(): void {
    this.paused = true
  }
  resume(): void {
    this.paused = false
  }
  /** As TCP does it: what was written arrives first, unless the other side does not read. */
  destroy(reason: string): void {
    if (this.closed) return
    this.closed = true
    this.closeReason = reason
    this.#clock.defer(() => {
      while (this.deliver(65_536));
      this.#dropUnsent()
      this.handler?.onClose(reason)
      this.other?.destroy('closed by the other side')
    })
  }

  /** Hands one write to the other side, in pieces of `pieceBytes`. True when something moved. */
  deliver(pieceBytes: number): boolean {
    const other = this.other
    if (other === null || other.paused || other.takesNothing) return false
    const write = this.#outgoing.shift()
    if (write === undefined) return false
    const written = Buffer.concat(write.buffers)
    this.bufferedBytes -= written.length
    const bytes = this.onTheWay(written)
    write.onSent?.()
    for (let at = 0; at < bytes.length && !other.closed; at += pieceBytes) {
      const piece = Buffer.from(bytes.subarray(at, at + pieceBytes))
      other.handler?.onData(piece)
      // what was borrowed is not valid any more
      piece.fill(0xee)
    }
    return true
  }

  #dropUnsent(): void {
    for (const { onSent } of this.#outgoing.splice(0)) onSent?.()
  }
}

export interface LogLine {
  readonly message: string
  readonly fields: LogFields
}

export function recordingLogger(lines: LogLine[]): Logger {
  const record = (message: string, fields: LogFields = {}): void => {
    lines.push({ message, fields })
  }
  const logger: Logger = { debug() {}, info: record, warn: record, error: record, child: () => logger }
  return logger
}

export function identityOf(role: string, more: Partial<Identity> = {}): () => Identity {
  return () => ({ role, clusterName: 'alpha', clusterUuid: '', session: 0, name: `test ${role}`, ...more })
}

type Overrides = Partial<WirePeerOptions>

/** A dialling and an accepting peer, joined. */
export class ManualPair {
  readonly clock = new ManualClock()
  readonly pool = new BufferPool({ poison: true })
  readonly log: LogLine[] = []
  readonly dialSide: ManualConnection
  readonly acceptSide: ManualConnection
  readonly dial: WirePeer
  readonly accept: WirePeer
  readonly readyPeers: Peer[] = []

  constructor(dial: Overrides = {}, accept: Overrides = {}) {
    this.dialSide = new ManualConnection('server', this.clock)
    this.acceptSide = new ManualConnection('client', this.clock)
    this.dialSide.other = this.acceptSide
    this.acceptSide.other = this.dialSide
    const common = {
      clock: this.clock,
      pool: this.pool,
      logger: recordingLogger(this.log),
      onReady: (peer: Peer) => {
        this.readyPeers.push(peer)
      },
    }
    const { dialSide, acceptSide } = this
    this.dial = new WirePeer({
      ...common,
      connection: dialSide,
      side: 'dial',
      identity: identityOf('client'),
      ...dial,
    })
    this.accept = new WirePeer({
      ...common,
      connection: acceptSide,
      side: 'accept',
      identity: identityOf('server'),
      ...accept,
    })
    this.dial.start()
    this.accept.start()
    dialSide.handler?.onOpen()
  }

  /** Until nothing moves any more. Promises get their turn too. */
  async run(pieceBytes = 65_536): Promise<void> {
    for (let idle = 0; idle < 3; ) {
      const moved = [
        this.clock.runDeferred(),
        this.dialSide.deliver(pieceBytes),
        this.acceptSide.deliver(pieceBytes),
      ]
      idle = moved.includes(true) ? 0 : idle + 1
      await Promise.resolve()
    }
  }

  /** Time passes in small steps, with everything that follows from it. */
  async pass(durationMs: number, stepMs = 250): Promise<void> {
    const endMs = this.clock.nowMs() + durationMs
    while (this.clock.nowMs() < endMs) {
      this.clock.advanceTo(Math.min(endMs, this.clock.nowMs() + stepMs))
      await this.run()
    }
  }

  /** The reasons that were logged for closed connections. */
  get closeReasons(): string[] {
    return this.log
      .filter(({ message }) => message === 'connection closed')
      .map(({ fields }) => String(fields['reason']))
  }
}
