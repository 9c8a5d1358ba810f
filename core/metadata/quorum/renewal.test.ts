// Proves what a quorum is that begins anew: everything in the source's log is applied, no number is used twice,
// also when it is renewed twice from the same copy, sessions have ended and their chunks are reconciled, members
// of before are replaced; and how the recovery ends: chunk by chunk what the chunk servers hold (rules E1, G1, J5).

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { isInRecovery, isKeptUnknown, UNKNOWN_KEPT_KEY, VERSION_FLOOR_KEY } from '../chunks/administration.ts'
import type { ChunkTable } from '../chunks/chunk-table.ts'
import {
  SimulatedHardState,
  SimulatedHardStateContents,
} from '../../testing/simulation/simulated-hard-state.ts'
import { SimulatedStore, SimulatedStoreContents } from '../../testing/simulation/simulated-store.ts'
import { encodeEntry, encodeLogEntry } from '../log/codec.ts'
import type { StateMachine } from '../state/apply.ts'
import type { Command } from '../state/commands.ts'
import { createStateMachine } from '../state/machine.ts'
import { recover, recoverMembership } from './recovery.ts'
import { renew } from './renewal.ts'

const WALL_SECONDS = 1_700_000_000

const register = (server: number, registration: number, storeUuid = `store ${server}`): Command => ({
  ...{ type: 'server.register', server, storeUuid, registration, incarnation: 1, crashes: 0 },
  ...{ hostId: 'h', hostName: 'h', location: '0.0.0', tier: 0, host: 'h', port: 2520 },
  ...{ totalBytes: 1, checksums: true },
})

/** A cluster of two members: a session with an intent on chunk 1, which two servers have; two more servers. */
const history: readonly Command[] = [
  { type: 'cluster.create', name: 'demo', uuid: 'abc', placement: {} },
  { type: 'mds.member', member: 1, host: 'a', port: 2510, name: 'a' },
  { type: 'mds.add', host: 'b', port: 2510, name: 'b' },
  { type: 'session.open', name: 'n', host: 'h', kind: 'fuse', secret: 's' },
  ...[1, 2, 3, 4].map((number) => register(0, 0, `store ${1024 + number}`)),
  ...[1025, 1026, 1027, 1028].map((server): Command => ({ type: 'server.state', server, state: 'active' })),
  {
    ...{ type: 'fs.create', session: 1, mutation: { sequence: 1, acknowledgedBelow: 0 } },
    ...{ parent: 1, name: 'f', mode: 0o600, uid: 0, gid: 0, exclusive: true, lease: true },
  },
  { type: 'chunk.reserve', count: 10 },
  { type: 'chunk.create', lease: 13, inode: 2, chunks: [{ chunk: 1, index: 0, members: [1025, 1026] }] },
]

/** The rows are of the first entries, the rest is in the log only. */
async function sourceOf(appliedCount: number): Promise<SimulatedStore> {
  const contents = new SimulatedStoreContents()
  const store = new SimulatedStore(contents)
  const machine = createStateMachine()
  const entries = history.map((command, position) => {
    const index = position + 1
    const entry = { command, wallSeconds: 1, wallNanoseconds: 0 }
    if (index <= appliedCount) machine.apply(entry, index)
    return { index, term: 7, data: encodeLogEntry(entry, index) }
  })
  await store.commit({
    entries,
    rows: [...machine.state.collectChanges(), { table: 'meta', key: 'configuration', value: '[[1,2],[]]' }],
    appliedIndex: appliedCount,
  })
  return store
}

async function renewed(source: SimulatedStore, wallSeconds = WALL_SECONDS, memberKnown = 2) {
  const target = new SimulatedStoreContents()
  const hardState = new SimulatedHardStateContents()
  const result = await renew({
    ...{ source, target: new SimulatedStore(target), hardState: new SimulatedHardState(hardState) },
    ...{ memberKnown, termKnown: 9, host: 'c', port: 2510, name: 'c', wallSeconds },
    ...{ message: 'it began anew', cluster: 'demo' },
  })
  const machine = createStateMachine()
  const recovered = await recover(new SimulatedStore(target), machine as unknown as StateMachine)
  const membership = await recoverMembership(recovered, new SimulatedHardState(hardState), false)
  const apply = (command: Command) =>
    machine.apply({ command, wallSeconds, wallNanoseconds: 0 }, machine.appliedIndex + 1)
  return { result, machine, state: machine.state, recovered, membership, apply, target }
}

