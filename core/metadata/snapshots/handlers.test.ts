// Proves, command by command, what snapshots, clones and rollbacks do to chunk lists, and what is refused (rules S1,
// S3, T2, G1).
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { CHUNK_SIZE_BYTES } from '../../base/units.ts'
import { ChunkMachine } from '../../testing/chunk-machine.ts'
import { placementOf } from '../chunks/sharing.ts'
import { createStateMachine } from '../state/machine.ts'
import { stateDigest } from '../state/state.ts'
import { COPY_STEP_INDEXES_MAX, SNAPSHOTS_PER_FILE_MAX } from './limits.ts'

/** A file of two chunks on three servers, written and given back. */
function scene() {
  const machine = new ChunkMachine()
  const servers = machine.addServers(4)
  const session = machine.openSession()
  const inode = machine.createFile(session, 'file')
  machine.setReplicas(session, inode, 3, 2)
  const first = machine.lease(session, inode)
  const members = servers.slice(0, 3)
  const a = machine.createChunk(first, inode, 0, members)
  const b = machine.createChunk(first, inode, 1, members)
  const size = CHUNK_SIZE_BYTES + 100
  const mutation = () => ({ session, mutation: machine.mutation() })
  machine.done({ type: 'lease.update', ...mutation(), inode, lease: first, size })
  machine.done({ type: 'intent.clear', lease: first, inode, chunks: [a, b] })
  machine.release(session, inode, first)
  const list = (holder: number) => {
    const chunks = machine.state.inodes.get(holder)?.chunks
    return (chunks?.indexes() ?? []).toSorted((x, y) => x - y).map((index) => chunks?.get(index))
  }
  const clone = (source: number, name: string) => ({
    ...{ type: 'snapshot.clone' as const, ...mutation(), source, parent: 1, name, uid: 7, gid: 8 },
  })
  return { machine, session, inode, servers, members, a, b, size, mutation, list, clone }
}

const errorOf = (result: object) => ('error' in result ? result.error : '')

test('a snapshot holds the chunks of its file, with its size; the first write after it goes to a child', () => {
  const { machine, session, inode, a, b, size, members, list } = scene()
  const snapshot = machine.snapshot(session, inode, 'one')
  assert.deepEqual(list(snapshot), [a, b])
  assert.equal(machine.state.inodes.get(snapshot)?.size, size)
  assert.deepEqual(machine.row(a).holders, [snapshot])
  const lease = machine.lease(session, inode)
  const refused = machine.done({ type: 'intent.grant', lease, inode, chunks: [a], sizeLimit: size })
  assert.deepEqual(refused.granted, [], 'nobody writes to a shared chunk')
  const child = machine.branch(lease, inode, 0)
  assert.deepEqual(list(inode), [child, b])
  assert.deepEqual(list(snapshot), [a, b])
  const row = machine.row(child)
  assert.equal(row.version, 2, 'above that of its parent (rule S4)')
  assert.equal(row.intentLease, lease)
  assert.deepEqual(
    row.overlays,
    members.map((server) => ({ server, parent: a })),
  )
  assert.deepEqual([machine.row(a).inode, machine.row(a).holders], [snapshot, undefined])
})

test('S1: nothing is shared while a chunk of the file has an intent, or is dirty by a dead lease', () => {
  const { machine, session, inode, a, size, mutation, clone, b, members } = scene()
  const create = () => ({ type: 'snapshot.create' as const, ...mutation(), inode, name: 'x', path: '/x' })
  const before = machine.snapshot(session, inode, 'before')
  machine.deleteSnapshot(session, before)
  const lease = machine.lease(session, inode)
  machine.done({ type: 'intent.grant', lease, inode, chunks: [a], sizeLimit: size })
  assert.equal(errorOf(machine.apply(create())), 'TRY_AGAIN')
  assert.equal(errorOf(machine.apply(clone(inode, 'copy'))), 'TRY_AGAIN')
  machine.done({ type: 'session.expire', session, clean: false })
  const next = { session: machine.openSession() }
  assert.equal(errorOf(machine.apply({ ...create(), ...next })), 'TRY_AGAIN', 'dirty')
  machine.propose(a, 1, members, { reconcile: true })
  machine.activate(a, 2)
  assert.equal(errorOf(machine.apply({ ...create(), ...next })), '')
  assert.equal(machine.row(b).holders?.length, 1)
})

