// Many seeds of the consensus simulation: `node test/simulation/raft-main.ts --seeds N [--from SEED] [--fault NAME]
// [--drift PERCENT]`.
// Prints a line for each violation and totals; exits with 1 when a promise was broken. With --fault it plants one
// of the bugs of RaftFaults and shows in which seeds it is found.

import { parseArgs } from 'node:util'
import { Violation } from '../../core/raft/testing/checker.ts'
import { simulate } from '../../core/raft/testing/simulation.ts'

const { values } = parseArgs({
  options: {
    seeds: { type: 'string', default: '1000' },
    from: { type: 'string', default: '1' },
    fault: { type: 'string' },
    drift: { type: 'string', default: '10' },
  },
})

const from = Number(values.from)
const totals = new Map<string, number>()
const found = new Map<string, number>()
let violationCount = 0

for (let seed = from; seed < from + Number(values.seeds); seed++) {
  try {
    const faults = values.fault === undefined ? {} : { [values.fault]: true }
    const summary = simulate({
      seed,
      faults,
      clockDriftPercent: Number(values.drift),
    })
    for (const [name, count] of Object.entries(summary) as [string, number][])
      if (name !== 'seed') totals.set(name, (totals.get(name) ?? 0) + count)
  } catch (error) {
    violationCount++
    const property = error instanceof Violation ? error.property : 'crash of the simulation'
    found.set(property, (found.get(property) ?? 0) + 1)
    if (violationCount <= 20)
      console.log(`seed ${seed}: ${error instanceof Error ? error.message : String(error)}`)
    if (!(error instanceof Violation)) console.log(error)
  }
}

console.log(Object.fromEntries(totals))
if (violationCount > 0) console.log(`${violationCount} violations`, Object.fromEntries(found))
process.exitCode = violationCount > 0 ? 1 : 0
