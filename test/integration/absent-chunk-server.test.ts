/**
 * A chunk server that was away while its chunks were written (test/torture/absence.ts): at its return only what
 * changed is copied. Before offline_tout all of its replicas join again; after it, those whose replacement is not in
 * sync yet. The same with minutes and default time-outs is run by hand: `npm run torture -- --absence 4`.
 */
import assert from 'node:assert/strict'
import path from 'node:path'
import { it, type TestContext } from 'node:test'
import type { AbsenceResult } from '../torture/absence.ts'
import { must } from './support/cluster.ts'

const PROGRAM = path.join(import.meta.dirname, '..', 'torture', 'main.ts')

async function absence(t: TestContext, ...parameters: string[]): Promise<void> {
  const output = await must(process.execPath, [PROGRAM, '--absence', ...parameters], { timeoutMs: 220_000 })
  const result = JSON.parse(output) as AbsenceResult
  t.diagnostic(JSON.stringify(result))
  assert.deepEqual(result.problems, [])
}

it('before offline_tout only the pages that changed are copied', { timeout: 230_000 }, (t) =>
  absence(t, '0.25', '--offline-tout', '10min'),
)

it('after it, a replica whose replacement is not in sync yet joins again', { timeout: 230_000 }, (t) =>
  absence(t, '0.15', '--offline-tout', '4s', '--late'),
)
