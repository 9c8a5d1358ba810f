/** Proves that plugins hear the latest state, one call at a time, and that their faults stay with them. */
import assert from 'node:assert/strict'
import test from 'node:test'
import type { Announcement } from '../kernel/hooks.ts'
import { silentLogger } from '../platform/logger.ts'
import { Announcer } from './announcer.ts'

const announcement: Announcement = { cluster: 'demo', clusterUuid: 'u', host: '10.0.0.1', port: 2510 }

test('calls are made one after the other, and those that wait become one with the latest state', async () => {
  const calls: number[] = []
  let running = 0
  const announcer = new Announcer(async (announcements) => {
    running += 1
    assert.equal(running, 1)
    await Promise.resolve()
    running -= 1
    calls.push(announcements.length)
    return []
  }, silentLogger)
  const first = announcer.announce([announcement])
  void announcer.again()
  void announcer.again()
  await first
  await announcer.announce([])
  assert.equal(calls.at(-1), 0)
  assert.ok(calls.length <= 3, String(calls))
})

test('a call that fails is logged, and the next one is made', async () => {
  const messages: string[] = []
  const logger = {
    ...silentLogger,
    error: (message: string) => messages.push(message),
    warn: (message: string) => messages.push(message),
    info: (message: string) => messages.push(message),
  }
  let callCount = 0
  const announcer = new Announcer(
    async () => {
      callCount += 1
      if (callCount === 1) throw new Error('broken')
      return [{ plugin: 'p', value: [{ method: 'zeroconf', problem: 'no network' }] }]
    },
    logger as unknown as typeof silentLogger,
  )
  await announcer.announce([announcement])
  await announcer.again()
  await announcer.again()
  assert.equal(callCount, 3)
  // The same answer is logged once.
  assert.deepEqual(messages, ['announcing failed', 'not announced'])
})
