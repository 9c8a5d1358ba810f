/**
 * Flush of one chunk: to every member of the epoch that has unflushed writes of ours, joining ones too
 * (rule F2), naming the incarnation of those writes (F6). Done when all of them answered under one epoch
 * (F3); without a member that held everything without a host crash it fails once (F5). Requests that
 * arrive while a round runs share the next one.
 */
import type { CairnError } from '../../base/errors.ts'
import type { DataAnswer } from '../../wire/data.ts'
import { DataOp } from '../../wire/data.ts'
import type { Member } from '../../wire/messages/common.ts'
import type { ChunkWriter } from './chunk-writer.ts'
import { dataLost } from '../session/errors.ts'
import { FLUSH_DEADLINE_MS, JOINER_FLUSH_DEADLINE_MS } from '../session/limits.ts'
import { MemberRequest, type MemberRequestOwner } from './member-request.ts'

export type FlushCallback = (error: CairnError | null) => void

export class ChunkFlusher implements MemberRequestOwner {
  readonly #writer: ChunkWriter
  /** Wait for the next round, and for the one that runs. */
  #waiting: FlushCallback[] = []
  #served: FlushCallback[] = []
  #isRunning = false
  /** Rises with every attempt: tells late answers apart. */
  #attempt = 0
  #coversNumber = 0
  #version = 0
  #pendingMask = 0
  #sentMask = 0
  #brokenMask = 0
  #sentMs = 0
  #intact = false

  constructor(writer: ChunkWriter) {
    this.#writer = writer
  }

  get isRunning(): boolean {
    return this.#isRunning || this.#waiting.length > 0
  }

