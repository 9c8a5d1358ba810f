/**
 * Writes to one chunk of one file under a lease and an intent.
 *
 *   none ──want──▶ granting ──located──▶ active ◀──────────── new epoch, or hold again ───┐
 *     ▲                                    │ member failed, wrong version, not writable    │
 *     └── surrendered ◀── surrendering ◀───┤                                               │
 *                                          └──────────────▶ recovering (chunk-recovery.ts) ┘
 *
 * Promises: a piece is acknowledged when all members of one active epoch answered under it (rule F3); a
 * piece that was sent anywhere ends on all members of an active epoch or the lease ends (rule E11); two
 * pieces in flight share no page (rule E9); nothing new is sent while an epoch change is awaited. An
 * unanswered request on a living connection is never repeated; after a broken one the pool drains (E5).
 */
import { mark } from '../../base/coverage.ts'
import { assert } from '../../base/assert.ts'
import { CairnError } from '../../base/errors.ts'
import type { DataAnswer } from '../../wire/data.ts'
import { DataOp } from '../../wire/data.ts'
import type { ChunkLocation, Member } from '../../wire/messages/common.ts'
import { ChunkFlusher, type FlushCallback } from './chunk-flusher.ts'
import { ChunkRecovery } from './chunk-recovery.ts'
import type { BudgetWaiter, Swept } from '../session/engine.ts'
import { FRAME_RETRY_COUNT_MAX, MEMBERS_MAX } from '../session/limits.ts'
import { MemberMarks, sameServers } from './member-marks.ts'
import { MemberRequest } from './member-request.ts'
import type { Piece } from './piece.ts'
import { PieceQueue } from './piece-queue.ts'
import { WriteLimit } from './write-limit.ts'
import type { WriterHost } from './writer-host.ts'

export type WriterPhase = 'none' | 'granting' | 'active' | 'recovering' | 'surrendering'

export class ChunkWriter implements Swept, BudgetWaiter {
  readonly host: WriterHost
  readonly index: number
  readonly marks = new MemberMarks()
  readonly flusher: ChunkFlusher
  readonly recovery: ChunkRecovery
  readonly limit: WriteLimit
  phase: WriterPhase = 'none'
  chunk = 0
  version = 0
  writable = false
  members: readonly Member[] = []
  lastUsedMs = 0
  /** At least one piece was sent, or it is kept on purpose (allocate). */
  wasUsed = false
  readonly #pieces = new PieceQueue()
  readonly #surrenders: FlushCallback[] = []

  constructor(host: WriterHost, index: number) {
    this.host = host
    this.index = index
    this.flusher = new ChunkFlusher(this)
    this.recovery = new ChunkRecovery(this)
    this.limit = new WriteLimit(this, this.#pieces)
  }

  get hasIntent(): boolean {
    return this.phase === 'active' || this.phase === 'recovering' || this.phase === 'surrendering'
  }

  get isBusy(): boolean {
    const { waitingCount, inFlightCount } = this.#pieces
    return waitingCount > 0 || inFlightCount > 0 || this.flusher.isRunning || this.limit.isReserving
  }

  get unansweredCount(): number {
    return this.#pieces.inFlightCount
  }

  submit(piece: Piece): void {
    this.#pieces.add(piece)
    this.lastUsedMs = this.host.engine.clock.nowMs()
    this.wantIntent()
    this.pump()
  }

  wantIntent(): void {
    if (this.phase !== 'none') return
    this.phase = 'granting'
    this.host.wantIntent(this)
  }

  /** Rule E10: is there an unended piece over these bytes that was issued before? */
  overlapsBefore(begin: number, end: number, sequence: number): boolean {
    return this.#pieces.overlapsBefore(begin, end, sequence)
  }

  // --- sending ---

  /** Starts whatever may start, in order of issue except for pieces that share no page. */
  pump(): void {
    if (this.phase !== 'active' || !this.writable) return
    this.#pieces.start(this.limit.grantedEnd, this.#mayStart, this.#startFirst)
    this.limit.maybeAsk()
  }

  readonly #mayStart = (piece: Piece): boolean => {
    piece.budgeted = this.host.engine.budget.tryTake(piece.payloadBytes, this)
    return piece.budgeted
  }

