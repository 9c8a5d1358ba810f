// Every situation that the code marks says of which rule it is a case, and is visited: by runs of the simulation in
// fitting trouble, or by the scenario of a unit test.
import assert from 'node:assert/strict'
import { readdirSync, readFileSync } from 'node:fs'
import { availableParallelism } from 'node:os'
import path from 'node:path'
import { test } from 'node:test'
import { visitedBy } from './planted-processes.ts'
import { type RunResult, runSimulation } from './simulation.ts'
import { neverVisited, scripted, situations, visitingProfiles } from './situations.ts'

const core = path.join(import.meta.dirname, '../../core')
/** Of each profile; fewer when all were visited before. */
const SEEDS_MAX = 4
const MARK = /\bmark\(([^;{)]*)\)/g

test('the list of situations is that of the marks in the code', () => {
  const marked = new Set<string>()
  for (const file of readdirSync(core, { recursive: true, encoding: 'utf8' })) {
    if (!file.endsWith('.ts') || file === path.join('base', 'coverage.ts')) continue
    const source = readFileSync(path.join(core, file), 'utf8')
    for (const [, names = ''] of source.matchAll(MARK))
      for (const [, name = ''] of names.matchAll(/'([^']{6,})'/g)) marked.add(name)
  }
  assert.deepEqual([...marked].toSorted(), Object.keys(situations).toSorted())
})

test('runs visit the situations that are theirs', async () => {
  const visited = new Map<string, number>()
  for (let seed = 1; seed <= SEEDS_MAX && neverVisited(visited).length > 0; seed++) {
    for (const profile of visitingProfiles) {
      const { failure, marks }: RunResult = await runSimulation({ seed, ...profile })
      assert.equal(failure, null, `seed ${seed} of ${JSON.stringify(profile)}`)
      for (const name of Object.keys(marks)) visited.set(name, 1)
      if (neverVisited(visited).length === 0) break
    }
  }
  assert.deepEqual(neverVisited(visited), [])
})

test('scenarios visit the others', { concurrency: availableParallelism() }, async (context) => {
  const tests = Object.entries(scripted).map(([file, names]) =>
    context.test(file, async () => {
      const visited = await visitedBy(file)
      for (const name of names) assert.ok(visited.includes(name), name)
    }),
  )
  await Promise.all(tests)
  const known = Object.values(scripted).flat()
  assert.deepEqual(
    known.filter((name) => situations[name] === undefined),
    [],
  )
})
