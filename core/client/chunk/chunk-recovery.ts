/**
 * What a chunk writer does when its epoch does not work: report the member that failed, ask for the epoch
 * again, or hold. Ends in a new epoch (`settled`), or in another try under the same one after a back-off.
 * One question to the master at a time.
 */
import { mark } from '../../base/coverage.ts'
import { codeOf } from '../../base/errors.ts'
import { CHUNK_SIZE_BYTES } from '../../base/units.ts'
import type { Timer } from '../../platform/clock.ts'
import type { ChunkLocation, ServerAddress } from '../../wire/messages/common.ts'
import type { ChunkWriter } from './chunk-writer.ts'
import { HOLD_BACKOFF_MS_MAX, HOLD_BACKOFF_MS_MIN, SAME_VERSION_COUNT_MAX } from '../session/limits.ts'

/** Answers that end the lease or the file as far as this client goes. */
const fatalCodes = new Set(['NO_LEASE', 'ESTALE', 'ENOENT', 'STALE_LEASE'])

interface LocatedAnswer {
  readonly locations: readonly ChunkLocation[]
  readonly servers: readonly ServerAddress[]
}

export class ChunkRecovery {
  readonly #writer: ChunkWriter
  #running = false
  /** Rises with every question and every end: late answers are told apart. */
  #round = 0
  #backoffMs = HOLD_BACKOFF_MS_MIN
  #timer: Timer | null = null
  /** How often the master confirmed a version that a member refused. */
  #sameVersionCount = 0

  constructor(writer: ChunkWriter) {
    this.#writer = writer
  }

  get isRunning(): boolean {
    return this.#running
  }

  /** Rule A1: a report is a request; the master checks for itself. */
  memberFailed(server: number, reason: string): void {
    if (!this.#begin()) return
    const { host, chunk, version } = this.#writer
    host.engine.counters.memberReports++
    host.engine.logger.warn('chunk member failed', { inode: host.inode, chunk, version, server, reason })
    this.#ask(
      host.engine.session.call(
        'chunk.report',
        { inode: host.inode, chunk, version, server, reason: reason.slice(0, 64), kind: 'failed' },
        { rejectTryAgain: true },
      ),
    )
  }

  /** Rule E4: a version mismatch means fetch the location again; for writing only the holder gets one (E3). */
  refresh(server: number, reason: string): void {
    if (this.#running) return
    if (++this.#sameVersionCount > SAME_VERSION_COUNT_MAX) {
      this.#sameVersionCount = 0
      this.memberFailed(server, reason)
      return
    }
    this.#begin()
    this.#grantAgain()
  }

  /** A server is starting or full of requests: the same again in a moment. */
  holdShortly(): void {
    if (this.#begin()) this.#holdThenResend()
  }

  /** Below `min` (rule A4): hold; `chunk.moved` normally ends it, asking makes sure. */
  awaitWritable(): void {
    mark('writes are held below the minimum')
    this.#begin()
    this.#timer?.cancel()
    const round = this.#round
    this.#timer = this.#writer.host.engine.clock.setTimer(this.#nextBackoffMs(), () => {
      if (round === this.#round) this.#grantAgain()
    })
  }

  /** A usable epoch has come. */
  settled(): void {
    this.#round++
    this.#timer?.cancel()
    this.#timer = null
    this.#running = false
  }

  /** Nothing is unanswered any more. */
  quiet(): void {
    this.#backoffMs = HOLD_BACKOFF_MS_MIN
    this.#sameVersionCount = 0
  }

  stop(): void {
    this.settled()
    this.quiet()
  }

  #begin(): boolean {
    if (this.#running) return false
    const writer = this.#writer
    this.#running = true
    this.#round++
    if (writer.phase === 'active') writer.phase = 'recovering'
    writer.giveBudgetBack()
    return true
  }

  #grantAgain(): void {
    const { host, index, limit } = this.#writer
    const sizeLimit = index * CHUNK_SIZE_BYTES + limit.grantedEnd
    this.#ask(
      host.engine.session.call(
        'intent.grant',
        {
          inode: host.inode,
          lease: host.leaseNumber,
          indexes: [index],
          sizeLimit,
          limits: [limit.grantedEnd],
        },
        { rejectTryAgain: true },
      ),
    )
  }

  #ask(question: Promise<LocatedAnswer>): void {
    const round = this.#round
    question.then(
      (answer) => this.#answered(round, answer),
      (error: unknown) => this.#failed(round, codeOf(error)),
    )
  }

  #answered(round: number, answer: LocatedAnswer): void {
    const writer = this.#writer
    writer.host.engine.pool.updateAddresses(answer.servers)
    if (round !== this.#round) return
    const location = answer.locations.find((candidate) => candidate.index === writer.index)
    if (location !== undefined) {
      writer.located(location)
      if (round !== this.#round) return
      if (!writer.writable) return this.awaitWritable()
    }
    this.#holdThenResend()
  }

  #failed(round: number, code: string): void {
    if (round !== this.#round) return
    if (fatalCodes.has(code)) return this.#writer.host.leaseEnded(code)
    this.#holdThenResend()
  }

  /** The master keeps the epoch (TRY_AGAIN): after a back-off the members get what they lack again. */
  #holdThenResend(): void {
    const writer = this.#writer
    const round = this.#round
    this.#timer?.cancel()
    this.#timer = writer.host.engine.clock.setTimer(this.#nextBackoffMs(), () => {
      if (round !== this.#round) return
      if (!writer.writable) return this.#grantAgain()
      this.settled()
      if (writer.phase === 'recovering') writer.phase = 'active'
      writer.resend()
      writer.flusher.resend()
      if (!writer.recovery.isRunning) writer.pump()
    })
  }

  #nextBackoffMs(): number {
    const { random } = this.#writer.host.engine
    const delayMs = this.#backoffMs
    this.#backoffMs = Math.min(HOLD_BACKOFF_MS_MAX, delayMs * 2)
    return delayMs * (0.75 + random.float() / 2)
  }
}
