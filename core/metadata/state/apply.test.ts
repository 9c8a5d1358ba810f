// Proves the frame of the state machine: repeated mutations are applied once, equal commands give equal
// states, a refused command changes nothing, and rows loaded back give the same state.

import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { NamespaceBench } from '../namespace/namespace-bench.ts'
import { EVENT_COUNT_MAX, stateDigest } from './state.ts'
import { REPLIES_PER_SESSION_MAX } from './replies.ts'

function create(bench: NamespaceBench, name: string, sequence: number, acknowledgedBelow = 0) {
  return bench.apply({
    type: 'fs.create',
    session: bench.session,
    mutation: { sequence, acknowledgedBelow },
    parent: 1,
    name,
    mode: 0o644,
    uid: 1,
    gid: 2,
    exclusive: true,
    lease: false,
  })
}

describe('repeated mutations', () => {
  test('a repeated mutation gets the first answer and is applied once', () => {
    const bench = new NamespaceBench()
    const first = create(bench, 'a', 1)
    assert.ok('ok' in first)
    assert.deepEqual(create(bench, 'a', 1), first)
    assert.equal(bench.state.entries.entryCount(1), 1)
    // The same request as a new mutation is refused, and the refusal is repeated too.
    const refusal = create(bench, 'a', 2)
    assert.ok('error' in refusal && refusal.error === 'EEXIST')
    assert.deepEqual(create(bench, 'a', 2), refusal)
  })

  test('a repeated mutation gets the first answer after a restart', () => {
    const bench = new NamespaceBench()
    const first = create(bench, 'a', 7, 3)
    const restarted = bench.reloaded()
    assert.deepEqual(create(restarted, 'a', 7, 3), first)
    const old = create(restarted, 'b', 2, 0)
    assert.ok('error' in old && old.error === 'REFUSED', 'what was acknowledged is not applied again')
  })

  test('acknowledged answers are forgotten, in memory and in the rows', () => {
    const bench = new NamespaceBench()
    for (let sequence = 1; sequence <= 50; sequence++) create(bench, `f${sequence}`, sequence, sequence - 1)
    assert.equal([...bench.state.replies.rows()].length, 2)
    const last = bench.state.collectChanges().filter((change) => change.table === 'replies')
    assert.equal(last.filter((change) => change.value !== null).length, 2)
  })

  test('a session that acknowledges nothing is stopped, and goes on after it has', () => {
    const bench = new NamespaceBench()
    for (let sequence = 1; sequence <= REPLIES_PER_SESSION_MAX; sequence++) create(bench, 'x', sequence)
    const stopped = create(bench, 'y', REPLIES_PER_SESSION_MAX + 1)
    assert.ok('error' in stopped && stopped.error === 'OVERLOADED')
    const next = create(bench, 'y', REPLIES_PER_SESSION_MAX + 1, 100)
    assert.ok('ok' in next, 'a refusal that invites to come again is not kept')
  })

  test('an ended session is refused', () => {
    const bench = new NamespaceBench()
    bench.session = 99
    const result = create(bench, 'a', 1)
    assert.ok('error' in result && result.error === 'NO_SESSION')
  })
})

describe('determinism', () => {
  test('the same commands give the same digest; one more command another', () => {
    const run = () => {
      const bench = new NamespaceBench()
      for (let sequence = 1; sequence < 30; sequence++) create(bench, `f${sequence % 7}`, sequence)
      return bench
    }
    const [left, right] = [run(), run()]
    assert.equal(stateDigest(left.state), stateDigest(right.state))
    create(right, 'other', 100)
    assert.notEqual(stateDigest(left.state), stateDigest(right.state))
  })

  test('rows loaded back give the same digest', () => {
    const bench = new NamespaceBench()
    for (let sequence = 1; sequence < 30; sequence++) create(bench, `f${sequence}`, sequence, sequence >> 1)
    bench.unlink('f3')
    bench.state.recordEvent({ timeMs: 1, system: 'MDS', severity: 'info', code: 'X', message: 'y' })
    const digest = stateDigest(bench.state)
    const copy = bench.reloaded()
    assert.equal(stateDigest(copy.state), digest)
    assert.deepEqual([...copy.state.orphans], [...bench.state.orphans])
  })
})

test('the event log keeps a bounded number', () => {
  const bench = new NamespaceBench()
  for (let count = 0; count < EVENT_COUNT_MAX + 5; count++) {
    bench.state.recordEvent({ timeMs: count, system: 'MDS', severity: 'info', code: 'X', message: '' })
  }
  assert.equal(bench.state.events.size, EVENT_COUNT_MAX)
  assert.equal(bench.state.events.has(5), false)
  assert.equal(bench.state.events.has(6), true)
})
