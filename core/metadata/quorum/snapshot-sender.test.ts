// Proves that a copy that cannot be made or sent is not tried again at once: each attempt writes all metadata.

import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { Clock } from '../../platform/clock.ts'
import { silentLogger } from '../../platform/logger.ts'
import type { SnapshotFiles } from '../../platform/snapshot-files.ts'
import type { Store } from '../../platform/store.ts'
import type { Peer } from '../../wire/types.ts'
import type { RaftLog } from './raft-log.ts'
import { SnapshotSender } from './snapshot-sender.ts'

const settled = (): Promise<void> => new Promise((resolve) => setImmediate(resolve))

test('attempts that come to nothing are reported later and later, once each', async () => {
  const timers: { delayMs: number; callback: () => void }[] = []
  const reports: (number | null)[] = []
  const reasons: string[] = []
  let attemptCount = 0
  const sender = new SnapshotSender({
    store: {
      snapshot: () => {
        attemptCount++
        return Promise.reject(new Error('the disk is full'))
      },
    } as unknown as Store,
    log: {
      holdWindow: () => {},
      reportSnapshot: (_member: number, index: number | null) => reports.push(index),
    } as unknown as RaftLog,
    files: { drop: () => Promise.resolve(), outgoingPath: '' } as unknown as SnapshotFiles,
    clock: {
      setTimer: (delayMs: number, callback: () => void) => timers.push({ delayMs, callback }),
    } as unknown as Clock,
    logger: silentLogger,
    peerOf: () => ({}) as Peer,
    notSent: (_member, reason) => reasons.push(reason),
  })
  const delaysMs: number[] = []
  for (let attempt = 1; attempt <= 8; attempt++) {
    sender.send(2)
    await settled()
    assert.equal(attemptCount, attempt)
    assert.equal(reports.length, attempt - 1, 'not reported yet')
    const timer = timers.shift()
    timer?.callback()
    delaysMs.push(timer?.delayMs ?? 0)
    assert.equal(reports.length, attempt)
  }
  assert.deepEqual(delaysMs, [1_000, 2_000, 4_000, 8_000, 16_000, 32_000, 60_000, 60_000])
  assert.deepEqual(new Set(reports), new Set([null]))
  assert.deepEqual(reasons, Array<string>(8).fill('the disk is full'))
  sender.send(2)
  await settled()
  sender.close()
  timers.shift()?.callback()
  assert.equal(reports.length, 8, 'nobody is told any more')
})
