/**
 * Placement attributes: `replicas=N:M`, failure domain, tier. A new inode takes those of its directory as
 * they are at that moment; a later change above reaches it only when it is made recursively (guide, "set-attr
 * -R"). What is set nowhere has the value of a new cluster.
 */
import type { PlacementAttributes } from '../../wire/messages/common.ts'
import type { ApplyContext, CommandOf, OutcomeOf } from '../state/apply.ts'
import { internPlacement } from '../state/inode-codec.ts'
import { type CommandResult, refused } from '../state/result.ts'
import type { InodeRow } from '../state/rows.ts'
import type { MetadataState } from '../state/state.ts'
import { findChangeable, inodeOf, isRefusal, setChangeTime } from './inodes.ts'

export type EffectivePlacement = Required<PlacementAttributes>

/** Guide, "Configuring Replication Parameters": one replica is enough to try the cluster on one server. */
export const defaultPlacement: EffectivePlacement = Object.freeze({
  replicasNormal: 1,
  replicasMinimum: 1,
  failureDomain: 'host',
  tier: 0,
})

/** Guide: 3 gives 2. Two replicas keep working with one, else losing any disk would stop all writes. */
export function defaultMinimum(replicasNormal: number): number {
  return Math.max(1, replicasNormal - 1)
}

export function effectivePlacement(row: InodeRow): EffectivePlacement {
  return { ...defaultPlacement, ...row.placement }
}

export function setPlacement(
  context: ApplyContext,
  command: CommandOf<'attr.set'>,
): CommandResult<OutcomeOf<'attr.set'>> {
  const { state } = context
  const top = findChangeable(state, command.inode)
  if (isRefusal(top)) return top
  const wanted = withMinimum(command.attributes)
  const rows = command.recursive ? rowsBelow(state, top) : [top]
  for (const row of rows) {
    const { replicasNormal, replicasMinimum } = { ...effectivePlacement(row), ...wanted }
    if (replicasMinimum > replicasNormal) {
      return refused('EINVAL', `replicas=${replicasNormal}:${replicasMinimum} has its minimum above its norm`)
    }
  }
  let changed = 0
  for (const row of rows) if (changeRow(context, row, wanted)) changed += 1
  return { ok: { changed } }
}

/** Only what was given: an attribute that is undefined stays as it is. */
export function withMinimum(given: PlacementAttributes): PlacementAttributes {
  const wanted: PlacementAttributes = { ...internPlacement(given) }
  if (wanted.replicasNormal !== undefined) {
    wanted.replicasMinimum ??= defaultMinimum(wanted.replicasNormal)
  }
  return wanted
}

/** A file with several names comes several times; changing it again changes nothing. */
function rowsBelow(state: MetadataState, top: InodeRow): InodeRow[] {
  const rows: InodeRow[] = [top]
  for (let position = 0; position < rows.length; position++) {
    const row = rows[position]
    if (row?.type !== 'directory') continue
    const directory = state.entries.get(row.inode)
    if (directory === undefined) continue
    for (const entry of directory.entries()) rows.push(inodeOf(state, entry.inode))
  }
  return rows
}

function changeRow(context: ApplyContext, row: InodeRow, wanted: PlacementAttributes): boolean {
  const placement = internPlacement({ ...row.placement, ...wanted })
  if (placement === row.placement || Object.keys(placement).length === 0) return false
  row.placement = placement
  setChangeTime(context, row)
  return true
}
