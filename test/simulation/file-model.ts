/**
 * The block oracle of one file: for every byte the set of writes whose value a read may return, after the
 * promises 1-5 of the data-safety document. Time is the sequence number of the oracle's events.
 *
 *   candidate   a write (or "zeros") that may be what the byte holds
 *   superseded  an acknowledged write that was issued after this one had ended replaced it
 *   revivable   unflushed since: it may come back when every in-sync replica's host loses power
 *   revived     that has happened, and no flush has said anything since
 *
 * It is lenient where the promises are: two writes that overlapped in time may have gone either way, and
 * a write whose outcome is unknown stays possible until an acknowledged one replaces it.
 *
 * A snapshot or clone is a copy of what was possible while it was made, and of one moment in that time: what has been
 * read of it narrows the moment down, and what contradicts that is a fault (rule S1). A snapshot never changes: what
 * was seen of it once is all that it may hold.
 */
import { matches, ZEROS } from './pattern.ts'

export const SECTOR_BYTES = 512
export const PAGE_BYTES = 4096
const NEVER = Number.POSITIVE_INFINITY
const CANDIDATES_KEPT = 24

export interface WriteRecord {
  readonly id: number
  readonly client: string
  readonly begin: number
  readonly end: number
  /** It puts zeros there (punch, zero range, the tail behind a truncate). */
  readonly isZeros: boolean
  readonly issuedAt: number
  /** Answered, failed, or its client is dead: it can only matter where nothing later was acknowledged. */
  endedAt: number
  readonly description: string
}

interface Candidate {
  readonly write: number
  /** What put it there: that write, a rollback, or (`ZEROS`) the making of the file. */
  readonly operation: number
  /** Of a copy: the file it is of held it at no moment before and after these events. */
  readonly from: number
  readonly until: number
  supersededAt: number
  /** Whose write superseded it: who is told when that is lost. */
  supersededBy: string
  revivable: boolean
  isRevived: boolean
  /** A power loss may have mixed it with others, sector by sector. */
  isTorn: boolean
}

interface Segment {
  begin: number
  end: number
  /** When the memory of all its replicas was lost last. */
  lostAt: number
  candidates: Candidate[]
}

/** What a part of a snapshot turned out to hold. */
interface Seen {
  readonly begin: number
  readonly end: number
  readonly writes: readonly number[]
}

interface SizeChange {
  readonly at: number
  readonly minimum: number
  readonly maximum: number
}

function candidateOf(write: number, operation = write): Candidate {
  return {
    ...{ write, operation, from: 0, until: NEVER },
    ...{ supersededAt: NEVER, supersededBy: '', revivable: true, isRevived: false, isTorn: false },
  }
}

export class FileModel {
  readonly name: string
  /** 0: not known (yet). */
  inode = 0
  /** The client whose change was acknowledged last. */
  lastWriter = ''
  readonly writes = new Map<number, WriteRecord>()
  #segments: Segment[] = [{ begin: 0, end: NEVER, lostAt: -1, candidates: [candidateOf(ZEROS)] }]
  /** Size changes in order; the last one holds now. */
  #sizes: SizeChange[] = [{ at: 0, minimum: 0, maximum: 0 }]
  /** The size in the quorum at least: what is left after all hosts lost power. Never above the last minimum. */
  #flushedMinimum = 0
  #isSizeAtRisk = false
  #riskCount = 0
  readonly #toldRisk = new Map<string, number>()
  /** Of a copy: it was made between these events. */
  #moment = { from: 0, until: NEVER }
  #isSnapshot = false

  constructor(name: string) {
    this.name = name
  }

