/**
 * Write intents of one file: asked for in batches, at most INTENTS_PER_LEASE_MAX of them, the coldest
 * flushed and given back (rule L8). An intent is not used any more before its clear is asked for (L7).
 */
import type { CairnError } from '../../base/errors.ts'
import { CHUNK_SIZE_BYTES } from '../../base/units.ts'
import type { ChunkLocation } from '../../wire/messages/common.ts'
import type { ChunkWriter } from '../chunk/chunk-writer.ts'
import type { WriterHost } from '../chunk/writer-host.ts'
import { asCairnError, leaseLost, overloaded } from '../session/errors.ts'
import {
  HOLD_BACKOFF_MS_MAX,
  HOLD_BACKOFF_MS_MIN,
  INDEXES_PER_CALL_MAX,
  INTENTS_PER_CLEAR_MAX,
  INTENTS_PER_LEASE_MAX,
  INTENTS_RETURNED_AT_ONCE,
  SURRENDER_FLUSH_MS_MAX,
} from '../session/limits.ts'

const leaseEndCodes = new Set(['NO_LEASE', 'ESTALE', 'ENOENT', 'STALE_LEASE'])

export class Intents {
  readonly #host: WriterHost
  readonly #writers: ReadonlyMap<number, ChunkWriter>
  #wanted: ChunkWriter[] = []
  #scheduled = false
  /** New intents in questions without an answer. */
  #askedCount = 0
  /** Writers in questions without an answer. */
  readonly #inQuestion = new Set<ChunkWriter>()
  readonly #quietWaiters = new Set<{ readonly isQuiet: () => boolean; readonly resolve: () => void }>()
  /** Writers whose intents are on their way back, and in how many surrenders. */
  readonly #surrenders = new Map<ChunkWriter, number>()
  #backoffMs = HOLD_BACKOFF_MS_MIN

  constructor(host: WriterHost, writers: ReadonlyMap<number, ChunkWriter>) {
    this.#host = host
    this.#writers = writers
  }

  want(writer: ChunkWriter): void {
    this.#wanted.push(writer)
    this.#schedule(0)
  }

  #schedule(delayMs: number): void {
    if (this.#scheduled) return
    this.#scheduled = true
    const run = (): void => {
      this.#scheduled = false
      this.#ask()
    }
    if (delayMs === 0) this.#host.engine.clock.defer(run)
    else this.#host.engine.clock.setTimer(delayMs, run)
  }

