/** Absent pages of an overlay have zeros in their data area (rule S2): what a failed write left there is taken away. */
import { CairnError } from '../../base/errors.ts'
import { PAGE_SIZE_BYTES, PAGES_PER_REGION } from '../../base/units.ts'
import { pagePosition } from '../format/chunk-layout.ts'
import { PageState } from '../format/region-records.ts'
import type { Replica } from '../replica/replica.ts'
import type { ChunkStore } from './chunk-store.ts'
import { readData, writeData } from './page-tasks.ts'

const zeroPage = Buffer.alloc(PAGE_SIZE_BYTES)

/** The caller holds the pages alone. If it cannot be done the replica has failed (rule F7). */
export async function clearAbsentPages(
  store: ChunkStore,
  replica: Replica,
  firstPage: number,
  lastPage: number,
): Promise<void> {
  const content = Buffer.alloc(PAGE_SIZE_BYTES)
  try {
    for (let page = firstPage; page <= lastPage; page++) {
      const records = store.loadedRegion(replica, Math.floor(page / PAGES_PER_REGION))
      if (records.states[page % PAGES_PER_REGION] !== PageState.absent) continue
      await readData(store, replica, pagePosition(page), content)
      if (content.equals(zeroPage)) continue
      await writeData(store, replica, page, [zeroPage])
    }
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error)
    store.writeFailed(replica, new CairnError('DISK_IO', `a failed write cannot be taken back: ${reason}`))
  }
}
