/**
 * One region on its way into memory: its newest records, and, where they cannot be believed as they are, what its
 * data says about them: after an unclean stop (rule J9), after a fall back to the older slot (rule P2), and in an
 * overlay where leftovers may lie (`ReplicaState.leftoversLow`): these are cleared, durably, before anybody uses
 * the region.
 */
import { mark } from '../../base/coverage.ts'
import { type CairnError, codeOf } from '../../base/errors.ts'
import { PAGE_SIZE_BYTES, PAGES_PER_REGION, REGION_SIZE_BYTES } from '../../base/units.ts'
import {
  DATA_POSITION,
  decodeHeaders,
  hasRegionBit,
  pagePosition,
  regionSlotPosition,
  SLOT_BYTES,
} from '../format/chunk-layout.ts'
import { loadSlots, PageState, RegionRecords, UNKNOWN_STAMP } from '../format/region-records.ts'
import { markLeftovers } from './leftovers.ts'
import { endOfState, isZero, judgePage } from './page-verdict.ts'
import { asDiskError, type RegionCache, type RegionWaiter } from './region-cache.ts'
import type { Replica } from './replica.ts'

const zeroPage = Buffer.alloc(PAGE_SIZE_BYTES)

export class RegionLoad {
  readonly waiters: RegionWaiter[] = []
  readonly #cache: RegionCache
  readonly #replica: Replica
  readonly #region: number
  #records: RegionRecords | null
  #data: Buffer | null = null
  #verify: boolean
  /** The newer slot could not be read: what is known of a page that does not verify is too old. */
  #fellBack = false
  /** Absent pages with something in their data area, where that means nothing. */
  readonly #leftovers: number[] = []

  constructor(cache: RegionCache, replica: Replica, region: number) {
    this.#cache = cache
    this.#replica = replica
    this.#region = region
    this.#records = replica.region(region)
    this.#verify = replica.needsVerification(region) || replica.hasLeftovers(region)
  }

  /** Nobody waits for it but who reads ahead. */
  get isUnwanted(): boolean {
    return this.waiters.length === 0 && !this.#verify
  }

