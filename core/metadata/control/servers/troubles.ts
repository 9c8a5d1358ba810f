/**
 * What the master knows against replicas: members that must leave, members that restarted uncleanly, and
 * servers that may not join a chunk yet (rule J6). Soft and bounded; the committed row decides everything
 * else, and a new master learns it again from reports.
 */
import type { Clock } from '../../../platform/clock.ts'

export type FailureKind = 'exists' | 'lost'

/**
 * Why nobody knows what a member holds. `unmarked`: it restarted, and its open list does not have what may have been
 * written. `rolled-back`: its disk went back in time.
 */
export type Doubt = 'process' | 'crashed' | 'unmarked' | 'rolled-back'

/** The higher, the later it is chosen as the authority (rules J1, J3, B3); 0: it went on. */
export const CRASHED_RANK_MIN = 2
const ranks: Readonly<Record<Doubt, number>> = { process: 1, crashed: 2, unmarked: 3, 'rolled-back': 4 }

interface ChunkTroubles {
  readonly failed: Map<number, FailureKind>
  readonly unclean: Map<number, Doubt>
}

interface Bar {
  untilMs: number
  count: number
}

const BAR_MS_MIN = 500
const BAR_MS_MAX = 300_000
/** A server that behaved this long after its bar ended starts again with the shortest one. */
const FORGIVE_MS = 600_000
const CHUNK_COUNT_MAX = 1_000_000
const BARRED_COUNT_MAX = 100_000

const nothingFailed: ReadonlyMap<number, FailureKind> = new Map()
const nobody: ReadonlyMap<number, Doubt> = new Map()

export class Troubles {
  readonly #clock: Clock
  readonly #chunks = new Map<number, ChunkTroubles>()
  readonly #barred = new Map<number, Map<number, Bar>>()

  constructor(clock: Clock) {
    this.#clock = clock
  }

  failedOf(chunk: number): ReadonlyMap<number, FailureKind> {
    return this.#chunks.get(chunk)?.failed ?? nothingFailed
  }

  uncleanOf(chunk: number): ReadonlyMap<number, Doubt> {
    return this.#chunks.get(chunk)?.unclean ?? nobody
  }

  rankOf(chunk: number, server: number): number {
    const doubt = this.uncleanOf(chunk).get(server)
    return doubt === undefined ? 0 : ranks[doubt]
  }

  *rolledBackChunks(): Generator<number, undefined> {
    for (const [chunk, { unclean }] of this.#chunks)
      if ([...unclean.values()].includes('rolled-back')) yield chunk
  }

  /** False: the bound is reached; the caller tries again when the chunk is looked at next. */
  addFailed(chunk: number, server: number, kind: FailureKind): boolean {
    const troubles = this.#of(chunk)
    troubles?.failed.set(server, kind)
    return troubles !== null
  }

  addUnclean(chunk: number, server: number, doubt: Doubt): boolean {
    const troubles = this.#of(chunk)
    troubles?.unclean.set(server, doubt)
    return troubles !== null
  }

  /** Nothing could be done about a member that exists (rule G2): it is tried again as it is. */
  forgive(chunk: number): void {
    const troubles = this.#chunks.get(chunk)
    if (troubles === undefined) return
    for (const [server, kind] of troubles.failed) if (kind === 'exists') troubles.failed.delete(server)
    this.#dropEmpty(chunk, troubles)
  }

  /**
   * An epoch became active: who left is no trouble any more, and whoever stayed was persisted or healed.
   * `stillUnclean`: restarted after it had persisted an epoch that did not heal anybody.
   */
  settle(chunk: number, stillUnclean: readonly number[] = []): void {
    const before = this.#chunks.get(chunk)
    this.#chunks.delete(chunk)
    for (const server of stillUnclean)
      this.addUnclean(chunk, server, before?.unclean.get(server) ?? 'process')
  }

  /** It registered again: its new report says what is wrong with it. */
  clearServer(server: number): void {
    for (const [chunk, troubles] of this.#chunks) {
      troubles.failed.delete(server)
      troubles.unclean.delete(server)
      this.#dropEmpty(chunk, troubles)
    }
  }

  /** Rule J6: each failure doubles the time until the server may join this chunk again. */
  bar(chunk: number, server: number): void {
    let servers = this.#barred.get(chunk)
    if (servers === undefined) {
      if (this.#barred.size >= BARRED_COUNT_MAX) this.#pruneBars()
      if (this.#barred.size >= BARRED_COUNT_MAX) return
      servers = new Map()
      this.#barred.set(chunk, servers)
    }
    const nowMs = this.#clock.nowMs()
    const before = servers.get(server)
    // Asked again and again while it is away: one failure. A server must not be barred for minutes by that.
    if (before !== undefined && nowMs < before.untilMs) return
    const count = before === undefined || nowMs - before.untilMs > FORGIVE_MS ? 1 : before.count + 1
    const pauseMs = Math.min(BAR_MS_MAX, BAR_MS_MIN * 2 ** Math.min(count - 1, 16))
    servers.set(server, { untilMs: nowMs + pauseMs, count })
  }

  barredOf(chunk: number): Set<number> {
    const nowMs = this.#clock.nowMs()
    const barred = new Set<number>()
    for (const [server, bar] of this.#barred.get(chunk) ?? []) if (bar.untilMs > nowMs) barred.add(server)
    return barred
  }

  /** When the next of the bars on this chunk ends; 0 = none. */
  barredUntilMs(chunk: number): number {
    const nowMs = this.#clock.nowMs()
    let untilMs = 0
    for (const bar of this.#barred.get(chunk)?.values() ?? []) {
      if (bar.untilMs > nowMs && (untilMs === 0 || bar.untilMs < untilMs)) untilMs = bar.untilMs
    }
    return untilMs
  }

  forget(chunk: number): void {
    this.#chunks.delete(chunk)
    this.#barred.delete(chunk)
  }

  #of(chunk: number): ChunkTroubles | null {
    let troubles = this.#chunks.get(chunk)
    if (troubles !== undefined) return troubles
    if (this.#chunks.size >= CHUNK_COUNT_MAX) return null
    troubles = { failed: new Map(), unclean: new Map() }
    this.#chunks.set(chunk, troubles)
    return troubles
  }

  #dropEmpty(chunk: number, troubles: ChunkTroubles): void {
    if (troubles.failed.size === 0 && troubles.unclean.size === 0) this.#chunks.delete(chunk)
  }

  #pruneBars(): void {
    const nowMs = this.#clock.nowMs()
    for (const [chunk, servers] of this.#barred) {
      for (const [server, bar] of servers) if (nowMs - bar.untilMs > FORGIVE_MS) servers.delete(server)
      if (servers.size === 0) this.#barred.delete(chunk)
    }
  }
}