  /** Covers every write answered before. `callback` may run at once when nothing is unflushed. */
  request(callback: FlushCallback): void {
    if (!this.#writer.marks.isDirty && !this.isRunning) return callback(null)
    this.#waiting.push(callback)
    this.pump()
  }

  /** Starts a round when one is wanted and the epoch is usable. */
  pump(): void {
    const { phase } = this.#writer
    if (this.#isRunning || this.#waiting.length === 0) return
    if (phase === 'recovering' || phase === 'granting') return
    this.#isRunning = true
    this.#served = this.#waiting
    this.#waiting = []
    this.#writer.host.engine.swept.add(this.#writer)
    this.#start()
  }

  /** The epoch can be used (again): under a new version all of it again, else what has no request on its way. */
  resend(): void {
    if (!this.#isRunning) return this.pump()
    if (this.#version !== this.#writer.version) return this.#start()
    this.#brokenMask = 0
    for (let i = 0; i < this.#writer.members.length; i++) {
      const bit = 1 << i
      if ((this.#pendingMask & bit) !== 0 && (this.#sentMask & bit) === 0) this.#sendTo(i)
    }
  }

  sweep(nowMs: number): void {
    if (!this.#isRunning || this.#writer.recovery.isRunning) return
    const ageMs = nowMs - this.#sentMs
    for (let i = 0; i < this.#writer.members.length; i++) {
      if ((this.#pendingMask & this.#sentMask & (1 << i)) === 0) continue
      const member = this.#writer.members[i] as Member
      if (ageMs < (member.role === 'in-sync' ? FLUSH_DEADLINE_MS : JOINER_FLUSH_DEADLINE_MS)) continue
      this.#writer.recovery.memberFailed(member.server, 'TIMED_OUT')
      return
    }
  }

  /** Nothing more is sent; who waits gets `error` (null: there is nothing left to flush). */
  end(error: CairnError | null): void {
    const callbacks = [...this.#served, ...this.#waiting]
    this.#served = []
    this.#waiting = []
    this.#isRunning = false
    this.#attempt++
    for (const callback of callbacks) callback(error)
  }

  #start(): void {
    const { members, marks, version } = this.#writer
    this.#attempt++
    this.#version = version
    this.#coversNumber = marks.number
    this.#pendingMask = 0
    this.#sentMask = 0
    this.#brokenMask = 0
    // Nothing acknowledged is covered: nothing can be lost.
    this.#intact = !marks.hasAcknowledged || marks.hasDurableHeir
    for (let i = 0; i < members.length; i++) {
      if (marks.get((members[i] as Member).server) !== undefined) this.#pendingMask |= 1 << i
    }
    const wanted = this.#pendingMask
    if (wanted === 0) return this.#finish()
    for (let i = 0; i < members.length; i++) if ((wanted & (1 << i)) !== 0) this.#sendTo(i)
  }

  #sendTo(memberIndex: number): void {
    const { host, members, marks, chunk } = this.#writer
    const { server } = members[memberIndex] as Member
    const outgoing = MemberRequest.take(DataOp.flush, 0, this.#version, chunk, host.leaseNumber)
    outgoing.request.incarnation = marks.get(server)?.incarnation ?? 0
    this.#sentMask |= 1 << memberIndex
    this.#sentMs = host.engine.clock.nowMs()
    outgoing.send(host.engine.pool, server, this, memberIndex, this.#attempt)
  }

  memberAnswered(
    memberIndex: number,
    _version: number,
    attempt: number,
    code: string,
    answer: DataAnswer | null,
    _table: Buffer | null,
    payload: Buffer | null,
  ): void {
    if (payload !== null) this.#writer.host.engine.pool.release(payload)
    // An answer under an earlier epoch says nothing about this one, whose members may be others.
    if (attempt !== this.#attempt || !this.#isRunning || this.#version !== this.#writer.version) return
    const bit = 1 << memberIndex
    const member = this.#writer.members[memberIndex]
    this.#sentMask &= ~bit
    if (member === undefined || (this.#pendingMask & bit) === 0) return
    if (code !== '' || answer === null) return this.#refused(memberIndex, member.server, code, answer)
    const { incarnation, crashes } = answer
    if (this.#writer.marks.heldEverything(member.server, member.role, incarnation, crashes))
      this.#intact = true
    this.#pendingMask &= ~bit
    if (this.#pendingMask === 0) this.#finish()
  }

  #refused(memberIndex: number, server: number, code: string, answer: DataAnswer | null): void {
    const { recovery, marks, host } = this.#writer
    const bit = 1 << memberIndex
    switch (code) {
      case 'DISCONNECTED':
      case 'TIMED_OUT':
        if ((this.#brokenMask & bit) === 0 && !recovery.isRunning) {
          this.#brokenMask |= bit
          this.#sendTo(memberIndex)
        } else {
          recovery.memberFailed(server, code)
        }
        return
      case 'WRONG_INCARNATION': {
        const mark = marks.get(server)
        // Rule F6. Only when the quorum has taken it back under a later epoch may it go on.
        if (mark !== undefined && answer !== null && this.#version > mark.lastVersion) {
          marks.restarted(mark, answer.incarnation, answer.crashes)
          mark.lastVersion = this.#version
          this.#sendTo(memberIndex)
        } else {
          recovery.memberFailed(server, code)
        }
        return
      }
      case 'WRONG_VERSION':
      case 'NOT_IN_SYNC':
        recovery.refresh(server, code)
        return
      case 'OVERLOADED':
      case 'TRY_AGAIN':
      case 'STARTING':
        recovery.holdShortly()
        return
      case 'STALE_LEASE':
        host.leaseEnded(code)
        return
      default:
        recovery.memberFailed(server, code)
    }
  }

  #finish(): void {
    const { marks, host, index } = this.#writer
    // Rule F5
    const error = this.#intact ? null : dataLost(host.inode, `no replica of chunk ${index} held all of it`)
    marks.flushed(this.#coversNumber, this.#version, this.#writer.unansweredCount === 0)
    this.#isRunning = false
    const callbacks = this.#served
    this.#served = []
    if (this.#writer.unansweredCount === 0) {
      this.#writer.recovery.quiet()
      if (this.#waiting.length === 0) host.engine.swept.delete(this.#writer)
    }
    if (error !== null) host.bytesLost(error)
    for (const callback of callbacks) callback(error)
    this.pump()
    host.writerProgress(this.#writer)
  }
}
