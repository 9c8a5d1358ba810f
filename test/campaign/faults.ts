/**
 * The faults of the campaign: what is done to one metadata server, and how it comes back. When and for how long
 * is random, the order too; all of it from the seed.
 */
import { setTimeout as pause } from 'node:timers/promises'
import type { SeededRandom } from '../../core/testing/simulation/seeded-random.ts'
import type { Member } from '../integration/support/quorum-cluster.ts'
import type { LoopDisk } from '../integration/support/loop-disk.ts'
import { isolate, type Isolation, type NetworkHost, reconnect } from '../integration/support/network.ts'

export const faultKinds = ['kill', 'stop', 'power-cut', 'isolation'] as const
export type FaultKind = (typeof faultKinds)[number]

export interface Fault {
  readonly kind: FaultKind
  /** `follower`: beside those that are counted. */
  readonly target: 'master' | 'follower'
}

export interface Victim {
  readonly member: Member
  readonly host: NetworkHost
  readonly disk: LoopDisk
  /** Stopped or cut off for no longer. */
  readonly awayMsMax: number
}

/** One in so many faults strikes a follower too. */
const FOLLOWER_PART = 6
/** `mds`: from the other members only. */
const isolations: readonly Isolation[] = ['cable', 'deaf', 'mute', 'mds']
const DOWN_MS_MAX = 2_000
const AWAY_MS_MIN = 2_000
/** Between the first failed call and the end of the process. */
const DYING_MS_MAX = 500

/** `count` of each kind for the master, and some for followers, in a random order. */
export function plan(count: number, random: SeededRandom): Fault[] {
  const faults: Fault[] = faultKinds.flatMap((kind) =>
    Array.from({ length: count }, () => ({ kind, target: 'master' as const })),
  )
  for (let index = faults.length - 1; index > 0; index--) {
    const other = random.below(index + 1)
    const [one, two] = [faults[index], faults[other]]
    if (one !== undefined && two !== undefined) [faults[index], faults[other]] = [two, one]
  }
  return faults.flatMap((fault, index) => {
    const kind = faultKinds[random.below(faultKinds.length)] ?? 'kill'
    return index % FOLLOWER_PART === FOLLOWER_PART - 1 ? [fault, { kind, target: 'follower' }] : [fault]
  })
}

/** Resolves when it is over: the member runs and is connected, and has yet to catch up. Says what was done. */
export async function strike(kind: FaultKind, victim: Victim, random: SeededRandom): Promise<string> {
  const { member, host, disk, awayMsMax } = victim
  const awayMs = AWAY_MS_MIN + random.below(awayMsMax - AWAY_MS_MIN)
  const downMs = random.below(DOWN_MS_MAX)
  switch (kind) {
    case 'kill':
      await member.stop('SIGKILL')
      await pause(downMs)
      member.start()
      return `killed, started ${downMs} ms later`
    case 'stop':
      member.signal('SIGSTOP')
      await pause(awayMs)
      member.signal('SIGCONT')
      return `stopped for ${awayMs} ms`
    case 'power-cut': {
      const dyingMs = random.below(2) * random.below(DYING_MS_MAX)
      await disk.cutPower()
      await pause(dyingMs)
      const diedAlone = !member.isRunning
      await member.stop('SIGKILL')
      await disk.mountAgain()
      await pause(downMs)
      member.start()
      return `without power, ${diedAlone ? 'dead by itself' : 'killed'} within ${dyingMs} ms, back ${downMs} ms later`
    }
    case 'isolation': {
      const isolation = isolations[random.below(isolations.length)] ?? 'cable'
      await isolate(host, isolation)
      await pause(awayMs)
      await reconnect(host)
      return `cut off (${isolation}) for ${awayMs} ms`
    }
  }
}
