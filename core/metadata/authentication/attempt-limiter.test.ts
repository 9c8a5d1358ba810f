/** Guessing of passwords is slowed down for each address and for all of them together; memory is bounded. */
import { deepEqual, equal, match, ok, throws } from 'node:assert/strict'
import { test } from 'node:test'
import { CairnError } from '../../base/errors.ts'
import { SimulatedClock } from '../../testing/simulation/simulated-clock.ts'
import { AttemptLimiter } from './attempt-limiter.ts'

const isTooMany = (error: unknown): boolean =>
  error instanceof CairnError && error.code === 'TOO_MANY_ATTEMPTS'

/** How long it takes until the next attempt is let through, in seconds. */
async function waited(clock: SimulatedClock, limiter: AttemptLimiter, address: string): Promise<number> {
  for (let seconds = 0; ; seconds++) {
    try {
      limiter.begin(address)
      return seconds
    } catch (error) {
      ok(isTooMany(error))
      await clock.advance(1000)
    }
  }
}

test('three free attempts, then pauses that double', async () => {
  const clock = new SimulatedClock()
  const limiter = new AttemptLimiter(clock)
  const pauses: number[] = []
  for (let attempt = 0; attempt < 7; attempt++) pauses.push(await waited(clock, limiter, 'a'))
  deepEqual(pauses, [0, 0, 0, 1, 2, 4, 8])
})

test('a right password clears its address; others were never held up', () => {
  const clock = new SimulatedClock()
  const limiter = new AttemptLimiter(clock)
  for (let attempt = 0; attempt < 3; attempt++) limiter.begin('a')
  throws(
    () => limiter.begin('a'),
    (error: Error) => isTooMany(error) && /wrong/.test(error.message),
  )
  limiter.begin('b')
  limiter.succeeded('a')
  limiter.begin('a')
})

test('many addresses together have a budget, which refills', async () => {
  const clock = new SimulatedClock()
  const limiter = new AttemptLimiter(clock)
  for (let address = 0; address < 30; address++) limiter.begin(`10.0.0.${address}`)
  throws(
    () => limiter.begin('10.0.1.1'),
    (error: CairnError) => {
      match(error.next ?? '', /try again in \d+ s/)
      return isTooMany(error)
    },
  )
  await clock.advance(4000)
  limiter.begin('10.0.1.1')
  limiter.begin('10.0.1.2')
  throws(() => limiter.begin('10.0.1.3'), isTooMany)
})

test('the table of addresses is bounded', async () => {
  const clock = new SimulatedClock()
  const limiter = new AttemptLimiter(clock)
  for (let address = 0; address < 1500; address++) {
    limiter.begin(`host ${address}`)
    await clock.advance(2000)
  }
  equal(limiter.addressCount, 1024)
})
