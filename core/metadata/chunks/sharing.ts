/**
 * Chunks that several lists hold, and chunks under overlays, inside `apply` (docs/formats/snapshots.md). A chunk
 * ends when nobody holds it and no overlay reads through it (rule S3).
 */
import { mark } from '../../base/coverage.ts'
import { type EffectivePlacement, effectivePlacement } from '../namespace/placement.ts'
import type { ChunkRow, InodeRow, ReplicaParent } from '../state/rows.ts'
import { condemnReplicas } from './condemning.ts'
import type { ChunkState } from './handlers.ts'

/** From here on overlays are merged, so that a read does not go through many. */
export const OVERLAY_DEPTH_MERGED = 8
/** A child of a chunk this deep has to wait for a merge. */
export const OVERLAY_DEPTH_MAX = 32

export function isHeldBy(row: ChunkRow, inode: number): boolean {
  return row.inode === inode || row.holders?.includes(inode) === true
}

export function holdersOf(row: ChunkRow): readonly number[] {
  const { inode, holders = [] } = row
  return inode === 0 ? holders : [inode, ...holders]
}

/** Nobody writes to it any more: the first write makes a child (rule S1). */
export function isShared(state: Pick<ChunkState, 'chunks'>, row: ChunkRow): boolean {
  return row.holders !== undefined || state.chunks.sharing.children(row.chunk) !== undefined
}

/** What every holder wants: the most replicas, the widest domain. Undefined: nobody holds it. */
export function placementOf(
  state: Pick<ChunkState, 'inodes'>,
  row: Pick<ChunkRow, 'inode' | 'holders'>,
): EffectivePlacement | undefined {
  const owner = state.inodes.get(row.inode)
  if (owner === undefined) return undefined
  const placement = effectivePlacement(owner)
  if (row.holders === undefined) return placement
  let strongest = placement
  for (const inode of row.holders) {
    const holder = state.inodes.get(inode)
    if (holder !== undefined && holder.placement !== owner.placement)
      strongest = stronger(strongest, effectivePlacement(holder))
  }
  return strongest
}

const domains: readonly EffectivePlacement['failureDomain'][] = ['disk', 'host', 'rack', 'row', 'room']

function stronger(one: EffectivePlacement, other: EffectivePlacement): EffectivePlacement {
  const isWider = domains.indexOf(other.failureDomain) > domains.indexOf(one.failureDomain)
  return {
    replicasNormal: Math.max(one.replicasNormal, other.replicasNormal),
    replicasMinimum: Math.max(one.replicasMinimum, other.replicasMinimum),
    failureDomain: isWider ? other.failureDomain : one.failureDomain,
    tier: one.tier,
  }
}

/** Rule E4: what anybody cached of the places of its holders' contents is no longer valid. */
export function raiseGenerations(state: ChunkState, row: ChunkRow): void {
  raiseGeneration(state, row.inode)
  if (row.holders !== undefined) for (const inode of row.holders) raiseGeneration(state, inode)
}

export function raiseGeneration(state: Pick<ChunkState, 'inodes'>, inode: number): void {
  const row = state.inodes.get(inode)
  if (row === undefined) return
  row.generation += 1
  state.inodes.touch(inode)
}

/** Puts the chunk into the list of `file`, which has none at its index. */
export function hold(state: ChunkState, file: InodeRow, row: ChunkRow): void {
  const { inode } = file
  file.chunks.set(row.index, row.chunk)
  if (isHeldBy(row, inode)) return
  const holders = [...(row.holders ?? []), inode].toSorted((a, b) => a - b)
  state.chunks.put({ ...row, holders })
}

/** The caller has taken it out of the list of `inode`. */
export function release(state: ChunkState, chunk: number, inode: number): void {
  const row = state.chunks.get(chunk)
  if (row === undefined || !isHeldBy(row, inode)) return
  const [owner = 0, ...holders] = holdersOf(row).filter((holder) => holder !== inode)
  if (owner !== 0) return state.chunks.put(withHolders(row, owner, holders))
  if (state.chunks.sharing.children(chunk) === undefined) return end(state, row)
  // Nobody writes it or waits for it: what is left is what the overlays read.
  mark('a chunk that nobody holds is kept for its overlays')
  state.chunks.put(withHolders(row, 0, []))
}

function withHolders(row: ChunkRow, inode: number, holders: readonly number[]): ChunkRow {
  const { holders: _before, ...rest } = row
  return holders.length === 0 ? { ...rest, inode } : { ...rest, inode, holders }
}

/** Writes the row with these overlays; a parent that is not needed any more ends (rule S3). */
export function putWithOverlays(state: ChunkState, row: ChunkRow, overlays: readonly ReplicaParent[]): void {
  const before = state.chunks.sharing.overlays(row.chunk)
  const { overlays: _before, ...rest } = row
  state.chunks.put(overlays.length === 0 ? rest : { ...rest, overlays })
  endUnused(state, before)
}

function end(state: ChunkState, row: ChunkRow): void {
  const overlays = state.chunks.sharing.overlays(row.chunk)
  condemnReplicas(state, row)
  state.chunks.delete(row.chunk)
  endUnused(state, overlays)
}

/** One after the other down the chain: as long as chains get. */
function endUnused(state: ChunkState, overlays: readonly ReplicaParent[]): void {
  const parents = overlays.map(({ parent }) => parent)
  for (let parent = parents.shift(); parent !== undefined; parent = parents.shift()) {
    const { sharing } = state.chunks
    if (!sharing.hidden.has(parent) || sharing.children(parent) !== undefined) continue
    const row = state.chunks.get(parent)
    if (row === undefined) continue
    parents.push(...sharing.overlays(parent).map((entry) => entry.parent))
    condemnReplicas(state, row)
    state.chunks.delete(parent)
  }
}

/** How many replicas a read goes through at most, itself included. */
export function depthOf(state: Pick<ChunkState, 'chunks'>, chunk: number): number {
  let level = new Set([chunk])
  let depth = 0
  // Ids of parents are lower than those of their children: this ends.
  while (level.size > 0 && depth <= OVERLAY_DEPTH_MAX) {
    depth += 1
    const next = new Set<number>()
    for (const id of level) for (const { parent } of state.chunks.sharing.overlays(id)) next.add(parent)
    level = next
  }
  return depth
}
