/**
 * The replica log: durable state of every replica, in two files of which one is current. Appends are
 * gathered per event-loop turn and made durable by one sync (group commit). When a file has grown enough,
 * a snapshot goes into the other one; nothing is ever overwritten in place (rule P2).
 *
 * Promises: `onLogged(null)` means durable, in the order of the appends. After an I/O error nothing is
 * accepted any more; when the disk is full the batch fails and later ones may succeed.
 */
import { assert } from '../../base/assert.ts'
import { CairnError, codeOf } from '../../base/errors.ts'
import { KIB, MIB } from '../../base/units.ts'
import type { Clock } from '../../platform/clock.ts'
import type { Disk, DiskFile } from '../../platform/disk.ts'
import { readFile, syncDirectory, syncFile, writeFile } from './disk-calls.ts'
import {
  encodeLogRecords,
  LOG_RECORD_BYTES,
  LOG_STATE_BYTES_MAX,
  LogRecord,
  type LogReading,
  readLog,
  recordCountOf,
  sealLogRecord,
} from './replica-log-format.ts'
import type { ReplicaState } from './replica-state.ts'

export const LOG_NAMES = ['replicas.a', 'replicas.b'] as const
/** Appended bytes that call for a snapshot, unless the snapshot itself is larger. */
const COMPACT_BYTES_MIN = MIB
const PENDING_BYTES_MIN = 16 * LOG_RECORD_BYTES
const SNAPSHOT_PIECE_BYTES = 256 * KIB
/** Belongs to no replica. */
const NO_CHUNK = 0
/** While data is synced the marks rise at least so often (rule B3). */
const TICK_MS = 1000
/** 64 bytes a record: 4 million replicas. */
export const LOG_BYTES_MAX = 512 * MIB

export interface LogWaiter {
  onLogged(error: CairnError | null): void
}

/** Where the snapshot comes from: the states as last handed to `append`. */
export interface LogSource {
  readonly stateCount: number
  states(): Iterable<readonly [chunk: number, state: ReplicaState]>
}

export interface LoadedLog {
  readonly states: Map<number, ReplicaState>
  /** Acknowledged records are missing (rule B1: everything counts as open). */
  readonly damaged: boolean
  readonly lastSequence: number
}

export class ReplicaLog {
  readonly #disk: Disk
  readonly #clock: Clock
  #source: LogSource | null = null
  #file: DiskFile | null = null
  #fileIndex = 0
  #generation = 0
  #sequence = 0
  /** Durable, as all that is said of marks. */
  #marks = 0
  /** Sequence numbers that are no marks: those of snapshots. */
  #snapshotRecords = 0
  #appendedMs = Number.NEGATIVE_INFINITY
  #position = 0
  #snapshotBytes = 0
  #pending = Buffer.alloc(PENDING_BYTES_MIN)
  #pendingBytes = 0
  #pendingWaiters: LogWaiter[] = []
  #committing = false
  #scheduled = false
  #failure: CairnError | null = null
  readonly #idleWaiters: (() => void)[] = []
  #commitBeganMs = 0
  /** Told once, when nothing is accepted any more. */
  onFailure: (error: CairnError) => void = () => undefined

  constructor(disk: Disk, clock: Clock) {
    this.#disk = disk
    this.#clock = clock
  }

  get lastSequence(): number {
    return this.#sequence
  }

  /**
   * How many records were ever appended, durably: a disk that goes back in time has fewer (rule B3). What a start or a
   * snapshot writes does not count, so that it does not catch up without having been let in.
   */
  get marks(): number {
    return this.#marks
  }

