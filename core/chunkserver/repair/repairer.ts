/**
 * Heal and repair: what the metadata server orders about pages that do not verify (rules P1, R1, J7, F8).
 */
import { mark } from '../../base/coverage.ts'
import { codeOf } from '../../base/errors.ts'
import {
  PAGE_SIZE_BYTES,
  PAGES_PER_CHUNK,
  PAGES_PER_REGION,
  REGION_SIZE_BYTES,
  REGIONS_PER_CHUNK,
} from '../../base/units.ts'
import { crc32c } from '../../wire/checksum.ts'
import { hasRegionBit, pagePosition } from '../format/chunk-layout.ts'
import type { ChunkStore } from '../store/chunk-store.ts'
import { wireError } from '../format/errors.ts'
import type { SourceOpener } from './joiner.ts'
import { Hold } from '../replica/operation-queue.ts'
import type { PageSource, PulledPages, SourceAddress } from './page-source.ts'
import {
  applyPages,
  effectiveState,
  extendToContent,
  openForFinding,
  type PageImage,
  readData,
  syncReplica,
  verifies,
  withEffectivePages,
  withPages,
} from '../store/page-tasks.ts'
import { loadRegion } from '../store/load-regions.ts'
import { effectiveRecords, effectiveWrittenEnd, isUnsure, ownerOf } from '../replica/ancestors.ts'
import { PageState, UNKNOWN_STAMP } from '../format/region-records.ts'
import { commitState, exclusively } from '../store/replica-control.ts'
import type { Replica } from '../replica/replica.ts'
import { DOUBT_FLAGS } from '../format/replica-state.ts'

const zeroPage = Buffer.alloc(PAGE_SIZE_BYTES)

interface Found {
  /** The copy with the highest stamp (rule P3). */
  readonly image: PageImage | null
  /** Every source answered, and none has a good copy. */
  readonly definite: boolean
  release(): void
}

/** What the record of a page says whose content is gone. */
interface Gone {
  readonly stamp: number
  readonly checksum: number
}

export interface RepairOrder {
  readonly chunk: number
  readonly version: number
  readonly pages: readonly number[]
  /** Members in sync. */
  readonly sources: readonly SourceAddress[]
  /** Others that have or had a replica. */
  readonly formers?: readonly SourceAddress[]
  /** As in a join's order; 0 or absent: nothing can be told of formers. */
  readonly inSyncSince?: number
}

export class Repairer {
  readonly #store: ChunkStore
  readonly #open: SourceOpener

  constructor(store: ChunkStore, open: SourceOpener) {
    this.#store = store
    this.#open = open
  }

