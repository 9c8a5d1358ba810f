/** What differs between a region of a joiner and the digest of its source (rules P3, J2, J4, J7, S4). */
import { CairnError } from '../../base/errors.ts'
import { PAGES_PER_REGION } from '../../base/units.ts'
import { PAGE_RECORD_BYTES, REGION_DIGEST_BYTES } from '../../wire/data.ts'
import { PageState, unknownDigest } from '../format/region-records.ts'
import { effectiveRecords } from '../replica/ancestors.ts'
import type { Replica } from '../replica/replica.ts'
import type { ChunkStore } from '../store/chunk-store.ts'
import { regionDigest } from '../store/read-operations.ts'
import { decodePageRecord, isBlankRecord, type PageImage, takeWrittenEnd } from '../store/page-tasks.ts'
import { loadRegion } from '../store/load-regions.ts'

/** Of a region where nothing was ever written. */
const blankDigest = Buffer.alloc(PAGES_PER_REGION * PAGE_RECORD_BYTES)

export interface Run {
  first: number
  count: number
}

export interface Difference {
  /** To pull. */
  readonly runs: Run[]
  /** What needs no content: holes. */
  readonly direct: PageImage[]
}

/** Is the region equal, with what is written of it, as far as digests tell? The caller holds it, and it is known. */
export function isSameRegion(replica: Replica, region: number, digests: Buffer): boolean {
  const ours = regionDigest(replica, region)
  const at = region * REGION_DIGEST_BYTES
  return !ours.equals(unknownDigest) && ours.equals(digests.subarray(at, at + REGION_DIGEST_BYTES))
}

/** Marks as good what is equal. The caller holds the effective pages; `isCurrent`: the join goes on. */
export async function compareRegion(
  store: ChunkStore,
  replica: Replica,
  region: number,
  digest: Buffer,
  isCurrent: () => boolean,
): Promise<Difference> {
  const records = await loadRegion(store, replica, region)
  const runs: Run[] = []
  const direct: PageImage[] = []
  // the epoch changed while this waited for its turn: what is equal to the old digest may be old (J4)
  if (!isCurrent()) return { runs, direct }
  const firstPage = region * PAGES_PER_REGION
  // most of a chunk that holds little
  if (records.isBlank && digest.equals(blankDigest)) {
    for (let index = 0; index < PAGES_PER_REGION; index++) replica.markGood(firstPage + index)
    return { runs, direct }
  }
  for (let index = 0; index < PAGES_PER_REGION; index++) {
    const page = firstPage + index
    const at = index * PAGE_RECORD_BYTES
    const theirs = decodePageRecord(digest, at)
    if (theirs === null) throw new CairnError('BAD_MESSAGE', 'malformed digest')
    if (replica.isGood(page)) continue
    if (isSame(replica, page, theirs, isBlankRecord(digest, at))) replica.markGood(page)
    else if (theirs.state === PageState.hole) direct.push({ page, ...theirs, content: null })
    else {
      const last = runs.at(-1)
      if (last !== undefined && last.first + last.count === page) last.count++
      else runs.push({ first: page, count: 1 })
    }
  }
  takeWrittenEnd(store, replica, records, digest)
  return { runs, direct }
}

function isSame(
  replica: Replica,
  page: number,
  theirs: { readonly stamp: number; readonly checksum: number; readonly state: PageState },
  isBlankThere: boolean,
): boolean {
  const ours = effectiveRecords(replica, page)
  const index = page % PAGES_PER_REGION
  // a hole that nobody ever wrote, there as here: most of them
  if (isBlankThere && ours.isBlankAt(index)) return true
  const state = ours.states[index]
  // rule P3: equal stamp and CRC. A source whose page has gone bad or is lost still says what it was: a
  // copy of that must not be given up (J2, J7). The source repairs itself from here after the join.
  const isGone = theirs.state === PageState.bad || theirs.state === PageState.lost
  if (state === PageState.bad || ours.stamps[index] !== theirs.stamp) return false
  if (state !== theirs.state && !(state === PageState.data && isGone)) return false
  return state === PageState.hole || ours.contentChecksum(index) === theirs.checksum
}
