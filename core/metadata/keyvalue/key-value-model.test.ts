// Proves the key-value store against a plain Map: random transactions of several sessions, each command
// perhaps delivered twice, sessions that end. Same answers, same keys, same watch history, the same state on a
// second member that reads the log, and after loading the rows.

import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import type { RowChange } from '../../platform/store.ts'
import { decodeLogEntry, encodeLogEntry } from '../log/codec.ts'
import type { Command, LogCommand, RequestCommand } from '../state/commands.ts'
import { createStateMachine } from '../state/machine.ts'
import { stateDigest } from '../state/state.ts'
import { listAt } from './read.ts'

type Transact = Extract<RequestCommand, { type: 'kv.transact' }>

interface ModelRow {
  value: string
  revision: number
  created: number
  session: number
}

/** The rules again, in the simplest way. Keys: namespace/key. */
class Model {
  rows = new Map<string, ModelRow>()

  transact({ namespace, guards, writes, session }: Transact, index: number): unknown {
    const at = (key: string) => this.rows.get(`${namespace}/${key}`)
    const failed = guards.findIndex(({ key, revision, value }) =>
      value === undefined
        ? (at(key)?.revision ?? 0) !== revision
        : at(key)?.value !== Buffer.from(value).toString(),
    )
    if (failed >= 0) {
      return { revision: index, failed, present: guards.map(({ key }) => at(key)?.revision ?? 0) }
    }
    for (const { key, value, bind } of writes) {
      const created = at(key)?.created ?? index
      this.rows.delete(`${namespace}/${key}`)
      if (value === undefined) continue
      const row = { value: Buffer.from(value).toString(), revision: index, created }
      this.rows.set(`${namespace}/${key}`, { ...row, session: bind === true ? session : 0 })
    }
    return { revision: index }
  }

  endSession(session: number): void {
    for (const [key, row] of this.rows) if (row.session === session) this.rows.delete(key)
  }

  list(namespace: string, prefix: string): [string, ModelRow][] {
    return [...this.rows]
      .filter(([key]) => key.startsWith(`${namespace}/${prefix}`))
      .map(([key, row]): [string, ModelRow] => [key.slice(namespace.length + 1), row])
      .toSorted(([left], [right]) => (left < right ? -1 : 1))
  }
}

const namespace = fc.constantFrom('iscsi', 'a.b-c')
const key = fc.constantFrom('a', 'a/b', 'a/é', 'b', '\u{1F600}')
const value = fc.constantFrom('', 'one', 'two').map((text) => Buffer.from(text))
const session = fc.integer({ min: 1, max: 3 })
const guard = fc.oneof(
  fc.record({ key, revision: fc.constant(0) }),
  fc.record({ key, value }),
  // How far back the revision is that is asked for; made absolute below.
  fc.record({ key, revision: fc.integer({ min: -12, max: -1 }) }),
)
const write = fc.oneof(
  fc.record({ key, value, bind: fc.boolean() }),
  fc.record({ key, value }),
  fc.record({ key }),
)
const step = fc.oneof(
  {
    weight: 8,
    arbitrary: fc.record({
      do: fc.constant('transact' as const),
      session,
      namespace,
      guards: fc.array(guard, { maxLength: 2 }),
      writes: fc.uniqueArray(write, { minLength: 1, maxLength: 3, selector: (item) => item.key }),
      isDoubled: fc.boolean(),
    }),
  },
  { weight: 1, arbitrary: fc.record({ do: fc.constant('end' as const), session }) },
)
type Step = typeof step extends fc.Arbitrary<infer Value> ? Value : never

class Pair {
  readonly left = createStateMachine()
  readonly right = createStateMachine()
  readonly stored = new Map<string, RowChange>()
  /** What every revision's listing of everything must be. */
  readonly snapshots = new Map<number, Map<string, ModelRow>>()
  index = 0

  apply(command: Command): unknown {
    this.index += 1
    const entry: LogCommand = { command, wallSeconds: this.index, wallNanoseconds: 0 }
    const result = this.left.apply(entry, this.index)
    const replayed = decodeLogEntry(encodeLogEntry(entry, this.index), this.index)
    assert.deepEqual(this.right.apply(replayed, this.index), result)
    for (const change of this.left.state.collectChanges())
      this.stored.set(`${change.table} ${change.key}`, change)
    return result
  }
}

const open: Command = { type: 'session.open', name: 'n', host: 'h', kind: 'k', secret: 's' }

