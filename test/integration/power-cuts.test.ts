/**
 * The power of everything at once (test/torture/power-cuts.ts), a few times: in the middle of overwrites of what was
 * flushed. Every flushed byte must be there, every page readable, all replicas equal. 200 rounds are run by hand:
 * `npm run torture -- --power-cuts 200`.
 */
import assert from 'node:assert/strict'
import path from 'node:path'
import { it } from 'node:test'
import type { PowerCutResult } from '../torture/power-cuts.ts'
import { must } from './support/cluster.ts'

const ROUNDS = 3
const PROGRAM = path.join(import.meta.dirname, '..', 'torture', 'main.ts')

it('what was flushed survives a power cut of everything', { timeout: 450_000 }, async (t) => {
  const torture = [PROGRAM, '--power-cuts', String(ROUNDS), '--seed', '3']
  const output = await must(process.execPath, torture, { timeoutMs: 440_000 })
  const result = JSON.parse(output) as PowerCutResult
  t.diagnostic(JSON.stringify(result))
  assert.deepEqual(result.problems, [])
  assert.equal(result.rounds, ROUNDS)
})
