// Proves the checker itself: legal histories are accepted and illegal ones refused, also with operations whose
// outcome nobody knows; on small random histories it says what trying every order says; and it copes with long
// ones, or says that it did not.

import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import {
  type CheckOptions,
  checkLinearizability,
  describeVerdict,
  type HistoryOperation,
} from './linearizability.ts'
import {
  type MapInput,
  mapModel,
  type MapOutput,
  type RegisterInput,
  registerModel,
  type RegisterOutput,
} from './linearizability-models.ts'
import { SeededRandom } from '../simulation/seeded-random.ts'

type RegisterOperation = HistoryOperation<RegisterInput, RegisterOutput>
type MapOperation = HistoryOperation<MapInput, MapOutput>
/** [from, to]; null: unknown. */
type Span = readonly [number, number | null]

const key = 'k'
function read([calledAt, returnedAt]: Span, output: string | null): RegisterOperation {
  return { client: 'r', input: { kind: 'read', key }, calledAt, returnedAt, output }
}
function write([calledAt, returnedAt]: Span, value: string | null): RegisterOperation {
  return { client: 'w', input: { kind: 'write', key, value }, calledAt, returnedAt, output: null }
}
function swap([calledAt, returnedAt]: Span, expected: string | null, value: string, output: boolean) {
  const input = { kind: 'compare-and-set', key, expected, value } as const
  return { client: 's', input, calledAt, returnedAt, output }
}
const register = (history: RegisterOperation[], options?: CheckOptions) =>
  checkLinearizability(history, registerModel, options).kind

test('a register: order in time binds, concurrency leaves a choice', () => {
  assert.equal(register([]), 'linearizable')
  assert.equal(register([write([1, 2], 'a'), read([3, 4], 'a')]), 'linearizable')
  assert.equal(register([write([1, 2], 'a'), read([3, 4], null)]), 'violation', 'a stale read')
  assert.equal(register([write([1, 5], 'a'), read([2, 3], null), read([3.5, 4], 'a')]), 'linearizable')
  assert.equal(
    register([write([1, 9], 'a'), read([2, 3], 'a'), read([4, 5], null)]),
    'violation',
    'back in time',
  )
  assert.equal(
    register([write([1, 2], 'a'), read([2, 3], null)]),
    'linearizable',
    'equal times are concurrent',
  )
  const both = [write([1, 9], 'a'), write([1, 9], 'b')]
  assert.equal(register([...both, read([2, 3], 'b'), read([4, 5], 'a')]), 'linearizable')
  assert.equal(register([...both, read([2, 3], 'b'), read([4, 5], 'a'), read([6, 7], 'b')]), 'violation')
})

test('a register: compare-and-set happens once, or says why not', () => {
  const one = swap([1, 5], null, 'a', true)
  assert.equal(register([one, swap([1, 5], null, 'b', true)]), 'violation', 'both won')
  assert.equal(register([one, swap([1, 5], null, 'b', false), read([6, 7], 'a')]), 'linearizable')
  assert.equal(register([swap([1, 2], null, 'a', false)]), 'violation', 'it had to win')
  assert.equal(register([one, swap([6, 7], 'a', 'b', false)]), 'violation')
})

test('an unknown outcome: perhaps never, perhaps much later, but not twice and not before', () => {
  const lost = write([1, null], 'a')
  assert.equal(register([lost, read([2, 3], null)]), 'linearizable')
  assert.equal(register([lost, read([2, 3], 'a')]), 'linearizable')
  assert.equal(register([lost, read([2, 3], null), write([4, 5], 'b'), read([6, 7], 'a')]), 'linearizable')
  const twice = [lost, read([2, 3], 'a'), write([4, 5], 'b'), read([6, 7], 'a')]
  assert.equal(register(twice), 'violation', 'applied twice')
  assert.equal(register([read([1, 2], 'a'), write([3, null], 'a')]), 'violation', 'before its call')
  assert.equal(register([lost, read([2, 3], 'a'), read([4, 5], null)]), 'violation', 'taken back')
  const swapped = { ...swap([1, null], null, 'a', true), output: undefined } as unknown as RegisterOperation
  assert.equal(register([swapped, read([2, 3], null), read([4, 5], 'a')]), 'linearizable')
  assert.equal(register([swapped, write([2, 3], 'b'), write([4, 5], 'c'), read([6, 7], 'a')]), 'violation')
})

