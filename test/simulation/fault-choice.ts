/** Which kinds of faults a seed has. Some kinds together, a few in depth, find more than all at once. */
import type { SeededRandom } from '../../core/testing/simulation/seeded-random.ts'
import { type FaultKind, faultKinds, focusedKinds } from './faults.ts'
import { severalKinds } from './metadata-faults.ts'

export const allFaultKinds = Object.keys(faultKinds) as FaultKind[]

/** The promises cover the damage of these on one server, while the others keep what they have. */
const damagesOneServer: readonly FaultKind[] = ['bit-rot', 'misdirected-write', 'lost-write']
const losesReplicas: readonly FaultKind[] = [
  'cs-power-loss',
  'all-power-loss',
  'disk-error',
  'wiped-cs',
  'full-disk',
  'rolled-back-disk',
]

export function chooseKinds(random: SeededRandom, isAlone: boolean): FaultKind[] {
  const others: readonly FaultKind[] = [...focusedKinds, ...severalKinds]
  const kinds = shuffled(
    random,
    allFaultKinds.filter((kind) => !others.includes(kind)),
  )
  const chosen = kinds.slice(0, 5 + random.below(6))
  const isDamaged = chosen.some((kind) => damagesOneServer.includes(kind))
  const common = isDamaged ? chosen.filter((kind) => !losesReplicas.includes(kind)) : chosen
  return isAlone ? common : [...common, ...shuffled(random, severalKinds).slice(0, 1 + random.below(3))]
}

function shuffled(random: SeededRandom, kinds: readonly FaultKind[]): FaultKind[] {
  const result = [...kinds]
  for (let index = result.length - 1; index > 0; index--) {
    const other = random.below(index + 1)
    const kept = result[index] as FaultKind
    result[index] = result[other] as FaultKind
    result[other] = kept
  }
  return result
}
