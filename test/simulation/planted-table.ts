/** `npm run sim -- --planted all`: every planted bug, the scenario that finds it, and how soon. */
import { Violation } from '../../core/raft/testing/checker.ts'
import { simulate } from '../../core/raft/testing/simulation.ts'
import { type FoundBySimulation, isFoundBySimulation } from './planted-line.ts'
import { plantedBugs } from './planted-bugs.ts'
import { plantedLines } from './planted-lines.ts'
import { failingTests, findPlanted } from './planted-processes.ts'

/** Bugs of consensus have a simulation of their own (core/raft/testing). */
const consensus = [
  {
    key: 'forgetHardState',
    name: 'a member forgets term and vote in a restart',
    rule: 'L4',
    seedsToFind: 100,
  },
] as const

interface Planted {
  readonly key: string
  readonly name: string
  readonly rule: string
  readonly scenario: string
  /** Null: not found. */
  find(): Promise<string | null>
}

function scenarioOf({ profile }: FoundBySimulation): string {
  const { kinds = [], shape } = profile
  const sizes = Object.entries(shape ?? {}).map(([name, count]) => `, ${name} ${JSON.stringify(count)}`)
  return `${kinds.join(', ')}${sizes.join('')}`
}

async function findBySeed(key: string, isLine: boolean): Promise<string | null> {
  const found = await findPlanted(key, isLine)
  return found === null ? null : `seed ${found.seed}`
}

function findInConsensus({ key, seedsToFind }: (typeof consensus)[number]): string | null {
  for (let seed = 1; seed <= seedsToFind; seed++) {
    try {
      simulate({ seed, faults: { [key]: true }, troubleTicks: 400 })
    } catch (error) {
      if (error instanceof Violation) return `seed ${seed}`
      throw error
    }
  }
  return null
}

const all: readonly Planted[] = [
  ...plantedBugs.map((bug) => ({
    ...bug,
    scenario: scenarioOf(bug),
    find: () => findBySeed(bug.key, false),
  })),
  ...plantedLines.map((bug) => {
    const { found } = bug
    if (isFoundBySimulation(found))
      return { ...bug, scenario: scenarioOf(found), find: () => findBySeed(bug.key, true) }
    return {
      ...bug,
      scenario: `\`${found.test}\` "${found.pattern}": ${found.why}`,
      find: async () => ((await failingTests(bug, found)).length > 0 ? 'its scenario' : null),
    }
  }),
  ...consensus.map((bug) => ({
    ...bug,
    scenario: 'simulation of consensus',
    find: () => Promise.resolve(findInConsensus(bug)),
  })),
]

/** False: one was not found. */
export async function printPlanted(jobs: number): Promise<boolean> {
  const waiting = all.toSorted((a, b) => (a.rule < b.rule ? -1 : 1))
  const rows = new Map<Planted, string | null>()
  console.log('| rule | key | bug | scenario | found by |\n|---|---|---|---|---|')
  let shown = 0
  const show = (): void => {
    for (let next = all[0]; (next = waiting[shown]) !== undefined && rows.has(next); shown++) {
      const { rule, key, name, scenario } = next
      console.log(`| ${rule} | \`${key}\` | ${name} | ${scenario} | ${rows.get(next) ?? '**nothing**'} |`)
    }
  }
  const queue = [...waiting]
  const work = async (): Promise<void> => {
    for (let next = queue.shift(); next !== undefined; next = queue.shift()) {
      rows.set(next, await next.find())
      show()
    }
  }
  await Promise.all(Array.from({ length: jobs }, work))
  return [...rows.values()].every((found) => found !== null)
}
