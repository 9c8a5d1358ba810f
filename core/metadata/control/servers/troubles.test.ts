/** Bars of servers that failed to join (rule J6). */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { SimulatedClock } from '../../../testing/simulation/simulated-clock.ts'
import { Troubles } from './troubles.ts'

test('each failure doubles the bar; failures while it lasts do not count', async () => {
  const clock = new SimulatedClock()
  const troubles = new Troubles(clock)
  for (let i = 0; i < 20; i++) troubles.bar(1, 1025)
  assert.deepEqual([...troubles.barredOf(1)], [1025])
  await clock.advance(500)
  assert.deepEqual([...troubles.barredOf(1)], [])
  troubles.bar(1, 1025)
  await clock.advance(900)
  assert.deepEqual([...troubles.barredOf(1)], [1025])
  await clock.advance(100)
  assert.deepEqual([...troubles.barredOf(1)], [])
})