  /** The authority of a dirty chunk: verify what was open, fetch, adopt the rest, sync. */
  async heal(
    chunk: number,
    version: number,
    peers: readonly SourceAddress[],
  ): Promise<{ writtenEnd: number; adoptedPages: number }> {
    const replica = this.#replica(chunk, version)
    const hasStopped = replica.isUnclean
    const dead = new Set<SourceAddress>()
    let adoptedPages = 0
    for (const page of await this.#badPages(replica)) {
      const found = await this.#find(chunk, version, page, peers, dead)
      try {
        if (found.image !== null) await this.#apply(replica, version, found.image)
        // rule P1: adopted only when no member has it; one that did not answer may (its good copy would go)
        else if (!found.definite) {
          mark('a page is not adopted while a member is silent')
          throw wireError('TRY_AGAIN', 'a member that may have the page is silent')
        }
        // rule P1: after a crash. One that rotted stays bad, and is asked for again (rule R1).
        else if (hasStopped && (await this.#adopt(replica, version, page))) {
          mark('a torn page is adopted')
          adoptedPages++
        }
      } finally {
        found.release()
      }
    }
    await syncReplica(this.#store, replica)
    await this.#healed(replica, version)
    if (adoptedPages > 0) this.#store.logger.warn('adopted pages after a crash', { chunk, adoptedPages })
    return { writtenEnd: await this.#writtenEnd(replica), adoptedPages }
  }

  /** Pages of an in-sync replica, from wherever they verify. */
  async repair(order: RepairOrder): Promise<{ repaired: number; lost: number }> {
    const { chunk, version, sources } = order
    const replica = this.#replica(chunk, version)
    const dead = new Set<SourceAddress>()
    let repaired = 0
    let lost = 0
    for (const page of order.pages) {
      if (page >= REGIONS_PER_CHUNK * PAGES_PER_REGION) throw wireError('BAD_MESSAGE', `no page ${page}`)
      const gone = await this.#maybeGone(replica, page)
      if (gone === null) {
        repaired++
        continue
      }
      let found = await this.#find(chunk, version, page, sources, dead)
      if (found.image === null) found = await this.#findFormer(order, page, gone, found.definite, dead)
      try {
        if (found.image !== null) repaired += await this.#apply(replica, version, found.image)
        else if (found.definite && (await this.#declareLost(replica, version, page))) lost++
      } finally {
        found.release()
      }
    }
    if (repaired + lost > 0) await syncReplica(this.#store, replica)
    return { repaired, lost }
  }

  #replica(chunk: number, version: number): Replica {
    const replica = this.#store.replicas.get(chunk)
    if (replica === undefined) throw wireError('NO_REPLICA', `no replica of chunk ${chunk}`)
    if (replica.state.version !== version) throw wireError('WRONG_VERSION', 'the epoch has changed')
    if (!replica.serves || this.#store.failure !== null) throw wireError('DISK_FAILED', 'the replica failed')
    return replica
  }

  /** Rule E6: what was fetched for one epoch is dropped when another has begun: its pages may be older. */
  #apply(replica: Replica, version: number, image: PageImage): Promise<number> {
    return applyPages(
      this.#store,
      replica,
      [image],
      (_page, state) => replica.state.version === version && isMissing(state),
    )
  }

  /**
   * Alone on the replica: a heal that took so long that the epoch was superseded must not end the join that
   * the next epoch began (rules E6, J4).
   */
  #healed(replica: Replica, version: number): Promise<void> {
    return exclusively(replica, async () => {
      if (replica.state.version !== version) throw wireError('WRONG_VERSION', 'the epoch has changed')
      await commitState(this.#store, replica, (state) => {
        state.flags &= ~DOUBT_FLAGS
      })
      replica.joinPending = false
      replica.rewrite = false
      replica.good = null
      replica.writtenEnds = null
    })
  }

  /** Of the regions that were open. */
  #badPages(replica: Replica): Promise<number[]> {
    return withPages(replica, Hold.read, 0, PAGES_PER_CHUNK - 1, async () => {
      const { cache } = this.#store
      const { openLow, openHigh } = replica.state
      const isOpen = (region: number): boolean => hasRegionBit(openLow, openHigh, region)
      const open = Array.from({ length: REGIONS_PER_CHUNK }, (_, region) => region).filter(isOpen)
      await new Promise<void>((resolve) => cache.readAhead(replica, open[0] ?? 0, open.at(-1) ?? 0, resolve))
      const bad: number[] = []
      for (const region of open) {
        const { states } = cache.ready(replica, region) ?? (await loadRegion(this.#store, replica, region))
        if (!states.includes(PageState.bad)) continue
        for (let index = 0; index < PAGES_PER_REGION; index++)
          if (states[index] === PageState.bad) bad.push(region * PAGES_PER_REGION + index)
      }
      return bad
    })
  }

  /** Asks everybody and keeps the best verified copy. */
  async #find(
    chunk: number,
    version: number,
    page: number,
    sources: readonly SourceAddress[],
    /** Did not answer for an earlier page of the same order: not waited for again. */
    dead: Set<SourceAddress>,
  ): Promise<Found> {
    let best: PulledPages | null = null
    let definite = true
    for (const address of sources) {
      if (dead.has(address)) {
        definite = false
        continue
      }
      try {
        const source = await this.#open(address)
        const pulled = await source.pull(chunk, version, page, 1)
        this.#store.counters.pulledBytes += pulled.bytes
        const image = pulled.images[0]
        if (isUsable(image) && image.stamp > (best?.images[0]?.stamp ?? -1)) {
          best?.release()
          best = pulled
        } else pulled.release()
      } catch {
        definite = false
        dead.add(address)
      }
    }
    return foundOf(best, definite)
  }

  /**
   * Rules R1, J7: no member in sync has it. A replica that left has it when its page has the very record of the
   * one that is gone, or when it was in sync at or after the version of that record and after the last
   * reconciliation: then it has every write that was acknowledged, and what it has beyond is still owed to all
   * members by a holder that lives (see `Joiner.#keepComplete`).
   */
  async #findFormer(
    order: RepairOrder,
    page: number,
    gone: Gone,
    isDefinite: boolean,
    dead: Set<SourceAddress>,
  ): Promise<Found> {
    const since = order.inSyncSince ?? 0
    let definite = isDefinite
    for (const address of order.formers ?? []) {
      if (dead.has(address)) {
        definite = false
        continue
      }
      try {
        const source = await this.#open(address)
        const equal = await this.#pullFormer(source, order.chunk, 0, page)
        const image = equal?.images[0]
        if (image?.stamp === gone.stamp && image.checksum === gone.checksum) return foundOf(equal, definite)
        equal?.release()
        if (image === undefined || image.stamp < gone.stamp || since === 0) continue
        const later = await this.#pullFormer(source, order.chunk, Math.max(since, gone.stamp), page)
        if ((later?.images[0]?.stamp ?? -1) >= gone.stamp) return foundOf(later, definite)
        later?.release()
      } catch {
        definite = false
        dead.add(address)
      }
    }
    return foundOf(null, definite)
  }

  /** Null: that replica answered, and cannot supply the page. */
  async #pullFormer(
    source: PageSource,
    chunk: number,
    inSyncVersion: number,
    page: number,
  ): Promise<PulledPages | null> {
    try {
      const pulled = await source.pull(chunk, inSyncVersion, page, 1, true)
      this.#store.counters.pulledBytes += pulled.bytes
      if (isUsable(pulled.images[0])) return pulled
      pulled.release()
      return null
    } catch (error) {
      if (['WRONG_VERSION', 'NO_REPLICA'].includes(codeOf(error))) return null
      throw error
    }
  }

  /** Rule J7: stamp and checksum stay, so that whoever has the page after all is known by them. */
  #declareLost(replica: Replica, version: number, page: number): Promise<boolean> {
    return withEffectivePages(this.#store, replica, Hold.write, page, page, async () => {
      const records = await loadRegion(this.#store, replica, Math.floor(page / PAGES_PER_REGION))
      const index = page % PAGES_PER_REGION
      const bad = effectiveRecords(replica, page)
      if (replica.state.version !== version || bad.states[index] !== PageState.bad) return false
      // for ever: what cannot be read now may be there again when the disk or the ancestor is
      if (isUnsure(replica, page)) return false
      if (this.#store.closing) throw wireError('STARTING', 'the store is being closed')
      await openForFinding(this.#store, replica, page)
      this.#store.cache.createFile(replica)
      // of an overlay in itself: the parent may be another chunk's, too
      if (bad !== records) {
        records.set(index, PageState.lost, bad.stamps[index] ?? UNKNOWN_STAMP, bad.contentChecksum(index))
      } else records.setState(index, PageState.lost)
      this.#store.touch(replica, records)
      return true
    })
  }

  /** Rule P1: what the disk holds becomes the content, under a new stamp. */
  #adopt(replica: Replica, version: number, page: number): Promise<boolean> {
    return withPages(replica, Hold.write, page, page, async () => {
      const records = await loadRegion(this.#store, replica, Math.floor(page / PAGES_PER_REGION))
      const index = page % PAGES_PER_REGION
      if (replica.state.version !== version || records.states[index] !== PageState.bad) return false
      // rule S3: nobody writes to it, so that no write was cut off
      if (replica.isFrozen) return false
      if (this.#store.closing) throw wireError('STARTING', 'the store is being closed')
      const content = Buffer.alloc(PAGE_SIZE_BYTES)
      await readData(this.#store, replica, pagePosition(page), content)
      // rule S2: damage, never absence; but the page may have been absent, and then this is nobody's content
      const isUnknown = replica.parent !== null && records.stamps[index] === UNKNOWN_STAMP
      if (isUnknown && content.equals(zeroPage)) return false
      records.set(index, PageState.data, replica.state.version, crc32c(content))
      this.#store.touch(replica, records)
      extendToContent(this.#store, replica, page, content)
      return true
    })
  }

  /** A page that was reported may verify: bad cable, or healed by a full write meanwhile. Null: it does. */
  #maybeGone(replica: Replica, page: number): Promise<Gone | null> {
    return withEffectivePages(this.#store, replica, Hold.write, page, page, async () => {
      const records = effectiveRecords(replica, page)
      const owner = ownerOf(replica, page)
      const index = page % PAGES_PER_REGION
      const state = records.states[index] as PageState
      if (state === PageState.hole) return null
      const gone = { stamp: records.stamps[index] ?? 0, checksum: records.contentChecksum(index) }
      if (owner === null) return gone
      // a lost one, too: the disk may be readable again
      const isGood = await verifies(this.#store, replica, page)
      const verdict = isGood ? PageState.data : state === PageState.data ? PageState.bad : state
      if (verdict !== state) {
        await openForFinding(this.#store, owner, page)
        records.setState(index, verdict)
        this.#store.touch(owner, records)
      }
      return isGood ? null : gone
    })
  }

  #writtenEnd(replica: Replica): Promise<number> {
    const store = this.#store
    return withEffectivePages(store, replica, Hold.read, 0, PAGES_PER_CHUNK - 1, () => {
      for (let region = REGIONS_PER_CHUNK - 1; region >= 0; region--) {
        const writtenEnd = effectiveWrittenEnd(replica, region)
        // A cut tail that was pulled from another replica: behind the last page with data there is nothing.
        const end = writtenEnd === 0 ? 0 : Math.min(writtenEnd, endOfData(replica, region))
        if (end > 0) return Promise.resolve(region * REGION_SIZE_BYTES + end)
      }
      return Promise.resolve(0)
    })
  }
}

function foundOf(pulled: PulledPages | null, definite: boolean): Found {
  return { image: pulled?.images[0] ?? null, definite, release: () => pulled?.release() }
}

function isUsable(image: PageImage | undefined): image is PageImage {
  return image !== undefined && (image.state === PageState.data || image.state === PageState.hole)
}

function isMissing(state: PageState): boolean {
  return state === PageState.bad || state === PageState.lost
}

/** Of one region, in bytes; hold its pages. */
function endOfData(replica: Replica, region: number): number {
  const first = region * PAGES_PER_REGION
  let pages = PAGES_PER_REGION
  while (pages > 0 && effectiveState(replica, first + pages - 1) === PageState.hole) pages--
  return pages * PAGE_SIZE_BYTES
}
