/**
 * What the kernel knows of our inodes: how often it looked each one up, which attributes it was told
 * last, and under which contents its cached pages are still right. It decides whom an invalidation
 * concerns and whether pages survive a close and re-open. Bounded: inodes above the limit are not
 * tracked, and what is not tracked is always invalidated. Nothing here is needed for correct answers.
 */
import { MODE_SETGID } from '../protocol/constants.ts'
import type { Attributes } from '../protocol/types.ts'

export const KNOWN_INODES_MAX = 250_000

export class KnownInode {
  lookups = 0
  /** Last told to the kernel, or known to equal what it keeps. */
  attributes: Attributes | undefined
  /** The kernel's cached pages are those of this state; undefined: unknown. */
  pages: Attributes | undefined
}

/** Same contents, as far as size, time and generation can tell. */
export function sameContents(a: Attributes, b: Attributes): boolean {
  return a.generation === b.generation && sameSizeAndTime(a, b)
}

export function sameSizeAndTime(a: Attributes, b: Attributes): boolean {
  return (
    a.size === b.size && a.modifySeconds === b.modifySeconds && a.modifyNanoseconds === b.modifyNanoseconds
  )
}

export class InodeTable {
  readonly #inodes = new Map<number, KnownInode>()
  readonly #inodesMax: number
  /** True once an inode could not be tracked: then every invalidation is passed on. */
  #overflowed = false

  constructor(inodesMax = KNOWN_INODES_MAX) {
    this.#inodesMax = inodesMax
  }

  get size(): number {
    return this.#inodes.size
  }

  /** The kernel is about to be told `attributes`; `isLookup` when that answer counts as a lookup. */
  told(attributes: Attributes, isLookup: boolean): void {
    let known = this.#inodes.get(attributes.inode)
    if (known === undefined) {
      if (this.#inodes.size >= this.#inodesMax) {
        this.#overflowed = true
        return
      }
      known = new KnownInode()
      this.#inodes.set(attributes.inode, known)
    }
    if (isLookup) known.lookups++
    known.attributes = attributes
  }

  get(inode: number): KnownInode | undefined {
    return this.#inodes.get(inode)
  }

  forget(inode: number, lookupCount: number): void {
    const known = this.#inodes.get(inode)
    if (known === undefined) return
    known.lookups -= lookupCount
    if (known.lookups <= 0) this.#inodes.delete(inode)
  }

  /** May the kernel hold anything of this inode? */
  mayBeCached(inode: number): boolean {
    return this.#overflowed || this.#inodes.has(inode)
  }

  /** Every tracked inode; after an overflow this is not all. */
  inodes(): IterableIterator<number> {
    return this.#inodes.keys()
  }

  /** Somebody else changed it: nothing cached is believed any more. */
  invalidate(inode: number): void {
    const known = this.#inodes.get(inode)
    if (known === undefined) return
    known.attributes = undefined
    known.pages = undefined
  }

  /** The group new children of a directory get when it has the set-group-id bit; undefined: unknown. */
  inheritedGroup(directory: number): { readonly group: number | null } | undefined {
    const attributes = this.#inodes.get(directory)?.attributes
    if (attributes === undefined) return undefined
    return { group: (attributes.mode & MODE_SETGID) === 0 ? null : attributes.gid }
  }
}
