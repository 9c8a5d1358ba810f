/**
 * Scrubbing in the background (rule R2). Each chunk server says with its heartbeat which of its replicas were
 * verified longest ago and keeps that on its disk; the master takes them at the pace of the parameters, has each
 * chunk checked on all its replicas at once, and says which were. So progress survives every restart, a new master
 * knows where to go on, and a replica that was checked for the sake of another is not read again soon.
 *
 * A chunk in use is verified and not compared. When it was not compared for a whole period its holder is asked to
 * give up the intent: it drains and flushes that chunk, and gets the intent again when the records were compared,
 * which takes milliseconds.
 */
import { mark } from '../../../base/coverage.ts'
import type { ChunkRow } from '../../state/rows.ts'
import { isSettled } from '../replication/chunk-waiters.ts'
import type { Master } from '../servers/master.ts'
import type { ServerConnection } from '../servers/server-connection.ts'
import type { CheckedChunk, ChunkCheck } from './chunk-check.ts'

const TICK_MS = 100
const MINUTE_MS = 60_000
const DAY_MS = 24 * 60 * MINUTE_MS
/** One that is slow must not take the time of those behind it in full: what was missed is caught up to here. */
const CATCH_UP_MS = 1000
const CHECKS_PER_SERVER_MAX = 2
const PAUSES_MAX = 4
/** No longer than a client waits for the answer to its request. */
const HOLD_MS_MAX = 2000
/** Heartbeats on their way still name a chunk that was checked just now. */
const CHECKED_AGAIN_MS = 5000
const FAILED_AGAIN_MS = 60_000
const RECENT_COUNT_MAX = 100_000

export interface ScrubParts {
  readonly master: Master
  readonly check: ChunkCheck
  readonly connections: ReadonlyMap<number, ServerConnection>
  /** Asks the holder to flush these chunks and to give their intents up. */
  readonly recallIntents: (lease: number, chunks: readonly number[]) => void
}

export class Scrub {
  readonly #parts: ScrubParts
  /** Server -> when its last check was due. */
  readonly #lastMs = new Map<number, number>()
  readonly #runningCount = new Map<number, number>()
  /** Chunk -> not looked at again before. */
  readonly #againMs = new Map<number, number>()
  /** Chunks whose holder was asked to pause. */
  readonly #paused = new Map<number, PausedChunk>()

  constructor(parts: ScrubParts) {
    this.#parts = parts
    parts.master.every(TICK_MS, () => this.#tick())
  }

  /** A new intent on these waits until they were compared, a moment at most. */
  async compared(chunks: readonly number[]): Promise<void> {
    if (this.#paused.size === 0) return
    for (const chunk of chunks) {
      const paused = this.#paused.get(chunk)
      if (paused?.isHeld === true) await paused.whenDone
    }
  }

  /** An intent has ended. */
  intentEnded(chunk: number): void {
    const paused = this.#paused.get(chunk)
    if (paused === undefined || paused.isHeld) return
    paused.isHeld = true
    this.#parts.master.after(HOLD_MS_MAX, () => this.#go(chunk, paused))
    void this.#compareHeld(chunk).finally(() => this.#go(chunk, paused))
  }

  #tick(): void {
    const { master, connections } = this.#parts
    if (master.isInRecovery) return
    const nowMs = master.clock.nowMs()
    for (const connection of connections.values()) if (connection.isReported) this.#serve(connection, nowMs)
  }

  #serve(connection: ServerConnection, nowMs: number): void {
    const { server } = connection
    const intervalMs = this.#intervalMs(server)
    let lastMs = this.#lastMs.get(server) ?? nowMs
    for (;;) {
      this.#lastMs.set(server, lastMs)
      if (nowMs - lastMs < intervalMs || this.#countOf(server) >= CHECKS_PER_SERVER_MAX) return
      const next = this.#next(connection, nowMs)
      if (next === null) return
      lastMs = Math.max(lastMs + intervalMs, nowMs - CATCH_UP_MS)
      void this.#check(next.row, next.ageMs)
    }
  }

  /** Between two chunks of this server, as the parameters are now. */
  #intervalMs(server: number): number {
    const { master } = this.#parts
    const wanted = master.parameter('mds.wd.verify_chunks')
    const replicaCount = master.state.chunks.replicaCount(server)
    const needed = (replicaCount * MINUTE_MS) / this.#periodMs()
    return MINUTE_MS / Math.max(wanted, needed)
  }

