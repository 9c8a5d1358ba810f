/**
 * A short torture (test/torture) of real processes: several faults of many kinds at once, under load. Then all
 * chunks must become healthy, fsck must find nothing, and every byte must be what was promised. The long ones
 * are run by hand: `npm run torture`.
 *
 * Runs alone: it keeps both processors busy, and waits for a cluster that does so to recover.
 */
import assert from 'node:assert/strict'
import path from 'node:path'
import { it } from 'node:test'
import type { Report } from '../torture/report.ts'
import { must } from './support/cluster.ts'

const MINUTES = 1.5
/** On a busy machine it takes longer until the next one may strike. */
const FAULTS_MIN = 8
const PROGRAM = path.join(import.meta.dirname, '..', 'torture', 'main.ts')

it('faults of many kinds at once lose no byte and break no promise', { timeout: 450_000 }, async (t) => {
  const torture = [PROGRAM, '--minutes', String(MINUTES), '--seed', '1', '--json']
  const output = await must(process.execPath, torture, { timeoutMs: 440_000 })
  const report = JSON.parse(output) as Report
  t.diagnostic(JSON.stringify(report))
  assert.deepEqual(report.problems, [])
  assert.ok(report.faults >= FAULTS_MIN, `${report.faults} faults`)
  assert.ok(report.overlapping * 3 >= report.faults, `${report.overlapping} of ${report.faults} overlap`)
  assert.ok((report.counts['checkedOperations'] ?? 0) > 200, JSON.stringify(report.counts))
})
