/**
 * Joining: makes a replica equal to a source at the same version, page by page. Compares (stamp, CRC,
 * state), pulls what differs, keeps the source's stamps, syncs everything, reports (rules F1, P3, P4,
 * J4, J7, J9, J10). Progress is volatile: a restart or another epoch starts over.
 */
import { mark } from '../../base/coverage.ts'
import { CairnError, codeOf } from '../../base/errors.ts'
import { PAGES_PER_CHUNK, PAGES_PER_REGION, REGIONS_PER_CHUNK } from '../../base/units.ts'
import { PAGE_RECORD_BYTES } from '../../wire/data.ts'
import type { ChunkStore } from '../store/chunk-store.ts'
import { wireError } from '../format/errors.ts'
import { Hold } from '../replica/operation-queue.ts'
import { compareRegion, isSameRegion, type Run } from './compare-region.ts'
import type { PageSource, PulledPages, SourceAddress } from './page-source.ts'
import { yieldToWriters } from './pull-pause.ts'
import { applyPages, type PageImage, syncReplica, verifies, withEffectivePages } from '../store/page-tasks.ts'
import { PageState } from '../format/region-records.ts'
import { effectiveRecords } from '../replica/ancestors.ts'
import { commitState } from '../store/replica-control.ts'
import type { Replica } from '../replica/replica.ts'
import { DOUBT_FLAGS, Role, StateFlag } from '../format/replica-state.ts'
import type { PulledBase } from '../store/write-operations.ts'

/** Joins under way; others wait in order. */
const RUNNING_COUNT_MAX = 4
/** The same of reconciliations: somebody waits for them, and most of them find everything equal. */
const RECONCILING_COUNT_MAX = 8
const WAITING_COUNT_MAX = 100_000
/** Each join works on so many parts of the chunk at once: at most 12 × 4 × 1 MiB are in flight. */
const WORKERS_PER_JOIN = 4
const REGIONS_PER_PART = REGIONS_PER_CHUNK / WORKERS_PER_JOIN
/** Pulls of one worker that wait for the network together. */
const PULLS_AT_ONCE = 8

export interface JoinOrder {
  readonly chunk: number
  readonly version: number
  readonly attempt: number
  readonly sources: readonly SourceAddress[]
  /**
   * Every member in sync has been so since this version or longer, and was made equal to others no later. A
   * replica that was in sync then, too, has what they have acknowledged up to its own end. 0: none of this.
   */
  readonly inSyncSince?: number
}

export interface JoinEvents {
  onJoined(order: JoinOrder, bytesPulled: number, lostPages: number): void
  onJoinFailed(order: JoinOrder, reason: string): void
}

export type SourceOpener = (address: SourceAddress) => Promise<PageSource>

class Join {
  readonly order: JoinOrder
  readonly replica: Replica
  aborted = false
  bytesPulled = 0
  /** Pages that no source could supply. */
  readonly missing: number[] = []
  /** Of the source in use; rises when one fails (rule J10). */
  sourceIndex = 0
  /** Did not answer for one missing page: not waited for again. */
  readonly silent = new Set<SourceAddress>()

  constructor(order: JoinOrder, replica: Replica) {
    this.order = order
    this.replica = replica
  }
}

class Lane {
  readonly runningCountMax: number
  readonly waiting: Join[] = []
  runningCount = 0

  constructor(runningCountMax: number) {
    this.runningCountMax = runningCountMax
  }
}

export class Joiner {
  readonly #store: ChunkStore
  readonly #open: SourceOpener
  readonly #events: JoinEvents
  readonly #joins = new Map<Replica, Join>()
  readonly #joining = new Lane(RUNNING_COUNT_MAX)
  readonly #reconciling = new Lane(RECONCILING_COUNT_MAX)

  constructor(store: ChunkStore, open: SourceOpener, events: JoinEvents) {
    this.#store = store
    this.#open = open
    this.#events = events
    store.basePull = (replica, page, callback) => this.#pullBase(replica, page, callback)
  }

