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

interface SizeChange {
  readonly at: number
  readonly minimum: number
  readonly maximum: number
}

export class FileModel {
  readonly name: string
  /** 0: not known (yet). */
  inode = 0
  /** The client whose change was acknowledged last. */
  lastWriter = ''
  readonly writes = new Map<number, WriteRecord>()
  #segments: Segment[] = [
    {
      begin: 0,
      end: NEVER,
      lostAt: -1,
      candidates: [
        {
          write: ZEROS,
          supersededAt: NEVER,
          supersededBy: '',
          revivable: true,
          isRevived: false,
          isTorn: false,
        },
      ],
    },
  ]
  /** Size changes in order; the last one holds now. */
  #sizes: SizeChange[] = [{ at: 0, minimum: 0, maximum: 0 }]
  /** The size in the quorum at least: what is left after all hosts lost power. Never above the last minimum. */
  #flushedMinimum = 0
  #isSizeAtRisk = false
  #riskCount = 0
  readonly #toldRisk = new Map<string, number>()

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
      segment.candidates.push({
        write: record.id,
        supersededAt: NEVER,
        supersededBy: '',
        revivable: true,
        isRevived: false,
        isTorn: false,
      })
  }

  /** Acknowledged. `isDurable`: decided in the quorum (truncate), no power loss brings back what was there. */
  acknowledge(record: WriteRecord, now: number, isDurable: boolean, windowBegin: number): void {
    record.endedAt = now
    for (const segment of this.#over(record.begin, record.end)) {
      for (const candidate of segment.candidates) {
        if (candidate.write === record.id) continue
        const other = this.writes.get(candidate.write)
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
    let index = this.#indexOf(position)
    for (; index < this.#segments.length; index++) {
      const segment = this.#segments[index] as Segment
      if (segment.begin >= end) break
      const from = Math.max(position, segment.begin)
      const to = Math.min(end, segment.end)
      const fault = this.#checkSegment(segment, from, to, data, position, since)
      if (fault !== null) return fault
    }
    return null
  }

  /** `mayBeOld`: sizes that nobody flushed or published may be unknown to the one who asks. */
  checkSize(size: number, since: number, mayBeOld = false): string | null {
    const range = this.#sizeSince(since, mayBeOld)
    if (size >= range.minimum && size <= range.maximum) return null
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
  ): string | null {
    const allowed = segment.candidates.filter(
      (candidate) => candidate.supersededAt > since || candidate.isRevived,
    )
    // promise 3: page by page all or nothing; sector by sector after a power loss
    const unit = allowed.some((candidate) => candidate.isTorn) ? SECTOR_BYTES : PAGE_BYTES
    for (let at = from; at < to; ) {
      const next = Math.min(to, (Math.floor(at / unit) + 1) * unit)
      const begin = at - position
      const found = allowed.some(({ write }) => this.#holds(write, data, begin, next - position, at))
      if (!found) return this.#explain(segment, allowed, at, next, data, position)
      at = next
    }
    return null
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
