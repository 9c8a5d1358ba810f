/** Which replica is right about a page: stamp, majority, guess (rules P3, R2). */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { PAGES_PER_REGION } from '../../../base/units.ts'
import { PAGE_RECORD_BYTES } from '../../../wire/data.ts'
import { judgeRegion, type Witness } from './page-verdicts.ts'

type Page = { stamp: number; checksum: number; state: number }
const hole: Page = { stamp: 0, checksum: 0, state: 0 }

function witness(server: number, pages: Record<number, Page>, facts: Partial<Witness> = {}): Witness {
  const records = Buffer.alloc(PAGES_PER_REGION * PAGE_RECORD_BYTES)
  for (const [index, { stamp, checksum, state }] of Object.entries(pages)) {
    const at = Number(index) * PAGE_RECORD_BYTES
    records.writeUInt32LE(stamp, at)
    records.writeUInt32LE(checksum, at + 4)
    records.writeUInt32LE(state, at + 8)
  }
  return { server, since: 1, isSuspect: false, records, ...facts }
}
const data = (stamp: number, checksum: number): Page => ({ stamp, checksum, state: 1 })

test('equal records need no verdict', () => {
  assert.deepEqual(judgeRegion([]), [])
  assert.deepEqual(judgeRegion([witness(1, { 4: data(2, 9) })]), [])
  assert.deepEqual(judgeRegion([witness(1, { 4: data(2, 9) }), witness(2, { 4: data(2, 9) })]), [])
})

test('the highest stamp is right, also against a majority (rule P3)', () => {
  const witnesses = [witness(1, { 4: data(1, 5) }), witness(2, { 4: data(3, 9) }), witness(3, { 4: hole })]
  assert.deepEqual(judgeRegion(witnesses), [
    {
      index: 4,
      right: { stamp: 3, checksum: 9, servers: [2] },
      wrong: [
        { stamp: 1, checksum: 5, server: 1 },
        { stamp: 0, checksum: 0, server: 3 },
      ],
      by: 'stamp',
    },
  ])
})

test('among equal stamps the majority is right, wherever it stands in the list', () => {
  const [old, fresh] = [{ 255: data(2, 5) }, { 255: data(2, 9) }]
  for (const order of [
    [old, fresh, fresh],
    [fresh, old, fresh],
    [fresh, fresh, old],
  ]) {
    const [verdict] = judgeRegion(order.map((pages, at) => witness(at + 1, pages)))
    assert.equal(verdict?.right.checksum, 9)
    assert.deepEqual([verdict.wrong.length, verdict.by, verdict.index], [1, 'majority', 255])
  }
})

test('without a majority it is a guess: not whose disk failed, then who is in sync longest, then the lowest', () => {
  const pages = (checksum: number): Record<number, Page> => ({ 0: data(2, checksum) })
  const guess = (...witnesses: Witness[]) => {
    const [verdict] = judgeRegion(witnesses)
    assert.equal(verdict?.by, 'guess')
    return verdict.right.servers
  }
  assert.deepEqual(guess(witness(7, pages(1)), witness(5, pages(2))), [5])
  assert.deepEqual(guess(witness(7, pages(1)), witness(5, pages(2), { since: 4 })), [7])
  assert.deepEqual(guess(witness(7, pages(1), { isSuspect: true }), witness(9, pages(2), { since: 4 })), [9])
  assert.deepEqual(guess(witness(7, pages(1)), witness(5, pages(2)), witness(6, pages(3))), [5])
})

test('a page that does not verify is no witness (rule R1)', () => {
  const bad = { 0: { stamp: 9, checksum: 1, state: 2 } }
  assert.deepEqual(judgeRegion([witness(1, bad), witness(2, { 0: data(2, 5) })]), [])
  const [verdict] = judgeRegion([
    witness(1, bad),
    witness(2, { 0: data(2, 5) }),
    witness(3, { 0: data(2, 6) }),
  ])
  assert.deepEqual([verdict?.by, verdict?.right.servers], ['guess', [2]])
})

test('a hole is content: it is right or wrong as a page with data is', () => {
  const zeroed = { 3: { stamp: 4, checksum: 0, state: 0 } }
  const [verdict] = judgeRegion([witness(1, { 3: data(2, 5) }), witness(2, zeroed)])
  assert.deepEqual([verdict?.by, verdict?.right], ['stamp', { stamp: 4, checksum: 0, servers: [2] }])
})
