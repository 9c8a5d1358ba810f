/**
 * Write intents of one file: asked for in batches, at most INTENTS_PER_LEASE_MAX of them, the coldest
 * flushed and given back (rule L8). An intent is not used any more before its clear is asked for (L7).
 */
import type { CairnError } from '../base/errors.ts'
import type { ChunkWriter } from './chunk-writer.ts'
import type { WriterHost } from './writer-host.ts'
import { asCairnError, leaseLost } from './errors.ts'
import {
  HOLD_BACKOFF_MS_MAX,
  HOLD_BACKOFF_MS_MIN,
  INDEXES_PER_CALL_MAX,
  INTENTS_PER_CLEAR_MAX,
  INTENTS_PER_LEASE_MAX,
  INTENTS_RETURNED_AT_ONCE,
} from './limits.ts'

const leaseEndCodes = new Set(['NO_LEASE', 'ESTALE', 'ENOENT', 'STALE_LEASE'])

export class Intents {
  readonly #host: WriterHost
  readonly #writers: ReadonlyMap<number, ChunkWriter>
  #wanted: ChunkWriter[] = []
  #scheduled = false
  /** In questions without an answer. */
  #askedCount = 0
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
    const wanted = this.#wanted.filter((writer) => writer.phase === 'granting')
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
    if (room <= 0) {
      this.#wanted = wanted
      this.#schedule(HOLD_BACKOFF_MS_MIN)
      return
    }
    const batch = wanted.slice(0, Math.min(INDEXES_PER_CALL_MAX, room))
    this.#wanted = wanted.slice(batch.length)
    this.#grant(batch)
    if (this.#wanted.length > 0) this.#schedule(0)
  }

  #grant(batch: readonly ChunkWriter[]): void {
    const { engine, inode, leaseNumber } = this.#host
    const indexes = batch.map((writer) => writer.index)
    const sizeLimit = batch.reduce((limit, writer) => Math.max(limit, writer.sizeLimit), 0)
    this.#askedCount += batch.length
    engine.session
      .call('intent.grant', { inode, lease: leaseNumber, indexes, sizeLimit }, { rejectTryAgain: true })
      .then(
        (answer) => {
          this.#askedCount -= batch.length
          engine.pool.updateAddresses(answer.servers)
          if (this.#host.leaseNumber !== leaseNumber) return this.#again(batch)
          this.#backoffMs = HOLD_BACKOFF_MS_MIN
          for (const location of answer.locations) this.#writers.get(location.index)?.located(location)
          this.#again(batch)
        },
        (error: unknown) => {
          this.#askedCount -= batch.length
          this.#refused(batch, leaseNumber, asCairnError(error))
        },
      )
  }

  /** What was not among the answers is asked for again. */
  #again(batch: readonly ChunkWriter[]): void {
    // A writer of an ended lease has ended with it.
    const left = batch.filter(
      (writer) => writer.phase === 'granting' && this.#writers.get(writer.index) === writer,
    )
    if (left.length === 0) return
    this.#wanted.push(...left)
    this.#schedule(this.#backoffMs)
    this.#backoffMs = Math.min(HOLD_BACKOFF_MS_MAX, this.#backoffMs * 2)
  }

  #refused(batch: readonly ChunkWriter[], leaseNumber: number, error: CairnError): void {
    if (this.#host.leaseNumber !== leaseNumber) return this.#again(batch)
    if (leaseEndCodes.has(error.code)) return this.#host.leaseEnded(error.code)
    if (error.retryable || error.code === 'TRY_AGAIN') return this.#again(batch)
    // Rule A2: refusal is said here. One chunk too many must not fail the others.
    if (batch.length > 1) for (const writer of batch) this.#grant([writer])
    else batch[0]?.refused(error)
  }

  /** Rule L8. */
  #returnColdest(): void {
    const idle = [...this.#writers.values()].filter((writer) => writer.phase === 'active' && !writer.isBusy)
    idle.sort((a, b) => a.lastUsedMs - b.lastUsedMs || a.index - b.index)
    this.surrender(idle.slice(0, INTENTS_RETURNED_AT_ONCE)).catch((error: unknown) => {
      this.#host.engine.logger.info('intents not returned', { inode: this.#host.inode, error: String(error) })
    })
  }

  /** Flushes and clears the intents of idle writers. Rejects when a flush failed; those intents are cleared too. */
  async surrender(writers: readonly ChunkWriter[]): Promise<void> {
    if (writers.length === 0) return
    const { engine, inode, leaseNumber } = this.#host
    const flushes = writers.map(
      (writer) => new Promise<CairnError | null>((resolve) => writer.surrender(resolve)),
    )
    const errors = await Promise.all(flushes)
    try {
      for (let at = 0; at < writers.length; at += INTENTS_PER_CLEAR_MAX) {
        const chunks = writers.slice(at, at + INTENTS_PER_CLEAR_MAX).map((writer) => writer.chunk)
        await engine.session.call('intent.clear', { inode, lease: leaseNumber, chunks })
      }
    } catch (error) {
      if (this.#host.leaseNumber === leaseNumber) {
        if (leaseEndCodes.has(asCairnError(error).code)) this.#host.leaseEnded(asCairnError(error).code)
        else for (const writer of writers) writer.surrenderFailed()
      }
      throw error
    }
    if (this.#host.leaseNumber !== leaseNumber) return
    for (const writer of writers) writer.surrendered()
    const failed = errors.find((error) => error !== null)
    if (failed) throw failed
  }
}