function transact(
  [calledAt, returnedAt]: Span,
  guards: Extract<MapInput, { kind: 'transact' }>['guards'],
  writes: Record<string, string | null>,
  output: MapOutput,
  owner?: string,
): MapOperation {
  const list = Object.entries(writes).map(([name, value]) => ({
    key: name,
    value,
    ...(owner === undefined ? {} : { owner }),
  }))
  const input = { kind: 'transact', guards, writes: list } as const
  return { client: 't', input, calledAt, returnedAt, ...(returnedAt === null ? {} : { output }) }
}
function list(calledAt: number, revision: number, ...entries: [string, string, number][]): MapOperation {
  const shown = entries.map(([name, value, at]) => ({ key: name, value, revision: at }))
  const input = { kind: 'list', prefix: '' } as const
  return { client: 'l', input, calledAt, returnedAt: calledAt + 0.5, output: { revision, entries: shown } }
}
const map = (...history: MapOperation[]) => checkLinearizability(history, mapModel).kind

test('a map: transactions are seen whole, and their guards held', () => {
  const both = transact([1, 4], [], { a: '1', b: '1' }, { revision: 5 })
  assert.equal(map(both, list(5, 5, ['a', '1', 5], ['b', '1', 5])), 'linearizable')
  assert.equal(map(both, list(2, 5, ['a', '1', 5])), 'violation', 'half of it')
  assert.equal(map(both, list(5, 5, ['a', '1', 5], ['b', '1', 6])), 'violation', 'another revision')
  assert.equal(map(both, list(5, 4, ['a', '1', 5], ['b', '1', 5])), 'violation', 'older than what it shows')
  const guards = [
    { key: 'a', expected: { revision: 5 } },
    { key: 'c', expected: 'absent' },
  ] as const
  assert.equal(map(both, transact([5, 6], guards, { c: '1' }, { revision: 7 })), 'linearizable')
  assert.equal(map(both, transact([5, 6], guards, { c: '1' }, { revision: 4 })), 'violation', 'going back')
  const failed = { guard: 1, value: 'x', present: [5, 6] }
  const other = transact([5, 6], [], { c: 'x' }, { revision: 6 })
  assert.equal(
    map(both, other, transact([7, 8], guards, { c: '1' }, { revision: 7, failed })),
    'linearizable',
  )
  assert.equal(map(both, other, transact([7, 8], guards, { c: '1' }, { revision: 7 })), 'violation')
  assert.equal(map(both, transact([7, 8], guards, { c: '1' }, { revision: 7, failed })), 'violation')
  const wrong = { guard: 0, value: '1', present: [5, 6] }
  const mistaken = transact([7, 8], guards, { c: '1' }, { revision: 7, failed: wrong })
  assert.equal(map(both, other, mistaken), 'violation', 'that guard held')
})

test('a map: a transaction nobody heard of is found out by what is seen', () => {
  const unheard = transact([1, null], [{ key: 'a', expected: 'absent' }], { a: '1', b: '1' }, {})
  assert.equal(map(unheard, list(2, 9)), 'linearizable')
  assert.equal(map(unheard, list(2, 3, ['a', '1', 3], ['b', '1', 3])), 'linearizable')
  const twice = [list(2, 3, ['a', '1', 3], ['b', '1', 3]), list(4, 4, ['a', '1', 4], ['b', '1', 4])]
  assert.equal(map(unheard, ...twice), 'violation', 'it has one revision')
  const set = transact([2, 3], [{ key: 'a', expected: { revision: 8 } }], { a: '2' }, { revision: 9 })
  assert.equal(map(unheard, set), 'linearizable')
  assert.equal(map(transact([1, 1.5], [], { a: '0' }, { revision: 2 }), unheard, set), 'violation')
})

test('a map: keys end with their owner, at some time after the call', () => {
  const bound = transact([1, 2], [], { a: '1' }, { revision: 3 }, 'one')
  const end: MapOperation = {
    client: 'e',
    input: { kind: 'end', owner: 'one' },
    calledAt: 3,
    returnedAt: null,
  }
  assert.equal(map(bound, end, list(4, 4, ['a', '1', 3]), list(5, 9)), 'linearizable')
  assert.equal(map(bound, end, list(4, 4), list(5, 9, ['a', '1', 3])), 'violation')
  assert.equal(map(bound, list(4, 9)), 'violation')
  const taken = transact([2.5, 2.6], [], { a: '2' }, { revision: 4 })
  assert.equal(map(bound, taken, end, list(4, 9)), 'violation', 'no longer bound')
})