  /** Something was synced: the marks rise, if they have not for a while. Nobody waits for it. */
  maybeTick(): void {
    if (this.#clock.nowMs() - this.#appendedMs >= TICK_MS) this.append(NO_CHUNK, null, null)
  }

  /** Of the batch that is being written (flag T). */
  oldestAgeMs(nowMs: number): number {
    return this.#committing ? nowMs - this.#commitBeganMs : 0
  }

  get failure(): CairnError | null {
    return this.#failure
  }

  /** Two empty files, the first with an empty snapshot. */
  static async create(disk: Disk, clock: Clock): Promise<void> {
    const log = new ReplicaLog(disk, clock)
    log.#source = { stateCount: 0, states: () => [] }
    for (const name of LOG_NAMES) disk.open(name, { create: true }).close()
    log.#fileIndex = 1
    await log.#writeSnapshot()
    log.#file?.close()
  }

  async load(): Promise<LoadedLog> {
    const readings: (LogReading | null)[] = []
    for (const name of LOG_NAMES) readings.push(await this.#read(name))
    let best = -1
    for (const [index, reading] of readings.entries()) {
      if (reading?.complete !== true) continue
      if (best < 0 || reading.generation > (readings[best]?.generation ?? 0)) best = index
    }
    const chosen = readings[best]
    const unreadable = readings.some((reading) => reading === null)
    const highest = Math.max(...readings.map((reading) => reading?.generation ?? 0))
    if (chosen === undefined || chosen === null) {
      // nothing to stand on: start a new generation; the caller finds the chunk files (rule B1)
      this.#generation = highest
      this.#fileIndex = 1
      return { states: new Map(), damaged: true, lastSequence: 0 }
    }
    this.#fileIndex = best
    this.#generation = highest
    this.#sequence = chosen.lastSequence
    this.#marks = chosen.marks
    this.#snapshotRecords = chosen.lastSequence - chosen.marks
    return { states: chosen.states, damaged: chosen.damaged || unreadable, lastSequence: chosen.lastSequence }
  }

  /** Starts writing: a fresh snapshot leaves every torn tail and damaged record behind. */
  async start(source: LogSource): Promise<void> {
    this.#source = source
    await this.#writeSnapshot()
  }

  /** `state` null: the replica is deleted. The record is encoded before the call returns. */
  append(chunk: number, state: ReplicaState | null, waiter: LogWaiter | null): void {
    if (this.#failure !== null) {
      waiter?.onLogged(this.#failure)
      return
    }
    if (this.#pendingBytes + LOG_STATE_BYTES_MAX > this.#pending.length) {
      this.#pending = Buffer.concat([this.#pending], this.#pending.length * 2)
    }
    const type = state === null ? LogRecord.deleted : LogRecord.state
    encodeLogRecords(this.#pending, this.#pendingBytes, type, chunk, state)
    this.#pendingBytes += recordCountOf(state) * LOG_RECORD_BYTES
    if (waiter !== null) this.#pendingWaiters.push(waiter)
    this.#appendedMs = this.#clock.nowMs()
    this.#schedule()
  }

  /** All states, as they are now, in one step: after a crash either all of them are in force or none. */
  async snapshot(): Promise<void> {
    await this.drained()
    if (this.#failure !== null) throw this.#failure
    this.#committing = true
    try {
      await this.#writeSnapshot()
    } catch (error) {
      throw this.#failed(error)
    } finally {
      this.#committing = false
      for (const resolve of this.#idleWaiters.splice(0)) resolve()
      if (this.#pendingBytes > 0) this.#schedule()
    }
  }

  #schedule(): void {
    if (this.#committing || this.#scheduled) return
    this.#scheduled = true
    this.#clock.defer(this.#commitSoon)
  }

  /** Resolves when everything appended so far is durable or has failed. */
  async drained(): Promise<void> {
    while (this.#committing || this.#pendingBytes > 0) {
      await new Promise<void>((resolve) => this.#idleWaiters.push(resolve))
    }
  }

  close(): void {
    this.#failure ??= new CairnError('DISK_FAILED', 'the store is closed')
    this.#file?.close()
    this.#file = null
  }

  readonly #commitSoon = (): void => {
    this.#scheduled = false
    if (this.#committing) return
    this.#committing = true
    this.#commitBeganMs = this.#clock.nowMs()
    void this.#commitAll()
  }

  async #commitAll(): Promise<void> {
    while (this.#pendingBytes > 0) {
      const batch = this.#pending.subarray(0, this.#pendingBytes)
      const waiters = this.#pendingWaiters
      this.#pending = Buffer.alloc(PENDING_BYTES_MIN)
      this.#pendingBytes = 0
      this.#pendingWaiters = []
      const error = await this.#commit(batch)
      for (const waiter of waiters) waiter.onLogged(error)
    }
    this.#committing = false
    for (const resolve of this.#idleWaiters.splice(0)) resolve()
  }

  async #commit(batch: Buffer): Promise<CairnError | null> {
    const file = this.#file
    if (this.#failure !== null) return this.#failure
    assert(file !== null, 'the replica log is started before it is appended to')
    this.#seal(batch)
    this.#commitBeganMs = this.#clock.nowMs()
    try {
      await writeFile(file, batch, this.#position)
      await syncFile(file)
    } catch (error) {
      return this.#failed(error)
    }
    this.#position += batch.length
    this.#marks = this.#sequence - this.#snapshotRecords
    if (this.#position > this.#snapshotBytes * 2 + COMPACT_BYTES_MIN) {
      // the batch is durable whatever becomes of the snapshot
      await this.#writeSnapshot().catch((error: unknown) => this.#failed(error))
    }
    return null
  }

  #failed(error: unknown): CairnError {
    const failure = error instanceof CairnError ? error : new CairnError('DISK_IO', String(error))
    // a full disk leaves a torn tail that the next batch overwrites; after anything else what the
    // sync left on disk is unknown (rule F7)
    if (codeOf(failure) !== 'DISK_NO_SPACE' && this.#failure === null) {
      this.#failure = failure
      this.onFailure(failure)
    }
    return failure
  }

  #seal(batch: Buffer): void {
    const first = this.#sequence + 1
    for (let at = 0; at < batch.length; at += LOG_RECORD_BYTES) {
      this.#sequence++
      sealLogRecord(batch, at, {
        sequence: this.#sequence,
        address: this.#position + at,
        generation: this.#generation,
        batch: first % 0x100000000,
      })
    }
  }

  async #read(name: string): Promise<LogReading | null> {
    if (!this.#disk.exists(name)) return null
    try {
      const file = this.#disk.open(name)
      try {
        const bytes = await readFile(file, 0, Math.min(file.sizeBytes(), LOG_BYTES_MAX))
        return readLog(bytes)
      } finally {
        file.close()
      }
    } catch {
      return null
    }
  }

  /** Everything into the other file, sync, then empty the old one so that it cannot be mistaken for current. */
  async #writeSnapshot(): Promise<void> {
    const source = this.#source
    assert(source !== null, 'a snapshot has a source')
    const target = 1 - this.#fileIndex
    const old = this.#file
    const file = this.#disk.open(LOG_NAMES[target] ?? '', { create: true })
    file.truncate(0)
    const writer = new SnapshotWriter(file, this.#generation + 1, this.#sequence)
    // Also the numbers of batches that failed: what comes later is higher than what they may have left on the disk.
    const marks = this.#sequence - this.#snapshotRecords
    writer.add(LogRecord.begin, marks, null)
    let count = 0
    for (const [chunk, state] of source.states()) {
      writer.add(LogRecord.state, chunk, state)
      count++
      if (writer.full) await writer.flush()
    }
    writer.add(LogRecord.end, count, null)
    try {
      await writer.flush()
      await syncFile(file)
      await syncDirectory(this.#disk, '.')
    } catch (error) {
      await this.#discard(file, error)
    }
    this.#file = file
    this.#fileIndex = target
    this.#generation++
    this.#position = writer.position
    this.#snapshotBytes = writer.position
    this.#sequence = writer.sequence
    this.#marks = marks
    this.#snapshotRecords = writer.sequence - marks
    old?.close()
    await this.#empty(LOG_NAMES[1 - target] ?? '')
  }

  /** A snapshot that is complete by accident must not be found beside the file that goes on. */
  async #discard(file: DiskFile, cause: unknown): Promise<never> {
    try {
      file.truncate(0)
      await syncFile(file)
      file.close()
    } catch (error) {
      throw new CairnError('DISK_IO', 'a failed snapshot of the replica log cannot be emptied', {
        cause: error,
      })
    }
    throw cause
  }

  async #empty(name: string): Promise<void> {
    const file = this.#disk.open(name, { create: true })
    try {
      file.truncate(0)
      await syncFile(file)
    } finally {
      file.close()
    }
  }
}

class SnapshotWriter {
  readonly #file: DiskFile
  readonly #generation: number
  readonly #firstSequence: number
  #buffer = Buffer.alloc(SNAPSHOT_PIECE_BYTES)
  #used = 0
  position = 0
  sequence: number

  constructor(file: DiskFile, generation: number, lastSequence: number) {
    this.#file = file
    this.#generation = generation
    this.#firstSequence = lastSequence + 1
    this.sequence = lastSequence
  }

  get full(): boolean {
    return this.#used + LOG_RECORD_BYTES + LOG_STATE_BYTES_MAX > this.#buffer.length
  }

  add(type: LogRecord, chunk: number, state: ReplicaState | null): void {
    encodeLogRecords(this.#buffer, this.#used, type, chunk, state)
    for (let count = recordCountOf(state); count > 0; count--) {
      this.sequence++
      sealLogRecord(this.#buffer, this.#used, {
        sequence: this.sequence,
        address: this.position + this.#used,
        generation: this.#generation,
        batch: this.#firstSequence % 0x100000000,
      })
      this.#used += LOG_RECORD_BYTES
    }
  }

  async flush(): Promise<void> {
    await writeFile(this.#file, this.#buffer.subarray(0, this.#used), this.position)
    this.position += this.#used
    this.#used = 0
  }
}