test('all of the log is in it, whatever of it the rows had', async () => {
  for (const appliedCount of [1, 8, history.length]) {
    const { state, result } = await renewed(await sourceOf(appliedCount))
    assert.equal(result.lastIndex, history.length)
    assert.equal(state.inodes.get(2)?.type, 'file')
    assert.equal(state.chunks.size, 1)
    assert.equal(state.servers.size, 4)
  }
})

test('it is a group of one under an id and a term that nobody had; the others are replaced', async () => {
  const { result, state, recovered, membership } = await renewed(await sourceOf(5))
  assert.equal(result.member, 3)
  assert.deepEqual(recovered.configuration, { voters: [3], learners: [] })
  assert.deepEqual(membership.hardState, { member: 3, term: result.base, vote: 0 })
  assert.deepEqual(
    [...state.members.values()]
      .map(({ member, state: where }) => [member, where])
      .toSorted(([a], [b]) => Number(a) - Number(b)),
    [
      [1, 'replaced'],
      [2, 'replaced'],
      [3, 'member'],
    ],
  )
  assert.equal(recovered.log.lastIndex(), result.base)
  assert.equal(recovered.unappliedCount, 0)
})

test('no number is used twice, also when it is renewed again from the same copy', async () => {
  const source = await sourceOf(history.length)
  const first = await renewed(source)
  const second = await renewed(source, WALL_SECONDS + 60)
  const backward = await renewed(new SimulatedStore(first.target), 1)
  for (const counter of ['nextInode', 'nextChunk', 'nextSession'] as const) {
    assert.ok(first.state.counters.get(counter) >= first.result.base, counter)
    // A million a minute were handed out meanwhile.
    assert.ok(second.state.counters.get(counter) > first.state.counters.get(counter) + 1_000_000, counter)
    assert.ok(backward.state.counters.get(counter) > first.state.counters.get(counter), 'the clock is wrong')
  }
  assert.ok(first.state.counters.get('nextServer') > 1029 + 500)
  assert.ok(first.machine.appliedIndex >= first.result.base, 'leases are log indexes')
  assert.ok(second.result.base > first.result.base, 'terms and generations, too')
  assert.ok(Number.isSafeInteger(backward.result.base * 2), 'there is room for many more')
})

test('sessions have ended, and what they were writing is dirty by a dead lease', async () => {
  const { state } = await renewed(await sourceOf(4))
  assert.equal(state.sessions.size, 0)
  assert.equal(state.leases.size, 0)
  assert.equal(state.chunks.get(1)?.dirtyDead, true)
  assert.equal(state.chunks.get(1)?.intentLease, 0)
})

test('a copy of another cluster is refused', async () => {
  const source = await sourceOf(history.length)
  const parts = {
    ...{ source, target: new SimulatedStore(new SimulatedStoreContents()) },
    hardState: new SimulatedHardState(new SimulatedHardStateContents()),
    ...{ memberKnown: 0, termKnown: 0, host: 'c', port: 1, name: 'c', wallSeconds: 1, message: '' },
  }
  await assert.rejects(renew({ ...parts, cluster: 'other' }), { code: 'WRONG_CLUSTER' })
})

test('damage in the log of the copy is found, not passed over', async () => {
  const contents = new SimulatedStoreContents()
  const data = Buffer.from(encodeEntry({ index: 1, term: 1, kind: 'empty', data: Buffer.alloc(0) }))
  data[3] = (data[3] ?? 0) ^ 1
  await new SimulatedStore(contents).commit({
    entries: [{ index: 1, term: 1, data }],
    rows: [],
    appliedIndex: 0,
  })
  await assert.rejects(renewed(new SimulatedStore(contents)), { code: /LOG_CORRUPT|STATE_FORMAT/ })
})

