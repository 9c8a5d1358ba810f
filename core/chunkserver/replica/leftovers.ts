/**
 * The durable marks of regions where the data area of absent pages may hold something that means nothing
 * (`ReplicaState.leftoversLow`). Set before a merge writes there, and at the start after a host crash; gone when the
 * region was cleared.
 */
import type { CairnError } from '../../base/errors.ts'
import type { ReplicaLog } from '../format/replica-log.ts'
import type { ReplicaState } from '../format/replica-state.ts'
import type { Replica } from './replica.ts'

/** `done` is called when the mark is durable; what could not be logged is as before. */
export function markLeftovers(
  log: ReplicaLog,
  replica: Replica,
  region: number,
  isMarked: boolean,
  done: (error: CairnError | null) => void,
): void {
  const { state, logged } = replica
  set(logged, region, isMarked)
  log.append(replica.chunk, logged, {
    onLogged: (error) => {
      if (error === null) set(state, region, isMarked)
      else set(logged, region, !isMarked)
      done(error)
    },
  })
}

function set(state: ReplicaState, region: number, isMarked: boolean): void {
  const bit = 1 << (region & 31)
  if (region < 32) state.leftoversLow = isMarked ? state.leftoversLow | bit : state.leftoversLow & ~bit
  else state.leftoversHigh = isMarked ? state.leftoversHigh | bit : state.leftoversHigh & ~bit
}
