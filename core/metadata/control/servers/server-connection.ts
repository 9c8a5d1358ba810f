/** One registered chunk server as the master sees it now: soft state beside its committed row. */
import type { Peer } from '../../../wire/types.ts'
import type { Caller } from '../../../wire/types.ts'
import { type ChunkServerOrderMethods, chunkServerOrderMethods } from '../../../wire/messages/chunk.ts'
import { IdSet } from '../../state/columns/id-set.ts'

export interface RateSample {
  readonly atMs: number
  readonly counters: Readonly<Record<string, number>>
}

/** Rates are averages of this time (guide: "during the last 20 seconds"). */
export const RATE_WINDOW_MS = 20_000
const SAMPLE_COUNT_MAX = 32

export class ServerConnection {
  readonly server: number
  readonly peer: Peer
  readonly orders: Caller<ChunkServerOrderMethods>
  readonly incarnation: number
  /** May be told to create overlays. */
  readonly knowsOverlays: boolean
  /** A new process, after an unclean stop: what it does not have on its open list it says it has not written (rule B3). */
  readonly isRestarted: boolean
  /** Its disk went back in time and has fewer marks than it had: how many (rule B3). */
  readonly marksLeft: number | null
  /** The whole inventory has arrived: it may get orders. */
  isReported = false
  lastHeartbeatMs: number
  heartbeatCounter = 0
  totalBytes: number
  freeBytes: number
  flags = ''
  oldestIoAgeMs = 0
  /** Too many chunks have had bad pages there, or it takes no writes any more (rules R1, F7). */
  isFailing = false
  /** Replicas it reported so far, until the report ends. */
  reported: IdSet | null = new IdSet()
  /** Reported as not in sync though the quorum has them in sync: the promotion was lost. */
  unpromoted: { chunk: number; version: number }[] = []
  readonly samples = new RateSamples()
  /** Replicas to be verified next, as it said last; those that were taken are out (control/scrub/). */
  due: { chunk: number; ageMs: number }[] = []

  constructor(
    server: number,
    peer: Peer,
    facts: {
      incarnation: number
      totalBytes: number
      freeBytes: number
      nowMs: number
      knowsOverlays: boolean
      isRestarted: boolean
      marksLeft: number | null
    },
  ) {
    this.server = server
    this.peer = peer
    this.orders = peer.caller(chunkServerOrderMethods)
    this.incarnation = facts.incarnation
    this.knowsOverlays = facts.knowsOverlays
    this.isRestarted = facts.isRestarted
    this.marksLeft = facts.marksLeft
    this.totalBytes = facts.totalBytes
    this.freeBytes = facts.freeBytes
    this.lastHeartbeatMs = facts.nowMs
  }
}

/** Counters that only rise, sampled; gives averages over the window. */
export class RateSamples {
  #samples: RateSample[] = []

  get latest(): Readonly<Record<string, number>> {
    return this.#samples.at(-1)?.counters ?? {}
  }

  add(atMs: number, counters: Readonly<Record<string, number>>): void {
    const last = this.#samples.at(-1)
    // Many samples a second would push the old end of the window out.
    if (last !== undefined && atMs - last.atMs < RATE_WINDOW_MS / (SAMPLE_COUNT_MAX - 2)) this.#samples.pop()
    this.#samples.push({ atMs, counters })
    while (this.#samples.length > 2 && atMs - (this.#samples[1]?.atMs ?? atMs) >= RATE_WINDOW_MS) {
      this.#samples.shift()
    }
    if (this.#samples.length > SAMPLE_COUNT_MAX) this.#samples.shift()
  }

  /** Per second; 0 without two samples, or when the counter started again. */
  rate(name: string): number {
    const first = this.#samples[0]
    const last = this.#samples.at(-1)
    if (first === undefined || last === undefined || last.atMs <= first.atMs) return 0
    const difference = (last.counters[name] ?? 0) - (first.counters[name] ?? 0)
    return difference <= 0 ? 0 : (difference * 1000) / (last.atMs - first.atMs)
  }
}
