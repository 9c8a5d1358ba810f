/** For tests: the log of a member that is alone, started and the master. */
import type { Clock } from '../../platform/clock.ts'
import type { HardStateFile } from '../../platform/hard-state.ts'
import { silentLogger } from '../../platform/logger.ts'
import type { Store } from '../../platform/store.ts'
import type { AppliedMachine } from '../state/apply.ts'
import { RaftLog, type RaftLogOptions } from './raft-log.ts'
import type { Recovered, WindowLimits } from './recovery.ts'

/** Time stands: no tick, no election. */
export function stillClock(defer: Clock['defer']): Clock {
  return {
    nowMs: () => 0,
    bootMs: () => 0,
    wall: () => ({ seconds: 1_000, nanoseconds: 5 }),
    setTimer: () => ({ cancel: () => undefined }),
    defer,
  }
}

export interface TestLogParts {
  readonly store: Store
  readonly hardState: HardStateFile
  readonly machine: AppliedMachine
  readonly clock: Clock
  readonly window?: WindowLimits
  readonly onFatal?: (error: Error) => void
  readonly onMaster?: () => void
}

export function testLogOptions(parts: TestLogParts): RaftLogOptions {
  return {
    ...parts,
    random: { float: () => 0, below: () => 0, bytes: (count) => Buffer.alloc(count), hex: () => '' },
    logger: silentLogger,
    isFounder: true,
    events: {
      send: () => {},
      becameMaster: () => parts.onMaster?.(),
      lostMastership: () => {},
      sendSnapshot: () => {},
      install: () => {},
      failed: (error) => parts.onFatal?.(error),
    },
  }
}

/** Resolves when it is the master, or cannot be. */
export async function testLog(
  parts: TestLogParts,
): Promise<{ readonly log: RaftLog; readonly recovered: Recovered }> {
  let settle: () => void = () => {}
  const settled = new Promise<void>((resolve) => {
    settle = resolve
  })
  const log = new RaftLog(
    testLogOptions({
      ...parts,
      onMaster: settle,
      onFatal: (error) => {
        parts.onFatal?.(error)
        settle()
      },
    }),
  )
  const recovered = await log.start()
  await settled
  return { log, recovered }
}