test('T2: a rollback is refused while anybody has the lease; then list, size and zero mark are those of the snapshot', () => {
  const { machine, session, inode, a, b, size, mutation, list } = scene()
  const snapshot = machine.snapshot(session, inode, 'one')
  const lease = machine.lease(session, inode)
  const rollback = () => ({ type: 'snapshot.rollback' as const, ...mutation(), snapshot })
  const child = machine.branch(lease, inode, 0)
  assert.equal(errorOf(machine.apply(rollback())), 'TRY_AGAIN')
  machine.done({ type: 'intent.clear', lease, inode, chunks: [child] })
  assert.equal(errorOf(machine.apply(rollback())), 'TRY_AGAIN')
  machine.done({ type: 'lease.truncate', ...mutation(), inode, lease, size: 10 })
  assert.deepEqual(list(inode), [child])
  machine.release(session, inode, lease)
  const generation = machine.state.inodes.get(inode)?.generation ?? 0
  assert.deepEqual(machine.done(rollback()), { inode })
  assert.deepEqual(list(inode), [a, b])
  assert.equal(machine.state.inodes.get(inode)?.size, size)
  assert.equal(machine.state.inodes.get(inode)?.zeroFrom, undefined)
  assert.ok((machine.state.inodes.get(inode)?.generation ?? 0) > generation, 'rule E4')
  assert.ok(!machine.state.chunks.has(child), 'nobody holds it')
})

test('G1, S3: a chunk is condemned when nobody holds it and no overlay reads through it', () => {
  const { machine, session, inode, a, b, members, mutation } = scene()
  const snapshot = machine.snapshot(session, inode, 'one')
  const lease = machine.lease(session, inode)
  const child = machine.branch(lease, inode, 0)
  machine.deleteSnapshot(session, snapshot)
  assert.equal(machine.row(a).inode, 0, 'hidden')
  assert.equal(machine.row(b).holders, undefined)
  assert.equal(machine.state.condemned.size, 0)
  const flat = (server = 0) => ({ chunk: child, server, parent: 0 })
  machine.done({ type: 'replica.parent', replicas: members.slice(1).map(flat) })
  assert.ok(machine.state.chunks.has(a), 'one overlay is left')
  machine.done({ type: 'replica.parent', replicas: [flat(members[0])] })
  assert.ok(!machine.state.chunks.has(a))
  assert.equal(machine.state.condemned.size, 3)
  machine.done({ type: 'fs.unlink', ...mutation(), parent: 1, name: 'file' })
  machine.done({ type: 'intent.clear', lease, inode, chunks: [child] })
  machine.release(session, inode, lease)
  machine.done({ type: 'file.collect', inodes: [inode] })
  assert.equal(machine.state.condemned.size, 9)
})

test('S3: what a server that left the members still reads through is its own business; the others keep the parent', () => {
  const { machine, session, inode, a, members } = scene()
  const snapshot = machine.snapshot(session, inode, 'one')
  const lease = machine.lease(session, inode)
  const child = machine.branch(lease, inode, 0)
  machine.deleteSnapshot(session, snapshot)
  const [first = 0, ...others] = members
  const { version } = machine.row(child)
  machine.propose(child, version, others)
  assert.equal(
    machine.row(child).overlays?.length,
    3,
    'it may be superseded by one with all of them (rule E1)',
  )
  machine.activate(child, version + 1)
  assert.deepEqual(
    machine.row(child).overlays?.map(({ server }) => server),
    others,
  )
  machine.done({ type: 'replica.parent', replicas: [{ chunk: child, server: first, parent: a }] })
  assert.equal(machine.row(child).overlays?.length, 2, 'not of one that is no member')
  machine.propose(child, version + 1, others.slice(1))
  machine.activate(child, version + 2)
  assert.equal(machine.row(a).inode, 0)
  machine.done({ type: 'replica.parent', replicas: [{ chunk: child, server: others[1] ?? 0, parent: 0 }] })
  assert.ok(!machine.state.chunks.has(a))
})

