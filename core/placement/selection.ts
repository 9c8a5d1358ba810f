/**
 * Chooses chunk servers for new replicas: never two on one server, never two in one failure domain, never
 * into the reserve below the fill margin. The tier is a wish: nearer tiers first, any tier before none.
 * Among equals the choice is random in proportion to free space, so that servers fill evenly; randomness
 * is passed in and the result depends on nothing else.
 */
import type { Random } from '../platform/random.ts'
import { domainKeyOf, type FailureDomain, type PlacementServer } from './topology.ts'

export interface SelectionPolicy {
  readonly failureDomain: FailureDomain
  readonly tier: number
  /** Per cent of each disk that stays free (mds.alloc.fill_margin). */
  readonly fillMarginPct: number
  /** Room that one replica needs. */
  readonly replicaBytes: number
}

export interface Selection {
  readonly chosen: readonly PlacementServer[]
  /** Why there are fewer than asked for; '' when there are enough. */
  readonly shortage: '' | 'no-servers' | 'no-space' | 'failure-domain'
}

export function usableBytes(server: PlacementServer, fillMarginPct: number): number {
  return server.freeBytes - (server.totalBytes * fillMarginPct) / 100
}

export function hasRoom(server: PlacementServer, policy: SelectionPolicy): boolean {
  return usableBytes(server, policy.fillMarginPct) >= policy.replicaBytes
}

/** `occupied`: servers that have, or may still have, a replica of this chunk. */
export function chooseServers(
  count: number,
  candidates: Iterable<PlacementServer>,
  occupied: Iterable<PlacementServer>,
  policy: SelectionPolicy,
  random: Random,
): Selection {
  const takenKeys = new Set<string>()
  const takenServers = new Set<number>()
  for (const server of occupied) {
    takenServers.add(server.server)
    takenKeys.add(domainKeyOf(server, policy.failureDomain))
  }
  const willing = [...candidates].filter(
    (server) => server.state === 'active' && server.accepts && !takenServers.has(server.server),
  )
  const roomy = willing.filter((server) => hasRoom(server, policy))
  const chosen: PlacementServer[] = []
  while (chosen.length < count) {
    const open = roomy.filter((server) => !takenKeys.has(domainKeyOf(server, policy.failureDomain)))
    const picked = pickOne(nearestTier(open, policy.tier), policy.fillMarginPct, random)
    if (picked === undefined) break
    chosen.push(picked)
    takenKeys.add(domainKeyOf(picked, policy.failureDomain))
  }
  return { chosen, shortage: shortageOf(count, chosen.length, willing, roomy, takenKeys, policy) }
}

function shortageOf(
  wanted: number,
  got: number,
  willing: readonly PlacementServer[],
  roomy: readonly PlacementServer[],
  takenKeys: ReadonlySet<string>,
  policy: SelectionPolicy,
): Selection['shortage'] {
  if (got >= wanted) return ''
  const openDomains = willing.some((server) => !takenKeys.has(domainKeyOf(server, policy.failureDomain)))
  if (openDomains && roomy.length < willing.length) return 'no-space'
  return roomy.length > got ? 'failure-domain' : 'no-servers'
}

/** Those whose tier is nearest to the wish; a higher (faster) tier wins a tie. */
function nearestTier(servers: readonly PlacementServer[], tier: number): PlacementServer[] {
  const distance = (server: PlacementServer) =>
    Math.abs(server.tier - tier) * 2 - (server.tier > tier ? 1 : 0)
  const least = Math.min(...servers.map(distance))
  return servers.filter((server) => distance(server) === least)
}

/** Random in proportion to usable space. The order of `servers` does not matter: sorted by id first. */
function pickOne(
  servers: readonly PlacementServer[],
  fillMarginPct: number,
  random: Random,
): PlacementServer | undefined {
  const sorted = servers.toSorted((a, b) => a.server - b.server)
  const weights = sorted.map((server) => Math.max(1, usableBytes(server, fillMarginPct)))
  const total = weights.reduce((sum, weight) => sum + weight, 0)
  let rest = random.float() * total
  for (const [position, server] of sorted.entries()) {
    rest -= weights[position] ?? 0
    if (rest < 0) return server
  }
  return sorted.at(-1)
}
