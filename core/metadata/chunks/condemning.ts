/** Replicas that are to be deleted: a row each, until the chunk server has done it (rule G1). */
import type { ChunkRow, CondemnedRow } from '../state/rows.ts'
import type { MetadataState } from '../state/state.ts'

/** Highest version anybody may hold. */
export function committedVersion(row: ChunkRow): number {
  return row.pending?.version ?? row.version
}

export function condemn(state: Pick<MetadataState, 'condemned'>, replica: CondemnedRow): void {
  const { chunk, server, versionMax } = replica
  const before = state.condemned.versionMaxOf(chunk, server)
  state.condemned.set({ chunk, server, versionMax: Math.max(before, versionMax) })
}

/** Every replica that exists or may exist. */
export function condemnReplicas(state: Pick<MetadataState, 'condemned'>, row: ChunkRow): void {
  const holders = [...row.members, ...(row.pending?.members ?? []), ...row.former]
  const versionMax = committedVersion(row)
  for (const server of new Set(holders.map((holder) => holder.server)))
    condemn(state, { chunk: row.chunk, server, versionMax })
}
