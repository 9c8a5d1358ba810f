// Proves of the whole state machine, with random commands of every kind and random, often senseless, ids:
// it never throws, two members agree in every answer and in their state, a refused command changes nothing
// but its kept answer, and rows loaded back give the same state.

import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import type { InodeRow } from './rows.ts'
import { PackedRows } from '../../platform/packed-rows.ts'
import type { RowChange } from '../../platform/store.ts'
import { decodeLogEntry, encodeLogEntry } from '../log/codec.ts'
import type { Command, LogCommand } from './commands.ts'
import { createStateMachine } from './machine.ts'
import { stateDigest } from './state.ts'

const id = fc.integer({ min: 0, max: 8 })
const ids = fc.array(id, { maxLength: 3 })
const name = fc.constantFrom('a', 'b', 'c', '..', '', 'x'.repeat(300))
const session = fc.integer({ min: 1, max: 3 })
const mutation = fc.record({ sequence: fc.integer({ min: 5, max: 400 }), acknowledgedBelow: id })
const size = fc.constantFrom(0, 1, 5_000, 2 ** 26, 2 ** 26 + 1, 2 ** 28, 2 ** 53 - 1)
const owner = { mode: fc.integer({ min: 0, max: 0xffff }), uid: id, gid: id }
const request = { session, mutation }
const member = fc.record({
  server: id,
  role: fc.constantFrom('in-sync', 'joining'),
  since: id,
  attempt: id,
})
const kind = <T extends Command['type']>(type: T) => ({ type: fc.constant(type) })

const requests = fc.oneof(
  fc.record({
    ...kind('fs.create'),
    ...request,
    parent: id,
    name,
    ...owner,
    exclusive: fc.boolean(),
    lease: fc.boolean(),
  }),
  fc.record({
    ...kind('fs.mknod'),
    ...request,
    fileType: fc.constant('directory'),
    parent: id,
    name,
    ...owner,
    device: id,
  }),
  fc.record({ ...kind('fs.symlink'), ...request, parent: id, name, target: name, uid: id, gid: id }),
  fc.record({ ...kind('fs.link'), ...request, inode: id, parent: id, name }),
  fc.record({ ...kind('fs.unlink'), ...request, parent: id, name }),
  fc.record({ ...kind('fs.rmdir'), ...request, parent: id, name }),
  fc.record({
    ...kind('fs.rename'),
    ...request,
    parent: id,
    name,
    newParent: id,
    newName: name,
    mode: fc.constantFrom('replace', 'no-replace', 'exchange'),
  }),
  fc.record({ ...kind('fs.setattr'), ...request, inode: id, mode: owner.mode, uid: id }),
  fc.record({
    ...kind('attr.set'),
    ...request,
    inode: id,
    recursive: fc.boolean(),
    attributes: fc.record({ replicasNormal: fc.integer({ min: 1, max: 4 }) }),
  }),
  fc.record({ ...kind('lease.acquire'), ...request, inode: id, pinned: fc.boolean() }),
  fc.record({ ...kind('lease.update'), ...request, inode: id, lease: id, size }),
  fc.record({ ...kind('lease.release'), ...request, inode: id, lease: id, size }),
  fc.record({ ...kind('lease.truncate'), ...request, inode: id, lease: id, size }),
  fc.record({ ...kind('file.shrink'), session, inode: id, lease: id, size, truncation: mutation }),
  fc.record({ ...kind('lease.zeroed'), ...request, inode: id, lease: id, zeroFrom: size }),
  fc.record({ ...kind('lease.unmap'), ...request, inode: id, lease: id, indexes: ids }),
  fc.record({
    ...kind('admin.setConfig'),
    ...request,
    key: fc.constantFrom('mds.wd.offline_tout', 'x'),
    value: fc.constantFrom('5s', '-'),
  }),
)
const control = fc.oneof(
  fc.record({ ...kind('session.open'), name, host: name, kind: name, secret: name }),
  fc.record({ ...kind('session.expire'), session, clean: fc.boolean() }),
  fc.record({ ...kind('chunk.reserve'), count: fc.integer({ min: 1, max: 5 }) }),
  fc.record({
    ...kind('chunk.create'),
    lease: id,
    inode: id,
    chunks: fc.array(fc.record({ chunk: id, index: id, members: ids }), { maxLength: 3 }),
  }),
  fc.record({ ...kind('intent.grant'), lease: id, inode: id, chunks: ids, sizeLimit: size }),
  fc.record({ ...kind('intent.clear'), lease: id, inode: id, chunks: ids }),
  fc.record({
    ...kind('epoch.propose'),
    epochs: fc.array(
      fc.record({
        chunk: id,
        from: id,
        members: fc.array(member, { maxLength: 3 }),
        reconcile: fc.boolean(),
        leaving: fc.array(fc.record({ server: id, exists: fc.boolean() }), { maxLength: 2 }),
      }),
      { maxLength: 2 },
    ),
  }),
  fc.record({
    ...kind('epoch.activate'),
    epochs: fc.array(fc.record({ chunk: id, version: id }), { maxLength: 3 }),
  }),
  fc.record({
    ...kind('join.complete'),
    joins: fc.array(fc.record({ chunk: id, version: id, server: id, attempt: id }), { maxLength: 3 }),
  }),
  fc.record({ ...kind('file.recoverSize'), inode: id, size }),
  fc.record({ ...kind('file.collect'), inodes: ids }),
  fc.record({
    ...kind('replica.condemn'),
    replicas: fc.array(fc.record({ chunk: id, server: id, versionMax: id }), { maxLength: 3 }),
  }),
  fc.record({
    ...kind('replica.deleted'),
    replicas: fc.array(fc.record({ chunk: id, server: id }), { maxLength: 3 }),
  }),
  fc.record({
    ...kind('replica.former'),
    replicas: fc.array(fc.record({ chunk: id, server: id, version: id, exists: fc.boolean() }), {
      maxLength: 3,
    }),
  }),
  fc.record({
    ...kind('server.state'),
    server: id,
    state: fc.constantFrom('active', 'inactive', 'offline', 'dropped'),
  }),
  fc.record({
    ...kind('event.record'),
    system: fc.constant('MDS'),
    severity: fc.constant('info'),
    code: name,
    message: name,
  }),
  fc.record({ ...kind('tick'), elapsedMs: fc.integer({ min: 0, max: 100 }) }),
)
/** Without these first ones nearly everything random is refused. */
const opening = [
  { type: 'session.open', name: '', host: '', kind: '', secret: '' },
  { type: 'session.open', name: '', host: '', kind: '', secret: '' },
  {
    type: 'fs.create',
    session: 1,
    mutation: { sequence: 1, acknowledgedBelow: 0 },
    parent: 1,
    name: 'a',
    mode: 0,
    uid: 0,
    gid: 0,
    exclusive: true,
    lease: true,
  },
  { type: 'chunk.reserve', count: 6 },
  {
    type: 'chunk.create',
    lease: 3,
    inode: 2,
    chunks: [
      { chunk: 1, index: 0, members: [1, 2] },
      { chunk: 2, index: 3, members: [2, 3] },
    ],
  },
] as Command[]

