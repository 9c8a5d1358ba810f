/**
 * What the master may propose while metadata servers of two versions share the log (state/feature-levels.ts):
 * nothing above the level in force, and a higher level only when every member, learners too, has announced it.
 */
import type { Configuration, MemberId } from '../../raft/index.ts'
import type { Command } from '../state/commands.ts'
import { HIGHEST_LEVEL, levelOf, levelPutInForce } from '../state/feature-levels.ts'
import { type Refusal, refused } from '../state/result.ts'

export interface LevelStatus {
  readonly inForce: number
  /** All members have announced this much. */
  readonly attainable: number
  /** What this member understands. */
  readonly highest: number
  /** Who announced less than that, or is not there to say. */
  readonly waitsFor: readonly MemberId[]
}

/** `announcedLevel`: null while there is no word of that member. */
export function levelStatus(
  inForce: number,
  own: MemberId,
  { voters, learners }: Configuration,
  announcedLevel: (member: MemberId) => number | null,
): LevelStatus {
  const waitsFor: MemberId[] = []
  let attainable = HIGHEST_LEVEL
  for (const member of [...voters, ...learners]) {
    const level = member === own ? HIGHEST_LEVEL : (announcedLevel(member) ?? inForce)
    attainable = Math.min(attainable, level)
    if (level < HIGHEST_LEVEL) waitsFor.push(member)
  }
  const isHighest = inForce === HIGHEST_LEVEL
  return { inForce, attainable, highest: HIGHEST_LEVEL, waitsFor: isHighest ? [] : waitsFor }
}

/** Null: the command may go into the log. */
export function refusalAboveLevel(
  command: Command,
  inForce: number,
  status: () => LevelStatus,
): Refusal | null {
  const needed = levelOf(command)
  if (needed <= inForce) return null
  const { attainable, waitsFor } = status()
  const putInForce = levelPutInForce(command)
  if (putInForce !== 0 && putInForce <= attainable) return null
  const next = waitsFor.length === 0 ? 'it is being raised' : `update ${membersText(waitsFor)}`
  const message = `${command.type} needs feature level ${needed}, in force is ${inForce}: ${next}`
  return refused('FEATURE_LEVEL', message)
}

function membersText(members: readonly MemberId[]): string {
  return members.map((member) => `MDS#${member}`).join(', ')
}
