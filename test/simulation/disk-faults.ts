/** Trouble of the chunk servers' disks: slow, hanging, full, failing; and damage to what they hold. */
import { chunkPath, DATA_POSITION } from '../../core/chunkserver/format/chunk-layout.ts'
import type { ChunkServerNode } from '../../core/testing/simulation/simulated-cluster.ts'
import type { DiskImage } from '../../core/testing/simulation/simulated-disk.ts'
import {
  between,
  type Fault,
  type FaultSource,
  hasMetadata,
  mayLose,
  pick,
  tellMemoryLost,
} from './fault-tools.ts'
import { PAGE_BYTES } from './file-model.ts'
import type { World } from './nemesis.ts'

const CHUNK_BYTES = 64 * 1024 * 1024
/** `set-replicas` may want as many: with one server more a disk can be emptied. */
const REPLICAS_MAX = 4
/** Longer than any run. */
const FOR_EVER_MS = 3_600_000

function pickServer(world: World): ChunkServerNode | null {
  return pick(
    world,
    world.cluster.chunkServers.filter(({ isRunning }) => isRunning),
  )
}

function hasLostDisk(world: World): boolean {
  return world.cluster.chunkServers.some(({ lossCount }) => lossCount > 0)
}

interface Target {
  readonly server: ChunkServerNode
  readonly chunk: number
  readonly path: string
  readonly page: number
}

/**
 * A page that was written, on a server that is the same throughout a run, while two others are in sync: so that a
 * good replica is left whatever is damaged.
 */
function pickPage(world: World): Target | null {
  const server = world.cluster.chunkServers[0] as ChunkServerNode
  const file = pick(world, [...world.oracle.files.values()])
  const extent = file === null ? null : pick(world, file.extents())
  if (file === null || extent === null || extent.end <= extent.begin) return null
  const index = Math.floor(extent.begin / CHUNK_BYTES)
  const view = world.cluster.chunks().find((one) => one.inode === file.inode && one.index === index)
  if (view === undefined || view.isPending || view.inSync.length < 3) return null
  const path = chunkPath(view.chunk)
  if (!view.inSync.includes(server.server) || !server.simulatedDisk.exists(path)) return null
  const page = Math.floor((extent.begin % CHUNK_BYTES) / PAGE_BYTES)
  if (positionOf(page + 1) > server.simulatedDisk.open(path).sizeBytes()) return null
  return { server, chunk: view.chunk, path, page }
}

function positionOf(page: number): number {
  return DATA_POSITION + page * PAGE_BYTES
}

function damage(target: Target, what: string, begin: () => void): Fault {
  const { server, chunk, page } = target
  return {
    description: `${server.name} chunk ${chunk} page ${page}${what}`,
    durationMs: 1,
    begin,
    end: () => {},
  }
}

export const diskFaults = {
  'slow-disk': (world) => {
    const server = pickServer(world)
    if (server === null) return null
    const disk = server.simulatedDisk
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
    const server = pickServer(world)
    if (server === null) return null
    const disk = server.simulatedDisk
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
    const server = pickServer(world)
    if (server === null || !mayLose(world, server)) return null
    const disk = server.simulatedDisk
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
    const server = pickServer(world)
    if (server === null) return null
    const disk = server.simulatedDisk
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
  'bit-rot': (world) => {
    const target = pickPage(world)
    if (target === null) return null
    const { server, path, page } = target
    const position = positionOf(page) + world.random.below(PAGE_BYTES)
    const bit = world.random.below(8)
    return damage(target, '', () => server.simulatedDisk.flipBit(path, position, bit))
  },
  /** What was meant for another page of the disk landed on this one. */
  'misdirected-write': (world) => {
    const target = pickPage(world)
    const source = pickPage(world)
    if (target === null || source === null) return null
    if (source.path === target.path && source.page === target.page) return null
    const { simulatedDisk } = target.server
    const isTorn = world.random.below(3) === 0
    return damage(target, `, from chunk ${source.chunk} page ${source.page}${isTorn ? ', torn' : ''}`, () => {
      const bytes = simulatedDisk
        .contents(source.path)
        .subarray(positionOf(source.page), positionOf(source.page + 1))
      simulatedDisk.overwrite(
        target.path,
        positionOf(target.page),
        isTorn ? bytes.subarray(0, PAGE_BYTES / 2) : bytes,
      )
    })
  },
  /** The disk said that it had written, and had not: the page is as it was before. */
  'lost-write': (world) => {
    const target = pickPage(world)
    if (target === null) return null
    const { server, path, page } = target
    server.simulatedDisk.keepsHistory = true
    return damage(target, '', () => void server.simulatedDisk.undoWrite(path, positionOf(page) / PAGE_BYTES))
  },
  /**
   * Nothing can be read or written from now on, while the process runs. Nobody does anything about it: everything must
   * leave that disk, and does (final-check.ts). Once in a run, and only where others have room.
   */
  'dead-disk': (world) => {
    const server = pickServer(world)
    if (server === null || hasLostDisk(world) || !hasMetadata(world) || !mayLose(world, server)) return null
    if (world.cluster.chunkServers.length <= REPLICAS_MAX) return null
    return {
      description: server.name,
      durationMs: FOR_EVER_MS,
      begin: () => {
        tellMemoryLost(world.cluster, world.oracle, server.server)
        server.diskDies()
      },
      end: () => {},
    }
  },
  /** The disk is replaced by an empty one: a new chunk server. Once in a run, this or the next. */
  'wiped-cs': (world) => {
    const server = pickServer(world)
    if (server === null || hasLostDisk(world) || !hasMetadata(world) || !mayLose(world, server)) return null
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
  /**
   * A snapshot of the machine, or a backup of its disk, is put back (rule B3). From before its last registration: it is
   * refused, and somebody gives it an empty disk (simulation.ts). From after it: what it has joins again.
   */
  'rolled-back-disk': (world) => {
    const server = pickServer(world)
    if (server === null || hasLostDisk(world) || server.role?.isRegistered !== true) return null
    const { cluster, oracle } = world
    const isBehind = world.random.below(3) === 0
    const backMs = isBehind ? between(world, 2000, 6000) : between(world, 50, 8000)
    // Confirmed by the quorum, as long as it is registered.
    const before = server.role.registration
    let image: DiskImage | null = null
    let isOver = false
    const goBack = (): void => {
      const isSure = server.isRunning && server.role?.isRegistered === true
      const isCovered = isSure && hasMetadata(world) && mayLose(world, server)
      const isRefused = isSure && (server.role?.registration ?? 0) > before
      if (isOver || image === null || !isCovered || hasLostDisk(world) || isBehind !== isRefused) return
      oracle.trace.line(
        'nemesis',
        `${server.name} goes back in time${isRefused ? ', behind its registration' : ''}`,
      )
      tellMemoryLost(cluster, oracle, server.server)
      server.goBack(image, isRefused)
    }
    return {
      description: `${server.name}, ${backMs} ms back`,
      durationMs: backMs + between(world, 100, 3000),
      begin: () => {
        image = server.simulatedDisk.capture()
        if (isBehind) {
          server.crash()
          server.restart()
        }
        cluster.clock.setTimer(backMs, goBack)
      },
      end: () => {
        isOver = true
        server.restart()
      },
    }
  },
} as const satisfies Record<string, FaultSource>
