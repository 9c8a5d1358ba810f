/**
 * Background work on pages, in promises: joining, healing, repair and verification take the same locks
 * as clients' operations, a region or a megabyte at a time.
 */
import { assert } from '../../base/assert.ts'
import { CairnError, codeOf } from '../../base/errors.ts'
import { PAGE_SIZE_BYTES, PAGES_PER_REGION, REGION_SIZE_BYTES } from '../../base/units.ts'
import { crc32c } from '../../wire/checksum.ts'
import { PAGE_RECORD_BYTES } from '../../wire/data.ts'
import { pagePosition } from '../format/chunk-layout.ts'
import type { ChunkStore } from './chunk-store.ts'
import {
  AncestorHolds,
  effectiveRecords,
  effectiveWrittenEnd,
  isReliable,
  ownerOf,
} from '../replica/ancestors.ts'
import { loadRegion, loadRegions } from './load-regions.ts'
import { isMarked } from '../replica/open-list.ts'
import { Hold, type QueuedOperation } from '../replica/operation-queue.ts'
import { PageState, type RegionRecords } from '../format/region-records.ts'
import type { Replica } from '../replica/replica.ts'

/** One page as it travels between chunk servers. */
export interface PageImage {
  readonly page: number
  readonly stamp: number
  readonly checksum: number
  readonly state: PageState
  /** Of pages in state data. */
  readonly content: Buffer | null
}

/** Of the effective page; hold it. */
export function effectiveState(replica: Replica, page: number): PageState {
  const records = effectiveRecords(replica, page)
  return (records.states[page % PAGES_PER_REGION] ?? PageState.bad) as PageState
}

/** Runs `work` with pages locked: shared (`read`) or alone (`write`). */
export function withPages<T>(
  replica: Replica,
  hold: typeof Hold.read | typeof Hold.write,
  firstPage: number,
  lastPage: number,
  work: () => Promise<T>,
): Promise<T> {
  return new Promise<T>((resolve, reject) => {
    const operation: QueuedOperation = {
      hold,
      firstPage,
      lastPage,
      start: () => {
        // given back before the caller goes on: it finds the queue as it is
        void work()
          .finally(() => replica.queue.finish(operation))
          .then(resolve, reject)
      },
    }
    const admitted = replica.queue.submit(operation)
    if (!admitted) reject(new CairnError('OVERLOADED', 'too many operations wait', { retryable: true }))
  })
}

/** The same with what an overlay reads through: `effectiveRecords` may be asked (rule S4). */
export function withEffectivePages<T>(
  store: ChunkStore,
  replica: Replica,
  hold: typeof Hold.read | typeof Hold.write,
  firstPage: number,
  lastPage: number,
  work: () => Promise<T>,
): Promise<T> {
  return withPages(replica, hold, firstPage, lastPage, async () => {
    await loadRegions(store, replica, firstPage, lastPage)
    const holds = new AncestorHolds(store.cache)
    const isHeld = await new Promise<boolean>((resolve) => {
      holds.acquire(replica, firstPage, lastPage, true, resolve)
    })
    if (!isHeld) throw new CairnError('OVERLOADED', 'too many operations wait', { retryable: true })
    try {
      return await work()
    } finally {
      holds.release()
    }
  })
}

/** Marks regions open, durably, under the lease the replica has (rule B1). */
export function markOpen(
  store: ChunkStore,
  replica: Replica,
  firstPage: number,
  lastPage: number,
): Promise<void> {
  const firstRegion = Math.floor(firstPage / PAGES_PER_REGION)
  const lastRegion = Math.floor(lastPage / PAGES_PER_REGION)
  if (isMarked(replica, firstRegion, lastRegion)) return Promise.resolve()
  return new Promise((resolve, reject) => {
    store.mark(replica, {
      firstRegion,
      lastRegion,
      lease: replica.state.lease,
      onMarked: (error) => (error === null ? resolve() : reject(error)),
    })
  })
}

/**
 * Before it is written down what was found out about a page. A torn image of page records that were not open leaves
 * all pages of the region bad; in a flat replica they are verified, in an overlay the absent ones stay so (rule S2).
 */
export function openForFinding(store: ChunkStore, replica: Replica, page: number): Promise<void> {
  return replica.parent === null ? Promise.resolve() : markOpen(store, replica, page, page)
}

export function syncReplica(store: ChunkStore, replica: Replica): Promise<void> {
  return new Promise((resolve, reject) => {
    store.sync(replica, { onSynced: (error) => (error === null ? resolve() : reject(error)) }, true)
  })
}

/** Opens the file again when it was closed for others meanwhile; a replica that was never written is zeros. */
export function readData(
  store: ChunkStore,
  replica: Replica,
  position: number,
  target: Buffer,
): Promise<void> {
  return new Promise((resolve, reject) => {
    if (!store.cache.openFile(replica)) {
      target.fill(0)
      resolve()
      return
    }
    replica.file?.read(target, position, (error, bytesRead) => {
      if (error !== null) return reject(error)
      target.fill(0, bytesRead)
      resolve()
    })
  })
}

