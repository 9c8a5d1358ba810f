/** How much user data fits, given that replicas of a chunk lie in different failure domains (guide: allocatable space). */
import { domainKeyOf, type FailureDomain, type PlacementServer } from './topology.ts'

/**
 * The largest L with sum(min(capacity, L)) >= count * L: each group takes at most one replica of everything.
 * Groups larger than L are counted as L, so the largest are taken out one by one.
 */
export function logicalCapacity(capacities: readonly number[], replicaCount: number): number {
  // Whole bytes: with fractions the last step below compares a rounded rest with what it is made of.
  const sorted = capacities.map(Math.floor).toSorted((a, b) => b - a)
  if (replicaCount <= 0 || sorted.length < replicaCount) return 0
  let rest = sorted.reduce((sum, capacity) => sum + capacity, 0)
  for (let taken = 0; taken < replicaCount - 1; taken++) {
    const level = rest / (replicaCount - taken)
    const largest = sorted[taken] ?? 0
    if (largest <= level) return Math.floor(level)
    rest -= largest
  }
  // No largest one can be above the rest it is part of.
  return Math.floor(rest)
}

/** Bytes of each failure domain, by what `bytesOf` counts of a server. */
export function domainCapacities(
  servers: Iterable<PlacementServer>,
  domain: FailureDomain,
  bytesOf: (server: PlacementServer) => number,
): number[] {
  const byKey = new Map<string, number>()
  for (const server of servers) {
    const key = domainKeyOf(server, domain)
    byKey.set(key, (byKey.get(key) ?? 0) + Math.max(0, bytesOf(server)))
  }
  return [...byKey.values()]
}
