/**
 * One part of a read: inside one chunk, at most one data request long, asked of one in-sync member at a
 * time until one answers with bytes that verify.
 */
import { CairnError } from '../../base/errors.ts'
import { PAGE_SIZE_BYTES, REGION_SIZE_BYTES } from '../../base/units.ts'
import { verifyPageChecksums } from '../../wire/checksum.ts'
import { type DataAnswer, DataFlag, DataOp } from '../../wire/data.ts'
import type { ChunkLocation } from '../../wire/messages/common.ts'
import type { BudgetWaiter } from '../session/engine.ts'
import {
  BAD_READ_ROUNDS_MAX,
  HOLD_BACKOFF_MS_MAX,
  HOLD_BACKOFF_MS_MIN,
  READ_DEADLINE_MS,
} from '../session/limits.ts'
import { MemberRequest, type MemberRequestOwner } from '../chunk/member-request.ts'
import type { ReadOperation } from './read-operation.ts'

/** One request to one member at a time. */
export class ReadPart implements MemberRequestOwner, BudgetWaiter {
  readonly targetAt: number
  readonly length: number
  readonly #operation: ReadOperation
  readonly #index: number
  readonly #begin: number
  #location: ChunkLocation | null = null
  /** Members asked in this round, by place in the location. */
  #triedMask = 0
  #attempt = 0
  #isSent = false
  #sentMs = 0
  #memberIndex = 0
  #backoffMs = HOLD_BACKOFF_MS_MIN
  #badRounds = 0
  #sawBadPage = false
  #budgeted = false
  #ended = false

  constructor(operation: ReadOperation, index: number, begin: number, length: number, targetAt: number) {
    this.#operation = operation
    this.#index = index
    this.#begin = begin
    this.length = length
    this.targetAt = targetAt
  }

  start(): void {
    if (this.#ended) return
    const known = this.#operation.file.locationOf(this.#index)
    if (known !== undefined) return this.#located(known)
    this.#locate()
  }

  stop(): void {
    if (this.#ended) return
    this.#end(null, null, false)
  }

  #locate(): void {
    this.#operation.file.locations.locate(this.#index, (error, location) => {
      if (this.#ended) return
      if (error === null) return this.#located(location)
      if (error.retryable || error.code === 'TRY_AGAIN') return this.#later()
      this.#end(error, null, false)
    })
  }

