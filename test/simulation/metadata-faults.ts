/** Trouble of several metadata servers: a majority goes on without the one that is hit, be it the master or not. */
import type { MetadataServerNode } from '../../core/testing/simulation/simulated-metadata-server.ts'
import { order } from './cluster-faults.ts'
import {
  allNodes,
  between,
  crashOf,
  type Fault,
  type FaultSource,
  hasMetadata,
  partition,
  pick,
  running,
  tellMemoryLost,
} from './fault-tools.ts'
import type { World } from './nemesis.ts'

/** Of `first-server-dies`: the others register about this many times four later. */
const LATE_MS = 60
const LOOK_MS = 10
/** From the first registration to the loss: longer than it takes to change an epoch. */
const LOSS_DELAY_MS = 150

function masterOf(world: World): MetadataServerNode | null {
  const { master } = world.cluster
  return master?.isRunning === true ? master : null
}

/** Both ways, or it hears nobody, or nobody hears it. */
function isolate(world: World, node: MetadataServerNode | null): Fault | null {
  if (node === null) return null
  const others = allNodes(world).filter((other) => other !== node)
  const [isDeaf, isMute] =
    pick(world, [[true, true] as const, [true, false] as const, [false, true] as const]) ?? []
  const ways: (readonly [string, string])[] = []
  for (const { host } of others) {
    if (isDeaf === true) ways.push([host, node.host])
    if (isMute === true) ways.push([node.host, host])
  }
  const how = isDeaf !== true ? 'is not heard' : isMute === true ? 'is alone' : 'hears nobody'
  return {
    description: `${node.name} ${how}`,
    durationMs: between(world, 200, 9000),
    begin: () => ways.forEach(([from, to]) => world.links.block(from, to)),
    end: () => ways.forEach(([from, to]) => world.links.unblock(from, to)),
  }
}

export const metadataFaults = {
  'isolate-mds': (world) => isolate(world, pick(world, world.cluster.metadataServers)),
  'isolate-master': (world) => isolate(world, masterOf(world)),
  'partition-mds-mds': (world) => {
    const a = pick(world, world.cluster.metadataServers)
    const b = pick(world, world.cluster.metadataServers)
    if (a === null || b === null || a === b) return null
    return partition(world, [[a.host, b.host]], `${a.name} and ${b.name}`)
  },
  'master-crash': (world) => crashOf(world, masterOf(world), false, 6000),
  'master-power-loss': (world) => crashOf(world, masterOf(world), true, 6000),
  /** Of the master more often than not: it must make way although nothing tells it that anything is wrong. */
  'mds-disk-hangs': (world) => {
    const isOfMaster = world.random.below(3) > 0
    const node = isOfMaster ? masterOf(world) : pick(world, running(world.cluster.metadataServers))
    if (node === null) return null
    return {
      description: node.name,
      durationMs: between(world, 200, 9000),
      begin: () => node.diskHang.begin(),
      end: () => node.diskHang.end(),
    }
  },
  /** An administrator takes one out; where it was another one asks to be let in (simulated-cluster.ts). */
  'replace-mds': (world) => {
    const node = pick(world, world.cluster.metadataServers)
    const member = node?.hardState.state?.member
    if (node === null || member === undefined || node.isRemoved) return null
    return {
      description: `${node.name}, MDS#${member}`,
      durationMs: between(world, 1000, 4000),
      begin: () => {
        const command = world.cluster.administrate((admin) => admin.metadata.call('mds.remove', { member }))
        order(world, `remove MDS#${member}`, command)
      },
      end: () => node.restart(),
    }
  },
  /** It hands over and ends. */
  'master-stop': (world) => {
    const node = masterOf(world)
    if (node === null) return null
    return {
      description: node.name,
      durationMs: between(world, 50, 6000),
      begin: () => node.stop(),
      end: () => {
        // it may still be about to
        if (node.isStopping) node.crash()
        node.restart()
      },
    }
  },
  /**
   * The master dies, and the next one hears of one chunk server before all others. A moment later that one loses
   * power: what the others had in sync must not be lost with it (rule F5).
   */
  'first-server-dies': (world) => {
    const { cluster, oracle } = world
    const master = masterOf(world)
    const first = pick(
      world,
      cluster.chunkServers.filter(({ isRunning }) => isRunning),
    )
    if (master === null || first === null || !hasMetadata(world)) return null
    const delay = (delayMs: number): void => {
      for (const { host } of cluster.metadataServers) {
        for (const server of cluster.chunkServers) {
          if (server === first) continue
          cluster.network.setDelay(server.host, host, delayMs)
          cluster.network.setDelay(host, server.host, delayMs)
        }
      }
    }
    const before = new Map(cluster.chunks().map(({ chunk, inSync }) => [chunk, inSync]))
    let isOver = false
    const loseWhenHeard = (): void => {
      if (isOver) return
      const { clock } = cluster
      const isHeard = masterOf(world) !== null && first.role?.isRegistered === true
      if (!isHeard) return void clock.setTimer(LOOK_MS, loseWhenHeard)
      clock.setTimer(LOSS_DELAY_MS, () => {
        if (isOver || !first.isRunning) return
        oracle.trace.line('nemesis', `${first.name} loses power`)
        tellMemoryLost(cluster, oracle, first.server, before)
        first.losePower()
      })
    }
    return {
      description: `${master.name} is killed, ${first.name} registers first`,
      durationMs: between(world, 5000, 7000),
      begin: () => {
        delay(LATE_MS)
        master.crash()
        cluster.clock.setTimer(LOOK_MS, loseWhenHeard)
      },
      end: () => {
        isOver = true
        delay(0)
        master.restart()
        first.restart()
      },
    }
  },
} as const satisfies Record<string, FaultSource>

/** Besides the others, where there are several metadata servers. */
export const severalKinds = [
  'isolate-mds',
  'isolate-master',
  'partition-mds-mds',
  'master-crash',
  'master-power-loss',
  'master-stop',
  'mds-disk-hangs',
  'replace-mds',
] as const
