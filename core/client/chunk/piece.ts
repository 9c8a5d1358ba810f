/**
 * A part of a write (or zeroing) inside one chunk, at most one data request long. It is sent to all members
 * of the chunk's active epoch and ends when all of them have answered under one version (rule F3).
 */
import { PAGE_SIZE_BYTES } from '../../base/units.ts'
import type { DataAnswer } from '../../wire/data.ts'
import type { ChunkWriter } from './chunk-writer.ts'
import type { CairnError } from '../../base/errors.ts'
import { pageChecksums } from '../../wire/checksum.ts'
import type { ByteBudget } from '../session/engine.ts'
import { JOINER_DEADLINE_MS, WRITE_DEADLINE_MS } from '../session/limits.ts'
import type { MemberRequestOwner } from './member-request.ts'
import type { Member } from '../../wire/messages/common.ts'

export interface PieceOwner {
  /** Exactly once for each piece. */
  pieceEnded(piece: Piece, error: CairnError | null): void
}

export class Piece implements MemberRequestOwner {
  readonly owner: PieceOwner
  readonly writer: ChunkWriter
  /** Of the operation: order of issue. */
  readonly sequence: number
  /** Offsets in the chunk. */
  readonly begin: number
  readonly end: number
  /** Zeroing takes no room and makes no size. */
  readonly writtenEnd: number
  /** Null: zeroing. Borrowed from the caller until the piece has ended, or a copy after a cancel (rule E11). */
  data: Buffer | null
  #table: Uint32Array | null = null

  /** Epoch of the current attempt; 0: never sent. */
  version = 0
  /** Members that have not answered "ok" in this attempt. */
  pendingMask = 0
  /** Members with a request on the way. */
  sentMask = 0
  /** Members whose connection broke once in this attempt. */
  brokenMask = 0
  /** Members that cannot merge a partial write into a lost page (rule J7). */
  lostMask = 0
  frameRetries = 0
  sentMs = 0
  /** Counts in the budget of bytes in flight. */
  budgeted = false
  ended = false

  constructor(
    owner: PieceOwner,
    writer: ChunkWriter,
    sequence: number,
    begin: number,
    end: number,
    data: Buffer | null,
  ) {
    this.owner = owner
    this.writer = writer
    this.sequence = sequence
    this.begin = begin
    this.end = end
    this.data = data
    this.writtenEnd = data === null ? 0 : end
  }

  get payloadBytes(): number {
    return this.data === null ? 0 : this.data.length
  }

  /** Computed once, used for all members and all attempts (rule P5). */
  get table(): Uint32Array | null {
    if (this.data === null) return null
    this.#table ??= pageChecksums(this.data, this.begin)
    return this.#table
  }

  /** Another attempt, with nothing sent or answered yet. */
  begins(version: number, memberCount: number): void {
    this.version = version
    this.pendingMask = 2 ** memberCount - 1
    this.sentMask = 0
    this.brokenMask = 0
    this.lostMask = 0
    this.frameRetries = 0
  }

  giveBack(budget: ByteBudget): void {
    if (this.budgeted) budget.give(this.payloadBytes)
    this.budgeted = false
  }

  settle(error: CairnError | null, budget: ByteBudget): void {
    this.ended = true
    this.giveBack(budget)
    this.owner.pieceEnded(this, error)
    this.data = null
  }

  /** Rule E9: do the two share a 4 KiB page? */
  sharesPageWith(other: Piece): boolean {
    return (
      Math.floor(this.begin / PAGE_SIZE_BYTES) < Math.ceil(other.end / PAGE_SIZE_BYTES) &&
      Math.floor(other.begin / PAGE_SIZE_BYTES) < Math.ceil(this.end / PAGE_SIZE_BYTES)
    )
  }

  overlaps(begin: number, end: number): boolean {
    return this.begin < end && begin < this.end
  }

  /** A member that has had this piece for too long (joiners sooner, rule J6). */
  overdueMember(members: readonly Member[], nowMs: number): Member | null {
    const ageMs = nowMs - this.sentMs
    if (this.sentMask === 0 || ageMs < JOINER_DEADLINE_MS) return null
    for (let i = 0; i < members.length; i++) {
      const member = members[i] as Member
      if ((this.sentMask & this.pendingMask & (1 << i)) === 0) continue
      if (member.role !== 'in-sync' || ageMs >= WRITE_DEADLINE_MS) return member
    }
    return null
  }

  memberAnswered(
    memberIndex: number,
    version: number,
    _tag: number,
    code: string,
    answer: DataAnswer | null,
    _table: Buffer | null,
    payload: Buffer | null,
  ): void {
    this.writer.pieceAnswered(this, memberIndex, version, code, answer, payload)
  }
}