  get sizeMinimum(): number {
    return this.#isSizeAtRisk
      ? Math.min(this.#flushedMinimum, this.#lastSize().minimum)
      : this.#lastSize().minimum
  }

  get sizeMaximum(): number {
    return this.#lastSize().maximum
  }

  /** A write (or zeroing, or the tail of a truncate) was issued: from now on it may be seen. */
  begin(record: WriteRecord): void {
    this.writes.set(record.id, record)
    for (const segment of this.#over(record.begin, record.end))
      segment.candidates.push(candidateOf(record.id))
  }

  /** A rollback to a snapshot was issued: from now on the contents of that may be seen. */
  beginRollback(record: WriteRecord, snapshot: FileModel): void {
    this.writes.set(record.id, record)
    this.#learnWrites(snapshot, record.issuedAt - 1)
    for (const { begin, end, candidates } of snapshot.#segments) {
      const added = candidates.map(({ write, isTorn }) => ({ ...candidateOf(write, record.id), isTorn }))
      for (const segment of this.#over(begin, end))
        segment.candidates.push(...added.map((candidate) => ({ ...candidate })))
    }
  }

  /** Becomes what `source` was at a moment between the events `since` and `now`. */
  becomeCopy(source: FileModel, since: number, now: number, isSnapshot: boolean): void {
    this.#isSnapshot = isSnapshot
    this.#moment = { from: since, until: now }
    if (source.#isSnapshot) this.#moment = source.#moment
    this.#learnWrites(source, now)
    this.#segments = source.#segments.map(({ begin, end, candidates }) => {
      const possible = candidates.filter((candidate) => candidate.supersededAt > since || candidate.isRevived)
      const copies = possible.map((candidate) => {
        const { write, isTorn } = candidate
        const time = source.#isSnapshot ? candidate : source.#timeOf(candidate)
        return { ...candidateOf(write, ZEROS), isTorn, from: time.from, until: time.until }
      })
      return { begin, end, lostAt: -1, candidates: copies }
    })
    const { minimum, maximum } = source.#sizeSince(since, false)
    this.#sizes = [{ at: 0, minimum, maximum }]
    this.#flushedMinimum = minimum
  }

  /** When the file may have held it, as far as that is known. */
  #timeOf({ operation, isRevived, supersededAt }: Candidate): { from: number; until: number } {
    if (isRevived) return { from: 0, until: NEVER }
    return { from: this.writes.get(operation)?.issuedAt ?? 0, until: supersededAt }
  }

  #learnWrites(other: FileModel, now: number): void {
    for (const record of other.writes.values())
      if (!this.writes.has(record.id))
        this.writes.set(record.id, { ...record, endedAt: Math.min(record.endedAt, now) })
  }

  /** Acknowledged. `isDurable`: decided in the quorum (truncate), no power loss brings back what was there. */
  acknowledge(record: WriteRecord, now: number, isDurable: boolean, windowBegin: number): void {
    record.endedAt = now
    for (const segment of this.#over(record.begin, record.end)) {
      for (const candidate of segment.candidates) {
        if (candidate.operation === record.id) continue
        const other = this.writes.get(candidate.operation)
        const ended = other === undefined ? 0 : other.endedAt
        if (ended >= record.issuedAt) continue
        if (candidate.supersededAt === NEVER || candidate.isRevived) {
          candidate.supersededAt = now
          candidate.supersededBy = record.client
          // a part of the write may have been on the replicas, and lost, before the rest was answered
          candidate.isRevived = candidate.revivable && segment.lostAt > record.issuedAt
        }
        if (isDurable) candidate.revivable = false
      }
      if (segment.candidates.length > CANDIDATES_KEPT) {
        segment.candidates = segment.candidates.filter(
          (candidate) => candidate.revivable || candidate.supersededAt >= windowBegin,
        )
      }
    }
  }

  /**
   * A flush of `client` that was issued at `issuedAt` succeeded: what it had superseded before is gone for
   * good. Whether writes of another client were lost is told to that one.
   */
  flushed(client: string, issuedAt: number): void {
    let isStillAtRisk = false
    for (const segment of this.#segments) {
      for (const candidate of segment.candidates) {
        if (candidate.supersededAt >= issuedAt) continue
        if (candidate.isRevived && candidate.supersededBy !== client) {
          isStillAtRisk = true
          continue
        }
        candidate.revivable = false
        candidate.isRevived = false
      }
    }
    if (isStillAtRisk) return
    // rules F8, T2: a truncate beside the flush has cut off again what the flush had put into the quorum
    this.#flushedMinimum = Math.max(this.#flushedMinimum, this.#changedSince(issuedAt).minimum)
    this.#isSizeAtRisk = false
  }

  /** Every in-sync replica of `[begin, end)` lost its host's memory: unflushed writes may be undone. */
  lostPower(begin: number, end: number, now = -1): void {
    for (const segment of this.#over(begin, end)) {
      segment.lostAt = now
      for (const candidate of segment.candidates) {
        if (!candidate.revivable) continue
        candidate.isTorn = true
        if (candidate.supersededAt !== NEVER) candidate.isRevived = true
      }
    }
    this.#isSizeAtRisk = true
    this.#riskCount += 1
  }

  /** May a flush of `client` say that data was lost? Once for each loss. */
  maySayLost(client: string): boolean {
    return this.#riskCount > (this.#toldRisk.get(client) ?? 0)
  }

  told(client: string): void {
    this.#toldRisk.set(client, this.#riskCount)
  }

