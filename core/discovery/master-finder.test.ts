// Proves the search for the master: hints first, but not in circles and not to one that fell silent; quick as
// long as anybody answers, slower and slower when nobody does.

import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { Clock } from '../platform/clock.ts'
import type { Address } from '../platform/network.ts'
import { MasterFinder } from './master-finder.ts'
import { fixedServers } from './metadata-servers.ts'

const [a, b, c, d] = ['a', 'b', 'c', 'd'].map((host): Address => ({ host, port: 2510 })) as [
  Address,
  Address,
  Address,
  Address,
]

function finderOf(list: readonly Address[]) {
  const time = { ms: 0 }
  const finder = new MasterFinder({
    servers: fixedServers(list),
    clock: { nowMs: () => time.ms } as Clock,
    random: { float: () => 0.5 },
    pauseMsMin: 100,
    pauseMsMax: 400,
  })
  return { finder, time }
}

test('a hint is followed at once, also out of the list', () => {
  const { finder } = finderOf([a, b])
  assert.equal(finder.next(), a)
  assert.equal(finder.notMaster(a, d), 0)
  assert.equal(finder.next(), d)
  finder.found()
  assert.equal(finder.next(), d, 'and kept while it serves')
})

test('two that name each other do not keep us in a circle without a pause', () => {
  const { finder } = finderOf([a, b])
  let pausedMs = 0
  for (let tries = 0; tries < 12; tries++) {
    const address = finder.next() as Address
    pausedMs += finder.notMaster(address, address === a ? b : a)
  }
  assert.ok(pausedMs > 0)
})

test('who fell silent is passed over for a while, whatever the others say', () => {
  const { finder, time } = finderOf([a, b, c])
  finder.found()
  assert.equal(finder.lost(a, true), 0)
  assert.equal(finder.next(), b)
  finder.notMaster(b, a)
  assert.equal(finder.next(), c)
  finder.notMaster(c, a)
  assert.equal(finder.next(), b)
  time.ms = 4_000
  finder.notMaster(b, a)
  assert.equal(finder.next(), a)
})

test('all that do not answer are passed over, not only the last one', () => {
  const { finder, time } = finderOf([a, b, c])
  finder.found()
  finder.lost(a, true)
  assert.equal(finder.next(), b)
  finder.silent(b)
  const seen = [1, 2, 3].map(() => {
    const address = finder.next() as Address
    finder.notMaster(address, a)
    return address
  })
  assert.deepEqual(seen, [c, c, c])
  time.ms = 1_600
  assert.equal(finder.notMaster(c, a), 0)
  assert.equal(finder.next(), a, 'who is named after that long has been heard since')
})

test('a server that is alone is never passed over', () => {
  const { finder } = finderOf([a])
  finder.lost(a, true)
  assert.equal(finder.next(), a)
})

test('pauses come after a whole round, short while anybody answers, growing when nobody does', () => {
  const { finder } = finderOf([a, b, c])
  assert.deepEqual([finder.failed(), finder.notMaster(b, null), finder.failed()], [0, 0, 100])
  const rounds = [0, 1, 2, 3].map(() => finder.failed() + finder.failed() + finder.failed())
  assert.deepEqual(rounds, [100, 200, 400, 400])
})

test('what the master told is asked first, what was given stays behind it', () => {
  const { finder } = finderOf([a, b])
  assert.equal(finder.next(), a)
  finder.found()
  finder.told([c, b])
  assert.equal(finder.lost(a, false), 0)
  const asked = [0, 1, 2].map(() => {
    const address = finder.next()
    assert.ok(address !== undefined)
    finder.failed()
    return address
  })
  assert.deepEqual(
    asked.toSorted((x, y) => x.host.localeCompare(y.host)),
    [a, b, c],
  )
  assert.equal(finder.hasOthers, true)
})