function entryOf(command: Command, index: number): LogCommand {
  return { command, wallSeconds: 1_000 + index, wallNanoseconds: index }
}

function digestWithoutReplies(machine: ReturnType<typeof createStateMachine>): string {
  const tables = machine.state.tables().filter((table) => table.name !== 'replies')
  return tables
    .map((table) =>
      [...table.rows()]
        .map((row) => row.join('='))
        .toSorted()
        .join(';'),
    )
    .join('\n')
}

test('a state that was retired holds nothing large, and knows its cluster', () => {
  const machine = createStateMachine()
  for (const [position, command] of opening.entries())
    machine.apply(entryOf(command, position + 1), position + 1)
  const cluster = [...machine.state.config.entries()]
  machine.state.retire()
  assert.deepEqual([machine.state.inodes.size, machine.state.chunks.size], [0, 0])
  assert.deepEqual([...machine.state.config.entries()], cluster)
  assert.equal(machine.state.tables()[0], machine.state.inodes)
})

test('random commands of every kind', () => {
  fc.assert(
    fc.property(fc.array(fc.oneof(requests, control), { maxLength: 80, size: 'max' }), (random) => {
      // Plain objects: those of fast-check have no prototype.
      const commands = [...opening, ...(JSON.parse(JSON.stringify(random)) as Command[])]
      const left = createStateMachine()
      const right = createStateMachine()
      const stored = new Map<string, RowChange>()
      for (const [position, command] of commands.entries()) {
        const index = position + 1
        const before = digestWithoutReplies(left)
        const result = left.apply(entryOf(command, index), index)
        // The other member reads it from its log.
        const replayed = decodeLogEntry(encodeLogEntry(entryOf(command, index), index), index)
        assert.deepEqual(right.apply(replayed, index), result)
        if ('error' in result) assert.equal(digestWithoutReplies(left), before, JSON.stringify(command))
        for (const change of left.state.collectChanges()) stored.set(`${change.table} ${change.key}`, change)
      }
      const digest = stateDigest(left.state)
      assert.equal(stateDigest(right.state), digest)
      const loaded = createStateMachine()
      const fromTexts = createStateMachine()
      for (const { table, key, value } of [...stored.values()].toReversed()) {
        if (value === null) continue
        loaded.state.loadRows(table, PackedRows.of([[key, value]]))
        fromTexts.state.loadRow(table, key, value)
      }
      loaded.state.finishLoad()
      fromTexts.state.finishLoad()
      assert.equal(stateDigest(loaded.state), digest)
      assert.equal(stateDigest(fromTexts.state), digest)
      const placesOf = (row: InodeRow | undefined) =>
        new Map(row?.chunks.indexes().map((index) => [index, row.chunks.get(index)]))
      for (const row of left.state.inodes.values()) {
        assert.deepEqual(placesOf(loaded.state.inodes.get(row.inode)), placesOf(row), 'lists are rebuilt')
      }
      assert.deepEqual(loaded.state.leaseByInode, left.state.leaseByInode)
    }),
    { numRuns: 150 },
  )
})
