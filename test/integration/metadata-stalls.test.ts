/**
 * What concerns very many chunks does not stop a metadata server: start, reports, a copy of the store sent and
 * installed, truncation and deletion of large files, a change of the master. As `npm run bench:memory`, with 150,000
 * chunks instead of five million: what looks at all of anything in one turn takes longer than the limit already.
 *
 * Runs alone: it measures how long one thread is busy, and beside others the garbage collector has no helpers.
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { measureStalls } from '../../bench/metadata-stalls.ts'

const SCALE = 0.03
const PORT = 2610
/** Of the processor, so that other work counts for little; at full size and on a quiet machine the goal is 50. */
const BUSY_MS_MAX = 80

test('no turn of a metadata server is long, however many chunks it is about', {
  timeout: 400_000,
}, async (t) => {
  const parts: string[] = []
  await measureStalls(SCALE, PORT, (what, { busyMs, stallMs }) => {
    parts.push(what)
    t.diagnostic(`${what}: ${busyMs} ms busy, ${stallMs} ms in all`)
    assert.ok(busyMs <= BUSY_MS_MAX, `${what}: ${busyMs} ms in one turn`)
  })
  assert.ok(parts.length >= 12, 'all parts were measured')
})
