/**
 * One inode as this client knows it, shared by all its opens: lease, size and times that are newer than
 * the quorum's, dirty chunks, locations, errors. What changes it is in the files beside it: file-lease.ts
 * (taking and returning the lease), file-flush.ts, file-resize.ts, file-gate.ts, read-operation.ts, write-operation.ts.
 */
import type { CairnError } from '../../base/errors.ts'
import { CHUNK_SIZE_BYTES } from '../../base/units.ts'
import type { Attributes, ChunkLocation } from '../../wire/messages/common.ts'
import { ChunkWriter } from '../chunk/chunk-writer.ts'
import type { WriterHost } from '../chunk/writer-host.ts'
import type { Engine } from '../session/engine.ts'
import { dataLost, leaseLost } from '../session/errors.ts'
import { publishFile } from './file-flush.ts'
import { FileGate } from './file-gate.ts'
import { FileLease } from './file-lease.ts'
import { Intents } from './intents.ts'
import { LocationCache } from './location-cache.ts'
import { ReadAhead } from './read-ahead.ts'
import { TIMES_LAG_MS_MAX } from '../session/limits.ts'
import type { ReadOperation } from './read-operation.ts'
import type { WriteOperation } from './write-operation.ts'

export class FileState implements WriterHost {
  readonly engine: Engine
  readonly inode: number
  readonly lease: FileLease
  readonly gate: FileGate
  readonly intents: Intents
  readonly locations: LocationCache
  readonly readAhead: ReadAhead
  readonly writers = new Map<number, ChunkWriter>()
  /** Begun and not ended, in order of issue. */
  readonly unfinishedWrites = new Set<WriteOperation>()
  /** Reads that wait for a write of ours to end (rule E10). */
  readonly waitingReads = new Set<ReadOperation>()
  handleCount = 0
  /** `fs.open` answered and not closed (counted by the server too). */
  openCount = 0
  /** A block device: the lease is kept from open on, and its loss ends the device (rule L5). */
  pinned = false
  dead = false
  lastWriteMs = 0
  lastWriteEnd = 0
  /** Bytes by which writes moved the end of what was written: how far ahead room is asked for. */
  streamBytes = 0
  #streamEnd = 0
  /** Tail to be zeroed before the size grows past it (rule T1). */
  zeroFrom: number | undefined
  /** Chunks that a dead holder left dirty when the lease began: a flush waits for them (rule F4). */
  deadIndexes: readonly number[] = []
  /** Newer than the quorum's. */
  sizeChanged = false
  timesChanged = false
  /** Rises with every change of size or times. */
  changeNumber = 0
  /**
   * Number of the last moment at which this client knew more than an answer to an earlier question can
   * say: the lease came or went, size or times were published.
   */
  era = 0

  /** Modification time of the last publish under this lease, in ms; NaN: none yet. */
  #publishedModifyMs = Number.NaN
  #attributes: Attributes
  #error: CairnError | null = null
  #errorNumber = 0
  #errorReported = 0
  #progressWaiters = new Set<() => void>()

  constructor(engine: Engine, attributes: Attributes) {
    this.engine = engine
    this.inode = attributes.inode
    this.#attributes = attributes
    this.lease = new FileLease(this)
    this.gate = new FileGate(this)
    this.intents = new Intents(this, this.writers)
    this.locations = new LocationCache(engine, attributes.inode)
    this.readAhead = new ReadAhead(this)
    this.locations.validate(attributes.generation)
  }

  get leaseNumber(): number {
    return this.lease.number
  }

  get size(): number {
    return this.#attributes.size
  }

  get attributes(): Attributes {
    return this.#attributes
  }

  get isBusy(): boolean {
    return this.unfinishedWrites.size > 0 || !this.gate.isEmpty || this.gate.isClosed
  }

  // --- attributes ---