  /** Accepts the order or throws a wire error; completion comes through the events. */
  join(order: JoinOrder): void {
    const replica = this.#store.replicas.get(order.chunk)
    if (replica === undefined) throw wireError('NO_REPLICA', `no replica of chunk ${order.chunk}`)
    if (replica.state.version !== order.version) throw wireError('WRONG_VERSION', 'the epoch has changed')
    if (replica.state.role === Role.inSync) throw wireError('REFUSED', 'the replica is in sync')
    if (!replica.serves) throw wireError('DISK_FAILED', replica.damage || 'the replica failed')
    const isReconciling = replica.state.role === Role.reconciling
    const lane = isReconciling ? this.#reconciling : this.#joining
    if (lane.waiting.length >= WAITING_COUNT_MAX) throw wireError('OVERLOADED', 'too many joins wait')
    // Rules P4, E6: ordered again before the promotion (another registration, another master). A second comparison
    // would take back what writers did here since, and what the source may not have applied yet.
    if (!isReconciling && replica.joinedVersion === order.version) return this.#events.onJoined(order, 0, 0)
    this.abort(replica)
    // Rule J4: marks of an earlier attempt at the same version stand, those of another epoch are gone. Those of
    // another authority are, too: members of a dirty chunk differ until they were made equal to one of them.
    if (replica.good === null || isReconciling) replica.resetGood()
    if (isReconciling) replica.joinedVersion = 0
    replica.joinPending = true
    if (replica.parent !== null) mark('an overlay joins or is reconciled')
    const join = new Join(order, replica)
    this.#joins.set(replica, join)
    lane.waiting.push(join)
    for (const waiter of [...(replica.baseWaiters ?? [])]) waiter.sourcesKnown()
    this.#startSome(lane)
  }

  /** The epoch changed, or the replica is deleted. */
  abort(replica: Replica): void {
    const join = this.#joins.get(replica)
    if (join !== undefined) join.aborted = true
    this.#joins.delete(replica)
  }

