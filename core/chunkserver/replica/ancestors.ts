/**
 * What an overlay reads through (rules S2 to S4, docs/formats/snapshots.md): which replica of its chain has a page,
 * and the page locks that keep it so while an operation looks. A page that is absent in the whole chain, or whose
 * owner cannot be relied upon, is *not good*: nobody here has it (rule R1).
 *
 * Locks are taken from the child to the parent, never the other way, so that nobody waits in a circle; what holds
 * the pages of a parent waits for the disk at most, never for another server.
 */
import type { CairnError } from '../../base/errors.ts'
import { PAGES_PER_REGION } from '../../base/units.ts'
import { PageState, RegionRecords, UNKNOWN_STAMP } from '../format/region-records.ts'
import { Role } from '../format/replica-state.ts'
import { Hold, type QueuedOperation } from './operation-queue.ts'
import type { RegionCache, RegionWaiter } from './region-cache.ts'
import type { Replica } from './replica.ts'

/** A chain is never longer: a child that would be deeper is not made (TRY_AGAIN). */
export const OVERLAY_DEPTH_MAX = 32
/** A longer chain is merged without an order. */
export const OVERLAY_DEPTH_MERGED = 8

/** Of a page that nobody here has. */
const nothingKnown = new RegionRecords(0, 0)
nothingKnown.states.fill(PageState.bad)
nothingKnown.stamps.fill(UNKNOWN_STAMP)

/**
 * The role and version of a parent do not matter: nobody writes to it since it became one, and what it held was
 * flushed (rule S1). Only one that was emptied, to be joined from nothing, has no pages until they were pulled.
 */
export function isReliable(parent: Replica, page: number): boolean {
  if (!parent.serves) return false
  const { state } = parent
  if (state.role === Role.inSync || state.inSyncVersion > 0) return true
  return parent.good === null ? !parent.joinPending : parent.isGood(page)
}

/** The replica that has the page, `replica` itself or one below it; null: none. The regions are in memory. */
export function ownerOf(replica: Replica, page: number): Replica | null {
  const region = Math.floor(page / PAGES_PER_REGION)
  for (let owner: Replica | null = replica; owner !== null; owner = owner.parent) {
    if (owner !== replica && (!isReliable(owner, page) || owner.needsVerification(region))) return null
    const records = owner.region(region)
    if (records === null) return null
    if (records.states[page % PAGES_PER_REGION] !== PageState.absent) return owner
  }
  return null
}

/**
 * `ownerOf` found nobody, but the page may come to light: an ancestor cannot be read or relied upon *now*. One that is
 * damaged has lost what it had.
 */
export function isUnsure(replica: Replica, page: number): boolean {
  const region = Math.floor(page / PAGES_PER_REGION)
  for (let owner: Replica | null = replica; owner !== null; owner = owner.parent) {
    if (owner.damage !== '') return false
    if (owner !== replica && (!isReliable(owner, page) || owner.needsVerification(region))) return true
    const records = owner.region(region)
    if (records === null) return true
    if (records.states[page % PAGES_PER_REGION] !== PageState.absent) return false
  }
  return false
}

/** Records in which the *effective* page is described: of its owner, under the owner's identity (rule S4). */
export function effectiveRecords(replica: Replica, page: number): RegionRecords {
  const owner = ownerOf(replica, page)
  return owner?.region(Math.floor(page / PAGES_PER_REGION)) ?? nothingKnown
}

/** Highest written byte of a region, the ancestors' included as far as no overlay has cut it (rule F8). */
export function effectiveWrittenEnd(replica: Replica, region: number): number {
  let end = 0
  let most = Number.POSITIVE_INFINITY
  for (let owner: Replica | null = replica; owner !== null; owner = owner.parent) {
    const records = owner.region(region)
    if (records === null) break
    end = Math.max(end, Math.min(most, records.writtenEnd))
    most = Math.min(most, records.parentEndMax)
  }
  return end
}

/** How many replicas it reads through. */
export function depthOf(replica: Replica): number {
  let depth = 0
  for (let parent = replica.parent; parent !== null; parent = parent.parent) depth++
  return depth
}

