/**
 * fsync and publish of one file. A flush waits for the writes issued before it, flushes every dirty chunk
 * on every member (chunk-flusher.ts), puts size and times into the quorum (rule F8), and says EIO once
 * when acknowledged bytes were lost (F5).
 */
import type { CairnError } from '../../base/errors.ts'
import type { IoCallback, Operation } from '../api.ts'
import type { Swept } from '../session/engine.ts'
import { asCairnError, cancelled, heldTooLong, leaseLost } from '../session/errors.ts'
import type { GateItem } from './file-gate.ts'
import type { FileState } from './file-state.ts'
import { INDEXES_PER_CALL_MAX } from '../session/limits.ts'

/** Size and times to the quorum. Rejects when the lease is gone. */
export async function publishFile(file: FileState): Promise<void> {
  while (file.sizeChanged || file.timesChanged) {
    const lease = file.leaseNumber
    if (lease === 0) throw leaseLost(file.inode)
    const { changeNumber, inode, attributes: sent } = file
    const { size, modifySeconds, modifyNanoseconds } = sent
    try {
      const answer = await file.engine.session.mutate('lease.update', {
        inode,
        lease,
        ...(file.sizeChanged ? { size } : {}),
        ...(file.timesChanged ? { modifySeconds, modifyNanoseconds } : {}),
      })
      if (lease !== file.leaseNumber) throw leaseLost(inode)
      file.published(changeNumber, sent, answer.attributes)
    } catch (error) {
      const { code } = asCairnError(error)
      if (lease === file.leaseNumber && (code === 'NO_LEASE' || code === 'ESTALE' || code === 'ENOENT'))
        file.leaseEnded(code)
      throw error
    }
    // What was written meanwhile belongs to the next flush.
    if (changeNumber !== file.changeNumber) return
  }
}

/**
 * Rule F4: what a dead holder had acknowledged belongs to this flush, too. The master answers for a chunk when
 * its members are equal and have synced it. Rejects when that does not come about.
 */
async function awaitReconciled(file: FileState): Promise<void> {
  while (file.deadIndexes.length > 0) {
    const { leaseNumber, inode } = file
    const indexes = file.deadIndexes.slice(0, INDEXES_PER_CALL_MAX)
    await file.engine.session.call('chunk.locate', { inode, indexes })
    // Whoever ended the lease tells it.
    if (leaseNumber !== file.leaseNumber) return
    file.deadIndexes = file.deadIndexes.filter((index) => !indexes.includes(index))
  }
}

/** Who asks: keeps which errors of the file it has seen. */
export interface ErrorView {
  seenErrorNumber: number
}

export class FlushOperation implements Operation, GateItem, Swept {
  readonly sequence: number
  readonly needsLease = false
  readonly end = 0
  readonly #file: FileState
  readonly #durable: boolean
  readonly #view: ErrorView
  readonly startedMs: number
  #callback: IoCallback | null
  #pending = 0
  #begun = false
  #error: CairnError | null = null
  #forget: () => void = () => undefined

  /** `durable` false: publish only. */
  constructor(file: FileState, durable: boolean, view: ErrorView, callback: IoCallback) {
    this.#file = file
    this.#durable = durable
    this.#view = view
    this.#callback = callback
    this.sequence = file.engine.nextSequence()
    this.startedMs = file.engine.clock.nowMs()
    if (file.engine.holdTimeoutMs > 0) file.engine.swept.add(this)
  }

  sweep(nowMs: number): void {
    const { holdTimeoutMs } = this.#file.engine
    if (nowMs - this.startedMs >= holdTimeoutMs) this.giveUp(heldTooLong(holdTimeoutMs))
  }

  begin(): void {
    this.#begun = true
    this.#file.gate.flushBegan()
    this.#forget = this.#file.whenWritten(this.sequence, () => this.#run())
  }

  fail(error: CairnError): void {
    this.#error = error
    this.#answer()
  }

  cancel(): void {
    this.giveUp(cancelled())
  }

  giveUp(error: CairnError): void {
    if (this.#callback === null) return
    if (!this.#begun) this.#file.gate.leave(this)
    this.fail(error)
  }

  #run(): void {
    this.#forget()
    const file = this.#file
    const leaseNumber = file.leaseNumber
    this.#pending = 1
    if (this.#durable) {
      for (const writer of [...file.writers.values()]) {
        this.#pending++
        // Lost bytes are latched by the file: `takeError` says them, to this open and the others.
        writer.flusher.request(() => this.#partDone())
      }
    }
    if (this.#durable && file.deadIndexes.length > 0) this.#await(awaitReconciled(file), leaseNumber)
    if (leaseNumber !== 0 && (!this.#durable || file.isPublishDue)) {
      this.#await(publishFile(file), leaseNumber)
    }
    this.#partDone()
  }

  #await(part: Promise<void>, leaseNumber: number): void {
    this.#pending++
    part.then(
      () => this.#partDone(),
      (error: unknown) => {
        // When the lease ended the latched error says it; anything else is this flush's own.
        if (leaseNumber === this.#file.leaseNumber) this.#error ??= asCairnError(error)
        this.#partDone()
      },
    )
  }

  #partDone(): void {
    if (--this.#pending > 0) return
    this.#file.gate.flushEnded()
    const { session } = this.#file.engine
    // Rule L5: an unconfirmed holder acknowledges nothing.
    if (this.#file.leaseNumber === 0 || session.isConfirmed()) return this.#answer()
    session.whenConfirmed(() => this.#answer())
  }

  #answer(): void {
    const callback = this.#callback
    if (callback === null) return
    this.#callback = null
    const { engine } = this.#file
    engine.swept.delete(this)
    const taken = this.#file.takeError(this.#view.seenErrorNumber)
    this.#view.seenErrorNumber = taken.seenNumber
    if (this.#durable) engine.counters.flushDone(engine.clock.nowMs() - this.startedMs)
    callback(taken.error ?? this.#error)
  }
}