  abortAll(): void {
    for (const replica of [...this.#joins.keys()]) this.abort(replica)
  }

  get joinCount(): number {
    return this.#joins.size
  }

  #startSome(lane: Lane): void {
    while (lane.runningCount < lane.runningCountMax) {
      const join = lane.waiting.shift()
      if (join === undefined) return
      if (join.aborted) continue
      lane.runningCount++
      void this.#run(join).finally(() => {
        lane.runningCount--
        this.#startSome(lane)
      })
    }
  }

  async #run(join: Join): Promise<void> {
    const { replica, order } = join
    try {
      const regions = await this.#differingRegions(join)
      const parts = Array.from({ length: WORKERS_PER_JOIN }, (_, part) => this.#joinPart(join, part, regions))
      const outcomes = await Promise.allSettled(parts)
      const failed = outcomes.find((outcome) => outcome.status === 'rejected')
      if (failed !== undefined) throw failed.reason
      if (join.aborted) return
      // rule F1: data, records, version and directory entry, equal pages included; those it reads through, too
      await syncReplica(this.#store, replica)
      for (let parent = replica.parent; parent?.serves === true; parent = parent.parent) {
        await syncReplica(this.#store, parent)
      }
      if (join.aborted) return
      await commitState(this.#store, replica, (state) => {
        state.flags &= ~DOUBT_FLAGS
      })
      if (join.aborted) return
      replica.joinPending = false
      replica.rewrite = false
      replica.good = null
      replica.joinedVersion = order.version
      this.#joins.delete(replica)
      this.#events.onJoined(order, join.bytesPulled, join.missing.length)
      if (join.missing.length > 0)
        this.#store.reportBad(replica, join.missing, 'no source could supply them', false)
    } catch (error) {
      if (join.aborted) return
      this.#joins.delete(replica)
      for (const waiter of [...(replica.baseWaiters ?? [])]) waiter.discard()
      this.#events.onJoinFailed(order, `${codeOf(error)}: ${messageOf(error)}`.slice(0, 128))
    }
  }

  /** Compares region digests first: of most chunks little has changed. The others are marked as good. */
  async #differingRegions(join: Join): Promise<ReadonlySet<number>> {
    const { chunk, version } = join.order
    const theirs = await this.#withSource(join, (source) => source.regionDigests(chunk, version))
    const store = this.#store
    const { replica } = join
    return withEffectivePages(store, replica, Hold.read, 0, PAGES_PER_CHUNK - 1, () => {
      const differing = new Set<number>()
      for (let region = 0; region < REGIONS_PER_CHUNK; region++) {
        // the epoch changed while this waited for its turn (J4)
        if (join.aborted) break
        if (theirs !== null && isSameRegion(replica, region, theirs)) replica.markRegionGood(region)
        else differing.add(region)
      }
      return Promise.resolve(differing)
    })
  }

  async #joinPart(join: Join, part: number, differing: ReadonlySet<number>): Promise<void> {
    const begin = part * REGIONS_PER_PART
    const regions = Array.from({ length: REGIONS_PER_PART }, (_, index) => begin + index).filter((region) =>
      differing.has(region),
    )
    const [first, last] = [regions[0], regions.at(-1)]
    if (first === undefined || last === undefined) return
    const { chunk, version } = join.order
    const count = (last - first + 1) * PAGES_PER_REGION
    const digest = await this.#withSource(join, (source) =>
      source.digest(chunk, version, first * PAGES_PER_REGION, count),
    )
    try {
      for (const region of regions) {
        if (join.aborted) return
        const at = (region - first) * PAGES_PER_REGION * PAGE_RECORD_BYTES
        const records = digest.subarray(at, at + PAGES_PER_REGION * PAGE_RECORD_BYTES)
        await this.#joinRegion(join, region, records)
      }
    } finally {
      this.#store.pool.release(digest)
    }
  }

  async #joinRegion(join: Join, region: number, digest: Buffer): Promise<void> {
    const { replica } = join
    const firstPage = region * PAGES_PER_REGION
    const store = this.#store
    const plan = await withEffectivePages(
      store,
      replica,
      Hold.read,
      firstPage,
      firstPage + PAGES_PER_REGION - 1,
      () => compareRegion(store, replica, region, digest, () => !join.aborted),
    )
    if (plan.direct.length > 0) await this.#apply(join, plan.direct)
    for (let begin = 0; begin < plan.runs.length && !join.aborted; begin += PULLS_AT_ONCE) {
      await yieldToWriters(this.#store, () => join.aborted)
      const some = plan.runs.slice(begin, begin + PULLS_AT_ONCE)
      await Promise.all(some.map((run) => this.#pullRun(join, run)))
    }
  }

  async #pullRun(join: Join, run: Run): Promise<void> {
    if (join.aborted) return
    const { chunk, version } = join.order
    const pulled = await this.#withSource(join, (source) => source.pull(chunk, version, run.first, run.count))
    try {
      this.#countPulled(join, pulled)
      const usable = pulled.images.filter((image) => isUsable(image))
      await this.#apply(join, usable)
      for (const image of pulled.images) if (!isUsable(image)) await this.#pullElsewhere(join, image)
    } finally {
      pulled.release()
    }
  }

  /**
   * The source has no good copy of one page: any other source, else what is here when that is complete, else
   * it is missing here as it is there, with the source's record. It is called lost only when the source does so
   * and everybody else has answered: a silent one may have it (rule J7), and is asked again by the repair.
   */
  async #pullElsewhere(join: Join, missing: PageImage): Promise<void> {
    const { chunk, version, sources } = join.order
    const { page } = missing
    if (join.aborted || join.replica.isGood(page)) return
    for (const address of sources) {
      if (join.silent.has(address)) continue
      let pulled: PulledPages
      try {
        const source = await this.#open(address)
        pulled = await source.pull(chunk, version, page, 1)
      } catch {
        join.silent.add(address)
        continue
      }
      try {
        const image = pulled.images[0]
        if (image === undefined || !isUsable(image)) continue
        await this.#apply(join, [image])
        this.#countPulled(join, pulled)
        return
      } finally {
        pulled.release()
      }
    }
    if (await this.#keepComplete(join, missing)) return
    const state = join.silent.size > 0 ? PageState.bad : missing.state
    if ((await this.#apply(join, [{ ...missing, state }])) > 0) join.missing.push(page)
  }

  /**
   * Rule J7: this replica left the set while writes were under way that the members in sync did not get; its
   * page then differs from the record of the one that is gone, but is no older. That is certain when
   * - this replica was in sync, without a crash of its host or disk since, up to a version not lower than the
   *   gone page's stamp: a write that was acknowledged without it was sent again under a higher version (F3);
   * - no reconciliation came after that: what it has beyond the others belongs to a holder that lives and still
   *   owes it to all members (rules E11, J1).
   */
  async #keepComplete(join: Join, missing: PageImage): Promise<boolean> {
    const { replica, order } = join
    const { page } = missing
    const { inSyncVersion, flags } = replica.state
    const since = order.inSyncSince ?? 0
    if (since === 0 || inSyncVersion < since) return false
    if (missing.stamp > inSyncVersion || (flags & (StateFlag.crashed | StateFlag.failed)) !== 0) return false
    return withEffectivePages(this.#store, replica, Hold.write, page, page, async () => {
      const records = effectiveRecords(replica, page)
      const index = page % PAGES_PER_REGION
      if (join.aborted || replica.state.version !== order.version || replica.isGood(page)) return true
      const state = records.states[index]
      if (state !== PageState.data && state !== PageState.hole) return false
      // written by all who were in sync, so also here
      if ((records.stamps[index] ?? 0) < missing.stamp) return false
      if (state === PageState.data && !(await verifies(this.#store, replica, page))) return false
      replica.markGood(page)
      this.#store.logger.warn('kept a page that its source has lost', { chunk: order.chunk, page })
      return true
    })
  }

  #countPulled(join: Join, { bytes }: PulledPages): void {
    join.bytesPulled += bytes
    this.#store.counters.pulledBytes += bytes
  }

  #apply(join: Join, images: readonly PageImage[]): Promise<number> {
    const { replica, order } = join
    return applyPages(this.#store, replica, images, (page) => {
      // rules E2, P4
      return !join.aborted && replica.state.version === order.version && !replica.isGood(page)
    })
  }

  /** Tries the source in use, then the others (rule J10). */
  async #withSource<T>(join: Join, ask: (source: PageSource) => Promise<T>): Promise<T> {
    const { sources } = join.order
    let failure: unknown = new CairnError('DISCONNECTED', 'no source')
    for (let tries = 0; tries < sources.length; tries++) {
      const index = join.sourceIndex
      const address = sources[index % sources.length]
      if (address === undefined || join.aborted) break
      try {
        return await ask(await this.#open(address))
      } catch (error) {
        failure = error
        mark('a join goes on from another source')
        if (join.sourceIndex === index) join.sourceIndex++
      }
    }
    throw failure
  }

  /** Rule P4: the base of a partial write, under the writer's own lock. */
  #pullBase(
    replica: Replica,
    page: number,
    callback: (error: CairnError | null, base: PulledBase | null) => void,
  ): void {
    const join = this.#joins.get(replica)
    if (join === undefined) {
      callback(null, null)
      return
    }
    const { chunk, version } = join.order
    this.#withSource(join, (source) => source.pull(chunk, version, page, 1)).then(
      (pulled) => {
        const image = pulled.images[0]
        this.#countPulled(join, pulled)
        if (image === undefined) callback(new CairnError('BAD_MESSAGE', 'no page'), null)
        else callback(null, { state: image.state, content: image.content })
        pulled.release()
      },
      (error: unknown) => {
        callback(error instanceof CairnError ? error : new CairnError('DISCONNECTED', String(error)), null)
      },
    )
  }
}

function isUsable(image: PageImage): boolean {
  return image.state === PageState.data || image.state === PageState.hole
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error)
}
