/**
 * One read of a file: split into parts inside chunks, each from one in-sync member, gathered into one
 * buffer. Every payload is checked against its page table; what does not verify, or does not come, is
 * read from another member (rules E4, R1, P5). Holes and missing chunks are zeros. A read over bytes of
 * our own unended writes waits for them (E10). Under a lease the answer is passed on only while the
 * session is confirmed, checked after the data has arrived (L2, L6).
 */
import { CairnError } from '../base/errors.ts'
import {
  CHUNK_SIZE_BYTES,
  DATA_PAYLOAD_BYTES_MAX,
  PAGE_SIZE_BYTES,
  REGION_SIZE_BYTES,
} from '../base/units.ts'
import { verifyPageChecksums } from '../wire/checksum.ts'
import { type DataAnswer, DataFlag, DataOp } from '../wire/data.ts'
import type { ChunkLocation } from '../wire/messages/common.ts'
import type { Operation, ReadCallback } from './api.ts'
import type { BudgetWaiter, Swept } from './engine.ts'
import { cancelled, leaseLost } from './errors.ts'
import type { FileState } from './file-state.ts'
import { BAD_READ_ROUNDS_MAX, HOLD_BACKOFF_MS_MAX, HOLD_BACKOFF_MS_MIN, READ_DEADLINE_MS } from './limits.ts'
import { MemberRequest, type MemberRequestOwner } from './member-request.ts'

const EMPTY = Buffer.alloc(0)

export class ReadOperation implements Operation, Swept {
  readonly file: FileState
  readonly offset: number
  readonly length: number
  readonly sequence: number
  readonly startedMs: number
  #callback: ReadCallback | null
  #parts: ReadPart[] = []
  #unended = 0
  #error: CairnError | null = null
  /** Result: gathered, or the payload of the only part (which goes back to its pool). */
  #buffer: Buffer | null = null
  #ownedPayload: Buffer | null = null
  #leaseNumber = 0
  /** Read-ahead serves the program's reads; its own loads do not count as such. */
  readonly #isCounted: boolean

  constructor(file: FileState, offset: number, length: number, isCounted: boolean, callback: ReadCallback) {
    this.file = file
    this.offset = offset
    this.length = length
    this.#isCounted = isCounted
    this.#callback = callback
    this.sequence = file.engine.nextSequence()
    this.startedMs = file.engine.clock.nowMs()
  }

  get isOver(): boolean {
    return this.#callback === null
  }

  /** The caller has clipped the range to the size. */
  start(): void {
    if (this.file.dead) return this.#finish(leaseLost(this.file.inode))
    if (this.length === 0) return this.#finish(null)
    this.file.engine.swept.add(this)
    this.#leaseNumber = this.file.leaseNumber
    if (!this.mustWait()) return this.#read()
    this.file.waitingReads.add(this)
  }

  /** Rule E10. */
  mustWait(): boolean {
    const { file, offset, length, sequence } = this
    const end = offset + length
    if (file.unfinishedWrites.size === 0) return file.gateOverlaps(offset, end, sequence)
    for (let at = offset; at < end; ) {
      const index = Math.floor(at / CHUNK_SIZE_BYTES)
      const chunkAt = index * CHUNK_SIZE_BYTES
      const stop = Math.min(end, chunkAt + CHUNK_SIZE_BYTES)
      if (file.writers.get(index)?.overlapsBefore(at - chunkAt, stop - chunkAt, sequence) === true)
        return true
      at = stop
    }
    return file.gateOverlaps(offset, end, sequence)
  }

  writesEnded(): void {
    if (!this.isOver && this.mustWait()) return
    this.file.waitingReads.delete(this)
    if (!this.isOver) this.#read()
  }

