// Proves the bounds of the key-value store: what is too large or malformed is refused with its code and
// changes nothing, quotas count to the byte and never stop a deletion, the history stays small, and a set of
// keys stays sorted.

import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import type { KeyValueGuard, KeyValueWrite } from '../../wire/messages/key-value.ts'
import { isEncodable } from '../log/codec.ts'
import type { Command } from '../state/commands.ts'
import { createStateMachine } from '../state/machine.ts'
import { ChangeHistory } from './change-history.ts'
import { KEYS_PER_SESSION_MAX } from './limits.ts'
import { SortedKeys } from './sorted-keys.ts'

const MIB = 1024 * 1024

class Bench {
  readonly machine = createStateMachine()
  #sequence = 0

  constructor() {
    for (const name of ['a', 'b']) this.apply({ type: 'session.open', name, host: '', kind: '', secret: '' })
  }

  apply(command: Command): string {
    const entry = { command, wallSeconds: 0, wallNanoseconds: 0 }
    const result = this.machine.apply(entry, this.machine.appliedIndex + 1)
    return 'error' in result ? result.error : 'ok'
  }

  transact(guards: KeyValueGuard[], writes: KeyValueWrite[], namespace = 'test', session = 1): string {
    this.#sequence += 1
    const mutation = { sequence: this.#sequence, acknowledgedBelow: this.#sequence }
    return this.apply({ type: 'kv.transact', session, mutation, namespace, guards, writes })
  }

  set(key: string, value: string): string {
    this.#sequence += 1
    const mutation = { sequence: this.#sequence, acknowledgedBelow: this.#sequence }
    return this.apply({ type: 'admin.setConfig', session: 1, mutation, key, value })
  }
}

test('forms and sizes', () => {
  const bench = new Bench()
  const { keyValue } = bench.machine.state
  const put = (key: string, size = 0) => bench.transact([], [{ key, value: Buffer.alloc(size) }])
  for (const namespace of ['', 'A', 'a/b', 'a b', 'x'.repeat(65), 'ä']) {
    assert.equal(bench.transact([], [{ key: 'k' }], namespace), 'EINVAL', namespace)
  }
  assert.equal(bench.transact([], [{ key: 'k' }], 'x'.repeat(64)), 'ok')
  assert.equal(put(''), 'EINVAL')
  assert.equal(put('a\0b'), 'EINVAL')
  assert.equal(put('\ud800'), 'EINVAL')
  assert.equal(put('é'.repeat(257)), 'TOO_LARGE')
  assert.equal(put('é'.repeat(256), 65_536), 'ok')
  assert.equal(put('k', 65_537), 'TOO_LARGE')
  assert.equal(bench.transact([], []), 'EINVAL')
  assert.equal(bench.transact([{ key: 'k' }], []), 'EINVAL')
  assert.equal(bench.transact([{ key: 'k', revision: 0, value: Buffer.alloc(0) }], []), 'EINVAL')
  assert.equal(bench.transact([], [{ key: 'k' }, { key: 'k', value: Buffer.alloc(0) }]), 'EINVAL')
  const keys = (count: number, size: number) =>
    Array.from({ length: count }, (_, number) => ({ key: `k${number}`, value: Buffer.alloc(size) }))
  assert.equal(bench.transact([], keys(65, 0)), 'TOO_LARGE')
  assert.equal(bench.transact(keys(65, 0), []), 'TOO_LARGE')
  assert.equal(bench.transact([], keys(8, 65_536)), 'TOO_LARGE')
  assert.equal(bench.transact([], keys(64, 8000)), 'ok')
  assert.equal(keyValue.get('test', 'k63')?.value.length, 8000)
})

test('half a surrogate pair never gets into the log, where it would change', () => {
  const mutation = { sequence: 1, acknowledgedBelow: 1 }
  const command = { type: 'kv.transact', session: 1, mutation, namespace: 'test' } as const
  assert.ok(isEncodable({ ...command, guards: [{ key: 'a', revision: 0 }], writes: [{ key: 'b' }] }))
  assert.ok(!isEncodable({ ...command, guards: [], writes: [{ key: 'a\ud800' }] }))
  assert.ok(!isEncodable({ ...command, guards: [{ key: '\udc00', revision: 0 }], writes: [] }))
})

test('quotas of a namespace and of all; who is over one may still shrink', () => {
  const bench = new Bench()
  assert.equal(bench.set('mds.kv.bytes', '2MiB'), 'ok')
  assert.equal(bench.set('mds.kv.namespace_bytes', '1MiB'), 'ok')
  const put = (namespace: string, key: string, size: number) =>
    bench.transact([], [{ key, value: Buffer.alloc(size) }], namespace)
  const each = 65_536
  for (let number = 10; number < 25; number++) assert.equal(put('one', `${number}`, each), 'ok')
  const left = MIB - 15 * (each + 2 + 64)
  assert.equal(put('one', 'xx', left - 65), 'QUOTA')
  assert.equal(put('one', 'xx', left - 66), 'ok')
  assert.equal(bench.machine.state.keyValue.bytesOf('one'), MIB)
  assert.equal(put('one', 'y', 0), 'QUOTA')
  assert.equal(bench.transact([], [{ key: 'y', value: Buffer.alloc(0) }, { key: '10' }], 'one'), 'ok')
  for (let number = 10; number < 25; number++) assert.equal(put('two', `${number}`, each), 'ok')
  for (let number = 0; number < 2; number++)
    assert.equal(put('three', `${number}`, each), number === 0 ? 'ok' : 'QUOTA')
  assert.equal(bench.set('mds.kv.bytes', '1MiB'), 'ok')
  assert.equal(put('two', '10', each), 'ok', 'as large as before')
  assert.equal(put('two', '10', each - 1), 'ok')
  assert.equal(put('two', '10', each), 'QUOTA')
  assert.equal(bench.transact([], [{ key: '10' }], 'two'), 'ok')
  assert.equal(bench.set('mds.kv.bytes', '1kB'), 'EINVAL')
})

test('a session has a bounded number of keys; they end with it, in every namespace, others stay', () => {
  const bench = new Bench()
  const { keyValue } = bench.machine.state
  const value = Buffer.from('x')
  let made = 0
  const bind = (count: number, session = 1) => {
    const writes = Array.from({ length: count }, () => ({ key: `k${made++}`, value, bind: true }))
    return bench.transact([], writes, made % 2 === 0 ? 'even' : 'odd', session)
  }
  while (made < KEYS_PER_SESSION_MAX) assert.equal(bind(Math.min(63, KEYS_PER_SESSION_MAX - made)), 'ok')
  assert.equal(bind(1), 'QUOTA')
  assert.equal(bench.transact([], [{ key: 'k0', value, bind: true }], 'odd'), 'ok', 'the same number')
  assert.equal(bench.transact([], [{ key: 'k0', value }], 'odd'), 'ok', 'no longer bound')
  assert.equal(bench.transact([], [{ key: 'k1', value, bind: true }], 'odd', 2), 'ok', 'taken over')
  bench.apply({ type: 'session.expire', session: 1, clean: false })
  const left = [...keyValue.rows()].map(([key]) => key)
  assert.deepEqual(left.toSorted(), ['odd/k0', 'odd/k1'])
  bench.apply({ type: 'session.expire', session: 2, clean: true })
  assert.deepEqual([...keyValue.rows()].length, 1)
  const ended = [...keyValue.history.from(bench.machine.appliedIndex)]
  assert.deepEqual(
    ended.map(({ key, after }) => [key, after]),
    [['k1', undefined]],
  )
})

test('the history drops whole revisions, oldest first, by number and by bytes', () => {
  const history = new ChangeHistory(5, 10_000)
  const push = (revision: number, size = 0) => {
    const row = { namespace: 'n', key: 'k', value: Buffer.alloc(size), revision, created: 1, session: 0 }
    history.push({ revision, namespace: 'n', key: 'k', before: undefined, after: row })
  }
  for (const revision of [3, 3, 3, 5, 6]) push(revision)
  assert.equal(history.droppedThrough, 0)
  push(7)
  assert.equal(history.droppedThrough, 3)
  assert.deepEqual(
    [...history.from(0)].map(({ revision }) => revision),
    [5, 6, 7],
  )
  assert.deepEqual(
    [...history.from(6)].map(({ revision }) => revision),
    [6, 7],
  )
  assert.deepEqual([...history.from(8)], [])
  push(9, 9500)
  assert.deepEqual(
    [...history.from(0)].map(({ revision }) => revision),
    [7, 9],
  )
  push(10, 11_000)
  assert.equal(history.size, 0)
  assert.equal(history.bytes, 0)
  assert.equal(history.droppedThrough, 10)
  for (let revision = 11; revision < 500; revision++) push(revision)
  assert.deepEqual(
    [...history.from(0)].map(({ revision }) => revision),
    [495, 496, 497, 498, 499],
  )
})

test('a set of keys stays sorted', () => {
  fc.assert(
    fc.property(fc.array(fc.integer({ min: 0, max: 9999 }), { maxLength: 5000, size: 'max' }), (numbers) => {
      const sorted = new SortedKeys()
      const plain = new Set<string>()
      for (const number of numbers) {
        const key = String(number % 4000)
        if (plain.has(key) && number >= 4000) {
          plain.delete(key)
          sorted.remove(key)
        } else if (!plain.has(key)) {
          plain.add(key)
          sorted.add(key)
        } else sorted.remove('not there')
      }
      const expected = [...plain].toSorted()
      assert.deepEqual([...sorted.from('')], expected)
      assert.deepEqual(
        [...sorted.from('25')],
        expected.filter((key) => key >= '25'),
      )
    }),
    { numRuns: 30 },
  )
  const many = new SortedKeys()
  for (let number = 100_000; number < 103_000; number++) many.add(String(number))
  assert.equal([...many.from('')].length, 3000)
})
