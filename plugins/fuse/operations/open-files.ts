/**
 * Open files and directories of one mount. Handles are numbers the kernel gives back with every request;
 * all opens of an inode share one OpenInode, which knows whether this mount has written, what is not
 * published yet, and whether the kernel's pages may outlive the last close (close-to-open).
 */
import type { DirectoryEntry, File, IoCallback } from '@cairn/core/client'
import { type KnownInode, sameContents } from './inode-table.ts'
import type { Attributes } from '../protocol/types.ts'

export const OPEN_HANDLES_MAX = 1_000_000

export class OpenInode {
  readonly inode: number
  readonly files = new Set<File>()
  /** This mount wrote since the first of the present opens. */
  written = false
  /** Writes that no publish has covered yet. */
  unpublished = false
  /** As of the open that last made the kernel drop its pages. */
  base: Attributes
  /** `Context.namesChanged` when its attributes were last asked for: link counts may differ since. */
  namesSeen = -1
  /** Mode and change time that set-user-id was last taken from. */
  clearedPrivileges = ''
  /** Somebody else changed it meanwhile. */
  invalidated = false

  constructor(inode: number, base: Attributes) {
    this.inode = inode
    this.base = base
  }

  /**
   * May pages that are cached now be trusted by a later open that sees `attributes` again? Without own
   * writes only if nothing changed at all; with own writes if nobody else can have held the write lease
   * in between: our own lease raises the generation by one at most, somebody else's by one more.
   */
  pagesMatch(attributes: Attributes): boolean {
    if (this.invalidated) return false
    if (!this.written) return sameContents(this.base, attributes)
    return attributes.generation - this.base.generation <= 1
  }
}

/** Size and times to the quorum; nothing to do when nothing was written since the last time. */
export function publish(open: OpenFile, callback: IoCallback): void {
  const { state } = open
  if (!state.unpublished) {
    callback(null)
    return
  }
  // Before the call: a write that overlaps it sets the mark again.
  state.unpublished = false
  open.file.publish((error) => {
    if (error !== null) state.unpublished = true
    callback(error)
  })
}

export interface OpenFile {
  readonly file: File
  readonly state: OpenInode
}

/** Entries fetched and not yet given to the kernel; `offset` is what it must ask for to get them. */
export interface OpenDirectory {
  readonly inode: number
  parent: number
  offset: number
  leftover: readonly DirectoryEntry[]
}

export class OpenFiles {
  readonly #files = new Map<number, OpenFile>()
  readonly #directories = new Map<number, OpenDirectory>()
  readonly #inodes = new Map<number, OpenInode>()
  readonly #handlesMax: number
  #lastHandle = 0

  constructor(handlesMax = OPEN_HANDLES_MAX) {
    this.#handlesMax = handlesMax
  }

  get full(): boolean {
    return this.#files.size + this.#directories.size >= this.#handlesMax
  }

  get fileCount(): number {
    return this.#files.size
  }

  #nextHandle(): number {
    this.#lastHandle++
    return this.#lastHandle
  }

  /** Returns the handle, and whether the kernel may keep the pages it has. */
  open(
    file: File,
    attributes: Attributes,
    known: KnownInode | undefined,
  ): { handle: number; keepCache: boolean } {
    const pages = known?.pages
    let keepCache = pages !== undefined && sameContents(pages, attributes)
    let state = this.#inodes.get(file.inode)
    if (state === undefined) {
      state = new OpenInode(file.inode, attributes)
      this.#inodes.set(file.inode, state)
    } else if (state.pagesMatch(attributes)) {
      keepCache = true
    } else if (!state.written) {
      state.base = attributes
      state.invalidated = false
    }
    if (known !== undefined && !keepCache) known.pages = undefined
    state.files.add(file)
    const handle = this.#nextHandle()
    this.#files.set(handle, { file, state })
    return { handle, keepCache }
  }

  file(handle: number): OpenFile | undefined {
    return this.#files.get(handle)
  }

  /** Any open of this inode, for operations that come without a handle. */
  openInode(inode: number): OpenInode | undefined {
    return this.#inodes.get(inode)
  }

  anyFileOf(inode: number): OpenFile | undefined {
    const state = this.#inodes.get(inode)
    if (state === undefined) return undefined
    for (const file of state.files) return { file, state }
    return undefined
  }

  /** Takes the handle out; the caller publishes and closes the file. */
  release(handle: number): OpenFile | undefined {
    const open = this.#files.get(handle)
    if (open === undefined) return undefined
    this.#files.delete(handle)
    open.state.files.delete(open.file)
    if (open.state.files.size === 0) this.#inodes.delete(open.state.inode)
    return open
  }

  handles(): number[] {
    return [...this.#files.keys()]
  }

  openDirectory(inode: number): number {
    const handle = this.#nextHandle()
    this.#directories.set(handle, { inode, parent: inode, offset: 0, leftover: [] })
    return handle
  }

  directory(handle: number): OpenDirectory | undefined {
    return this.#directories.get(handle)
  }

  releaseDirectory(handle: number): void {
    this.#directories.delete(handle)
  }
}