  run(): void {
    const replica = this.#replica
    try {
      const exists = replica.file !== null || this.#cache.openFile(replica)
      if (!exists) return this.#clearLeftovers(this.#records ?? this.#newRecords())
    } catch (error) {
      const diskError = asDiskError(error)
      return codeOf(diskError) === 'DISK_IO' ? this.#ioFail(diskError) : this.#fail(diskError)
    }
    if (this.#records !== null) return this.#maybeVerify(this.#records)
    if (replica.header.sequence === 0) return this.#readHeader()
    this.#readSlots()
  }

  #newRecords(): RegionRecords {
    return new RegionRecords(this.#replica.chunk, this.#region, this.#replica.state.isOverlay)
  }

  #readHeader(): void {
    const area = this.#cache.pool.acquire(2 * SLOT_BYTES)
    this.#replica.file?.read(area, 0, (error) => {
      const replica = this.#replica
      const header = error === null ? decodeHeaders(area, replica.chunk) : null
      this.#cache.pool.release(area)
      if (error !== null) return this.#ioFail(error)
      if (header !== null) replica.header = header
      else if (replica.isWritten) {
        return this.#fail(this.#cache.damage(replica, 'the header of the chunk file cannot be read'))
      }
      this.#readSlots()
    })
  }

  #readSlots(): void {
    const area = this.#cache.pool.acquire(2 * SLOT_BYTES)
    this.#replica.file?.read(area, regionSlotPosition(this.#region, 0), (error, bytesRead) => {
      if (error === null) area.fill(0, bytesRead)
      this.take(error, area)
      this.#cache.pool.release(area)
    })
  }

  /** Goes on with both slots, which somebody else has read; the header has been, too. */
  take(error: CairnError | null, borrowedSlots: Buffer): void {
    if (error !== null) return this.#ioFail(error)
    const { header } = this.#replica
    const records = this.#newRecords()
    const present = hasRegionBit(header.presentLow, header.presentHigh, this.#region)
    const reading = loadSlots(records, borrowedSlots, present)
    // the first image of an overlay's region was torn: nothing was flushed there, so that all of it is absent
    if (reading.damaged && !present && this.#replica.hasLeftovers(this.#region)) {
      this.#fellBack = true
      return this.#maybeVerify(this.#newRecords())
    }
    if (reading.damaged) this.#reportAll()
    if (reading.fellBack) {
      mark('page records of the older slot are taken')
      this.#verify = true
    }
    this.#fellBack = reading.fellBack
    if (reading.damaged)
      for (let index = 0; index < PAGES_PER_REGION; index++) this.#forgetStamp(records, index)
    this.#maybeVerify(records)
  }

  /**
   * The record is not that of the last write: who compares with it must not take an old copy for an equal or
   * complete one (rules J2, J7). No stamp is higher than this one. In an overlay it also says that the page may
   * have been absent: then what lies in its data area is nothing that may be adopted.
   */
  #forgetStamp(records: RegionRecords, index: number): void {
    const checksum = records.contentChecksum(index)
    const { state } = this.#replica
    records.set(index, PageState.bad, state.isOverlay ? UNKNOWN_STAMP : state.version, checksum)
  }

  /** Rule P2: nothing is known about any page of the region. */
  #reportAll(): void {
    if (this.#replica.isUnclean) return
    const first = this.#region * PAGES_PER_REGION
    const pages = Array.from({ length: PAGES_PER_REGION }, (_, index) => first + index)
    this.#cache.events.reportBad(this.#replica, pages, 'page records cannot be read')
  }

  #maybeVerify(records: RegionRecords): void {
    this.#records = records
    // without checksums (make-cs -S) reads are not verified, but what a crash left behind still is
    if (!this.#verify) return this.#finish(records)
    mark('a region is verified after an unclean stop')
    const data = this.#cache.pool.acquire(REGION_SIZE_BYTES)
    this.#data = data
    this.#replica.file?.read(data, DATA_POSITION + this.#region * REGION_SIZE_BYTES, (error, bytesRead) => {
      if (error !== null) return this.#ioFail(error)
      data.fill(0, bytesRead)
      this.#judge(records, data)
    })
  }

  #judge(records: RegionRecords, data: Buffer): void {
    const bad: number[] = []
    let changed = false
    let emptyEnd = 0
    for (let index = 0; index < PAGES_PER_REGION; index++) {
      const state = records.states[index] as PageState
      if (
        index >= emptyEnd &&
        !hasContent(records, index) &&
        (state === PageState.hole || this.#isAbsentSure)
      ) {
        emptyEnd = endOfState(records, index)
        // most pages of most regions: looked at together
        if (isZero(data, index, emptyEnd)) {
          index = emptyEnd - 1
          continue
        }
      }
      const verdict =
        state === PageState.absent ? this.#judgeAbsent(index, data) : judgePage(records, index, state, data)
      if (verdict === state) continue
      records.setState(index, verdict)
      changed = true
      if (verdict === PageState.bad && this.#fellBack) this.#forgetStamp(records, index)
      if (verdict === PageState.bad) bad.push(this.#region * PAGES_PER_REGION + index)
    }
    if (changed) this.#cache.events.touch(this.#replica, records)
    if (bad.length > 0 && !this.#replica.isUnclean) {
      this.#cache.events.reportBad(this.#replica, bad, 'pages do not verify')
    }
    if (!this.#replica.rewrite) return this.#clearLeftovers(records)
    this.#cache.events.touch(this.#replica, records)
    this.#rewriteFrom(0, records, data)
  }

  /**
   * Rules P1, S2: content is a write of which the record was lost. The older slot does not tell a page that was
   * zeroed or written since from one that is absent still; a torn slot does, as nothing was answered for it.
   */
  #judgeAbsent(index: number, data: Buffer): PageState {
    const isEmpty = isZero(data, index, index + 1)
    if (this.#replica.hasLeftovers(this.#region)) {
      if (isEmpty) return PageState.absent
      mark('a merge that was cut off begins again')
      this.#leftovers.push(index)
      return PageState.absent
    }
    return isEmpty && this.#isAbsentSure ? PageState.absent : PageState.bad
  }

  get #isAbsentSure(): boolean {
    return !this.#fellBack || this.#replica.hasLeftovers(this.#region)
  }

  /** Rule F7: makes every page that has content dirty again, a run at a time. */
  #rewriteFrom(index: number, records: RegionRecords, data: Buffer): void {
    let begin = index
    while (begin < PAGES_PER_REGION && !hasContent(records, begin)) begin++
    if (begin === PAGES_PER_REGION) return this.#clearLeftovers(records)
    let end = begin + 1
    while (end < PAGES_PER_REGION && hasContent(records, end)) end++
    const run = data.subarray(begin * PAGE_SIZE_BYTES, end * PAGE_SIZE_BYTES)
    const position = DATA_POSITION + this.#region * REGION_SIZE_BYTES + begin * PAGE_SIZE_BYTES
    this.#replica.file?.write([run], position, (error) => {
      if (error !== null) {
        this.#cache.events.onWriteError(this.#replica, error)
        return this.#fail(error)
      }
      this.#rewriteFrom(end, records, data)
    })
  }

  /** The last step; nothing but the record of it changes when there are none. */
  #clearLeftovers(records: RegionRecords): void {
    const replica = this.#replica
    const { events } = this.#cache
    // a disk that is given up is only read from
    if (!replica.hasLeftovers(this.#region) || events.failure !== null) return this.#finish(records)
    const index = this.#leftovers.pop()
    if (index === undefined) return this.#fellBack ? this.#replaceTorn(records) : this.#syncCleared(records)
    const position = pagePosition(this.#region * PAGES_PER_REGION + index)
    replica.file?.write([zeroPage], position, (error) => {
      if (error === null) return this.#clearLeftovers(records)
      events.onWriteError(replica, error)
      this.#fail(error)
    })
  }

  /** Without the mark the torn slot would count as damage the next time: absent pages would be bad. */
  #replaceTorn(records: RegionRecords): void {
    const { pool, events } = this.#cache
    const image = pool.acquire(SLOT_BYTES)
    records.encodeNext(image)
    const position = regionSlotPosition(this.#region, records.sequence % 2)
    this.#replica.file?.write([image], position, (error) => {
      pool.release(image)
      if (error === null) return this.#syncCleared(records)
      events.onWriteError(this.#replica, error)
      this.#fail(error)
    })
  }

  #syncCleared(records: RegionRecords): void {
    const replica = this.#replica
    const { events } = this.#cache
    const forget = (error: CairnError | null): void => {
      if (error !== null) events.onWriteError(replica, error)
      if (error !== null) return this.#fail(error)
      markLeftovers(events.log, replica, this.#region, false, (failure) => {
        if (failure === null) this.#finish(records)
        else this.#fail(failure)
      })
    }
    if (replica.file === null) forget(null)
    else replica.file.sync(forget)
  }

  #finish(records: RegionRecords): void {
    if (this.#replica.region(this.#region) === null) this.#cache.loaded(this.#replica, records)
    this.#replica.verified(this.#region)
    this.#settle(null)
  }

  #ioFail(error: CairnError): void {
    this.#cache.events.onReadError(this.#replica, error)
    this.#fail(error)
  }

  #fail(error: CairnError): void {
    this.#settle(error)
  }

  #settle(error: CairnError | null): void {
    if (this.#data !== null) this.#cache.pool.release(this.#data)
    this.#data = null
    this.#replica.loads?.delete(this.#region)
    for (const waiter of this.waiters) waiter.onRegion(error)
  }
}

function hasContent(records: RegionRecords, index: number): boolean {
  const state = records.states[index]
  return state !== PageState.hole && state !== PageState.absent
}