  #located(location: ChunkLocation | null): void {
    if (location === null) return this.#end(null, null, true)
    this.#location = location
    this.#triedMask = 0
    this.#sawBadPage = false
    this.#next()
  }

  budgetFree(): void {
    if (!this.#ended && !this.#isSent) this.#next()
  }

  /** The next member that was not asked in this round. */
  #next(): void {
    const location = this.#location
    if (location === null || this.#ended) return
    const { engine, leaseNumber } = this.#operation.file
    const memberIndex = this.#choose(location)
    if (memberIndex < 0) return this.#roundEnded()
    if (!this.#budgeted) {
      if (!engine.budget.tryTake(this.length, this)) return
      this.#budgeted = true
    }
    const flags = leaseNumber === 0 ? 0 : DataFlag.holder
    const outgoing = MemberRequest.take(DataOp.read, flags, location.version, location.chunk, leaseNumber)
    outgoing.request.offset = this.#begin
    outgoing.request.length = this.length
    this.#triedMask |= 1 << memberIndex
    this.#memberIndex = memberIndex
    this.#isSent = true
    this.#sentMs = engine.clock.nowMs()
    const server = location.members[memberIndex]?.server ?? 0
    outgoing.send(engine.pool, server, this, memberIndex, ++this.#attempt)
  }

  /** In sync, not asked yet; spread by region so that parallel reads use all disks, unless one is busier. */
  #choose(location: ChunkLocation): number {
    const { pool, preferredServer } = this.#operation.file.engine
    const count = location.members.length
    const region = Math.floor(this.#begin / REGION_SIZE_BYTES) + this.#index
    let best = -1
    let bestLoad = Number.POSITIVE_INFINITY
    for (let i = 0; i < count; i++) {
      const at = (region + i) % count
      const member = location.members[at]
      if (member === undefined || member.role !== 'in-sync' || (this.#triedMask & (1 << at)) !== 0) continue
      const isDown = pool.isDown(member.server)
      if (member.server === preferredServer && !isDown) return at
      const load = pool.load(member.server) + (isDown ? 1_000_000 : 0)
      // A few requests of difference do not make up for losing the spread.
      if (best < 0 || load + 4 < bestLoad) {
        best = at
        bestLoad = load
      }
    }
    return best
  }

  memberAnswered(
    memberIndex: number,
    version: number,
    attempt: number,
    code: string,
    answer: DataAnswer | null,
    table: Buffer | null,
    payload: Buffer | null,
  ): void {
    const { engine } = this.#operation.file
    if (this.#ended || attempt !== this.#attempt || !this.#isSent) {
      if (payload !== null) engine.pool.release(payload)
      return
    }
    this.#isSent = false
    if (code !== '' || answer === null) {
      if (payload !== null) engine.pool.release(payload)
      return this.#refused(memberIndex, version, code)
    }
    if ((answer.flags & DataFlag.zeros) !== 0) {
      if (payload !== null) engine.pool.release(payload)
      return this.#end(null, null, true)
    }
    if (
      payload === null ||
      table === null ||
      payload.length !== this.length ||
      verifyPageChecksums(payload, this.#begin, table) !== -1
    ) {
      // Damaged on the way: the member has checked what it read.
      if (payload !== null) engine.pool.release(payload)
      engine.counters.readRetries++
      return this.#next()
    }
    this.#end(null, payload, false)
  }

  #refused(memberIndex: number, version: number, code: string): void {
    const { file } = this.#operation
    const { engine } = file
    const server = this.#location?.members[memberIndex]?.server ?? 0
    engine.counters.readRetries++
    switch (code) {
      case 'WRONG_VERSION':
      case 'NOT_IN_SYNC':
      case 'STALE_LEASE':
        // Rule E4: never the same version elsewhere.
        file.forgetLocation(this.#index)
        return this.#later()
      case 'BAD_CHECKSUM':
      case 'LOST_PAGE':
        engine.counters.badPages++
        this.#sawBadPage = true
        this.#report(server, version, code, 'bad-page')
        return this.#next()
      case 'DISCONNECTED':
      case 'OVERLOADED':
      case 'TRY_AGAIN':
      case 'STARTING':
        return this.#next()
      case 'EINVAL':
        return this.#end(new CairnError('EIO', `CS ${server} refused the read: ${code}`), null, false)
      default:
        this.#report(server, version, code, 'failed')
        return this.#next()
    }
  }

  /** Rules A1, R1: the master checks for itself; the answer is not waited for. */
  #report(server: number, version: number, reason: string, kind: 'failed' | 'bad-page'): void {
    const { engine, inode } = this.#operation.file
    const chunk = this.#location?.chunk ?? 0
    const page = Math.floor(this.#begin / PAGE_SIZE_BYTES)
    engine.counters.memberReports++
    engine.session
      .call(
        'chunk.report',
        { inode, chunk, version, server, reason, kind, ...(kind === 'bad-page' ? { page } : {}) },
        { rejectTryAgain: true },
      )
      .catch((error: unknown) => engine.logger.debug('report not answered', { error: String(error) }))
  }

  /** Every in-sync member was asked: hold, locate again, start over. */
  #roundEnded(): void {
    if (this.#sawBadPage && ++this.#badRounds >= BAD_READ_ROUNDS_MAX) {
      const { inode } = this.#operation.file
      this.#end(new CairnError('EIO', `inode ${inode}: a page verifies on no replica`), null, false)
      return
    }
    this.#operation.file.forgetLocation(this.#index)
    this.#later()
  }

  #later(): void {
    this.#giveBudgetBack()
    const { clock } = this.#operation.file.engine
    const delayMs = this.#backoffMs
    this.#backoffMs = Math.min(HOLD_BACKOFF_MS_MAX, delayMs * 2)
    clock.setTimer(delayMs, () => this.start())
  }

  sweep(nowMs: number): void {
    if (this.#ended || !this.#isSent || nowMs - this.#sentMs < READ_DEADLINE_MS) return
    this.#isSent = false
    this.#refused(this.#memberIndex, this.#location?.version ?? 0, 'TIMED_OUT')
  }

  #giveBudgetBack(): void {
    if (!this.#budgeted) return
    this.#budgeted = false
    this.#operation.file.engine.budget.give(this.length)
  }

  #end(error: CairnError | null, ownedPayload: Buffer | null, isZeros: boolean): void {
    this.#ended = true
    this.#giveBudgetBack()
    this.#operation.partEnded(this, error, ownedPayload, isZeros)
  }
}
