/** How large the cluster of a run is. Most are small: what goes wrong in a large one mostly does in a small one too. */
import type { SeededRandom } from '../../core/testing/simulation/seeded-random.ts'

export interface Shape {
  readonly metadataServerCount: number
  readonly chunkServerCount: number
  readonly clientCount: number
  /** replicas=N:M of the files, at first. */
  readonly replicas: { readonly normal: number; readonly minimum: number }
  /** Of the steps of clients: what is done with snapshots. */
  readonly snapshotPercent: number
}

export const smallestShape: Shape = {
  metadataServerCount: 1,
  chunkServerCount: 4,
  clientCount: 2,
  replicas: { normal: 3, minimum: 2 },
  snapshotPercent: 0,
}

/** Each with its weight. */
const metadataServerCounts = [
  [1, 84],
  [3, 13],
  [5, 3],
] as const
const chunkServerCounts = [
  [4, 60],
  [5, 16],
  [6, 10],
  [8, 8],
  [10, 3],
  [12, 3],
] as const
const clientCounts = [
  [2, 64],
  [3, 20],
  [4, 10],
  [6, 6],
] as const
const replicaCounts = [
  [2, 12],
  [3, 76],
  [4, 12],
] as const
const snapshotPercents = [
  [0, 40],
  [5, 40],
  [15, 20],
] as const

export function drawShape(random: SeededRandom): Shape {
  const normal = weighted(random, replicaCounts)
  return {
    metadataServerCount: weighted(random, metadataServerCounts),
    chunkServerCount: weighted(random, chunkServerCounts),
    clientCount: weighted(random, clientCounts),
    replicas: { normal, minimum: random.below(4) === 0 ? 1 : Math.min(2, normal) },
    snapshotPercent: weighted(random, snapshotPercents),
  }
}

function weighted(random: SeededRandom, choices: readonly (readonly [number, number])[]): number {
  let dice = random.below(choices.reduce((sum, [, weight]) => sum + weight, 0))
  for (const [value, weight] of choices) {
    if (dice < weight) return value
    dice -= weight
  }
  throw new Error('the weights do not add up')
}

export function shapeText(shape: Shape): string {
  const { metadataServerCount, chunkServerCount, clientCount, replicas, snapshotPercent } = shape
  const { normal, minimum } = replicas
  return `${metadataServerCount} mds, ${chunkServerCount} cs, ${clientCount} clients, replicas ${normal}:${minimum}, snapshots ${snapshotPercent} %`
}