function run(steps: readonly Step[]): { pair: Pair; model: Model } {
  const pair = new Pair()
  const model = new Model()
  /** Sessions by their place; those that end are replaced. */
  const sessions = [1, 2, 3].map(() => {
    pair.apply(open)
    return { id: pair.index, sequence: 0 }
  })
  let sessionCount = sessions.length
  for (const [position, action] of steps.entries()) {
    const place = sessions[action.session - 1]
    assert.ok(place !== undefined)
    if (action.do === 'end') {
      pair.apply({ type: 'session.expire', session: place.id, clean: position % 2 === 0 })
      model.endSession(place.id)
      pair.snapshots.set(pair.index, new Map(model.rows))
      pair.apply(open)
      sessions[action.session - 1] = { id: ++sessionCount, sequence: 0 }
      continue
    }
    const sequence = ++place.sequence
    const guards = action.guards.map((item) =>
      'revision' in item && item.revision < 0
        ? { key: item.key, revision: Math.max(1, pair.index + 1 + item.revision) }
        : item,
    )
    const command: Transact = {
      type: 'kv.transact',
      session: place.id,
      mutation: { sequence, acknowledgedBelow: sequence },
      namespace: action.namespace,
      guards,
      writes: action.writes,
    }
    const expected = model.transact(command, pair.index + 1)
    assert.deepEqual(pair.apply(command), { ok: expected })
    pair.snapshots.set(pair.index, new Map(model.rows))
    if (action.isDoubled) assert.deepEqual(pair.apply(command), { ok: expected }, 'applied once')
  }
  return { pair, model }
}

function shown(pair: Pair, space: string, prefix: string, revision: number, limit: number) {
  const found: [string, ModelRow][] = []
  let after = ''
  for (;;) {
    const page = listAt(pair.left.state.keyValue, { namespace: space, prefix, after, limit }, revision)
    for (const entry of page.entries) {
      const { value: bytes, created, session: owner } = entry
      const row = { value: Buffer.from(bytes).toString(), revision: entry.revision, created, session: owner }
      found.push([entry.key, row])
    }
    if (page.end) return found
    after = found.at(-1)?.[0] ?? ''
  }
}

test('transactions, bound keys and doubled commands, against a Map', () => {
  fc.assert(
    fc.property(fc.array(step, { maxLength: 60, size: 'max' }), (steps) => {
      const { pair, model } = run(steps)
      for (const space of ['iscsi', 'a.b-c', 'other']) {
        for (const prefix of ['', 'a', 'a/', 'b']) {
          assert.deepEqual(shown(pair, space, prefix, pair.index, 2), model.list(space, prefix))
        }
      }
      const digest = stateDigest(pair.left.state)
      assert.equal(stateDigest(pair.right.state), digest)
      const loaded = createStateMachine()
      for (const { table, key: rowKey, value: text } of [...pair.stored.values()].toReversed()) {
        if (text !== null) loaded.state.loadRow(table, rowKey, text)
      }
      loaded.state.finishLoad()
      assert.equal(stateDigest(loaded.state), digest)
      const { keyValue } = pair.left.state
      assert.equal(loaded.state.keyValue.bytes, keyValue.bytes)
      for (let owner = 1; owner < 12; owner++) {
        assert.equal(loaded.state.keyValue.keyCountOf(owner), keyValue.keyCountOf(owner))
      }
      assert.equal(keyValue.bytesOf('iscsi') + keyValue.bytesOf('a.b-c'), keyValue.bytes)
    }),
    { numRuns: 200 },
  )
})

test('a listing at an earlier revision shows what was there then; the history replayed gives each state', () => {
  fc.assert(
    fc.property(fc.array(step, { maxLength: 40, size: 'max' }), (steps) => {
      const { pair } = run(steps)
      const replayed = new Map<string, ModelRow>()
      const changes = [...pair.left.state.keyValue.history.from(0)]
      for (const [revision, rows] of pair.snapshots) {
        const model = new Model()
        model.rows = rows
        for (const space of ['iscsi', 'a.b-c']) {
          assert.deepEqual(shown(pair, space, '', revision, 2), model.list(space, ''))
          assert.deepEqual(shown(pair, space, 'a/', revision, 1), model.list(space, 'a/'))
        }
        while (changes[0] !== undefined && changes[0].revision <= revision) {
          const { namespace: space, key: name, after } = changes.shift() ?? assert.fail()
          replayed.delete(`${space}/${name}`)
          if (after === undefined) continue
          const { created, session: owner } = after
          const row = { value: after.value.toString(), revision: after.revision, created, session: owner }
          replayed.set(`${space}/${name}`, row)
        }
        const sorted = (map: Map<string, ModelRow>) => [...map].toSorted(([a], [b]) => (a < b ? -1 : 1))
        assert.deepEqual(sorted(replayed), sorted(rows))
      }
    }),
    { numRuns: 100 },
  )
})
