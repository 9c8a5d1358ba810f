/**
 * Judges what the clients of a run see. Every operation is announced before it is issued and concluded
 * with its answer; what may not be is a violation, and the first one ends the run. `now` numbers these
 * events, so that "before" and "after" mean what the clients could know.
 */
import { FileModel, type WriteRecord } from './file-model.ts'
import { ZEROS } from './pattern.ts'
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

  #begin(client: string, file: FileModel, begin: number, end: number, isZeros: boolean): WriteRecord {
    const id = this.#nextWrite++
    const description = `${client}${isZeros ? ' zeros' : ''} ${begin} to ${end}`
    const endedAt = Number.POSITIVE_INFINITY
    const record = { id, client, begin, end, isZeros, issuedAt: this.tick(), endedAt, description }
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
