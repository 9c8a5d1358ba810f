/** Proves what the lease rules need of the real clocks: they advance, never go back, and agree with the kernel. */
import { equal, ok } from 'node:assert/strict'
import { uptime } from 'node:os'
import { test } from 'node:test'
import { NodeClock } from './clock.ts'
import { nodeRandom } from './random.ts'

test('bootMs and nowMs never go back, and bootMs is the time since boot', () => {
  const clock = new NodeClock()
  let boot = clock.bootMs()
  let now = clock.nowMs()
  const endMs = now + 150
  while (now < endMs) {
    const [nextNow, nextBoot] = [clock.nowMs(), clock.bootMs()]
    ok(nextNow >= now && nextBoot >= boot)
    now = nextNow
    boot = nextBoot
  }
  const before = uptime() * 1000
  boot = clock.bootMs()
  const after = uptime() * 1000
  ok(boot > before - 100 && boot < after + 100, `${before} ${boot} ${after}`)
})

test('wall time agrees with Date to a millisecond and has finer fractions', () => {
  const clock = new NodeClock()
  let fine = 0
  for (let i = 0; i < 1000; i++) {
    const before = Date.now()
    const { seconds, nanoseconds } = clock.wall()
    const after = Date.now()
    ok(nanoseconds >= 0 && nanoseconds < 1e9 && Number.isSafeInteger(nanoseconds))
    const ms = seconds * 1000 + nanoseconds / 1e6
    ok(ms >= before - 0.001 && ms < after + 1.001)
    if (nanoseconds % 1e6 !== 0) fine++
  }
  ok(fine > 500)
})

test('timers run once unless cancelled; defer runs after this turn', async () => {
  const clock = new NodeClock()
  const order: string[] = []
  const timer = Promise.withResolvers<void>()
  const deferred = Promise.withResolvers<void>()
  const cancelled = clock.setTimer(1, () => order.push('cancelled'))
  clock.setTimer(5, () => {
    order.push('timer')
    timer.resolve()
  })
  clock.defer(() => {
    order.push('deferred')
    deferred.resolve()
  })
  order.push('turn')
  cancelled.cancel()
  cancelled.cancel()
  await Promise.all([timer.promise, deferred.promise])
  equal(order[0], 'turn')
  // which of the two is first depends on how long this turn took
  equal(
    order
      .slice(1)
      .toSorted((a, b) => (a < b ? -1 : 1))
      .join(),
    'deferred,timer',
  )
})

test('random bytes have the length that was asked for, and numbers their range', () => {
  equal(nodeRandom.bytes(7).length, 7)
  ok(/^[0-9a-f]{16}$/.test(nodeRandom.hex(8)))
  for (let i = 0; i < 1000; i++) {
    const value = nodeRandom.below(3)
    ok(value >= 0 && value < 3 && Number.isInteger(value))
  }
})
