/**
 * How long a steady writer stands still when a chunk server of its chunk is gone (test/torture/writer-stalls.ts): the
 * loss of its connections is seen at once, silence within `mds.wd.inactive_tout` (3 s here), and the chunk goes on
 * without it less than a second later. A disk that hangs makes its server silent (decision 1). Rules A1, E1, J6.
 *
 * Runs alone: it measures time.
 */
import assert from 'node:assert/strict'
import path from 'node:path'
import { it } from 'node:test'
import { must } from './support/cluster.ts'

const PROGRAM = path.join(import.meta.dirname, '..', 'torture', 'writer-stalls.ts')
const SILENCE_MS = 3_000
const RECONFIGURED_MS = 1_000
/** Of a busy machine; a second more for each that its writer needed for one flush before. */
const MARGIN_MS = 2_000

interface Stall {
  readonly stallMs: number
  readonly usualMs: number
}

it('stalls by a lost chunk server are short', { timeout: 300_000 }, async () => {
  const stalls = JSON.parse(await must(process.execPath, [PROGRAM], { timeoutMs: 290_000 })) as Record<
    string,
    Stall
  >
  assert.deepEqual(Object.keys(stalls), ['kill', 'stop', 'cut', 'freeze'])
  for (const [name, { stallMs, usualMs }] of Object.entries(stalls)) {
    const detectedMs = name === 'kill' ? 0 : SILENCE_MS
    const limitMs = detectedMs + RECONFIGURED_MS + MARGIN_MS + usualMs
    console.log(`${name}: ${stallMs} ms; one flush took up to ${usualMs} ms before`)
    assert.ok(stallMs < limitMs, `${name}: ${stallMs} ms, not below ${limitMs} ms`)
    // The fault was felt: else nothing was measured.
    if (name !== 'kill') assert.ok(stallMs > SILENCE_MS / 3, `${name}: ${stallMs} ms`)
  }
})