  #periodMs(): number {
    return this.#parts.master.parameter('cs.scrub.period_days') * DAY_MS
  }

  #countOf(server: number): number {
    return this.#runningCount.get(server) ?? 0
  }

  #next(connection: ServerConnection, nowMs: number): { row: ChunkRow; ageMs: number } | null {
    const { chunks } = this.#parts.master.state
    while (connection.due.length > 0) {
      const due = connection.due.shift()
      if (due === undefined || (this.#againMs.get(due.chunk) ?? 0) > nowMs) continue
      const row = chunks.get(due.chunk)
      const members = row === undefined || !isSettled(row) ? [] : inSyncServers(row)
      // Not as its server believes: whoever brings them together is at work already.
      if (row === undefined || !members.includes(connection.server)) this.#wait(due.chunk, FAILED_AGAIN_MS)
      else if (members.every((server) => this.#countOf(server) < CHECKS_PER_SERVER_MAX))
        return { row, ageMs: due.ageMs }
    }
    return null
  }

  #wait(chunk: number, delayMs: number): void {
    if (this.#againMs.size >= RECENT_COUNT_MAX) this.#againMs.clear()
    this.#againMs.set(chunk, this.#parts.master.clock.nowMs() + delayMs)
  }

  async #check(row: ChunkRow, ageMs: number): Promise<void> {
    const { master, check } = this.#parts
    const { chunk } = row
    const members = inSyncServers(row)
    for (const server of members) this.#runningCount.set(server, this.#countOf(server) + 1)
    this.#wait(chunk, FAILED_AGAIN_MS)
    const checked = await check.check(chunk, { depth: 'pages', repairs: true })
    for (const server of members) {
      const count = this.#countOf(server) - 1
      if (count > 0) this.#runningCount.set(server, count)
      else this.#runningCount.delete(server)
    }
    if (master.isStopped || checked === null) return
    if (checked.isCompared) this.#verified(chunk, checked)
    else if (checked.isBusy && ageMs > this.#periodMs()) this.#pause(chunk)
  }

  #verified(chunk: number, { servers }: CheckedChunk): void {
    const { connections, master } = this.#parts
    this.#wait(chunk, CHECKED_AGAIN_MS)
    for (const server of servers) {
      connections
        .get(server)
        ?.orders.call('replica.verified', { chunks: [chunk] })
        // It offers the chunk again.
        .catch((error: unknown) => master.logger.debug('not told', { chunk, server, error: String(error) }))
    }
  }

  #pause(chunk: number): void {
    const { master, recallIntents } = this.#parts
    const row = master.state.chunks.get(chunk)
    if (row === undefined || row.intentLease === 0 || this.#paused.has(chunk)) return
    if (this.#paused.size >= PAUSES_MAX) return this.#wait(chunk, CHECKED_AGAIN_MS)
    mark('a holder is asked to pause a chunk that is never idle')
    const paused = new PausedChunk()
    this.#paused.set(chunk, paused)
    recallIntents(row.intentLease, [chunk])
    master.after(master.parameter('mds.lease.recall_tout'), () => this.#go(chunk, paused))
  }

  async #compareHeld(chunk: number): Promise<void> {
    const { check, master } = this.#parts
    const checked = await check.check(chunk, { depth: 'records', repairs: true })
    if (!master.isStopped && checked?.isCompared === true) this.#verified(chunk, checked)
  }

  /** Whoever waits for the chunk goes on. */
  #go(chunk: number, paused: PausedChunk): void {
    if (this.#paused.get(chunk) === paused) this.#paused.delete(chunk)
    paused.end()
  }
}

class PausedChunk {
  /** The holder has given it up. */
  isHeld = false
  readonly whenDone: Promise<void>
  end: () => void = () => undefined

  constructor() {
    this.whenDone = new Promise((resolve) => {
      this.end = resolve
    })
  }
}

function inSyncServers(row: ChunkRow): number[] {
  return row.members.filter(({ role }) => role === 'in-sync').map(({ server }) => server)
}
