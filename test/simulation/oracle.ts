/**
 * Judges what the clients of a run see. Every operation is announced before it is issued and concluded
 * with its answer; what may not be is a violation, and the first one ends the run. `now` numbers these
 * events, so that "before" and "after" mean what the clients could know.
 */
import { FileModel, type WriteRecord } from './file-model.ts'
import { ZEROS } from './pattern.ts'
import { SnapshotBook } from './snapshot-book.ts'
import type { Trace } from './trace.ts'

export class Violation extends Error {
  override readonly name = 'Violation'
}

interface View {
  /** Everything superseded before this event may not be seen any more (close-to-open; own writes). */
  since: number
}

export class Oracle {
  readonly trace: Trace
  readonly files = new Map<string, FileModel>()
  readonly snapshots = new SnapshotBook()
  readonly #views = new Map<string, View>()
  /** For each chunk: servers that lost their memory since the last flush, and when. */
  readonly #powered = new Map<string, Map<number, number>>()
  #now = 0
  #nextWrite = ZEROS + 1
  #violation: Violation | null = null
  checkedOperationCount = 0
  /** Faults may have kept a size from being told to others. */
  mayKnowOldSize: () => boolean = () => false

  constructor(trace: Trace) {
    this.trace = trace
  }

  get violation(): Violation | null {
    return this.#violation
  }

  get now(): number {
    return this.#now
  }

  tick(): number {
    return ++this.#now
  }

  fail(message: string): void {
    this.trace.line('oracle', `VIOLATION ${message}`)
    this.#violation ??= new Violation(message)
  }

  file(name: string): FileModel {
    let file = this.files.get(name)
    if (file === undefined) {
      file = new FileModel(name)
      this.files.set(name, file)
    }
    return file
  }

  // --- views

  viewOf(client: string, file: FileModel): number {
    return this.#views.get(`${client} ${file.name}`)?.since ?? 0
  }

  /** `client` knows the file as it was at event `since`, or newer. */
  renewView(client: string, file: FileModel, since: number): void {
    const key = `${client} ${file.name}`
    const view = this.#views.get(key)
    if (view === undefined) this.#views.set(key, { since })
    else view.since = Math.max(view.since, since)
  }

