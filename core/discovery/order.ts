/**
 * The order in which the servers of one answer are tried (RFC 2782): by priority, and among equal priorities at
 * random with the weights as shares. Pure but for the randomness it is given.
 */
import type { DiscoveredServer } from '../kernel/hooks.ts'
import type { Random } from '../platform/random.ts'

type Ranked = Pick<DiscoveredServer, 'priority' | 'weight'>

export function rankedOrder<Server extends Ranked>(servers: readonly Server[], random: Random): Server[] {
  const priorities = [...new Set(servers.map((server) => server.priority))].sort((a, b) => a - b)
  return priorities.flatMap((priority) =>
    weightedOrder(
      servers.filter((server) => server.priority === priority),
      random,
    ),
  )
}

/** The RFC's draw: weights of 0 stand first, so that they keep a small chance beside positive ones. */
function weightedOrder<Server extends Ranked>(servers: readonly Server[], random: Random): Server[] {
  const left = shuffled(servers, random).sort((a, b) => Number(a.weight > 0) - Number(b.weight > 0))
  const ordered: Server[] = []
  while (left.length > 0) {
    const sum = left.reduce((total, server) => total + server.weight, 0)
    const drawn = random.below(sum + 1)
    let running = 0
    const index = left.findIndex((server) => {
      running += server.weight
      return running >= drawn
    })
    ordered.push(...left.splice(index, 1))
  }
  return ordered
}

/** All weights 0 is the usual zone: then every order must be equally likely. */
function shuffled<T>(items: readonly T[], random: Random): T[] {
  const result = [...items]
  for (let last = result.length - 1; last > 0; last--) {
    const other = random.below(last + 1)
    const [a, b] = [result[last], result[other]]
    if (a === undefined || b === undefined) break
    result[last] = b
    result[other] = a
  }
  return result
}
