/** Changes of the cluster in the middle of trouble, clocks that are set, and all links cut one after the other. */
import { codeOf } from '../../core/base/errors.ts'
import { allNodes, between, blockBoth, type FaultSource, pick, unblockBoth } from './fault-tools.ts'
import type { World } from './nemesis.ts'

const DAY_SECONDS = 86_400
const REPLICAS_MAX = 4

/** Whether the command was heard, and what came of it, the trace says. */
export function order(world: World, what: string, command: Promise<unknown>): void {
  const { trace } = world.oracle
  command.then(
    () => trace.line('admin', `${what}: done`),
    (error: unknown) => trace.line('admin', `${what}: ${codeOf(error)}`),
  )
}

export const clusterFaults = {
  /** An administrator gives a file more or fewer replicas. */
  'set-replicas': (world) => {
    const files = [...world.oracle.files.values()].filter(({ inode }) => inode !== 0)
    const file = pick(world, files)
    if (file === null) return null
    const normal = 2 + world.random.below(REPLICAS_MAX - 1)
    const minimum = 1 + world.random.below(2)
    const description = `${file.name} ${normal}:${minimum}`
    return {
      description,
      durationMs: 1,
      begin: () => {
        const command = world.cluster.administrate((admin) =>
          admin.setReplicas(file.inode, { normal, minimum }),
        )
        order(world, `set-replicas ${description}`, command)
      },
      end: () => {},
    }
  },
  /** Rule L11: the time of day says nothing about how long anything took. */
  'wall-clock-jump': (world) => {
    const node = pick(
      world,
      allNodes(world).filter(({ isRunning }) => isRunning),
    )
    if (node === null) return null
    const seconds = Math.floor((world.random.float() - 0.5) * 4 * DAY_SECONDS)
    return {
      description: `${node.name} ${seconds} s`,
      durationMs: between(world, 500, 9000),
      begin: () => node.stepWall(seconds),
      end: () => node.stepWall(-seconds),
    }
  },
  /** One host after the other is cut off from all others; they come back in another order. */
  swizzle: (world) => {
    const hosts = allNodes(world).map(({ host }) => host)
    const chosen = inAnyOrder(world, hosts).slice(0, 2 + world.random.below(hosts.length - 1))
    const stepMs = between(world, 50, 600)
    const back = inAnyOrder(world, chosen)
    const isCut = new Set<string>()
    const { clock } = world.cluster
    let isOver = false
    const change = (host: string, isToBeCut: boolean): void => {
      if (isCut.has(host) === isToBeCut) return
      if (isToBeCut) isCut.add(host)
      else isCut.delete(host)
      for (const other of hosts) {
        if (other === host) continue
        if (isToBeCut) blockBoth(world, host, other)
        else unblockBoth(world, host, other)
      }
    }
    const later = (step: number, host: string, isToBeCut: boolean): void =>
      void clock.setTimer(step * stepMs, () => {
        if (!isOver) change(host, isToBeCut)
      })
    return {
      description: `${chosen.join(' ')}, back ${back.join(' ')}, every ${stepMs} ms`,
      durationMs: (chosen.length + back.length) * stepMs,
      begin: () => {
        chosen.forEach((host, step) => later(step, host, true))
        back.forEach((host, step) => later(chosen.length + step, host, false))
      },
      end: () => {
        isOver = true
        for (const host of back) change(host, false)
      },
    }
  },
} as const satisfies Record<string, FaultSource>

function inAnyOrder(world: World, hosts: readonly string[]): string[] {
  return hosts
    .map((host) => ({ host, place: world.random.float() }))
    .toSorted((a, b) => a.place - b.place)
    .map(({ host }) => host)
}
