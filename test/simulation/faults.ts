/**
 * The kinds of trouble. Each looks at the cluster and returns one concrete fault, or null when there is
 * nothing suitable now (everybody is down already, or the promises would not cover it).
 */
import { DATA_POSITION } from '../../core/chunkserver/format/chunk-layout.ts'
import type { ChunkServerNode } from '../../core/testing/simulation/simulated-cluster.ts'
import {
  allNodes,
  between,
  blockBoth,
  crashOf,
  type FaultSource,
  hasMetadata,
  losePower,
  mayLose,
  metadataHosts,
  partition,
  pick,
  running,
  tellMemoryLost,
  unblockBoth,
} from './fault-tools.ts'
import { PAGE_BYTES } from './file-model.ts'
import { metadataFaults } from './metadata-faults.ts'

const CHUNK_BYTES = 64 * 1024 * 1024
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
  'slow-disk': (world) => {
    const server = pick(world, running(world.cluster.chunkServers))
    const disk = server?.disk
    if (server === null || disk === null || disk === undefined) return null
    const delayMs = between(world, 1, 400)
    return {
      description: `${server.name}, ${delayMs} ms each`,
      durationMs: between(world, 300, 6000),
      begin: () => {
        disk.faults.delayMs = delayMs
      },
      end: () => {
        disk.faults.delayMs = 0
      },
    }
  },
  'hanging-disk': (world) => {
    const server = pick(world, running(world.cluster.chunkServers))
    const disk = server?.disk
    if (server === null || disk === null || disk === undefined) return null
    return {
      description: server.name,
      durationMs: between(world, 300, 12_000),
      begin: () => {
        disk.faults.hanging = true
      },
      end: () => disk.releaseHanging(),
    }
  },
  'disk-error': (world) => {
    const server = pick(world, running(world.cluster.chunkServers))
    const disk = server?.disk
    if (server === null || disk === null || disk === undefined || !mayLose(world, server)) return null
    const kind = pick(world, ['failReads', 'failWrites', 'failSyncs'] as const) ?? 'failReads'
    const count = 1 + world.random.below(3)
    return {
      description: `${server.name} ${kind} ${count}`,
      durationMs: between(world, 500, 5000),
      begin: () => {
        // what a failed sync covered is gone from that disk (rule F7)
        if (kind === 'failSyncs') tellMemoryLost(world.cluster, world.oracle, server.server)
        disk.faults[kind] = count
      },
      end: () => {
        disk.faults[kind] = 0
        // somebody replaced the cable
        if (server.isRunning) server.crash()
        server.restart()
      },
    }
  },
  'full-disk': (world) => {
    const server = pick(world, running(world.cluster.chunkServers))
    const disk = server?.disk
    if (server === null || disk === null || disk === undefined) return null
    const leftBytes = world.random.below(8) * 1024 * 1024
    return {
      description: `${server.name}, ${leftBytes} bytes left`,
      durationMs: between(world, 1000, 8000),
      begin: () => {
        disk.capacityBytes = disk.usedBytes + leftBytes
      },
      end: () => {
        disk.capacityBytes = Number.MAX_SAFE_INTEGER
      },
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
  /** Always the same server in one run, so that one good replica is left whatever rots. */
  'bit-rot': (world) => {
    const server = world.cluster.chunkServers[0] as ChunkServerNode
    const file = pick(world, [...world.oracle.files.values()])
    const extent = file === null ? null : pick(world, file.extents())
    if (file === null || extent === null || extent.end <= extent.begin) return null
    const index = Math.floor(extent.begin / CHUNK_BYTES)
    const chunk = world.cluster.chunks().find((one) => one.inode === file.inode && one.index === index)
    if (chunk === undefined || chunk.isPending || chunk.inSync.length < 3) return null
    const path = `chunks/${(chunk.chunk % 256).toString(16).padStart(2, '0')}/${chunk.chunk}`
    if (!chunk.inSync.includes(server.server) || !server.simulatedDisk.exists(path)) return null
    const page = Math.floor((extent.begin % CHUNK_BYTES) / PAGE_BYTES)
    const position = DATA_POSITION + page * PAGE_BYTES + world.random.below(PAGE_BYTES)
    if (position >= server.simulatedDisk.open(path).sizeBytes()) return null
    return {
      description: `${server.name} chunk ${chunk.chunk} page ${page}`,
      durationMs: 1,
      begin: () => server.simulatedDisk.flipBit(path, position, world.random.below(8)),
      end: () => {},
    }
  },
  /** The disk is replaced by an empty one: a new chunk server. Once in a run. */
  'wiped-cs': (world) => {
    const server = pick(world, running(world.cluster.chunkServers)) as ChunkServerNode | null
    if (server === null || world.cluster.chunkServers.some(({ wipeCount }) => wipeCount > 0)) return null
    if (!hasMetadata(world) || !mayLose(world, server)) return null
    return {
      description: server.name,
      durationMs: between(world, 200, 6000),
      begin: () => {
        tellMemoryLost(world.cluster, world.oracle, server.server)
        server.wipe()
      },
      end: () => server.restart(),
    }
  },
  'paused-process': (world) => {
    const node = pick(world, running(allNodes(world)))
    if (node === null) return null
    return {
      description: node.name,
      durationMs: between(world, 100, 9000),
      begin: () => {
        node.pause()
        for (const other of allNodes(world)) if (other !== node) blockBoth(world, node.host, other.host)
      },
      end: () => {
        node.resume()
        for (const other of allNodes(world)) if (other !== node) unblockBoth(world, node.host, other.host)
      },
    }
  },
  ...metadataFaults,
} as const satisfies Record<string, FaultSource>

export type FaultKind = keyof typeof faultKinds

/** Only when they are asked for: what the seeds without a wish do stays as it was. */
export const focusedKinds: readonly FaultKind[] = ['stalled-link', 'late-news', 'first-server-dies']
