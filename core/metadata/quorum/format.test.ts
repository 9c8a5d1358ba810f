// Proves the formats that members added to version 1: entries of every kind, the rows of members, stores of
// the time before there were members, and what damage to an entry looks like.

import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { test } from 'node:test'
import type { Clock } from '../../platform/clock.ts'
import type { Entry, Message } from '../../raft/index.ts'
import {
  SimulatedHardState,
  SimulatedHardStateContents,
} from '../../testing/simulation/simulated-hard-state.ts'
import { SimulatedStore, SimulatedStoreContents } from '../../testing/simulation/simulated-store.ts'
import { decodeEntry, encodeEntry, encodeLogEntry } from '../log/codec.ts'
import { createStateMachine } from '../state/machine.ts'
import type { StateMachine } from '../state/apply.ts'
import { META_TABLE } from '../state/feature-levels.ts'
import { decodeStep, encodeStep } from './step-codec.ts'
import { testLog } from './test-log.ts'

interface Golden {
  /** [kind, index, bytes in hexadecimal]. */
  readonly entries: readonly (readonly [Entry['kind'], number, string])[]
  readonly members: readonly (readonly [string, string])[]
  readonly configuration: string
}

const golden = JSON.parse(
  readFileSync(new URL('testdata/format-1-members.json', import.meta.url), 'utf8'),
) as Golden

const clock: Clock = {
  nowMs: () => 0,
  bootMs: () => 0,
  wall: () => ({ seconds: 1_000, nanoseconds: 5 }),
  setTimer: () => ({ cancel: () => undefined }),
  defer: (callback) => void setImmediate(callback),
}

const command = {
  command: { type: 'mds.add', host: 'h', port: 2510, name: 'n' },
  wallSeconds: 1,
  wallNanoseconds: 2,
} as const

function entries(): Entry[] {
  const configuration = Buffer.from('[[1,2],[3]]')
  return [
    { index: 1, term: 1, kind: 'empty', data: Buffer.alloc(0) },
    { index: 2, term: 1, kind: 'configuration', data: configuration },
    { index: 3, term: 2, kind: 'command', data: encodeLogEntry(command, 3) },
  ]
}

test('today writes and reads the golden entries', () => {
  const written = entries().map((entry) => [entry.kind, entry.index, encodeEntry(entry).toString('hex')])
  assert.deepEqual(written, golden.entries)
  for (const [position, entry] of entries().entries()) {
    const data = Buffer.from(golden.entries[position]?.[2] ?? '', 'hex')
    assert.deepEqual(decodeEntry({ index: entry.index, term: entry.term, data }), entry)
  }
})

test('no flipped bit of an entry goes unseen, nor that of its kind', () => {
  for (const entry of entries()) {
    const bytes = encodeEntry(entry)
    for (let position = 0; position < bytes.length; position++) {
      for (let bit = 0; bit < 8; bit++) {
        const data = Buffer.from(bytes)
        data[position] = (data[position] ?? 0) ^ (1 << bit)
        assert.throws(() => decodeEntry({ index: entry.index, term: 1, data }), { code: 'LOG_CORRUPT' })
      }
    }
  }
})

test('an append arrives as it was sent', () => {
  const message: Message = {
    type: 'append',
    ...{ from: 1, to: 2, term: 2, tick: 9, leaseEpoch: 1 },
    ...{ previousIndex: 0, previousTerm: 0, entries: entries(), commit: 2 },
  }
  assert.deepEqual(decodeStep(encodeStep(message)), message)
  const params = encodeStep(message)
  params.entries[1]?.fill(7)
  assert.throws(() => decodeStep(params), { code: 'LOG_CORRUPT' })
})

async function startMachine(contents: SimulatedStoreContents, hardState: SimulatedHardStateContents) {
  const machine = createStateMachine()
  const { log } = await testLog({
    store: new SimulatedStore(contents),
    hardState: new SimulatedHardState(hardState),
    machine: machine as unknown as StateMachine,
    clock,
  })
  return { log, state: machine.state }
}

test('the golden rows of members are written and read', async () => {
  const contents = new SimulatedStoreContents()
  const hardState = new SimulatedHardStateContents()
  const { log } = await startMachine(contents, hardState)
  const at = (host: string) => ({ host, port: 2510, name: `name of ${host}` })
  await log.propose({ type: 'mds.member', member: 1, ...at('a') })
  await log.propose({ type: 'mds.add', ...at('b') })
  await log.propose({ type: 'mds.add', ...at('c') })
  await log.propose({ type: 'mds.state', member: 2, state: 'leaving' })
  await log.propose({ type: 'mds.state', member: 2, state: 'removed' })
  const again = await log.propose({ type: 'mds.add', ...at('b') })
  assert.deepEqual(again, { ok: { member: 4 } }, 'no id is used twice')
  await log.close()
  assert.deepEqual(
    [...(contents.rows.get('members') ?? [])].toSorted(([left], [right]) => (left < right ? -1 : 1)),
    golden.members,
  )
  assert.equal(contents.rows.get(META_TABLE)?.get('configuration'), golden.configuration)
  const { state } = await startMachine(contents, hardState)
  assert.equal(state.members.size, 4)
})

test('a store of the time before there were members goes on as a group of one', async () => {
  const contents = new SimulatedStoreContents()
  contents.rows.set('meta', new Map([['format', '1']]))
  const old = { command: { type: 'tick', elapsedMs: 7 }, wallSeconds: 1, wallNanoseconds: 2 } as const
  for (let index = 1; index <= 5; index++)
    contents.entries.set(index, { index, term: 1, data: encodeLogEntry(old, index) })
  const hardState = new SimulatedHardStateContents()
  const { log, state } = await startMachine(contents, hardState)
  assert.equal(state.counters.get('logTimeMs'), 35, 'what was behind the rows is applied')
  assert.equal(log.member, 1)
  assert.ok((hardState.state?.term ?? 0) > 1)
  await log.close()
})