  /** A flush said EIO, or who would have been told is dead: what was lost may stay lost. */
  forgive(): void {
    for (const segment of this.#segments) {
      for (const candidate of segment.candidates) {
        if (!candidate.isRevived) continue
        candidate.isRevived = false
        candidate.supersededAt = NEVER
      }
    }
    if (this.#isSizeAtRisk)
      this.#noteSize(this.#lastSize().at, this.#flushedMinimum, this.#lastSize().maximum)
    this.#isSizeAtRisk = false
  }

  growMaximum(now: number, end: number): void {
    const { minimum, maximum } = this.#lastSize()
    if (end > maximum) this.#noteSize(now, minimum, end)
  }

  growMinimum(now: number, end: number): void {
    const { minimum, maximum } = this.#lastSize()
    if (end > minimum) this.#noteSize(now, end, Math.max(maximum, end))
  }

  /** A truncate is under way: any size between, in the quorum too. */
  widenSize(now: number, size: number): void {
    const { minimum, maximum } = this.#lastSize()
    this.#noteSize(now, Math.min(minimum, size), Math.max(maximum, size))
    this.#flushedMinimum = Math.min(this.#flushedMinimum, size)
  }

  /** A truncate was acknowledged; `minimum` and `maximum` differ when writes ran beside it. */
  setSize(now: number, minimum: number, maximum: number): void {
    this.#noteSize(now, minimum, maximum)
    this.#flushedMinimum = minimum
  }

  /** Null, or what is wrong with reading `data` at `position` under a view not older than `since`. */
  checkRead(position: number, length: number, data: Buffer, since: number, mayBeOld = false): string | null {
    const range = this.#sizeSince(since, mayBeOld)
    const shortest = Math.max(0, Math.min(length, range.minimum - position))
    const longest = Math.max(0, Math.min(length, range.maximum - position))
    if (data.length < shortest || data.length > longest) {
      return `read of ${length} at ${position} gave ${data.length} bytes; size may be ${range.minimum} to ${range.maximum}`
    }
    const end = position + data.length
    const seen: Seen[] = []
    let index = this.#indexOf(position)
    for (; index < this.#segments.length; index++) {
      const segment = this.#segments[index] as Segment
      if (segment.begin >= end) break
      const from = Math.max(position, segment.begin)
      const to = Math.min(end, segment.end)
      const fault = this.#checkSegment(segment, from, to, data, position, since, seen)
      if (fault !== null) return fault
    }
    if (this.#isSnapshot)
      for (const one of seen)
        this.#over(one.begin, one.end).forEach((segment) => {
          segment.candidates = segment.candidates.filter(({ write }) => one.writes.includes(write))
        })
    return null
  }