test('a merge goes down a chain one parent at a time; the whole chain ends with its last reader', () => {
  const { machine, session, inode, a, members, mutation, list } = scene()
  const ids = [a]
  const snapshots: number[] = []
  for (let round = 0; round < 3; round++) {
    snapshots.push(machine.snapshot(session, inode, `s${round}`))
    const lease = machine.lease(session, inode)
    const child = machine.branch(lease, inode, 0)
    ids.push(child)
    machine.done({ type: 'intent.clear', lease, inode, chunks: [child] })
    machine.release(session, inode, lease)
  }
  const [, x = 0, y = 0, z = 0] = ids
  machine.deleteSnapshot(session, snapshots[2] ?? 0)
  assert.equal(machine.row(y).inode, 0)
  machine.done({
    type: 'replica.parent',
    replicas: members.map((server) => ({ chunk: z, server, parent: x })),
  })
  assert.ok(!machine.state.chunks.has(y))
  assert.deepEqual([...(machine.state.chunks.sharing.children(x) ?? [])], [z])
  machine.deleteSnapshot(session, snapshots[0] ?? 0)
  machine.deleteSnapshot(session, snapshots[1] ?? 0)
  assert.deepEqual(
    [...machine.state.chunks.sharing.hidden].toSorted((x, y) => x - y),
    [a, x],
  )
  machine.done({ type: 'fs.unlink', ...mutation(), parent: 1, name: 'file' })
  machine.done({ type: 'file.collect', inodes: [inode] })
  assert.equal(machine.state.chunks.size, 0)
  assert.deepEqual(list(inode), [])
})

test('S1: a chunk that one file holds is not written either while an overlay reads through it', () => {
  const { machine, session, inode, a, size, clone } = scene()
  const { inode: copy } = machine.done(clone(inode, 'copy'))
  const lease = machine.lease(session, copy)
  assert.notEqual(machine.branch(lease, copy, 0), 0)
  assert.equal(machine.row(a).holders, undefined)
  const own = machine.lease(session, inode)
  const grant = machine.done({ type: 'intent.grant', lease: own, inode, chunks: [a], sizeLimit: size })
  assert.deepEqual(grant.granted, [])
  assert.notEqual(machine.branch(own, inode, 0), 0)
})

test('S3, S4: a child is on members in sync, above the version of its parent, of what is in the list now', () => {
  const { machine, session, inode, a, members, servers } = scene()
  machine.snapshot(session, inode, 'one')
  const [x = 0, y = 0, z = 0] = members
  const d = servers[3] ?? 0
  machine.propose(a, 1, [x, y, z], { joining: [d] })
  const lease = machine.lease(session, inode)
  const branch = (version: number, on: number[], parent = a) => {
    const { from } = machine.done({ type: 'chunk.reserve', count: 1 })
    const chunks = [{ chunk: from, parent, version, members: on }]
    return machine.done({ type: 'chunk.branch', lease, inode, chunks }).branched.length === 1
  }
  assert.ok(!branch(2, [x]), 'an epoch is pending')
  machine.activate(a, 2)
  assert.ok(!branch(3, [x, d]), 'd is joining')
  assert.ok(!branch(2, [x]), 'a version that the parent had')
  assert.ok(!branch(3, []))
  assert.ok(branch(3, [x, y]))
  assert.ok(!branch(3, [x], a), 'it is not in the list any more')
  const child = machine.state.inodes.get(inode)?.chunks.get(0) ?? 0
  assert.equal(machine.row(child).writable, true)
})

test('unlinking a file keeps its snapshots; a clone is a file of its own', () => {
  const { machine, session, inode, a, b, mutation, list, clone } = scene()
  const snapshot = machine.snapshot(session, inode, 'one')
  const { inode: copy } = machine.done(clone(snapshot, 'copy'))
  machine.done({ type: 'fs.unlink', ...mutation(), parent: 1, name: 'file' })
  machine.done({ type: 'file.collect', inodes: [inode] })
  assert.deepEqual(list(snapshot), [a, b])
  assert.equal(machine.state.entries.entry(1, 'copy')?.inode, copy)
  assert.deepEqual([machine.state.inodes.get(copy)?.uid, machine.state.inodes.get(copy)?.links], [7, 1])
  machine.deleteSnapshot(session, snapshot)
  assert.deepEqual(list(copy), [a, b])
  assert.equal(machine.row(a).inode, copy)
  assert.equal(machine.row(a).holders, undefined)
  assert.equal(errorOf(machine.apply(clone(snapshot, 'again'))), 'ESTALE')
  const rollback = { type: 'snapshot.rollback' as const, ...mutation(), snapshot }
  assert.equal(errorOf(machine.apply(rollback)), 'NOT_FOUND')
})

