/** What kinds of faults are made of: choosing nodes, killing them, cutting ways between hosts. */
import type { SimulatedCluster } from '../../core/testing/simulation/simulated-cluster.ts'
import type { SimulatedNode } from '../../core/testing/simulation/simulated-node.ts'
import type { World } from './nemesis.ts'
import type { Oracle } from './oracle.ts'

export interface Fault {
  readonly description: string
  readonly durationMs: number
  begin(): void
  end(): void
}

export type FaultSource = (world: World) => Fault | null

export function pick<T>(world: World, choices: readonly T[]): T | null {
  return choices[world.random.below(choices.length)] ?? null
}

export function between(world: World, minimum: number, maximum: number): number {
  return minimum + Math.floor(world.random.float() * (maximum - minimum))
}

export function running<N extends SimulatedNode>(nodes: readonly N[]): N[] {
  return nodes.filter((node) => node.isRunning)
}

export function crashOf(
  world: World,
  node: SimulatedNode | null,
  isPowerLoss: boolean,
  maximumMs: number,
): Fault | null {
  if (node === null) return null
  return {
    description: `${node.name}${isPowerLoss ? ' loses power' : ' is killed'}`,
    durationMs: between(world, 50, maximumMs),
    begin: () => {
      if (isPowerLoss) losePower(world, node)
      else node.crash()
    },
    end: () => node.restart(),
  }
}

/** Tells the oracle first which in-sync replicas lose their memory. */
export function losePower(world: World, node: SimulatedNode): void {
  tellMemoryLost(world.cluster, world.oracle, node.server)
  node.losePower()
}

/**
 * `server`: 0 has none yet. `before`: chunks with servers that were in sync and that nobody had a reason to give up;
 * those count as in sync too.
 */
export function tellMemoryLost(
  cluster: SimulatedCluster,
  oracle: Oracle,
  server: number,
  before: ReadonlyMap<number, readonly number[]> = new Map(),
): void {
  if (server === 0) return
  for (const { chunk, inode, index, inSync } of cluster.chunks()) {
    const file = [...oracle.files.values()].find((candidate) => candidate.inode === inode)
    const alsoInSync = (before.get(chunk) ?? []).filter((other) => cluster.isActive(other))
    if (file !== undefined) oracle.powerLost(file, index, [...new Set([...inSync, ...alsoInSync])], server)
  }
}

/** Is every chunk on it also in sync on another server that runs? Else the promises do not cover its loss. */
export function mayLose(world: World, node: SimulatedNode): boolean {
  const alive = new Set(running(world.cluster.chunkServers).map(({ server }) => server))
  alive.delete(node.server)
  return world.cluster
    .chunks()
    .every(
      ({ inSync, isPending }) =>
        !inSync.includes(node.server) || (!isPending && inSync.some((one) => alive.has(one))),
    )
}

/** Blocks ways between pairs of host names; both ways, or one. */
export function partition(
  world: World,
  pairs: readonly (readonly [string, string])[],
  description: string,
): Fault {
  const isOneWay = world.random.below(3) === 0
  const ways: (readonly [string, string])[] = []
  for (const [a, b] of pairs) {
    if (isOneWay) ways.push(world.random.below(2) === 0 ? [a, b] : [b, a])
    else ways.push([a, b], [b, a])
  }
  return {
    description: `${description}${isOneWay ? ', one way' : ''}`,
    durationMs: between(world, 100, 9000),
    begin: () => ways.forEach(([from, to]) => world.links.block(from, to)),
    end: () => ways.forEach(([from, to]) => world.links.unblock(from, to)),
  }
}

export function allNodes(world: World): SimulatedNode[] {
  return [
    ...world.cluster.metadataServers,
    ...world.cluster.chunkServers,
    ...world.clients.map(({ node }) => node),
  ]
}

export function hasMetadata(world: World): boolean {
  return world.cluster.metadataServers.some(({ isRunning }) => isRunning)
}

/** From whom somebody is cut off: from all or, when there are several, from some of them. */
export function metadataHosts(world: World): string[] {
  const hosts = world.cluster.metadataServers.map(({ host }) => host)
  if (hosts.length === 1 || world.random.below(2) === 0) return hosts
  return hosts.filter(() => world.random.below(2) === 0)
}

export function blockBoth(world: World, a: string, b: string): void {
  world.links.block(a, b)
  world.links.block(b, a)
}

export function unblockBoth(world: World, a: string, b: string): void {
  world.links.unblock(a, b)
  world.links.unblock(b, a)
}
