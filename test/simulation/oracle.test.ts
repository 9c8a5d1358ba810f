// The oracle's book on power losses: which of them a flush settles (rule F5).
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { SimulatedClock } from '../../core/testing/simulation/simulated-clock.ts'
import { Oracle } from './oracle.ts'
import { patternOf } from './pattern.ts'
import { Trace } from './trace.ts'

const members = [1, 2, 3]

/** Servers 1 and 2 lose power after the flush; `before` it happens what is asked for. */
function runWith(before: (oracle: Oracle) => void): Oracle {
  const oracle = new Oracle(new Trace(new SimulatedClock(), null))
  const file = oracle.file('f')
  const old = oracle.beginWrite('a', file, 0, 4096)
  oracle.acknowledge('a', file, old, false)
  oracle.flushed('a', file, oracle.tick(), true)
  before(oracle)
  for (const server of [1, 2]) oracle.powerLost(file, 0, members, server)
  const data = patternOf(old.id, 0, 4096)
  oracle.checkRead('a', file, 0, 4096, data, oracle.viewOf('a', file))
  return oracle
}

test('a server that lost a write before its answer is no witness, whatever was flushed meanwhile', () => {
  const oracle = runWith((before) => {
    const file = before.file('f')
    const write = before.beginWrite('a', file, 0, 4096)
    before.powerLost(file, 0, members, 3)
    before.flushed('b', file, before.tick(), true)
    before.acknowledge('a', file, write, false)
  })
  assert.equal(oracle.violation, null, 'all three have lost it')
})

test('a power loss before the write counts for nothing once a flush has succeeded', () => {
  const oracle = runWith((before) => {
    const file = before.file('f')
    before.powerLost(file, 0, members, 3)
    before.flushed('b', file, before.tick(), true)
    before.acknowledge('a', file, before.beginWrite('a', file, 0, 4096), false)
  })
  assert.match(oracle.violation?.message ?? '', /superseded/)
})
