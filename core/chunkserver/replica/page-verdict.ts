/** What the pages of a region that was open when the server stopped uncleanly are worth (rules J9, P1). */
import { PAGE_SIZE_BYTES, PAGES_PER_REGION, REGION_SIZE_BYTES } from '../../base/units.ts'
import { crc32c } from '../../wire/checksum.ts'
import { PageState, type RegionRecords } from '../format/region-records.ts'

const zeroRegion = Buffer.alloc(REGION_SIZE_BYTES)

/**
 * What a page of an unverified region is. A hole with content was written after the records were last
 * synced, or its record was lost: either way it has to be adopted or repaired (rule P1).
 */
export function judgePage(records: RegionRecords, index: number, state: PageState, data: Buffer): PageState {
  const begin = index * PAGE_SIZE_BYTES
  const end = begin + PAGE_SIZE_BYTES
  switch (state) {
    case PageState.hole:
      return isZero(data, index, index + 1) ? PageState.hole : PageState.bad
    case PageState.data:
    case PageState.bad:
      return crc32c(data.subarray(begin, end)) === records.contentChecksum(index)
        ? PageState.data
        : PageState.bad
    case PageState.lost:
    case PageState.absent:
      return state
    default:
      return state satisfies never
  }
}

/** The first page from `index` on in another state. */
export function endOfState(records: RegionRecords, index: number): number {
  const state = records.states[index]
  let end = index + 1
  while (end < PAGES_PER_REGION && records.states[end] === state) end++
  return end
}

/** The pages from `first` to before `end` of a region's data. */
export function isZero(data: Buffer, first: number, end: number): boolean {
  const zeros = zeroRegion.subarray(0, (end - first) * PAGE_SIZE_BYTES)
  return zeros.compare(data, first * PAGE_SIZE_BYTES, end * PAGE_SIZE_BYTES) === 0
}
