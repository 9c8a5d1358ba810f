/**
 * The kinds of trouble. Each looks at the cluster and returns one concrete fault, or null when there is
 * nothing suitable now (everybody is down already, or the promises would not cover it).
 */
import { clusterFaults } from './cluster-faults.ts'
import { diskFaults } from './disk-faults.ts'
import {
  allNodes,
  between,
  blockBoth,
  crashOf,
  type FaultSource,
  hasMetadata,
  losePower,
  metadataHosts,
  partition,
  pick,
  running,
  unblockBoth,
} from './fault-tools.ts'
import { lossFaults } from './loss-faults.ts'
import { metadataFaults } from './metadata-faults.ts'

/** Of `late-news`: shorter than a client waits for an answer before it asks another server. */
const NEWS_DELAY_MS = 1000

export const faultKinds = {
  'cs-crash': (world) =>
    crashOf(world, pick(world, running(world.cluster.chunkServers)), false, between(world, 200, 8000)),
  'cs-power-loss': (world) => {
    if (!hasMetadata(world)) return null
    return crashOf(world, pick(world, running(world.cluster.chunkServers)), true, between(world, 200, 8000))
  },
  'mds-crash': (world) => crashOf(world, pick(world, running(world.cluster.metadataServers)), false, 4000),
  'mds-power-loss': (world) =>
    crashOf(world, pick(world, running(world.cluster.metadataServers)), true, 4000),
  'all-power-loss': (world) => {
    const nodes = running([...world.cluster.metadataServers, ...world.cluster.chunkServers])
    if (nodes.length === 0 || !hasMetadata(world)) return null
    return {
      description: `${nodes.map(({ name }) => name).join(', ')} lose power together`,
      durationMs: between(world, 50, 3000),
      begin: () => {
        for (const node of nodes) if (node.server !== 0) losePower(world, node)
        for (const server of world.cluster.metadataServers) server.losePower()
      },
      end: () => nodes.forEach((node) => node.restart()),
    }
  },
  'client-crash': (world) => {
    const client = pick(
      world,
      world.clients.filter(({ node }) => node.isRunning),
    )
    if (client === null) return null
    return {
      description: client.name,
      durationMs: between(world, 100, 6000),
      begin: () => client.crash(),
      end: () => client.restart(),
    }
  },
  'partition-client-cs': (world) => {
    const client = pick(world, world.clients)
    const server = pick(world, world.cluster.chunkServers)
    if (client === null || server === null) return null
    return partition(world, [[client.node.host, server.host]], `${client.name} and ${server.name}`)
  },
  'partition-client-mds': (world) => {
    const client = pick(world, world.clients)
    if (client === null) return null
    return partition(
      world,
      metadataHosts(world).map((host) => [client.node.host, host] as const),
      `${client.name} and the mds`,
    )
  },
  'partition-cs-mds': (world) => {
    const server = pick(world, world.cluster.chunkServers)
    if (server === null) return null
    const pairs = metadataHosts(world).map((host) => [server.host, host] as const)
    return partition(world, pairs, `${server.name} and the mds`)
  },
  'partition-cs-cs': (world) => {
    const a = pick(world, world.cluster.chunkServers)
    const b = pick(world, world.cluster.chunkServers)
    if (a === null || b === null || a === b) return null
    return partition(world, [[a.host, b.host]], `${a.name} and ${b.name}`)
  },
  'isolate-cs': (world) => {
    const server = pick(world, world.cluster.chunkServers)
    if (server === null) return null
    const others = allNodes(world).filter((node) => node !== server)
    const pairs = others.map((other) => [server.host, other.host] as const)
    return partition(world, pairs, `${server.name} and everybody`)
  },
  'isolate-client': (world) => {
    const client = pick(world, world.clients)
    if (client === null) return null
    const others = [...world.cluster.metadataServers, ...world.cluster.chunkServers]
    const pairs = others.map((other) => [client.node.host, other.host] as const)
    return partition(world, pairs, `${client.name} and everybody`)
  },
  'cut-connections': (world) => {
    const a = pick(world, allNodes(world))
    const b = pick(world, allNodes(world))
    if (a === null || b === null || a === b) return null
    return {
      description: `${a.name} and ${b.name}`,
      durationMs: 1,
      begin: () => world.cluster.network.cut(a.host, b.host),
      end: () => {},
    }
  },
  'slow-network': (world) => {
    const a = pick(world, allNodes(world))
    if (a === null) return null
    const delayMs = between(world, 5, 1500)
    const others = allNodes(world).filter((node) => node !== a)
    const set = (value: number): void => {
      for (const other of others) {
        world.cluster.network.setDelay(a.host, other.host, value)
        world.cluster.network.setDelay(other.host, a.host, value)
      }
    }
    return {
      description: `${delayMs} ms more to and from ${a.name}`,
      durationMs: between(world, 500, 8000),
      begin: () => set(delayMs),
      end: () => set(0),
    }
  },
  /** What is on its way from a client to a chunk server waits, and is lost with the connection. */
  'stalled-link': (world) => {
    const client = pick(world, world.clients)
    const server = pick(world, world.cluster.chunkServers)
    if (client === null || server === null) return null
    const { host } = client.node
    return {
      description: `${client.name} to ${server.name}`,
      durationMs: between(world, 20, 600),
      begin: () => world.links.block(host, server.host),
      end: () => {
        world.cluster.network.cut(host, server.host)
        world.links.unblock(host, server.host)
      },
    }
  },
  /**
   * A chunk server is away from the metadata server until others have taken over its replicas. A client, which
   * still reaches it, hears of that late: what it writes meanwhile goes to the members of before.
   */
  'late-news': (world) => {
    const client = pick(world, world.clients)
    const server = pick(world, world.cluster.chunkServers)
    if (client === null || server === null) return null
    const { host } = world.cluster.master ?? world.cluster.metadataServer
    const { network } = world.cluster
    return {
      description: `${server.name} without the mds, which ${client.name} hears late`,
      durationMs: between(world, 6500, 7500),
      begin: () => {
        blockBoth(world, server.host, host)
        network.setDelay(host, client.node.host, NEWS_DELAY_MS)
      },
      end: () => {
        unblockBoth(world, server.host, host)
        network.setDelay(host, client.node.host, 0)
      },
    }
  },
  'paused-process': (world) => {
    const node = pick(world, running(allNodes(world)))
    if (node === null) return null
    // a process that is stopped; or the machine, whose own clock does not count that time
    const isSuspended = world.random.below(2) === 0
    const { clock } = world.cluster
    let sinceMs = 0
    return {
      description: `${node.name}${isSuspended ? ', its clock too' : ''}`,
      durationMs: between(world, 100, 9000),
      begin: () => {
        sinceMs = clock.nowMs()
        node.pause()
        for (const other of allNodes(world)) if (other !== node) blockBoth(world, node.host, other.host)
      },
      end: () => {
        node.resume(isSuspended ? clock.nowMs() - sinceMs : 0)
        for (const other of allNodes(world)) if (other !== node) unblockBoth(world, node.host, other.host)
      },
    }
  },
  ...diskFaults,
  ...clusterFaults,
  ...lossFaults,
  ...metadataFaults,
} as const satisfies Record<string, FaultSource>

export type FaultKind = keyof typeof faultKinds

/** Only when they are asked for: what the seeds without a wish do stays as it was. */
export const focusedKinds: readonly FaultKind[] = [
  'stalled-link',
  'late-news',
  'first-server-dies',
  'dead-disk',
  'one-survivor',
  'lost-file',
  'lost-records',
]