  /** `mayBeOld`: sizes that nobody flushed or published may be unknown to the one who asks. */
  checkSize(size: number, since: number, mayBeOld = false): string | null {
    const range = this.#sizeSince(since, mayBeOld)
    if (size >= range.minimum && size <= range.maximum) {
      if (this.#isSnapshot) this.#sizes = [{ at: 0, minimum: size, maximum: size }]
      return null
    }
    return `size ${size}; it may be ${range.minimum} to ${range.maximum}`
  }

  /** Other operations that were under way at some time while `record` was. */
  overlapping(record: WriteRecord): WriteRecord[] {
    return [...this.writes.values()].filter((other) => other !== record && other.endedAt >= record.issuedAt)
  }

  /** Where something was ever written: interesting places to read. */
  extents(): { begin: number; end: number }[] {
    return [...this.writes.values()].map(({ begin, end }) => ({
      begin,
      end: Math.min(end, this.sizeMaximum),
    }))
  }

  #checkSegment(
    segment: Segment,
    from: number,
    to: number,
    data: Buffer,
    position: number,
    since: number,
    seen: Seen[],
  ): string | null {
    const allowed = segment.candidates.filter(
      (candidate) => candidate.supersededAt > since || candidate.isRevived,
    )
    // promise 3: page by page all or nothing; sector by sector after a power loss
    const unit = allowed.some((candidate) => candidate.isTorn) ? SECTOR_BYTES : PAGE_BYTES
    for (let at = from; at < to; ) {
      const next = Math.min(to, (Math.floor(at / unit) + 1) * unit)
      const begin = at - position
      const isIn = ({ write }: Candidate): boolean => this.#holds(write, data, begin, next - position, at)
      if (!allowed.some(isIn)) return this.#explain(segment, allowed, at, next, data, position)
      if (this.#moment.until !== NEVER) {
        const found = allowed.filter(isIn)
        if (!this.#isOfTheMoment(found))
          return `bytes ${at} to ${next} are of another moment: ${this.#explain(segment, found, at, next, data, position)}`
        if (found.length < allowed.length)
          seen.push({ begin: at, end: next, writes: found.map(({ write }) => write) })
      }
      at = next
    }
    return null
  }

  /** Rule S1: all of a copy is of one moment. Narrows it down to when one of these was there. */
  #isOfTheMoment(found: readonly Candidate[]): boolean {
    const from = Math.max(this.#moment.from, Math.min(...found.map((candidate) => candidate.from)))
    const until = Math.min(this.#moment.until, Math.max(...found.map((candidate) => candidate.until)))
    // what was issued at one event cannot be there before the next
    if (from >= until) return false
    this.#moment = { from, until }
    return true
  }

  #explain(
    segment: Segment,
    allowed: readonly Candidate[],
    at: number,
    next: number,
    data: Buffer,
    position: number,
  ): string {
    const begin = at - position
    const end = next - position
    const describe = (write: number): string =>
      write === ZEROS ? 'zeros' : `w${write} (${this.writes.get(write)?.description ?? 'forgotten'})`
    const old = segment.candidates.find(({ write }) => this.#holds(write, data, begin, end, at))
    let found = 'unknown bytes'
    if (old !== undefined) found = `${describe(old.write)}, superseded at event ${old.supersededAt}`
    else if (matches(ZEROS, data, begin, end, at)) found = 'zeros'
    else {
      for (const { id } of this.writes.values()) {
        if (this.#holds(id, data, begin, end, at)) found = describe(id)
        else if (
          this.#holds(id, data, begin, begin + 1, at) &&
          this.#holds(id, data, begin, Math.min(end, begin + 16), at)
        )
          found = `a part of ${describe(id)}`
      }
    }
    const wanted = allowed.map(({ write }) => describe(write)).join(' or ')
    return `bytes ${at} to ${next} hold ${found}; allowed: ${wanted}`
  }

  #holds(write: number, data: Buffer, from: number, to: number, position: number): boolean {
    return matches(this.writes.get(write)?.isZeros === true ? ZEROS : write, data, from, to, position)
  }

  /** The segments that make up `[begin, end)` exactly; cuts at both ends. */
  #over(begin: number, end: number): Segment[] {
    if (begin >= end) return []
    this.#cut(begin)
    this.#cut(end)
    const found: Segment[] = []
    for (let index = this.#indexOf(begin); index < this.#segments.length; index++) {
      const segment = this.#segments[index] as Segment
      if (segment.begin >= end) break
      found.push(segment)
    }
    return found
  }

  #cut(position: number): void {
    if (position === NEVER) return
    const index = this.#indexOf(position)
    const segment = this.#segments[index] as Segment
    if (segment.begin === position) return
    const right: Segment = {
      begin: position,
      end: segment.end,
      lostAt: segment.lostAt,
      candidates: segment.candidates.map((candidate) => ({ ...candidate })),
    }
    segment.end = position
    this.#segments.splice(index + 1, 0, right)
  }

  #indexOf(position: number): number {
    let low = 0
    let high = this.#segments.length - 1
    while (low < high) {
      const middle = (low + high + 1) >> 1
      if ((this.#segments[middle] as Segment).begin <= position) low = middle
      else high = middle - 1
    }
    return low
  }

  #lastSize(): SizeChange {
    return this.#sizes[this.#sizes.length - 1] as SizeChange
  }

  #noteSize(at: number, minimum: number, maximum: number): void {
    this.#sizes.push({ at, minimum, maximum })
  }

  #sizeAt(at: number): SizeChange {
    for (let index = this.#sizes.length - 1; index > 0; index--) {
      const change = this.#sizes[index] as SizeChange
      if (change.at <= at) return change
    }
    return this.#sizes[0] as SizeChange
  }

  #sizeSince(since: number, mayBeOld: boolean): { minimum: number; maximum: number } {
    const { minimum, maximum } = this.#changedSince(since)
    const mayBeShorter = this.#isSizeAtRisk || mayBeOld
    return { minimum: mayBeShorter ? Math.min(minimum, this.#flushedMinimum) : minimum, maximum }
  }

  /** All sizes from event `since` on. */
  #changedSince(since: number): { minimum: number; maximum: number } {
    let { minimum, maximum } = this.#sizeAt(since)
    for (let index = this.#sizes.length - 1; index >= 0; index--) {
      const change = this.#sizes[index] as SizeChange
      if (change.at < since) break
      minimum = Math.min(minimum, change.minimum)
      maximum = Math.max(maximum, change.maximum)
    }
    return { minimum, maximum }
  }
}
