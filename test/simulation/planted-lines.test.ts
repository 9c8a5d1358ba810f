// Each rule against data loss that is taken out is found: by the simulation within a few seeds, in trouble that alone
// does no harm, or by the scenario that proves the rule. docs/reliability.md has the table.
import assert from 'node:assert/strict'
import { availableParallelism } from 'node:os'
import { test } from 'node:test'
import { minimise, shortestText } from './minimise.ts'
import { isFoundBySimulation } from './planted-line.ts'
import { plantedBugs } from './planted-bugs.ts'
import { plantedLines } from './planted-lines.ts'
import { failingTests, findPlanted } from './planted-processes.ts'
import { runSimulation } from './simulation.ts'

/** Of the data-safety rules, those that are marked DL; those of snapshots have plants of their own. */
const dataLossRules =
  'E1 E2 E6 E12 F1 F2 F3 F4 F5 F6 F7 F8 P1 P2 P3 P4 P6 J1 J2 J3 J8 B1 B2 B3 B4 L4 L11 T1 G1 G2 R1 R2'.split(
    ' ',
  )
const SEED_MAX = 12
/** Term and vote: planted in the simulation of consensus (core/raft/testing/simulation.test.ts). */
const inConsensus = ['L4']

test('every rule against data loss is taken out once', () => {
  const rules = [...plantedBugs, ...plantedLines].flatMap(({ rule }) => rule.split(', '))
  assert.deepEqual(
    dataLossRules.filter((rule) => !rules.includes(rule) && !inConsensus.includes(rule)),
    [],
  )
  const keys = [...plantedBugs, ...plantedLines].map(({ key }) => key)
  assert.equal(new Set(keys).size, keys.length)
})

test('each line that is taken out is found', { concurrency: availableParallelism() }, async (context) => {
  const tests = plantedLines.map((planted) =>
    context.test(`${planted.rule}: ${planted.name}`, async () => {
      const { found } = planted
      if (!isFoundBySimulation(found)) {
        assert.notDeepEqual(await failingTests(planted, found), [], `${found.test} says nothing`)
        return
      }
      const first = await findPlanted(planted.key, true)
      assert.ok(first !== null, `${found.seedsToFind} seeds did not find it`)
      const isHang = first.failure.startsWith('operations without answer')
      assert.ok(found.showsAsHang === true || !isHang, 'found by what is wrong, not by a hang')
      const { failure } = await runSimulation({ seed: first.seed, ...found.profile })
      assert.equal(failure, null, `the trouble alone, seed ${first.seed}`)
    }),
  )
  await Promise.all(tests)
})

test('of a run that fails a few faults are left, which fail in the same way, on one screen', async () => {
  const bug = plantedBugs.find(({ key }) => key === 'unverified-page')
  assert.ok(bug !== undefined)
  const planted = bug.plant()
  try {
    let seed = 0
    let options = { seed, ...bug.profile, ...planted.options }
    let whole = await runSimulation(options)
    // the first that a client sees, not fsck
    while (++seed < SEED_MAX && !/ read /.test(whole.failure ?? '')) {
      options = { ...options, seed }
      whole = await runSimulation(options)
    }
    const shortest = await minimise((only) => runSimulation({ ...options, ...only }))
    assert.ok(shortest !== null && shortest.isReplayed && whole.failure !== null)
    const { faultList, failure } = shortest.result
    assert.ok(
      faultList.length <= 5 && faultList.length < whole.faultList.length,
      `${faultList.length} faults`,
    )
    assert.match(whole.failure, / read /)
    assert.match(failure ?? '', / read /)
    const lines = shortestText(
      shortest,
      (more) => `npm run sim -- --planted ${bug.key} --seed ${options.seed}${more}`,
    )
    assert.ok(lines.length <= 24 && lines.every((line) => line.length <= 160), lines.join('\n'))
    assert.match(lines.at(-1) ?? '', /^replay: npm run sim -- .* --only \d+/)
  } finally {
    planted.remove()
  }
})