/** Does one effective page match its record? One that cannot be read does not (rule R1). Hold the page. */
export async function verifies(store: ChunkStore, replica: Replica, page: number): Promise<boolean> {
  const content = Buffer.alloc(PAGE_SIZE_BYTES)
  const owner = ownerOf(replica, page)
  if (owner === null) return false
  try {
    await readData(store, owner, pagePosition(page), content)
  } catch (error) {
    if (codeOf(error) !== 'DISK_IO') throw error
    store.onReadError(replica, error as CairnError)
    return false
  }
  return crc32c(content) === effectiveRecords(replica, page).contentChecksum(page % PAGES_PER_REGION)
}

/** The effective content of a region; the caller gives the buffer back to the pool. Hold its pages. */
export async function readRegion(store: ChunkStore, replica: Replica, region: number): Promise<Buffer> {
  const buffer = store.pool.acquire(REGION_SIZE_BYTES)
  const firstPage = region * PAGES_PER_REGION
  try {
    // one piece in a flat replica
    for (let begin = 0; begin < PAGES_PER_REGION; ) {
      const owner = replica.parent === null ? replica : ownerOf(replica, firstPage + begin)
      let end = replica.parent === null ? PAGES_PER_REGION : begin + 1
      while (end < PAGES_PER_REGION && ownerOf(replica, firstPage + end) === owner) end++
      const piece = buffer.subarray(begin * PAGE_SIZE_BYTES, end * PAGE_SIZE_BYTES)
      if (owner === null) piece.fill(0)
      else await readData(store, owner, pagePosition(firstPage + begin), piece)
      begin = end
    }
    return buffer
  } catch (error) {
    store.pool.release(buffer)
    throw error
  }
}

export function writeData(
  store: ChunkStore,
  replica: Replica,
  page: number,
  buffers: Buffer[],
): Promise<void> {
  return new Promise((resolve, reject) => {
    store.cache.createFile(replica)
    const { file } = replica
    assert(file !== null, 'pages are written to an open file')
    file.write(buffers, pagePosition(page), (error) => {
      if (error === null) return resolve()
      store.writeFailed(replica, error)
      reject(error)
    })
  })
}

const zeroPage = Buffer.alloc(PAGE_SIZE_BYTES)

/** Why a page of a batch is not taken over; `state` is that of the effective page. */
export type PageFilter = (page: number, state: PageState) => boolean

/**
 * Takes over pages under their lock, with the stamps they come with (rule P3). `wanted` decides under
 * the lock: a page that became good meanwhile is dropped (rule P4). Returns how many were taken.
 * The pages lie in one region and rise.
 */
export async function applyPages(
  store: ChunkStore,
  replica: Replica,
  images: readonly PageImage[],
  wanted: PageFilter,
): Promise<number> {
  const first = images[0]
  const last = images.at(-1)
  if (first === undefined || last === undefined) return 0
  return withEffectivePages(store, replica, Hold.write, first.page, last.page, async () => {
    if (store.closing) throw new CairnError('STARTING', 'the store is being closed', { retryable: true })
    // rule A2: the reserve is not for this
    if (store.isFull) throw new CairnError('DISK_FULL', 'the disk is full')
    await markOpen(store, replica, first.page, last.page)
    store.cache.createFile(replica)
    const region = Math.floor(first.page / PAGES_PER_REGION)
    const records = await loadRegion(store, replica, region)
    let taken = 0
    let run: PageImage[] = []
    for (const image of images) {
      const state = effectiveState(replica, image.page)
      if (!wanted(image.page, state)) continue
      checkFrozen(replica, image.page, state)
      const previous = run.at(-1)
      if (previous !== undefined && previous.page + 1 !== image.page) {
        await applyRun(store, replica, records, run)
        run = []
      }
      run.push(image)
      taken++
    }
    await applyRun(store, replica, records, run)
    return taken
  })
}

/**
 * Rule S3: what overlays read through stays what it is. A page that is good here and other than it should be is one
 * of a replica that was left behind, under overlays that were left behind, too: they are merged or deleted first.
 */
function checkFrozen(replica: Replica, page: number, state: PageState): void {
  if (!replica.isFrozen || !isReliable(replica, page)) return
  if (state !== PageState.data && state !== PageState.hole) return
  throw new CairnError('HAS_OVERLAY', `an overlay reads page ${page} of chunk ${replica.chunk}`)
}