  /** From the quorum. While the lease is held, what only we know stays. */
  learned(attributes: Attributes): void {
    const mine = this.#attributes
    this.#attributes = {
      ...attributes,
      ...(this.sizeChanged ? { size: mine.size } : {}),
      ...(this.timesChanged
        ? {
            modifySeconds: mine.modifySeconds,
            modifyNanoseconds: mine.modifyNanoseconds,
            changeSeconds: mine.changeSeconds,
            changeNanoseconds: mine.changeNanoseconds,
          }
        : {}),
    }
  }

  bumpEra(): void {
    this.era = ++this.engine.eras.last
  }

  /** A write of ours was acknowledged by the members. */
  wrote(end: number): void {
    const now = this.engine.clock.wall()
    const size = Math.max(this.#attributes.size, end)
    if (size !== this.#attributes.size) this.sizeChanged = true
    this.timesChanged = true
    this.changeNumber++
    this.#attributes = {
      ...this.#attributes,
      size,
      modifySeconds: now.seconds,
      modifyNanoseconds: now.nanoseconds,
      changeSeconds: now.seconds,
      changeNanoseconds: now.nanoseconds,
    }
  }

  /**
   * Must a flush bring size and times into the quorum? Not when only the times moved, and by less than
   * TIMES_LAG_MS_MAX since the last publish (rule F8, at the granularity of time stamps): what is left is
   * published by the close or the return of the lease.
   */
  get isPublishDue(): boolean {
    if (this.sizeChanged) return true
    if (!this.timesChanged) return false
    const lagMs = modifyMsOf(this.#attributes) - this.#publishedModifyMs
    return !(lagMs >= 0 && lagMs < TIMES_LAG_MS_MAX)
  }

  /** The quorum has everything up to `changeNumber`, and `sent` of ours. */
  published(changeNumber: number, sent: Attributes, attributes: Attributes | null): void {
    this.#publishedModifyMs = modifyMsOf(sent)
    if (changeNumber === this.changeNumber) {
      this.sizeChanged = false
      this.timesChanged = false
    }
    this.bumpEra()
    if (attributes !== null) this.learned(attributes)
  }

  /** The next intent of a stream forward, once half of the current chunk is written. */
  wantNextIntent(end: number): void {
    if (!this.lease.isHeld || this.dead || this.gate.isClosed) return
    const index = Math.floor(end / CHUNK_SIZE_BYTES)
    if (end % CHUNK_SIZE_BYTES < CHUNK_SIZE_BYTES / 2) return
    const next = this.writerOf(index + 1)
    if (next.phase === 'none') next.wantIntent()
  }

  /** Somebody set the modification time: it wins over that of our earlier writes. */
  forgetTimes(): void {
    this.publishedElsewhere()
    this.timesChanged = false
    this.changeNumber++
  }

  /** The times in the quorum may be others than those we published. */
  publishedElsewhere(): void {
    this.#publishedModifyMs = Number.NaN
  }

  // --- chunks ---

  writerOf(index: number): ChunkWriter {
    let writer = this.writers.get(index)
    if (writer === undefined) {
      writer = new ChunkWriter(this, index)
      this.writers.set(index, writer)
    }
    return writer
  }

  wantIntent(writer: ChunkWriter): void {
    this.intents.want(writer)
  }

  wantMore(writer: ChunkWriter): void {
    this.intents.want(writer)
  }

  streamed(begin: number, end: number): void {
    if (end <= this.#streamEnd) return
    this.streamBytes += Math.min(end - begin, end - this.#streamEnd)
    this.#streamEnd = end
  }

  /** Location for reading: that of the intent, or what was fetched under this open or lease. */
  locationOf(index: number): ChunkLocation | null | undefined {
    const writer = this.writers.get(index)
    if (writer?.hasIntent === true && writer.version !== 0) {
      const { chunk, version, writable, members } = writer
      return { index, chunk, version, writable, members: members as ChunkLocation['members'] }
    }
    return this.locations.get(index)
  }

  /** A member says that this is not true any more (rule E4), or none answers there. */
  forgetLocation(index: number): void {
    this.locations.forget(index)
    const writer = this.writers.get(index)
    if (writer !== undefined) this.intents.refresh(writer)
  }

  writerSurrendered(writer: ChunkWriter): void {
    if (this.writers.get(writer.index) !== writer) return
    const { index, chunk, version, writable, members } = writer
    // Still true under the lease: nobody else writes it.
    this.locations.set({ index, chunk, version, writable, members: members as ChunkLocation['members'] })
    if (!writer.isBusy) this.writers.delete(index)
  }

  /** Chunks from this index on are gone (truncate), or exactly these (unmap). Nothing is in flight. */
  dropChunks(isDropped: (index: number) => boolean): void {
    for (const writer of [...this.writers.values()]) {
      if (!isDropped(writer.index)) continue
      writer.recovery.stop()
      writer.marks.clear()
      writer.flusher.end(null)
      this.writers.delete(writer.index)
    }
    this.locations.clear()
    this.readAhead.clear()
  }

  bytesLost(error: CairnError): void {
    this.latchError(error)
  }

  writerProgress(): void {
    if (this.waitingReads.size > 0) for (const read of [...this.waitingReads]) read.writesEnded()
    if (this.#progressWaiters.size > 0) for (const waiter of [...this.#progressWaiters]) waiter()
  }

  // --- operations ---

  /** Rule E10: is an earlier write over these bytes still in front of the gate? */
  gateOverlaps(begin: number, end: number, sequence: number): boolean {
    return this.gate.overlaps(begin, end, sequence)
  }

  writeEnded(operation: WriteOperation): void {
    this.unfinishedWrites.delete(operation)
    this.lastWriteMs = this.engine.clock.nowMs()
    this.writerProgress()
    this.gate.maybeWakeIdle()
  }

  /** `callback` runs when no write issued before `sequence` is unended; perhaps at once. */
  whenWritten(sequence: number, callback: () => void): () => void {
    const check = (): boolean => {
      for (const write of this.unfinishedWrites) if (write.sequence < sequence) return false
      return true
    }
    if (check()) {
      callback()
      return () => undefined
    }
    const waiter = (): void => {
      if (!check()) return
      this.#progressWaiters.delete(waiter)
      callback()
    }
    this.#progressWaiters.add(waiter)
    return () => this.#progressWaiters.delete(waiter)
  }

  // --- errors ---

  /** Bytes that were acknowledged are gone: every open sees it once (rule F5). */
  latchError(error: CairnError): void {
    this.engine.counters.dataLossErrors++
    this.engine.logger.error('acknowledged data may be lost', { inode: this.inode, error: error.message })
    this.#error = error
    this.#errorNumber++
  }

  get hasUntoldError(): boolean {
    return this.#errorNumber > this.#errorReported
  }

  /** What a new open has seen: everything that somebody was told. */
  get errorsReported(): number {
    return this.#errorReported
  }

  /** The error this open has not seen yet. */
  takeError(seenNumber: number): { error: CairnError | null; seenNumber: number } {
    if (seenNumber >= this.#errorNumber) return { error: null, seenNumber }
    this.#errorReported = this.#errorNumber
    return { error: this.#error, seenNumber: this.#errorNumber }
  }

  /** Rule E3: the lease has ended; nothing sent under it is sent again, unflushed bytes may be lost. */
  publish(): Promise<void> {
    return publishFile(this)
  }

  leaseEnded(reason: string): void {
    if (!this.lease.hasNumber) return
    this.engine.logger.warn('lease ended', { inode: this.inode, lease: this.leaseNumber, reason })
    const writers = [...this.writers.values()]
    const hadUnflushed = this.sizeChanged || writers.some((writer) => writer.marks.isDirty)
    this.writers.clear()
    this.locations.clear()
    this.readAhead.clear()
    this.sizeChanged = false
    this.timesChanged = false
    this.zeroFrom = undefined
    this.deadIndexes = []
    this.publishedElsewhere()
    this.lease.ended()
    if (hadUnflushed) this.latchError(dataLost(this.inode, `the lease ended before a flush (${reason})`))
    if (this.pinned) this.dead = true
    const error = leaseLost(this.inode)
    for (const writer of writers) writer.end(error)
    if (this.dead) this.gate.fail(error)
    this.writerProgress()
    this.gate.maybeWakeIdle()
    this.gate.kick()
  }
}

function modifyMsOf(attributes: Attributes): number {
  return attributes.modifySeconds * 1000 + attributes.modifyNanoseconds / 1e6
}