  readonly #startFirst = (piece: Piece): void => {
    this.host.engine.swept.add(this)
    this.limit.started(piece.writtenEnd)
    this.#start(piece)
  }

  budgetFree(): void {
    this.pump()
  }

  #start(piece: Piece): void {
    this.wasUsed = true
    piece.begins(this.version, this.members.length)
    for (let i = 0; i < this.members.length; i++) this.#sendTo(piece, i)
  }

  #sendTo(piece: Piece, memberIndex: number): void {
    const member = this.members[memberIndex]
    assert(member !== undefined && piece.version === this.version, 'a piece goes to members of its epoch')
    const { engine, leaseNumber } = this.host
    const op = piece.data === null ? DataOp.zero : DataOp.write
    const outgoing = MemberRequest.take(op, 0, this.version, this.chunk, leaseNumber)
    outgoing.request.offset = piece.begin
    outgoing.request.length = piece.end - piece.begin
    outgoing.table = piece.table
    outgoing.payload = piece.data
    piece.sentMask |= 1 << memberIndex
    piece.sentMs = engine.clock.nowMs()
    outgoing.send(engine.pool, member.server, piece, memberIndex, 0)
  }

  // --- answers ---

  pieceAnswered(
    piece: Piece,
    memberIndex: number,
    version: number,
    code: string,
    answer: DataAnswer | null,
    payload: Buffer | null,
  ): void {
    if (payload !== null) this.host.engine.pool.release(payload)
    // An answer to an earlier attempt says nothing about this one.
    if (piece.ended || version !== piece.version || version !== this.version) return
    const bit = 1 << memberIndex
    piece.sentMask &= ~bit
    const member = this.members[memberIndex]
    if (member === undefined || (piece.pendingMask & bit) === 0) return
    if (code !== '' || answer === null) return this.#memberRefused(piece, memberIndex, member.server, code)
    this.marks.answered(member.server, version, answer.incarnation, answer.crashes)
    piece.pendingMask &= ~bit
    if (piece.pendingMask === 0) this.#allAnswered(piece)
  }

  #allAnswered(piece: Piece): void {
    if (piece.lostMask !== 0) {
      const all = 2 ** this.members.length - 1
      // Nobody applied it: the members are equal. Otherwise those that could not merge must leave (E11).
      if (piece.lostMask === all) {
        this.#end(piece, new CairnError('EIO', 'part of a page that no replica can supply; write all of it'))
        return
      }
      for (let i = 0; i < this.members.length; i++) {
        if ((piece.lostMask & (1 << i)) === 0) continue
        piece.pendingMask |= 1 << i
        this.recovery.memberFailed((this.members[i] as Member).server, 'LOST_PAGE')
      }
      return
    }
    this.marks.acknowledged(piece.version)
    this.#end(piece, null)
  }

  #memberRefused(piece: Piece, memberIndex: number, server: number, code: string): void {
    const bit = 1 << memberIndex
    switch (code) {
      case 'DISCONNECTED':
      case 'TIMED_OUT':
        if ((piece.brokenMask & bit) === 0 && !this.recovery.isRunning) {
          // The pool connects again and drains first (rule E5).
          mark('an unanswered write is sent again after a drain')
          piece.brokenMask |= bit
          this.#sendTo(piece, memberIndex)
        } else {
          this.recovery.memberFailed(server, code)
        }
        return
      case 'FRAME_CHECKSUM':
        // Refused before anything was applied.
        if (piece.frameRetries++ < FRAME_RETRY_COUNT_MAX) this.#sendTo(piece, memberIndex)
        else this.recovery.memberFailed(server, code)
        return
      case 'WRONG_VERSION':
      case 'NOT_IN_SYNC':
        this.recovery.refresh(server, code)
        return
      case 'OVERLOADED':
      case 'TRY_AGAIN':
      case 'STARTING':
      // Rule S3: an overlay that nobody needs any more is still there for a moment. The replica is whole.
      case 'HAS_OVERLAY':
        this.recovery.holdShortly()
        return
      case 'STALE_LEASE':
        this.host.leaseEnded(code)
        return
      case 'LOST_PAGE':
        piece.lostMask |= bit
        piece.pendingMask &= ~bit
        if (piece.pendingMask === 0) this.#allAnswered(piece)
        return
      default:
        this.recovery.memberFailed(server, code)
    }
  }

  #end(piece: Piece, error: CairnError | null): void {
    this.#pieces.ended(piece)
    if (this.#pieces.inFlightCount === 0 && !this.flusher.isRunning) this.host.engine.swept.delete(this)
    piece.settle(error, this.host.engine.budget)
    if (this.#pieces.inFlightCount === 0) this.recovery.quiet()
    this.#maybeFlushLast()
    this.host.writerProgress(this)
    this.pump()
  }

  // --- epochs ---

  /**
   * A location from a grant, a report or `chunk.moved`. Older ones are ignored (rule E6). A newer one: all
   * that is unanswered goes to all members under the new version. True when it was news.
   */
  located(location: ChunkLocation): boolean {
    // Chunk ids only rise; so do the versions of one chunk.
    if (this.phase === 'none' || location.chunk < this.chunk) return false
    if (location.chunk === this.chunk && location.version < this.version) return false
    if (location.chunk !== this.chunk && this.chunk !== 0 && this.#pieces.inFlightCount > 0) {
      this.host.leaseEnded('the chunk was replaced under its intent')
      return false
    }
    const members = location.members.slice(0, MEMBERS_MAX)
    const isNew = location.version > this.version || location.chunk !== this.chunk
    const becameWritable = location.writable && !this.writable
    const changed = isNew && this.version !== 0 && location.chunk === this.chunk
    this.writable = location.writable
    if (isNew) {
      if (this.version !== 0) this.host.engine.counters.epochChanges++
      this.chunk = location.chunk
      this.version = location.version
      this.members = members
      this.marks.newEpoch(members)
      for (const piece of this.#pieces.inFlight()) piece.version = 0
    } else if (sameServers(this.members, members)) {
      // Joining to in sync does not change the version (rule E7).
      this.members = members
    }
    this.marks.located(this.members, this.version, location.lossVersion)
    if (isNew || becameWritable || this.phase === 'granting') this.#epochUsable(isNew)
    // Who holds unflushed bytes gets fewer with every change: sync them now, so that replacing the members
    // one after the other (a rolling restart) never leaves a flush without a witness (rule F5).
    if (changed && this.marks.isDirty) this.flusher.request(() => undefined)
    return isNew || becameWritable
  }

  #epochUsable(isNew: boolean): void {
    if (this.phase !== 'surrendering') this.phase = 'active'
    this.limit.tell()
    if (!this.writable) return this.recovery.awaitWritable()
    this.recovery.settled()
    if (!isNew) this.resend()
    else {
      for (const piece of this.#pieces.inFlight()) {
        if (piece.ended || piece.version === this.version) continue
        this.host.engine.counters.resentPieces++
        this.#start(piece)
      }
    }
    this.flusher.resend()
    this.pump()
  }

  /** The same epoch goes on: what has no request on the way is sent again (rule E5: the pool drains first). */
  resend(): void {
    for (const piece of this.#pieces.inFlight()) {
      if (piece.ended) continue
      if (piece.version !== this.version) {
        this.#start(piece)
        continue
      }
      piece.brokenMask = 0
      for (let i = 0; i < this.members.length; i++) {
        const bit = 1 << i
        if ((piece.pendingMask & bit) !== 0 && (piece.sentMask & bit) === 0) this.#sendTo(piece, i)
      }
    }
  }

  /** Rule A3: what waits for an epoch must not use up what healthy chunks need. */
  giveBudgetBack(): void {
    for (const piece of this.#pieces.inFlight()) piece.giveBack(this.host.engine.budget)
  }

  sweep(nowMs: number): void {
    this.flusher.sweep(nowMs)
    if (this.recovery.isRunning) return
    for (const piece of this.#pieces.inFlight()) {
      const member = piece.overdueMember(this.members, nowMs)
      // The request stays on its way: a late answer still counts.
      if (member !== null) return this.recovery.memberFailed(member.server, 'TIMED_OUT')
    }
  }

  // --- ends ---

  /** The intent was refused (ENOSPC, …): nothing of these was sent. */
  refused(error: CairnError): void {
    this.phase = 'none'
    for (const piece of this.#pieces.takeWaiting()) piece.settle(error, this.host.engine.budget)
    this.limit.refused(error)
    this.flusher.pump()
    this.host.writerProgress(this)
  }

  /** The intent does not reach further: what goes beyond was never sent. */
  refusedMore(error: CairnError): void {
    this.limit.refused(error)
    for (const piece of this.#pieces.takeWaitingBehind(this.limit.grantedEnd))
      piece.settle(error, this.host.engine.budget)
    this.host.writerProgress(this)
    this.pump()
  }

  /**
   * Rule L7: the intent is not used any more; pieces that come meanwhile wait. Those that were sent end first (E5): a
   * flush covers what was answered before, and without the intent nobody knows that members may differ.
   */
  surrender(callback: FlushCallback): void {
    this.phase = 'surrendering'
    this.#surrenders.push(callback)
    this.#maybeFlushLast()
  }

  #maybeFlushLast(): void {
    if (this.#pieces.inFlightCount > 0) return
    for (const callback of this.#surrenders.splice(0)) this.flusher.request(callback)
  }

  /** Nothing of it is on its way, and nothing more will be sent under it. */
  get isSurrenderable(): boolean {
    return this.phase === 'surrendering' && this.#pieces.inFlightCount === 0
  }

  /** The master has cleared the intent (or it has ended otherwise, with nothing in flight). */
  surrendered(): void {
    this.recovery.stop()
    this.phase = 'none'
    this.limit.reset()
    this.marks.clear()
    this.flusher.end(null)
    this.host.writerSurrendered(this)
    if (this.#pieces.waitingCount > 0 || this.limit.isReserving) this.wantIntent()
  }

  /** The clear did not come about: the intent goes on. */
  surrenderFailed(): void {
    if (this.phase !== 'surrendering') return
    this.#surrenders.length = 0
    this.phase = this.recovery.isRunning ? 'recovering' : 'active'
    this.flusher.pump()
    this.pump()
  }

  /** A cancelled operation: pieces that were never sent go away. */
  withdraw(piece: Piece, error: CairnError): void {
    if (!this.#pieces.withdraw(piece)) return
    piece.settle(error, this.host.engine.budget)
    this.host.writerProgress(this)
    this.pump()
  }

  isUnsent(piece: Piece): boolean {
    return this.#pieces.isWaiting(piece)
  }

  /** Rule E3: the lease is gone; nothing is sent again. */
  end(error: CairnError): void {
    this.recovery.stop()
    this.host.engine.swept.delete(this)
    this.phase = 'none'
    this.marks.clear()
    for (const piece of this.#pieces.takeAll()) if (!piece.ended) piece.settle(error, this.host.engine.budget)
    for (const callback of this.#surrenders.splice(0)) callback(error)
    this.flusher.end(error)
    this.limit.refused(error)
    this.limit.reset()
  }
}