test('rule B3: servers that met the new quorum are refused by the old one, unknown ones are let in', async () => {
  const { apply, state, result } = await renewed(await sourceOf(history.length))
  const again = apply(register(1025, 1)) as { ok: { registration: number } }
  assert.ok(again.ok.registration > result.base)
  const old = createStateMachine()
  for (const [position, command] of history.entries())
    old.apply({ command, wallSeconds: 1, wallNanoseconds: 0 }, position + 1)
  const refused = old.apply(
    { command: register(1025, again.ok.registration), wallSeconds: 1, wallNanoseconds: 0 },
    history.length + 1,
  )
  assert.equal('error' in refused && refused.error, 'REFUSED')
  const unknown = apply(register(1500, 77)) as { ok: { server: number; registration: number } }
  assert.deepEqual([unknown.ok.server, unknown.ok.registration], [1500, result.base + 1])
  assert.ok(state.counters.get('nextServer') > 1500)
  // Renewed twice from one copy: it comes from the first of the two.
  const higher = apply(register(1026, result.base + 500)) as { ok: { registration: number } }
  assert.equal(higher.ok.registration, result.base + 501)
  apply({ type: 'recovery.end', versionMax: 1 })
  const late = apply(register(1600, 1))
  assert.equal('error' in late && late.error, 'NOT_FOUND')
  const copy = apply(register(1026, result.base * 2))
  assert.equal('error' in copy && copy.error, 'REFUSED')
})

test('the best replicas that were reported become the members, and are made equal before use', async () => {
  const { apply, state } = await renewed(await sourceOf(history.length))
  const chunks = state.chunks as ChunkTable
  state.condemned.set({ chunk: 1, server: 1027, versionMax: 3 })
  // 1026 fell behind after the copy, 1027 joined, 1999 is nobody.
  apply({ type: 'chunk.adopt', chunks: [{ chunk: 1, version: 7, servers: [1025, 1027, 1999] }] })
  const row = chunks.get(1)
  assert.equal(row?.version, 7)
  assert.deepEqual(
    row?.members.map(({ server, role, since }) => [server, role, since]),
    [
      [1025, 'in-sync', 7],
      [1027, 'in-sync', 7],
    ],
  )
  assert.deepEqual(row?.former, [{ server: 1026, version: 7 }])
  assert.deepEqual([row?.dirtyDead, row?.writable, row?.pending], [true, false, null])
  assert.equal(state.condemned.size, 0, 'what was condemned has joined since')
  // Nothing as new was found: its holders may come back.
  apply({ type: 'chunk.adopt', chunks: [{ chunk: 1, version: 6, servers: [1026] }] })
  assert.equal(chunks.get(1)?.version, 7)
  apply({ type: 'recovery.end', versionMax: 9 })
  assert.equal(isInRecovery(state), false)
  const epoch = {
    chunk: 1,
    from: 7,
    members: [{ server: 1025, role: 'in-sync', since: 0, attempt: 0 }],
  } as const
  const members = [...epoch.members]
  apply({ type: 'epoch.propose', epochs: [{ ...epoch, members, reconcile: true, leaving: [] }] })
  const floor = Number(state.config.get(VERSION_FLOOR_KEY))
  assert.ok(floor > 9 + 1_000_000, 'above what anybody may still hold')
  assert.equal(chunks.get(1)?.pending?.version, floor)
  const refused = apply({ type: 'chunk.adopt', chunks: [] })
  assert.equal('error' in refused && refused.error, 'REFUSED', 'only while the cluster is recovered')
})

test('rule G1: unknown chunks of before are condemned only when an administrator says so', async () => {
  const { apply, state, result } = await renewed(await sourceOf(history.length))
  const condemn = (chunk: number): number => {
    apply({ type: 'replica.condemn', replicas: [{ chunk, server: 1025, versionMax: 5 }] })
    return state.condemned.size
  }
  assert.equal(condemn(5_000_000), 0)
  const early = apply({ type: 'recovery.discard' })
  assert.equal('error' in early && early.error, 'REFUSED')
  apply({ type: 'recovery.end', versionMax: 1 })
  assert.equal(condemn(5_000_000), 0)
  assert.equal(isKeptUnknown(state, result.base), false, 'its own chunks go as ever')
  apply({ type: 'recovery.discard' })
  assert.equal(state.config.has(UNKNOWN_KEPT_KEY), false)
  assert.equal(condemn(5_000_000), 1)
})
