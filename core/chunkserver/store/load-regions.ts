/** Page records of regions in memory, in promises, for background work. */
import { CairnError } from '../../base/errors.ts'
import { PAGES_PER_REGION } from '../../base/units.ts'
import type { RegionRecords } from '../format/region-records.ts'
import type { Replica } from '../replica/replica.ts'
import type { ChunkStore } from './chunk-store.ts'

/** Records of a region, verified first when they have to be (rule J9). */
export function loadRegion(store: ChunkStore, replica: Replica, region: number): Promise<RegionRecords> {
  const ready = store.cache.ready(replica, region)
  if (ready !== null) return Promise.resolve(ready)
  return new Promise((resolve, reject) => {
    store.cache.load(replica, region, {
      onRegion: (error) => {
        const records = replica.region(region)
        if (error !== null) reject(error)
        else if (records === null) reject(new CairnError('DISK_IO', 'the region went away'))
        else resolve(records)
      },
    })
  })
}

/**
 * All of a range, in few reads; of a flat replica without those that are known to be blank when the range is more
 * than one region. Hold the pages: what nobody holds may be dropped from memory again.
 */
export async function loadRegions(
  store: ChunkStore,
  replica: Replica,
  firstPage: number,
  lastPage: number,
): Promise<void> {
  const firstRegion = Math.floor(firstPage / PAGES_PER_REGION)
  const lastRegion = Math.floor(lastPage / PAGES_PER_REGION)
  if (lastRegion > firstRegion)
    await new Promise<void>((resolve) => store.cache.readAhead(replica, firstRegion, lastRegion, resolve))
  const takesBlank = lastRegion > firstRegion
  for (let region = firstRegion; region <= lastRegion; region++) {
    const isKnown = takesBlank ? store.cache.isKnown(replica, region) : false
    if (!isKnown && store.cache.ready(replica, region) === null) await loadRegion(store, replica, region)
  }
}
