/** An hour of the torture without its processes: are there enough faults, of all kinds, and several at once? */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { SeededRandom } from '../../core/testing/simulation/seeded-random.ts'
import { hostOf } from '../integration/support/network.ts'
import { chooseFault, type RunningFault, strikesAll } from './fault-choice.ts'
import { type FaultKind, faultKinds, type FaultName } from './faults.ts'

const kinds = Object.keys(faultKinds) as FaultName[]
const hosts = [
  ...[1, 2, 3].map((number) => hostOf('mds', number)),
  ...[1, 2, 3, 4, 5, 6].map((number) => hostOf('cs', number)),
  ...[1, 2, 3].map((number) => hostOf('client', number)),
]
const HOUR_MS = 3_600_000
const LOOK_MS = 500
const PAUSE_MS = 5_000
/** From its beginning until all is well again, on a machine that is busy with other things, too. */
const WELL_AGAIN_MS = { harmful: 45_000, other: 20_000 }
/** Of that time it lasts itself. */
const LASTS_PART = 0.3

interface Struck extends RunningFault {
  readonly fromMs: number
  readonly toMs: number
  readonly wellMs: number
}

function anHour(seed: number): Struck[] {
  const random = new SeededRandom(seed)
  const struck: Struck[] = []
  const countOf = (kind: FaultName) => struck.filter((fault) => fault.kind === kind).length
  for (let nowMs = 0; nowMs < HOUR_MS; ) {
    const running = struck.filter(({ wellMs }) => wellMs > nowMs)
    const choice = chooseFault(kinds, countOf, hosts, running, random)
    if (choice === null) {
      nowMs += LOOK_MS
      continue
    }
    const { harms }: FaultKind = faultKinds[choice.kind]
    const longestMs = harms === true ? WELL_AGAIN_MS.harmful : WELL_AGAIN_MS.other
    const wellMs = longestMs * (0.4 + 0.6 * random.float())
    struck.push({ ...choice, fromMs: nowMs, toMs: nowMs + wellMs * LASTS_PART, wellMs: nowMs + wellMs })
    nowMs += random.float() * 2 * PAUSE_MS
  }
  return struck
}

function isAtOnce(a: Struck, b: Struck): boolean {
  return a !== b && a.fromMs < b.toMs && b.fromMs < a.toMs
}

for (const seed of [1, 2, 3]) {
  test(`an hour has 300 faults, 10 of each kind, a third of them beside others (seed ${seed})`, () => {
    const struck = anHour(seed)
    assert.ok(struck.length >= 300, `${struck.length} faults`)
    for (const kind of kinds) {
      const count = struck.filter((fault) => fault.kind === kind).length
      assert.ok(count >= 10, `${kind}: ${count}`)
    }
    const overlapping = struck.filter((one) => struck.some((other) => isAtOnce(one, other)))
    assert.ok(overlapping.length * 3 >= struck.length, `${overlapping.length} of ${struck.length}`)
  })

  test(`never more at once than the promises cover (seed ${seed})`, () => {
    const struck = anHour(seed)
    for (const one of struck) {
      const before = struck.filter(
        (other) => other !== one && other.fromMs <= one.fromMs && other.wellMs > one.fromMs,
      )
      assert.ok(
        before.every(({ host }) => host.name !== one.host.name),
        'a host has one fault at a time',
      )
      const beside = before.filter(({ host }) => host.role === one.host.role)
      const { harms }: FaultKind = faultKinds[one.kind]
      const most = { mds: 0, cs: harms === true ? 0 : 1, client: 1 }[one.host.role]
      assert.ok(beside.length <= most, `${one.kind} beside ${beside.map(({ kind }) => kind).join()}`)
      assert.ok(!beside.some(({ kind }) => strikesAll(kind)), `${one.kind} while all were struck`)
    }
  })
}