/** Every order, one after the other. */
function bruteForce(history: readonly RegisterOperation[]): boolean {
  const tryFrom = (left: readonly RegisterOperation[], value: string | null): boolean => {
    if (left.every(({ returnedAt }) => returnedAt === null)) return true
    const limit = Math.min(...left.map(({ returnedAt }) => returnedAt ?? Number.POSITIVE_INFINITY))
    return left.some((operation) => {
      if (operation.calledAt > limit) return false
      const output = operation.returnedAt === null ? undefined : operation.output
      const rest = left.filter((other) => other !== operation)
      return registerModel.step(value, operation.input, output).some((next) => tryFrom(rest, next))
    })
  }
  return tryFrom(history, null)
}

test('on small random histories it says what trying every order says', () => {
  const value = fc.constantFrom('a', 'b')
  const operation = fc
    .record({
      kind: fc.constantFrom('read', 'write', 'compare-and-set'),
      calledAt: fc.integer({ min: 0, max: 12 }),
      durationMs: fc.integer({ min: 0, max: 6 }),
      isUnknown: fc.integer({ min: 0, max: 4 }).map((number) => number === 0),
      value,
      expected: fc.option(value),
      seen: fc.option(value),
      isDone: fc.boolean(),
    })
    .map((random): RegisterOperation => {
      const end = random.isUnknown ? null : random.calledAt + random.durationMs
      const span = [random.calledAt, end] as const
      if (random.kind === 'read') return read(span, random.seen)
      if (random.kind === 'write') return write(span, random.value)
      return swap(span, random.expected, random.value, random.isDone)
    })
  const counts = { true: 0, false: 0 }
  fc.assert(
    fc.property(fc.array(operation, { minLength: 1, maxLength: 6 }), (history) => {
      const expected = bruteForce(history)
      counts[`${expected}`] += 1
      assert.equal(register(history), expected ? 'linearizable' : 'violation')
    }),
    { numRuns: 3000, seed: 7 },
  )
  assert.ok(counts.true > 500 && counts.false > 500, JSON.stringify(counts))
})

/** Operations of many clients on a real register, each happening at a random moment of its span. */
function longHistory(seed: number, count: number): RegisterOperation[] {
  const random = new SeededRandom(seed)
  const values = new Map<string, string | null>()
  const drafts = Array.from({ length: count }, (_, number) => {
    const at = number + random.float()
    const name = `key ${random.below(3)}`
    return { at, calledAt: at - random.float() * 8, returnedAt: at + random.float() * 8, name, number }
  }).toSorted((left, right) => left.at - right.at)
  return drafts.map(({ calledAt, returnedAt, name, number }): RegisterOperation => {
    const client = `client ${number}`
    const now = values.get(name) ?? null
    const choice = random.below(10)
    if (choice < 4) {
      return { client, input: { kind: 'read', key: name }, calledAt, returnedAt, output: now }
    }
    const value = `${number}`
    // Half of the lost ones happened.
    const isLost = choice === 9
    if (!isLost || random.below(2) === 0) values.set(name, value)
    const input = { kind: 'write', key: name, value } as const
    return { client, input, calledAt, returnedAt: isLost ? null : returnedAt, output: null }
  })
}

test('long histories with lost answers are accepted; one changed answer is found', () => {
  for (let seed = 1; seed <= 3; seed++) {
    const history = longHistory(seed, 600)
    const verdict = checkLinearizability(history, registerModel)
    assert.equal(verdict.kind, 'linearizable', describeVerdict(verdict))
    const place = history.findIndex(({ input, calledAt }) => input.kind === 'read' && calledAt > 400)
    const changed = history.map((operation, index) =>
      index === place ? { ...operation, output: 'never written' } : operation,
    )
    assert.equal(register(changed), 'violation')
  }
})

test('it gives up as undecided, never as decided', () => {
  assert.equal(register(longHistory(9, 200), { stepCountMax: 100 }), 'undecided')
  const verdict = checkLinearizability([write([1, 2], 'a'), read([3, 4], 'b')], registerModel)
  assert.match(describeVerdict(verdict), /longest order[^]*"write"[^]*cannot have happened:[^]*"read"/)
})
