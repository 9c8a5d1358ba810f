/** One file of a simulated disk: what the page cache shows, what the platters hold, which sectors differ. */
import { PAGE_SIZE_BYTES } from '../../base/units.ts'

const SECTOR_BYTES = 512
export const SECTORS_PER_PAGE = PAGE_SIZE_BYTES / SECTOR_BYTES
const ALL_SECTORS = (1 << SECTORS_PER_PAGE) - 1

/** Of many pages at once: a buffer of its own for each would keep the collector of garbage busy. */
const SLAB_BYTES = 128 * 1024
let slab = Buffer.alloc(0)
let slabUsed = 0
/** Of disks that are not used any more. */
const freePages: Buffer[] = []
const FREE_PAGES_MAX = 16_384

/** Zeros. */
function newPage(): Buffer {
  const used = freePages.pop()
  if (used !== undefined) return used.fill(0)
  if (slabUsed === slab.length) {
    slab = Buffer.alloc(SLAB_BYTES)
    slabUsed = 0
  }
  const page = slab.subarray(slabUsed, slabUsed + PAGE_SIZE_BYTES)
  slabUsed += PAGE_SIZE_BYTES
  return page
}

export class Inode {
  readonly cached = new Map<number, Buffer>()
  readonly durable = new Map<number, Buffer>()
  /** Unsynced sectors of a page, as bits. */
  readonly dirty = new Map<number, number>()
  /** Of disks that keep a history: what pages held before the last sync that changed them. */
  old: Map<number, Buffer> | null = null
  size = 0
  durableSize = 0
}

/** Before a sync: what the platters hold. */
export function keepOld(inode: Inode, page: number): void {
  inode.old ??= new Map()
  const durable = inode.durable.get(page)
  inode.old.set(page, durable === undefined ? Buffer.alloc(PAGE_SIZE_BYTES) : Buffer.from(durable))
}

/** The file as the platters have it, with nothing unsynced. */
export function durableCopy(inode: Inode): Inode {
  const copy = new Inode()
  copy.size = inode.durableSize
  copy.durableSize = inode.durableSize
  for (const [page, content] of inode.durable) {
    if (page * PAGE_SIZE_BYTES >= copy.size) continue
    content.copy(pageOf(copy.durable, page))
    content.copy(pageOf(copy.cached, page))
  }
  return copy
}

/** Nobody looks at it again: its memory goes to the next disk. */
export function freeInode(inode: Inode): void {
  for (const pages of [inode.cached, inode.durable]) {
    if (freePages.length < FREE_PAGES_MAX) freePages.push(...pages.values())
    pages.clear()
  }
}

export function pageOf(pages: Map<number, Buffer>, page: number): Buffer {
  let content = pages.get(page)
  if (content === undefined) {
    content = newPage()
    pages.set(page, content)
  }
  return content
}

export function newPages(inode: Inode, position: number, length: number): number {
  let count = 0
  const last = Math.floor((position + length - 1) / PAGE_SIZE_BYTES)
  for (let page = Math.floor(position / PAGE_SIZE_BYTES); page <= last; page++) {
    if (!inode.cached.has(page)) count++
  }
  return count
}

export function writeInto(inode: Inode, position: number, bytes: Buffer): void {
  for (let done = 0; done < bytes.length; ) {
    const page = Math.floor((position + done) / PAGE_SIZE_BYTES)
    const at = (position + done) % PAGE_SIZE_BYTES
    const length = Math.min(bytes.length - done, PAGE_SIZE_BYTES - at)
    bytes.copy(pageOf(inode.cached, page), at, done, done + length)
    const first = Math.floor(at / SECTOR_BYTES)
    const last = Math.floor((at + length - 1) / SECTOR_BYTES)
    let sectors = inode.dirty.get(page) ?? 0
    for (let sector = first; sector <= last; sector++) sectors |= 1 << sector
    inode.dirty.set(page, sectors)
    done += length
  }
}

/** The first `count` bytes of `target` as the page cache has them at `position`. */
export function readFrom(inode: Inode, position: number, target: Buffer, count: number): void {
  // most of a chunk is holes: they are cleared together
  let clearFrom = 0
  for (let done = 0; done < count; ) {
    const at = (position + done) % PAGE_SIZE_BYTES
    const length = Math.min(count - done, PAGE_SIZE_BYTES - at)
    const content = inode.cached.get(Math.floor((position + done) / PAGE_SIZE_BYTES))
    if (content !== undefined) {
      if (clearFrom < done) target.fill(0, clearFrom, done)
      content.copy(target, done, at, at + length)
      clearFrom = done + length
    }
    done += length
  }
  if (clearFrom < count) target.fill(0, clearFrom, count)
}

export function copySectors(inode: Inode, page: number, sectors: number): void {
  const source = inode.cached.get(page)
  if (source === undefined) {
    inode.durable.delete(page)
    return
  }
  if (sectors === 0) return
  const target = pageOf(inode.durable, page)
  if (sectors === ALL_SECTORS) {
    source.copy(target)
    return
  }
  for (let sector = 0; sector < SECTORS_PER_PAGE; sector++) {
    if ((sectors & (1 << sector)) === 0) continue
    source.copy(target, sector * SECTOR_BYTES, sector * SECTOR_BYTES, (sector + 1) * SECTOR_BYTES)
  }
}

export function truncateInode(inode: Inode, sizeBytes: number): void {
  const lastPage = Math.floor(sizeBytes / PAGE_SIZE_BYTES)
  for (const page of inode.cached.keys()) {
    if (page * PAGE_SIZE_BYTES < sizeBytes) continue
    inode.cached.delete(page)
    inode.dirty.set(page, ALL_SECTORS)
  }
  const rest = sizeBytes % PAGE_SIZE_BYTES
  const edge = inode.cached.get(lastPage)
  if (rest > 0 && edge !== undefined) {
    edge.fill(0, rest)
    inode.dirty.set(lastPage, ALL_SECTORS)
  }
  inode.size = sizeBytes
}
