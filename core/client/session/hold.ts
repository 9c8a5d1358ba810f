/**
 * hold_timeout for work of several steps. It ends the caller's wait, never the work: what was asked of the quorum
 * may have been done, and the holder of a lease must know before it goes on (rules E11, T2).
 */
import type { Engine } from './engine.ts'
import { heldTooLong } from './errors.ts'

export function withinHold<T>(engine: Engine, work: Promise<T>): Promise<T> {
  const { clock, holdTimeoutMs } = engine
  if (holdTimeoutMs <= 0) return work
  return new Promise((resolve, reject) => {
    const timer = clock.setTimer(holdTimeoutMs, () => reject(heldTooLong(holdTimeoutMs)))
    work.finally(() => timer.cancel()).then(resolve, reject)
  })
}
