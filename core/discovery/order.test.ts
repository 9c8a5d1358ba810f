/** Proves the order of RFC 2782: priorities are respected, weights are shares, nothing is lost. */
import assert from 'node:assert/strict'
import test from 'node:test'
import fc from 'fast-check'
import { SeededRandom } from '../testing/simulation/seeded-random.ts'
import { rankedOrder } from './order.ts'

const rank = fc.integer({ min: 0, max: 65_535 })
const servers = fc.array(fc.record({ host: fc.string(), port: rank, priority: rank, weight: rank }), {
  maxLength: 64,
})

test('every server stands in the order exactly once, lower priorities first', () => {
  fc.assert(
    fc.property(servers, fc.integer(), (given, seed) => {
      const ordered = rankedOrder(given, new SeededRandom(seed))
      assert.equal(ordered.length, given.length)
      assert.deepEqual(new Set(ordered), new Set(given))
      for (const [index, server] of ordered.entries())
        assert.ok(index === 0 || (ordered[index - 1]?.priority ?? 0) <= server.priority)
    }),
  )
})

function shareOfFirst(weights: readonly number[], drawCount = 4000): number[] {
  const random = new SeededRandom(7)
  const counts = weights.map(() => 0)
  const given = weights.map((weight, index) => ({ index, priority: 5, weight }))
  for (let draw = 0; draw < drawCount; draw++) {
    const first = rankedOrder(given, random)[0]
    if (first !== undefined) counts[first.index] = (counts[first.index] ?? 0) + 1
  }
  return counts.map((count) => count / drawCount)
}

test('among equal priorities the weights are shares', () => {
  const [a = 0, b = 0, c = 0] = shareOfFirst([10, 30, 60])
  assert.ok(Math.abs(a - 0.1) < 0.04, `${a}`)
  assert.ok(Math.abs(b - 0.3) < 0.04, `${b}`)
  assert.ok(Math.abs(c - 0.6) < 0.04, `${c}`)
})

test('weights of 0 alone are equally likely, and rare beside others', () => {
  for (const share of shareOfFirst([0, 0, 0])) assert.ok(Math.abs(share - 1 / 3) < 0.04, `${share}`)
  const [zero = 1] = shareOfFirst([0, 100])
  assert.ok(zero > 0 && zero < 0.05, `${zero}`)
})