/** With everything that reads through it, over others, too. */
export function withOverlays(replica: Replica): Replica[] {
  const found = [replica]
  for (const { overlays } of found) found.push(...(overlays ?? []))
  return found
}

/** A replica of its chain is missing or cannot be read: as a whole it is not what it was. */
export function isChainBroken(replica: Replica): boolean {
  for (let parent = replica.parent; parent !== null; parent = parent.parent) {
    if (parent.damage !== '') return true
  }
  return false
}

/** Pages of one ancestor, shared with other readers. */
class PageHold implements QueuedOperation {
  readonly hold = Hold.read
  readonly replica: Replica
  readonly firstPage: number
  readonly lastPage: number
  readonly start: () => void

  constructor(replica: Replica, firstPage: number, lastPage: number, start: () => void) {
    this.replica = replica
    this.firstPage = firstPage
    this.lastPage = lastPage
    this.start = start
  }
}

/** The pages that an operation reads through, held and with their records in memory. Reusable after `release`. */
export class AncestorHolds implements RegionWaiter {
  readonly #cache: RegionCache
  readonly #holds: PageHold[] = []
  #child: Replica | null = null
  #firstPage = 0
  #lastPage = 0
  #isWhole = false
  #nextRegion = 0
  #done: (isHeld: boolean) => void = () => undefined

  constructor(cache: RegionCache) {
    this.#cache = cache
  }

  /**
   * The caller holds these pages of `replica`, and has their regions in memory. `isWhole`: all pages, also those
   * that are not absent (for `effectiveWrittenEnd`). `done` may be called before this returns; with false when too
   * many wait at an ancestor: nothing is held then.
   */
  acquire(
    replica: Replica,
    firstPage: number,
    lastPage: number,
    isWhole: boolean,
    done: (isHeld: boolean) => void,
  ): void {
    this.#child = replica
    this.#firstPage = firstPage
    this.#lastPage = lastPage
    this.#isWhole = isWhole
    this.#done = done
    this.#climb()
  }

  release(): void {
    for (let hold = this.#holds.pop(); hold !== undefined; hold = this.#holds.pop()) {
      hold.replica.queue.finish(hold)
    }
    this.#child = null
  }

  #climb(): void {
    const parent = this.#child?.parent ?? null
    if (parent === null || !parent.serves || !this.#narrow()) return this.#done(true)
    const hold = new PageHold(parent, this.#firstPage, this.#lastPage, this.#onStart)
    this.#holds.push(hold)
    if (parent.queue.submit(hold)) return
    this.#holds.pop()
    this.release()
    this.#done(false)
  }

  /** To the pages that the child does not have; false: it has all. */
  #narrow(): boolean {
    if (this.#isWhole) return true
    while (this.#firstPage <= this.#lastPage && !this.#isAbsent(this.#firstPage)) this.#firstPage++
    while (this.#lastPage > this.#firstPage && !this.#isAbsent(this.#lastPage)) this.#lastPage--
    return this.#firstPage <= this.#lastPage
  }

  #isAbsent(page: number): boolean {
    const records = this.#child?.region(Math.floor(page / PAGES_PER_REGION))
    return records?.states[page % PAGES_PER_REGION] === PageState.absent
  }

  readonly #onStart = (): void => {
    this.#nextRegion = Math.floor(this.#firstPage / PAGES_PER_REGION)
    this.#loadNext()
  }

  #loadNext(): void {
    const parent = this.#holds.at(-1)?.replica
    const lastRegion = Math.floor(this.#lastPage / PAGES_PER_REGION)
    while (parent !== undefined && this.#nextRegion <= lastRegion) {
      if (this.#cache.ready(parent, this.#nextRegion) === null) {
        this.#cache.load(parent, this.#nextRegion, this)
        return
      }
      this.#nextRegion++
    }
    this.#child = parent ?? null
    this.#climb()
  }

  /** What could not be loaded is not good: `ownerOf` does not find it. */
  onRegion(_error: CairnError | null): void {
    this.#nextRegion++
    this.#loadNext()
  }
}
