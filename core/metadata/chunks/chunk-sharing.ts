/**
 * What few chunks have: several holders, and replicas that are overlays (docs/formats/snapshots.md). Side maps of
 * the chunk table that double as indexes: who reads through a chunk, and which chunks nobody holds.
 */
import type { ChunkRow, ReplicaParent } from '../state/rows.ts'

const none: readonly never[] = []

export class ChunkSharing {
  /** Holders besides the owner. Many chunks share one list. */
  readonly #holders = new Map<number, readonly number[]>()
  readonly #overlays = new Map<number, readonly ReplicaParent[]>()
  /** By parent: the chunks with an overlay over it. */
  readonly #children = new Map<number, Set<number>>()
  readonly #hidden = new Set<number>()
  /** The list written last: the chunks of a file get the same one after the other. */
  #lastHolders: readonly number[] = none

  holders(chunk: number): readonly number[] {
    return this.#holders.get(chunk) ?? none
  }

  overlays(chunk: number): readonly ReplicaParent[] {
    return this.#overlays.get(chunk) ?? none
  }

  /** Chunks with an overlay that reads through this one. */
  children(chunk: number): ReadonlySet<number> | undefined {
    return this.#children.get(chunk)
  }

  /** Held by nobody; there while somebody reads through them. */
  get hidden(): ReadonlySet<number> {
    return this.#hidden
  }

  /** Chunks that have overlays. */
  chunksWithOverlays(): IterableIterator<number> {
    return this.#overlays.keys()
  }

  set({ chunk, inode, holders = none, overlays = none }: ChunkRow): void {
    if (holders.length === 0) this.#holders.delete(chunk)
    else this.#holders.set(chunk, this.#shared(holders))
    this.#setOverlays(chunk, overlays)
    if (inode === 0) this.#hidden.add(chunk)
    else this.#hidden.delete(chunk)
  }

  delete(chunk: number): void {
    this.#holders.delete(chunk)
    this.#setOverlays(chunk, none)
    this.#hidden.delete(chunk)
  }

  #setOverlays(chunk: number, overlays: readonly ReplicaParent[]): void {
    const before = this.#overlays.get(chunk)
    if (before === undefined && overlays.length === 0) return
    for (const { parent } of before ?? none) {
      const children = this.#children.get(parent)
      children?.delete(chunk)
      if (children?.size === 0) this.#children.delete(parent)
    }
    if (overlays.length === 0) {
      this.#overlays.delete(chunk)
      return
    }
    this.#overlays.set(
      chunk,
      overlays.map((entry) => ({ ...entry })),
    )
    for (const { parent } of overlays) {
      const children = this.#children.get(parent)
      if (children === undefined) this.#children.set(parent, new Set([chunk]))
      else children.add(chunk)
    }
  }

  #shared(holders: readonly number[]): readonly number[] {
    const last = this.#lastHolders
    const isSame = last.length === holders.length && last.every((inode, at) => inode === holders[at])
    if (!isSame) this.#lastHolders = [...holders]
    return this.#lastHolders
  }
}
