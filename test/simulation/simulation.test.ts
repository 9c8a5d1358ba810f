// Proves data safety of the whole cluster under faults (promises 1-6) for a fixed set of seeds, that a run is
// the same every time it is replayed, and that planted bugs are found. Many more seeds: npm run sim.
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { plantedBugs } from './planted-bugs.ts'
import { ROUNDS_PER_RUN } from './power-cuts.ts'
import { type RunResult, runSimulation } from './simulation.ts'
import { counts } from './summary.ts'

/** As many seeds as fit into the time, at least the first few: those decide. A slow machine does fewer. */
const SEED_COUNT_MIN = 8
const SEED_COUNT_MAX = 40
const BUDGET_MS = 30_000
const FAULT_FREE_SEED_COUNT = 2

function explain(result: RunResult): string {
  return `seed ${result.seed}: ${result.failure}\n${result.lastLines.join('\n')}\nreplay: npm run sim -- --seed ${result.seed} --trace`
}

test('without faults every operation succeeds and is answered', async () => {
  for (let seed = 1; seed <= FAULT_FREE_SEED_COUNT; seed++) {
    const result = await runSimulation({ seed, kinds: [] })
    assert.equal(result.failure, null, explain(result))
    assert.ok(result.operationCount >= 300, `only ${result.operationCount} operations were checked`)
  }
})

test(`promises hold under faults: ${SEED_COUNT_MIN} to ${SEED_COUNT_MAX} seeds`, async (context) => {
  const startedMs = performance.now()
  let counted = 0
  let seed = 1
  for (; seed <= SEED_COUNT_MAX; seed++) {
    if (seed > SEED_COUNT_MIN && performance.now() - startedMs > BUDGET_MS) break
    const result = await runSimulation({ seed })
    assert.equal(result.failure, null, explain(result))
    if (counts(result)) counted += 1
    if (seed === SEED_COUNT_MIN)
      assert.ok(counted >= SEED_COUNT_MIN / 2, `only ${counted} seeds had enough operations and faults`)
  }
  context.diagnostic(`${seed - 1} seeds, ${counted} with enough operations and faults`)
})

test('everything leaves a disk that died, also what nobody uses and pages that cannot be repaired there (rules F7, R1)', async () => {
  const kinds = ['dead-disk', 'mds-crash', 'bit-rot'] as const
  const result = await runSimulation({ seed: 9, kinds, shape: { chunkServerCount: 6 } })
  assert.equal(result.failure, null, explain(result))
  assert.equal(result.faults['dead-disk'], 1)
})

test('what was flushed survives power cuts of everything, in the middle of overwrites (rules P1, P2, F1)', async () => {
  const result = await runSimulation({ seed: 1, kinds: [], powerCuts: true })
  assert.equal(result.failure, null, explain(result))
  assert.ok((result.faults['power-cut'] ?? 0) >= ROUNDS_PER_RUN)
})

test('the same seed gives the same run', async () => {
  for (const seed of [7]) {
    const first = await runSimulation({ seed })
    const second = await runSimulation({ seed })
    assert.equal(first.hash, second.hash)
    assert.equal(first.operationCount, second.operationCount)
  }
})

for (const bug of plantedBugs) {
  test(`planted bug is found: ${bug.name} (rule ${bug.rule})`, async () => {
    const planted = bug.plant()
    try {
      for (let seed = 1; seed <= bug.seedsToFind; seed++) {
        const result = await runSimulation({ seed, ...bug.profile, ...planted.options })
        if (result.failure === null) continue
        planted.remove()
        const isHang = result.failure.startsWith('operations without answer')
        assert.ok(bug.showsAsHang === true || !isHang, 'found by what is wrong, not by a hang')
        const without = await runSimulation({ seed, ...bug.profile })
        assert.equal(without.failure, null, `the trouble alone: ${explain(without)}`)
        return
      }
    } finally {
      planted.remove()
    }
    assert.fail(`${bug.seedsToFind} seeds did not find it`)
  })
}