  #ask(): void {
    const wanted = [...new Set(this.#wanted)].filter((writer) => this.#isWanted(writer))
    this.#wanted = []
    if (wanted.length === 0) return
    if (this.#host.leaseNumber === 0) {
      for (const writer of wanted) writer.refused(leaseLost(this.#host.inode))
      return
    }
    let granted = 0
    for (const writer of this.#writers.values()) if (writer.hasIntent) granted++
    const room = INTENTS_PER_LEASE_MAX - granted - this.#askedCount
    if (room < INDEXES_PER_CALL_MAX) this.#returnColdest()
    // Those that have an intent and want it to reach further need no room among the intents.
    const more = wanted.filter((writer) => writer.hasIntent)
    const fresh = wanted.filter((writer) => !writer.hasIntent)
    const batch = [...more, ...fresh.slice(0, Math.max(0, room))].slice(0, INDEXES_PER_CALL_MAX)
    this.#wanted = wanted.filter((writer) => !batch.includes(writer))
    if (batch.length > 0) this.#grant(batch)
    if (this.#wanted.length > 0) this.#schedule(batch.length > 0 ? 0 : HOLD_BACKOFF_MS_MIN)
  }

  /** False: it has ended, or asks again when it has a use for the answer. */
  #isWanted(writer: ChunkWriter): boolean {
    if (this.#inQuestion.has(writer)) return false
    // A writer of an ended lease has ended with it.
    if (writer.limit.isWanted && this.#writers.get(writer.index) === writer) return true
    writer.limit.isAsking = false
    return false
  }

  /**
   * What a reader was told of a chunk under an intent is not true any more: the news got lost on its way to us. For
   * writing only the holder gets a version (rule E3), so it is asked for as the intent is.
   */
  refresh(writer: ChunkWriter): void {
    if (writer.phase !== 'active' || this.#inQuestion.has(writer)) return
    this.#grant([writer], [writer.limit.grantedEnd])
  }

  #grant(
    batch: readonly ChunkWriter[],
    limits: number[] = batch.map((writer) => writer.limit.wantedEnd),
  ): void {
    const { engine, inode, leaseNumber } = this.#host
    const indexes = batch.map((writer) => writer.index)
    const sizeLimit = Math.max(...batch.map(({ index }, i) => index * CHUNK_SIZE_BYTES + (limits[i] ?? 0)))
    const freshCount = batch.filter((writer) => !writer.hasIntent).length
    this.#askedCount += freshCount
    for (const writer of batch) this.#inQuestion.add(writer)
    const ended = (): void => {
      this.#askedCount -= freshCount
      for (const writer of batch) this.#inQuestion.delete(writer)
    }
    engine.session
      .call(
        'intent.grant',
        { inode, lease: leaseNumber, indexes, sizeLimit, limits },
        { rejectTryAgain: true },
      )
      .then(
        (answer) => {
          ended()
          engine.pool.updateAddresses(answer.servers)
          if (this.#host.leaseNumber !== leaseNumber) return this.#again(batch)
          this.#backoffMs = HOLD_BACKOFF_MS_MIN
          for (const [i, location] of answer.locations.entries()) {
            this.#granted(location, answer.limits?.[i] ?? limits[indexes.indexOf(location.index)] ?? 0)
          }
          this.#again(batch)
        },
        (error: unknown) => {
          ended()
          this.#refused(batch, leaseNumber, asCairnError(error))
        },
      )
      .finally(() => this.#maybeQuiet())
  }

  #granted(location: ChunkLocation, limit: number): void {
    const writer = this.#writers.get(location.index)
    if (writer === undefined || writer.phase === 'none') return
    writer.limit.granted(limit)
    writer.located(location)
    writer.limit.tell()
    writer.pump()
  }

  /** What was not among the answers is asked for again. */
  #again(batch: readonly ChunkWriter[]): void {
    const left = batch.filter((writer) => this.#isWanted(writer))
    if (left.length === 0) return
    this.#wanted.push(...left)
    this.#schedule(this.#backoffMs)
    this.#backoffMs = Math.min(HOLD_BACKOFF_MS_MAX, this.#backoffMs * 2)
  }

  #refused(batch: readonly ChunkWriter[], leaseNumber: number, error: CairnError): void {
    if (this.#host.leaseNumber !== leaseNumber) return this.#again(batch)
    if (leaseEndCodes.has(error.code)) return this.#host.leaseEnded(error.code)
    if (error.retryable || error.code === 'TRY_AGAIN') return this.#again(batch)
    const wanted = batch.filter((writer) => this.#isWanted(writer))
    const only = wanted.length === 1 ? wanted[0] : undefined
    // Space that is promised to files nobody writes any more comes back first.
    if (error.code === 'ENOSPC' && this.#host.engine.returnIdleLeases()) return this.#again(batch)
    // Rule A2: refusal is said here. One chunk too many must not fail the others, nor what is asked for ahead
    // the writes that would fit.
    if (only === undefined) for (const writer of wanted) this.#grant([writer])
    else if (batch.length > 1 || (error.code === 'ENOSPC' && only.limit.tighten())) this.#grant([only])
    else if (only.hasIntent) only.refusedMore(error)
    else only.refused(error)
  }

  /** No question is on its way: what is cleared or unmapped now is not granted again by a late one (rule L7). */
  quiet(writers?: readonly ChunkWriter[]): Promise<void> {
    const isQuiet = (): boolean =>
      writers === undefined
        ? this.#inQuestion.size === 0
        : !writers.some((writer) => this.#inQuestion.has(writer))
    if (isQuiet()) return Promise.resolve()
    return new Promise((resolve) => this.#quietWaiters.add({ isQuiet, resolve }))
  }

  #maybeQuiet(): void {
    for (const waiter of this.#quietWaiters) {
      if (!waiter.isQuiet()) continue
      this.#quietWaiters.delete(waiter)
      waiter.resolve()
    }
  }

  /** Rule L8. */
  #returnColdest(): void {
    const idle = [...this.#writers.values()].filter((writer) => writer.phase === 'active' && !writer.isBusy)
    idle.sort((a, b) => a.lastUsedMs - b.lastUsedMs || a.index - b.index)
    this.surrender(idle.slice(0, INTENTS_RETURNED_AT_ONCE), SURRENDER_FLUSH_MS_MAX).catch(
      (error: unknown) => {
        this.#host.engine.logger.info('intents not returned', {
          inode: this.#host.inode,
          error: String(error),
        })
      },
    )
  }

  /**
   * Flushes and clears the intents of idle writers. Rejects when a flush failed; those intents are cleared too.
   * `giveUpAfterMs`: when the flushes take longer all of them stay; 0: without limit.
   */
  async surrender(writers: readonly ChunkWriter[], giveUpAfterMs: number): Promise<void> {
    if (writers.length === 0) return
    const { engine, inode, leaseNumber } = this.#host
    let errors: readonly (CairnError | null)[]
    let ready: readonly ChunkWriter[] = []
    try {
      errors = await this.#flushed(writers, giveUpAfterMs)
      await this.quiet(writers)
      // Without an intent the chunk is clean, and nobody looks for its highest byte after our death (rule F8).
      await this.#host.publish()
      // Another surrender may have ended meanwhile, and the writer have gone on.
      ready = writers.filter((writer) => writer.isSurrenderable)
      for (let at = 0; at < ready.length; at += INTENTS_PER_CLEAR_MAX) {
        const chunks = ready.slice(at, at + INTENTS_PER_CLEAR_MAX).map((writer) => writer.chunk)
        await engine.session.call('intent.clear', { inode, lease: leaseNumber, chunks })
      }
    } catch (error) {
      if (this.#host.leaseNumber === leaseNumber) {
        if (leaseEndCodes.has(asCairnError(error).code)) this.#host.leaseEnded(asCairnError(error).code)
        else for (const writer of writers) if (this.#surrenders.get(writer) === 1) writer.surrenderFailed()
      }
      throw error
    } finally {
      this.#surrenderEnded(writers)
    }
    if (this.#host.leaseNumber !== leaseNumber) return
    for (const writer of ready) writer.surrendered()
    const failed = errors.find((error) => error !== null)
    if (failed) throw failed
  }

  #flushed(writers: readonly ChunkWriter[], giveUpAfterMs: number): Promise<readonly (CairnError | null)[]> {
    const { clock } = this.#host.engine
    return new Promise((resolve, reject) => {
      const errors: (CairnError | null)[] = []
      const giveUp = (): void => reject(overloaded('flushes that are held'))
      const timer = giveUpAfterMs > 0 ? clock.setTimer(giveUpAfterMs, giveUp) : null
      for (const writer of writers) {
        this.#surrenders.set(writer, (this.#surrenders.get(writer) ?? 0) + 1)
        writer.surrender((error) => {
          errors.push(error)
          if (errors.length < writers.length) return
          timer?.cancel()
          resolve(errors)
        })
      }
    })
  }

  #surrenderEnded(writers: readonly ChunkWriter[]): void {
    for (const writer of writers) {
      const left = (this.#surrenders.get(writer) ?? 1) - 1
      if (left > 0) this.#surrenders.set(writer, left)
      else this.#surrenders.delete(writer)
    }
  }
}