test('a snapshot is not written, linked or changed, and its name is used once per file', () => {
  const { machine, session, inode, mutation, clone } = scene()
  const snapshot = machine.snapshot(session, inode, 'one')
  const refused = (command: Parameters<typeof machine.apply>[0]) => errorOf(machine.apply(command))
  assert.equal(refused({ type: 'lease.acquire', ...mutation(), inode: snapshot, pinned: false }), 'EPERM')
  assert.equal(refused({ type: 'fs.link', ...mutation(), inode: snapshot, parent: 1, name: 'l' }), 'EPERM')
  assert.equal(refused({ type: 'fs.setattr', ...mutation(), inode: snapshot, mode: 0 }), 'EPERM')
  const create = { type: 'snapshot.create' as const, path: '' }
  assert.equal(refused({ ...create, ...mutation(), inode, name: 'one' }), 'EEXIST')
  assert.equal(refused({ ...create, ...mutation(), inode: snapshot, name: 'two' }), 'EINVAL')
  assert.equal(refused({ ...create, ...mutation(), inode: 1, name: 'two' }), 'EINVAL')
  for (const name of ['', 'a/b', '.', 'x'.repeat(256)])
    assert.match(refused({ ...create, ...mutation(), inode, name }) as string, /EINVAL|ENAMETOOLONG/)
  assert.equal(refused(clone(snapshot, 'file')), 'EEXIST')
  for (let count = 1; count < SNAPSHOTS_PER_FILE_MAX; count++) machine.snapshot(session, inode, `n${count}`)
  assert.equal(refused({ ...create, ...mutation(), inode, name: 'one too many' }), 'QUOTA')
})

test('a shared chunk is placed as the strongest of its holders wants it', () => {
  const { machine, session, inode, a } = scene()
  machine.snapshot(session, inode, 'one')
  machine.setReplicas(session, inode, 4, 1)
  const placement = placementOf(machine.state, machine.row(a))
  assert.deepEqual([placement?.replicasNormal, placement?.replicasMinimum], [4, 2])
})

test('a long list is taken over in steps; meanwhile nothing of it changes', () => {
  const { machine, session, inode, members, mutation, clone } = scene()
  const lease = machine.lease(session, inode)
  const { from } = machine.done({ type: 'chunk.reserve', count: COPY_STEP_INDEXES_MAX })
  for (let at = 0; at < COPY_STEP_INDEXES_MAX; at++) {
    machine.done({
      ...{ type: 'chunk.create', lease, inode },
      chunks: [{ chunk: from + at, index: at + 2, members }],
    })
    machine.done({ type: 'intent.clear', lease, inode, chunks: [from + at] })
  }
  const snapshot = machine.snapshot(session, inode, 'long')
  assert.ok(machine.state.isFrozen(inode) && machine.state.isFrozen(snapshot))
  const refused = (command: Parameters<typeof machine.apply>[0]) => errorOf(machine.apply(command))
  const chunks = [{ chunk: 1, index: 9, members }]
  assert.equal(refused({ type: 'chunk.create', lease, inode, chunks }), 'TRY_AGAIN')
  assert.equal(refused({ type: 'intent.grant', lease, inode, chunks: [from], sizeLimit: 1 }), 'TRY_AGAIN')
  assert.equal(refused({ type: 'lease.truncate', ...mutation(), inode, lease, size: 0 }), 'TRY_AGAIN')
  assert.equal(refused({ type: 'lease.unmap', ...mutation(), inode, lease, indexes: [0] }), 'TRY_AGAIN')
  assert.equal(refused({ type: 'snapshot.delete', ...mutation(), snapshot }), 'TRY_AGAIN')
  assert.equal(refused(clone(snapshot, 'copy')), 'TRY_AGAIN')
  const all = machine.state.inodes.get(inode)?.chunks.indexes() ?? []
  const step = (indexes: number[], finish: boolean) =>
    machine.done({ type: 'snapshot.step', target: snapshot, indexes, finish }).finished
  assert.equal(step(all.slice(0, 100), true), false, 'not all of it yet')
  assert.equal(step(all.slice(0, COPY_STEP_INDEXES_MAX), false), false)
  // A new master begins with rows.
  const loaded = createStateMachine().state
  for (const table of [machine.state.level, ...machine.state.tables()])
    for (const [key, value] of table.rows()) loaded.loadRow(table.name, key, value)
  loaded.finishLoad()
  assert.equal(stateDigest(loaded), stateDigest(machine.state))
  assert.ok(loaded.isFrozen(inode))
  assert.equal(loaded.inodes.get(snapshot)?.chunks.size, COPY_STEP_INDEXES_MAX)
  assert.equal(step(all.slice(COPY_STEP_INDEXES_MAX), true), true)
  assert.ok(!machine.state.isFrozen(inode))
  assert.equal(machine.state.inodes.get(snapshot)?.chunks.size, all.length)
  assert.equal(step([], true), true, 'said once more')
})
