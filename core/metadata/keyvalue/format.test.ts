// Proves that the rows and the command of the key-value store stay what docs/formats/metadata.md says: the
// golden file is read by today's code, and today's code writes it byte for byte. It was added to format 1;
// the older golden file of that format (log/testdata) has none of these and is read as before.

import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { test } from 'node:test'
import { decodeLogEntry, encodeLogEntry } from '../log/codec.ts'
import type { Command } from '../state/commands.ts'
import { createStateMachine } from '../state/machine.ts'

interface Golden {
  /** Hexadecimal. */
  readonly entries: readonly string[]
  /** [key, value] of table keyValue, sorted. */
  readonly rows: readonly (readonly [string, string])[]
}

const goldenUrl = new URL('testdata/format-1-key-value.json', import.meta.url)
const golden = JSON.parse(readFileSync(goldenUrl, 'utf8')) as Golden

function commands(): Command[] {
  const value = Buffer.from([0, 1, 2, 255])
  const request = (sequence: number) => ({
    type: 'kv.transact' as const,
    session: 1,
    mutation: { sequence, acknowledgedBelow: 0 },
    namespace: 'iscsi.targets',
  })
  return [
    { type: 'session.open', name: 'n', host: 'h', kind: 'iscsi', secret: 's' },
    { ...request(1), guards: [{ key: 'a/"é"', revision: 0 }], writes: [{ key: 'a/"é"', value }] },
    { ...request(2), guards: [], writes: [{ key: 'host', value: Buffer.alloc(0), bind: true }] },
    { ...request(3), guards: [{ key: 'a/"é"', value }], writes: [{ key: 'a/"é"', value: Buffer.from('2') }] },
    { ...request(4), guards: [], writes: [{ key: 'gone', value }, { key: 'never' }] },
    { ...request(5), guards: [], writes: [{ key: 'gone' }] },
  ]
}

function rowsOf(machine: ReturnType<typeof createStateMachine>): (readonly [string, string])[] {
  return [...machine.state.keyValue.rows()].toSorted(([left], [right]) => (left < right ? -1 : 1))
}

test('today writes the golden entries and rows', () => {
  const machine = createStateMachine()
  const entries = commands().map((command, position) => {
    const entry = { command, wallSeconds: 1_700_000_000 + position, wallNanoseconds: 42 }
    machine.apply(entry, position + 1)
    return encodeLogEntry(entry, position + 1).toString('hex')
  })
  assert.deepEqual({ entries, rows: rowsOf(machine) }, golden)
})

test('the golden entries, applied, and the golden rows, loaded, are the golden rows', () => {
  const machine = createStateMachine()
  for (const [position, hex] of golden.entries.entries()) {
    machine.apply(decodeLogEntry(Buffer.from(hex, 'hex'), position + 1), position + 1)
  }
  assert.deepEqual(rowsOf(machine), golden.rows)
  const loaded = createStateMachine()
  for (const [key, value] of golden.rows) loaded.state.loadRow('keyValue', key, value)
  assert.deepEqual(rowsOf(loaded), golden.rows)
})

test('a row that cannot be read ends the start', () => {
  const good = golden.rows[0]?.[1] ?? ''
  const bad: [string, string][] = [
    ['no-slash', good],
    ['UPPER/key', good],
    ['ns/', good],
    ['ns/key', '["AAEC",1,1]'],
    ['ns/key', '["AAE",1,1,0]'],
    ['ns/key', '["AAEC",1,1.5,0]'],
    ['ns/key', '{'],
  ]
  for (const [key, value] of bad) {
    const { state } = createStateMachine()
    assert.throws(() => state.loadRow('keyValue', key, value), { code: 'ROW_CORRUPT' }, `${key} ${value}`)
  }
})
