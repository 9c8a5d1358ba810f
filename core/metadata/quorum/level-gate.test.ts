// Proves what a master proposes while members of two versions share the log, and what it tells those who ask for
// more: the level rises when all have announced it, learners and those that are away included.

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { startTestCluster } from '../../testing/test-cluster.ts'
import { HIGHEST_LEVEL } from '../state/feature-levels.ts'
import { levelStatus, refusalAboveLevel } from './level-gate.ts'

const highest = HIGHEST_LEVEL
const raise = { type: 'level.raise', level: highest } as const
const tick = { type: 'tick', elapsedMs: 1 } as const

function statusOf(inForce: number, announced: Readonly<Record<number, number>>, learners: number[] = []) {
  return levelStatus(inForce, 1, { voters: [1, 2, 3], learners }, (member) => announced[member] ?? null)
}

test('the level is attainable when all members have announced it', () => {
  assert.deepEqual(statusOf(1, { 2: 1 }).waitsFor, [2, 3])
  assert.equal(statusOf(1, { 2: highest }).attainable, 1, 'one is away')
  assert.equal(statusOf(1, { 2: highest, 3: 1 }).attainable, 1)
  assert.deepEqual(statusOf(1, { 2: highest, 3: highest }), {
    inForce: 1,
    attainable: highest,
    highest,
    waitsFor: [],
  })
  assert.equal(statusOf(1, { 2: highest, 3: highest }, [4]).attainable, 1, 'a learner counts')
  assert.equal(
    statusOf(1, { 2: highest, 3: highest, 4: 9 }, [4]).attainable,
    highest,
    'not more than this one knows',
  )
  assert.deepEqual(statusOf(highest, { 2: highest }).waitsFor, [], 'nobody waits when it is in force')
})

test('what needs more than is in force is refused, and the refusal says whom to update', () => {
  const older = () => statusOf(1, { 2: 1, 3: highest })
  assert.equal(refusalAboveLevel(tick, 1, older), null)
  assert.deepEqual(refusalAboveLevel(raise, 1, older), {
    error: 'FEATURE_LEVEL',
    message: `level.raise needs feature level ${highest}, in force is 1: update MDS#2`,
  })
  assert.equal(
    refusalAboveLevel(raise, 1, () => statusOf(1, { 2: highest, 3: highest })),
    null,
    'that is how it is raised',
  )
  assert.equal(refusalAboveLevel(raise, highest, older), null)
})

test('a new cluster begins at the highest level; an older metadata server is not added to it', async () => {
  const cluster = await startTestCluster({ metadataServers: 3 })
  for (const { role } of cluster.metadataServers)
    assert.equal(role?.server.state.level.inForce, HIGHEST_LEVEL)
  const { control } = cluster.master()?.role?.server ?? assert.fail()
  assert.deepEqual(control.statistics.stat().featureLevel, { inForce: highest, highest, waitsFor: [] })
  const older = { host: 'host', port: 2510, name: 'older' }
  await assert.rejects(control.admin.addMember(older), {
    code: 'FEATURE_LEVEL',
    message: new RegExp(`understands feature level 1 at most, in force is ${highest}`),
  })
})