  #read(): void {
    const end = this.offset + this.length
    for (let at = this.offset; at < end; ) {
      const index = Math.floor(at / CHUNK_SIZE_BYTES)
      const begin = at - index * CHUNK_SIZE_BYTES
      const length = Math.min(end - at, CHUNK_SIZE_BYTES - begin, DATA_PAYLOAD_BYTES_MAX)
      this.#parts.push(new ReadPart(this, index, begin, length, at - this.offset))
      at += length
    }
    this.#unended = this.#parts.length
    if (this.#unended > 1) this.#buffer = Buffer.allocUnsafe(this.length)
    for (const part of this.#parts) part.start()
  }

  partEnded(part: ReadPart, error: CairnError | null, ownedPayload: Buffer | null, isZeros: boolean): void {
    if (error !== null) this.#error ??= error
    if (this.#buffer === null) {
      if (ownedPayload !== null) {
        this.#ownedPayload = ownedPayload
        this.#buffer = ownedPayload
      } else if (isZeros) {
        this.#buffer = Buffer.alloc(this.length)
      }
    } else if (ownedPayload !== null) {
      ownedPayload.copy(this.#buffer, part.targetAt)
      this.file.engine.pool.release(ownedPayload)
    } else if (isZeros) {
      this.#buffer.fill(0, part.targetAt, part.targetAt + part.length)
    }
    if (--this.#unended === 0) this.#arrived()
  }

  /** Rules L2, L6. */
  #arrived(): void {
    const { file } = this
    if (this.isOver || this.#error !== null || this.#leaseNumber === 0) return this.#finish(this.#error)
    if (this.#leaseNumber === file.leaseNumber && file.engine.session.isConfirmed()) return this.#finish(null)
    if (this.#leaseNumber !== file.leaseNumber) return this.#readAgain()
    file.engine.session.whenConfirmed((alive) => {
      if (this.isOver) return this.#finish(null)
      if (alive && this.#leaseNumber === file.leaseNumber) this.#finish(null)
      else this.#readAgain()
    })
  }

  /** The lease under which this was read is gone: read as everybody. */
  #readAgain(): void {
    this.#giveBack()
    this.#parts = []
    this.start()
  }

  #giveBack(): void {
    if (this.#ownedPayload !== null) this.file.engine.pool.release(this.#ownedPayload)
    this.#ownedPayload = null
    this.#buffer = null
  }

  #finish(error: CairnError | null): void {
    const { engine } = this.file
    engine.swept.delete(this)
    this.file.waitingReads.delete(this)
    const callback = this.#callback
    this.#callback = null
    if (callback !== null) {
      if (error === null && this.#isCounted)
        engine.counters.readDone(this.length, engine.clock.nowMs() - this.startedMs)
      callback(error, error === null ? (this.#buffer ?? EMPTY) : EMPTY)
    }
    this.#giveBack()
  }

  cancel(): void {
    this.giveUp(cancelled())
  }

  giveUp(error: CairnError): void {
    const callback = this.#callback
    if (callback === null) return
    this.#callback = null
    this.file.engine.swept.delete(this)
    this.file.waitingReads.delete(this)
    for (const part of this.#parts) part.stop()
    callback(error, EMPTY)
    if (this.#unended === 0) this.#giveBack()
  }

  sweep(nowMs: number): void {
    for (const part of this.#parts) part.sweep(nowMs)
  }
}

/** One request to one member at a time. */
class ReadPart implements MemberRequestOwner, BudgetWaiter {
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
    const { pool } = this.#operation.file.engine
    const count = location.members.length
    const region = Math.floor(this.#begin / REGION_SIZE_BYTES) + this.#index
    let best = -1
    let bestLoad = Number.POSITIVE_INFINITY
    for (let i = 0; i < count; i++) {
      const at = (region + i) % count
      const member = location.members[at]
      if (member === undefined || member.role !== 'in-sync' || (this.#triedMask & (1 << at)) !== 0) continue
      const load = pool.load(member.server) + (pool.isDown(member.server) ? 1_000_000 : 0)
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
    const { engine, locations } = this.#operation.file
    const server = this.#location?.members[memberIndex]?.server ?? 0
    engine.counters.readRetries++
    switch (code) {
      case 'WRONG_VERSION':
      case 'NOT_IN_SYNC':
      case 'STALE_LEASE':
        // Rule E4: never the same version elsewhere.
        locations.forget(this.#index)
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
    this.#operation.file.locations.forget(this.#index)
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