async function applyRun(
  store: ChunkStore,
  replica: Replica,
  records: RegionRecords,
  run: readonly PageImage[],
): Promise<void> {
  const first = run[0]
  if (first === undefined) return
  const buffers = run.map((image) => image.content ?? zeroPage)
  // a hole over a hole, or a page that nobody has, needs no data
  const untouched = run.every((image) => {
    const state = records.states[image.page % PAGES_PER_REGION]
    if (image.state === PageState.lost || image.state === PageState.bad) return true
    return image.state === PageState.hole && (state === PageState.hole || state === PageState.absent)
  })
  if (!untouched) await writeData(store, replica, first.page, buffers)
  for (const image of run) {
    records.set(image.page % PAGES_PER_REGION, image.state, image.stamp, image.checksum)
    if (image.content !== null) extendToContent(store, replica, image.page, image.content)
    replica.markGood(image.page)
  }
  store.touch(replica, records)
  store.wrote(replica, untouched ? 0 : run.length * PAGE_SIZE_BYTES)
}

/** Written bytes of a page whose writer is unknown end with its last byte that is not zero (rule F8). */
export function extendToContent(store: ChunkStore, replica: Replica, page: number, content: Buffer): void {
  let end = content.length
  while (end > 0 && content[end - 1] === 0) end--
  if (end > 0) store.extendWritten(replica, page * PAGE_SIZE_BYTES, page * PAGE_SIZE_BYTES + end)
}

/**
 * Rule F8, of a joiner: the content does not say it when it ends with zeros; and what this replica says may be from
 * before a truncation that it has missed. Then only the source knows, unless its records were damaged (rule P6).
 * `digest`: of one region, decoded by the caller before. Hold the pages.
 */
export function takeWrittenEnd(
  store: ChunkStore,
  replica: Replica,
  records: RegionRecords,
  digest: Buffer,
): void {
  let sourceEnd = 0
  let isSourceWhole = true
  for (let index = 0; index < PAGES_PER_REGION; index++) {
    const at = index * PAGE_RECORD_BYTES
    const writtenBytes = writtenBytesOf(digest, at)
    if (writtenBytes > 0) sourceEnd = index * PAGE_SIZE_BYTES + writtenBytes
    const state = stateOf(digest, at)
    isSourceWhole &&= state === PageState.data || state === PageState.hole
  }
  const known = effectiveWrittenEnd(replica, records.region)
  const joined = replica.writtenEnds?.joined(records.region, sourceEnd) ?? sourceEnd
  const end = isSourceWhole ? joined : Math.max(joined, known)
  if (end === known) return
  records.writtenEnd = end
  if (replica.parent !== null) records.parentEndMax = 0
  // without a file there is nothing of it yet: pulling makes both
  if (store.cache.openFile(replica)) store.touch(replica, records)
}

function stateOf(source: Buffer, at: number): number {
  return source[at + 8] ?? PageState.bad
}

/** Of an entry of a digest: where in this page the written bytes of the region end; 0: not here. */
function writtenBytesOf(source: Buffer, at: number): number {
  return source.readUInt16LE(at + 10)
}

/** An entry of a hole that was never written, where no written bytes end. */
export function isBlankRecord(source: Buffer, at: number): boolean {
  return (
    source.readUInt32LE(at) === 0 && source.readUInt32LE(at + 4) === 0 && source.readUInt32LE(at + 8) === 0
  )
}

/** One entry of a digest or of a pull table. */
export function decodePageRecord(
  source: Buffer,
  at: number,
): { stamp: number; checksum: number; state: PageState } | null {
  const state = stateOf(source, at)
  if (state > PageState.lost || writtenBytesOf(source, at) > PAGE_SIZE_BYTES) return null
  return { stamp: source.readUInt32LE(at), checksum: source.readUInt32LE(at + 4), state: state as PageState }
}

/**
 * Pages out of the answer to a pull. Content that does not match its checksum comes out as *bad*; null
 * when the answer does not have the form it must have. `payload` stays shared with the images.
 */
export function decodePull(
  firstPage: number,
  count: number,
  table: Buffer,
  payload: Buffer | null,
): PageImage[] | null {
  if (table.length !== count * PAGE_RECORD_BYTES) return null
  const images: PageImage[] = []
  let used = 0
  for (let index = 0; index < count; index++) {
    const record = decodePageRecord(table, index * PAGE_RECORD_BYTES)
    if (record === null) return null
    let { state } = record
    let content: Buffer | null = null
    if (state === PageState.data) {
      if (payload === null || payload.length < used + PAGE_SIZE_BYTES) return null
      content = payload.subarray(used, used + PAGE_SIZE_BYTES)
      used += PAGE_SIZE_BYTES
      if (crc32c(content) !== record.checksum) state = PageState.bad
    }
    images.push({
      page: firstPage + index,
      stamp: record.stamp,
      checksum: state === PageState.hole ? 0 : record.checksum,
      state,
      content: state === PageState.data ? content : null,
    })
  }
  return used === (payload?.length ?? 0) ? images : null
}