  /** The client process is gone; the next one of that name starts without memory. */
  dropViews(client: string): void {
    for (const key of this.#views.keys()) if (key.startsWith(`${client} `)) this.#views.delete(key)
  }

  #oldestView(file: FileModel): number {
    let oldest = this.#now
    for (const [key, view] of this.#views)
      if (key.endsWith(` ${file.name}`)) oldest = Math.min(oldest, view.since)
    return oldest
  }

  // --- writes

  beginWrite(client: string, file: FileModel, begin: number, end: number): WriteRecord {
    const record = this.#begin(client, file, begin, end, false)
    file.growMaximum(this.#now, end)
    return record
  }

  /** Zeros in a range (punch, zero range, the tail behind a truncate); the size is the caller's business. */
  beginZeros(client: string, file: FileModel, begin: number, end: number): WriteRecord {
    return this.#begin(client, file, begin, end, true)
  }

  /** `copy` was made of `source` by a call that was issued at event `since`: a snapshot, or a clone. */
  copied(source: FileModel, copy: FileModel, since: number, isSnapshot: boolean): void {
    copy.becomeCopy(source, since, this.tick(), isSnapshot)
    // rule S1: what it holds is on the disks of all members, and the source holds it with it
    source.flushed('', since)
    this.checkedOperationCount++
  }

  beginRollback(client: string, file: FileModel, snapshot: FileModel): WriteRecord {
    const record = this.#record(client, 0, Number.POSITIVE_INFINITY, false, `rollback to ${snapshot.name}`)
    file.beginRollback(record, snapshot)
    file.widenSize(this.#now, snapshot.sizeMinimum)
    file.growMaximum(this.#now, snapshot.sizeMaximum)
    return record
  }

  rolledBack(client: string, file: FileModel, to: FileModel, record: WriteRecord, sizeBefore: number): void {
    const beside = file.overlapping(record)
    this.acknowledge(client, file, record, true)
    this.resized(file, { minimum: to.sizeMinimum, maximum: to.sizeMaximum }, beside, sizeBefore)
  }

  /** What `beside` overlapped in time may have gone before or after. */
  resized(
    file: FileModel,
    size: { readonly minimum: number; readonly maximum: number },
    beside: readonly WriteRecord[],
    sizeBefore: number,
  ): void {
    if (beside.length === 0) return file.setSize(this.#now, size.minimum, size.maximum)
    const isCut = (end: number): boolean => end === Number.POSITIVE_INFINITY
    const ends = beside.map(({ end }) => (isCut(end) ? sizeBefore : end))
    const minimum = beside.some(({ end }) => isCut(end)) ? 0 : size.minimum
    file.setSize(this.#now, minimum, Math.max(size.maximum, sizeBefore, ...ends))
  }

  #record(client: string, begin: number, end: number, isZeros: boolean, what: string): WriteRecord {
    const [id, endedAt] = [this.#nextWrite++, Number.POSITIVE_INFINITY]
    return {
      id,
      client,
      begin,
      end,
      isZeros,
      issuedAt: this.tick(),
      endedAt,
      description: `${client} ${what}`,
    }
  }

  #begin(client: string, file: FileModel, begin: number, end: number, isZeros: boolean): WriteRecord {
    const record = this.#record(client, begin, end, isZeros, `${isZeros ? 'zeros ' : ''}${begin} to ${end}`)
    file.begin(record)
    return record
  }

  acknowledge(client: string, file: FileModel, record: WriteRecord, isDurable: boolean): void {
    this.tick()
    file.lastWriter = client
    file.acknowledge(record, this.#now, isDurable, this.#oldestView(file))
    this.renewView(client, file, this.#now)
    this.checkedOperationCount++
  }

  /** The outcome is unknown: it may be there, now or once the chunk is reconciled. */
  abandon(record: WriteRecord): void {
    record.endedAt = this.tick()
  }

  // --- reads

  checkRead(
    client: string,
    file: FileModel,
    position: number,
    length: number,
    data: Buffer,
    startedView: number,
  ): void {
    this.tick()
    this.checkedOperationCount++
    const mayBeOld = file.lastWriter !== client && this.mayKnowOldSize()
    const fault = file.checkRead(position, length, data, startedView, mayBeOld)
    if (fault !== null) this.fail(`${client} read ${file.name} ${position}+${length}: ${fault}`)
  }

  checkSize(client: string, file: FileModel, size: number, since: number): void {
    const fault = file.checkSize(size, since, file.lastWriter !== client && this.mayKnowOldSize())
    if (fault !== null) this.fail(`${client} ${file.name}: ${fault}`)
  }

  // --- power

  /**
   * The memory of server `lost` is gone, or nobody waits for it any more (given-up.ts). `members`: for each chunk of `file` its in-sync replicas as the
   * quorum sees them. Where no member is left that kept its memory since the last flush, data is at risk.
   */
  powerLost(file: FileModel, index: number, members: readonly number[], lost: number): void {
    if (!members.includes(lost)) return
    const key = keyOf(file, index)
    let powered = this.#powered.get(key)
    if (powered === undefined) this.#powered.set(key, (powered = new Map()))
    powered.set(lost, this.#now)
    if (members.some((member) => !powered.has(member))) return
    this.trace.line('oracle', `unflushed data of ${file.name} chunk ${index} may be lost`)
    file.lostPower(index * CHUNK_BYTES, (index + 1) * CHUNK_BYTES, this.tick())
  }

  /**
   * A flush covers what was written under its client's lease; whoever wrote before handed over flushed. A write that
   * had no answer yet is not covered: a server that had it and lost it is no witness for it later (rule F5).
   */
  flushed(client: string, file: FileModel, issuedAt: number, isWriter: boolean): void {
    this.tick()
    this.checkedOperationCount++
    if (!isWriter) return
    file.flushed(client, issuedAt)
    const uncovered = [...file.writes.values()].filter((write) => write.endedAt >= issuedAt)
    for (const [key, powered] of this.#powered) {
      if (!key.startsWith(`${file.name} `)) continue
      for (const [server, lostAt] of powered) {
        const hadUncovered = (write: WriteRecord): boolean =>
          write.issuedAt <= lostAt && isInChunk(write, file, key)
        if (!uncovered.some(hadUncovered)) powered.delete(server)
      }
    }
  }
}

function keyOf(file: FileModel, index: number): string {
  return `${file.name} ${index}`
}

function isInChunk(write: WriteRecord, file: FileModel, key: string): boolean {
  const begin = Number(key.slice(file.name.length + 1)) * CHUNK_BYTES
  return write.begin < begin + CHUNK_BYTES && write.end > begin
}

const CHUNK_BYTES = 64 * 1024 * 1024
