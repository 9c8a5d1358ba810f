/** The rules of sessions, leases, intents, epochs and replicas, one by one, as `apply` enforces them. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { CHUNK_SIZE_BYTES } from '../../base/units.ts'
import { stateDigest } from '../state/state.ts'
import { ChunkMachine } from '../../testing/chunk-machine.ts'
import { SERVER_ID_FIRST } from './servers.ts'

function scene(memberCount = 3) {
  const machine = new ChunkMachine()
  const servers = machine.addServers(5)
  const session = machine.openSession()
  const inode = machine.createFile(session, 'file')
  machine.setReplicas(session, inode, 3, 2)
  const lease = machine.lease(session, inode)
  const chunk = machine.createChunk(lease, inode, 0, servers.slice(0, memberCount))
  const [a = 0, b = 0, c = 0, d = 0, e = 0] = servers
  return { machine, session, inode, lease, chunk, servers, a, b, c, d, e }
}

test('E1: a pending epoch can be superseded by any in-sync members of the active one, those that leave included', () => {
  const { machine, chunk, a, b, c } = scene()
  assert.ok(machine.propose(chunk, 1, [a, b]))
  assert.equal(machine.row(chunk).version, 1, 'clients still see the active one')
  assert.ok(machine.propose(chunk, 2, [c]))
  assert.equal(machine.row(chunk).pending?.version, 3)
  assert.ok(!machine.activate(chunk, 2), 'the superseded version is never active')
  assert.ok(machine.activate(chunk, 3))
  assert.deepEqual(
    machine.row(chunk).members.map((member) => member.server),
    [c],
  )
})

test('E1: who was in sync in a pending epoch only is not in sync', () => {
  const { machine, chunk, a, b, c, d } = scene()
  machine.propose(chunk, 1, [a, b, c], { joining: [d] })
  assert.ok(!machine.propose(chunk, 2, [a, d]))
})

test('E6: stale proposals, activations and completed joins change nothing', () => {
  const { machine, chunk, a, b, c, d } = scene()
  machine.propose(chunk, 1, [a, b], { joining: [d] })
  assert.ok(!machine.propose(chunk, 1, [a, b, c]))
  const join = (version: number, attempt: number) =>
    machine.done({ type: 'join.complete', joins: [{ chunk, version, server: d, attempt }] })
  join(2, 2)
  assert.equal(machine.row(chunk).pending?.members.at(-1)?.role, 'joining', 'not while it is pending')
  machine.activate(chunk, 2)
  join(2, 1)
  assert.equal(machine.row(chunk).members.at(-1)?.role, 'joining', 'not for another attempt')
  join(2, 2)
  assert.deepEqual(machine.row(chunk).members.at(-1), { server: d, role: 'in-sync', since: 2, attempt: 0 })
})

test('E3: lease numbers are log indexes: they only rise', () => {
  const { machine, session, inode, lease } = scene()
  machine.done({ type: 'session.expire', session, clean: false })
  const next = machine.lease(machine.openSession(), inode)
  assert.ok(next > lease)
})

test('E4: the generation of a file rises with intents, epochs and the end of leases', () => {
  const { machine, session, inode, lease, chunk, a, b } = scene()
  const generations: number[] = []
  const note = () => generations.push(machine.state.inodes.get(inode)?.generation ?? 0)
  note()
  machine.done({ type: 'intent.grant', lease, inode, chunks: [chunk], sizeLimit: 10 })
  note()
  machine.propose(chunk, 1, [a, b])
  machine.activate(chunk, 2)
  note()
  machine.done({ type: 'session.expire', session, clean: false })
  note()
  for (const [index, generation] of generations.slice(1).entries())
    assert.ok(generation > (generations[index] ?? 0))
})

test('G2: an epoch without an in-sync member is refused', () => {
  const { machine, chunk, a, d } = scene(1)
  assert.ok(!machine.propose(chunk, 1, []))
  assert.ok(!machine.propose(chunk, 1, [], { joining: [a, d] }))
})

test('G2: only a former replica is promoted, of the epoch the administrator saw; what misses a zeroed tail is marked', () => {
  const { machine, session, inode, lease, chunk, a, b, c, d } = scene()
  const call = { session, inode, lease }
  machine.done({ type: 'lease.update', mutation: machine.mutation(), ...call, size: 5000 })
  machine.propose(chunk, 1, [a, b])
  machine.activate(chunk, 2)
  const promote = (from: number, server: number) =>
    machine.apply({ type: 'replica.promote', chunk, from, server })
  for (const refusal of [promote(1, c), promote(2, b), promote(2, d)])
    assert.equal('error' in refusal && refusal.error, 'REFUSED')
  assert.deepEqual(promote(2, c), { ok: { proposed: [{ chunk, version: 3 }] } })
  const { pending, former } = machine.row(chunk)
  assert.deepEqual([pending?.members.map(({ server }) => server), pending?.reconcile], [[c], true])
  assert.deepEqual(
    former,
    [a, b].map((server) => ({ server, version: 2 })),
    'nobody is forgotten',
  )
  assert.equal(machine.state.inodes.get(inode)?.zeroFrom, 5000, 'rule T1')
  assert.ok(machine.propose(chunk, 3, [a]), 'one in sync that is back in time is better (rule E1)')
})

test('J5: what a dead session wrote stays dirty whoever comes next, until it is reconciled', () => {
  const { machine, session, inode, chunk, a, b, c } = scene()
  machine.done({ type: 'session.expire', session, clean: false })
  assert.equal(machine.row(chunk).dirtyDead, true)
  const second = machine.openSession()
  const lease = machine.lease(second, inode)
  const grant = machine.done({ type: 'intent.grant', lease, inode, chunks: [chunk], sizeLimit: 1 })
  assert.deepEqual(grant.granted, [])
  machine.done({ type: 'lease.release', session: second, mutation: machine.mutation(), inode, lease })
  assert.equal(machine.row(chunk).dirtyDead, true)
  assert.ok(!machine.propose(chunk, 1, [a, b, c]), 'an epoch that does not reconcile is refused')
  assert.ok(machine.propose(chunk, 1, [a, b, c], { reconcile: true }))
  machine.activate(chunk, 2)
  assert.equal(machine.row(chunk).dirtyDead, false)
  assert.ok(machine.row(chunk).members.every((member) => member.since === 2))
})

test('many leases go back in one step; those of others and those that ended stay out of it', () => {
  const { machine, session, inode, lease } = scene()
  const other = machine.openSession()
  const leases = [
    { inode, lease },
    { inode: inode + 1_000, lease: lease + 1_000 },
  ]
  machine.done({ type: 'lease.return', session: other, mutation: machine.mutation(), leases })
  assert.equal(machine.state.leaseByInode.get(inode), lease)
  machine.done({ type: 'lease.return', session, mutation: machine.mutation(), leases: leases.toReversed() })
  assert.equal(machine.state.leaseByInode.get(inode), undefined)
})

test('L7: only the lease that holds an intent clears it; grants need a living lease', () => {
  const { machine, inode, lease, chunk, session } = scene()
  machine.done({ type: 'intent.clear', lease: lease + 1, inode, chunks: [chunk] })
  assert.equal(machine.row(chunk).intentLease, lease)
  machine.done({ type: 'session.expire', session, clean: false })
  const late = machine.apply({ type: 'intent.grant', lease, inode, chunks: [chunk], sizeLimit: 1 })
  assert.equal('error' in late && late.error, 'NO_LEASE')
  machine.done({ type: 'intent.clear', lease, inode, chunks: [chunk] })
  assert.equal(machine.row(chunk).dirtyDead, true)
})

test('a lease has one holder; another session is refused', () => {
  const { machine, inode } = scene()
  const other = machine.openSession()
  const command = {
    type: 'lease.acquire' as const,
    session: other,
    mutation: machine.mutation(),
    inode,
    pinned: false,
  }
  const result = machine.apply(command)
  assert.equal('error' in result && result.error, 'EBUSY')
})

test('A4: writable is computed when an epoch becomes active or a join completes', () => {
  const { machine, chunk, a, b, c, d } = scene()
  machine.propose(chunk, 1, [a], { joining: [d], lost: [b, c] })
  machine.activate(chunk, 2)
  assert.equal(machine.row(chunk).writable, false)
  assert.deepEqual(machine.row(chunk).former, [], 'what is lost is not remembered')
  machine.done({ type: 'join.complete', joins: [{ chunk, version: 2, server: d, attempt: 2 }] })
  assert.equal(machine.row(chunk).writable, true)
})

test('G1, G2: a stale replica is condemned only while the chunk has its norm; never a member, never a newer one', () => {
  const { machine, chunk, a, b, c, d } = scene()
  machine.propose(chunk, 1, [a, b], { joining: [d] })
  machine.activate(chunk, 2)
  assert.deepEqual(machine.row(chunk).former, [{ server: c, version: 1 }])
  const condemn = (server: number, versionMax: number, damaged = false) => {
    machine.done({ type: 'replica.condemn', replicas: [{ chunk, server, versionMax, damaged }] })
    return machine.state.condemned.size
  }
  assert.equal(condemn(c, 1), 0, 'two of three are in sync')
  assert.equal(condemn(a, 2, true), 0, 'a member')
  machine.done({ type: 'join.complete', joins: [{ chunk, version: 2, server: d, attempt: 2 }] })
  assert.equal(condemn(c, 3), 0, 'a version nobody gave out')
  assert.equal(condemn(c, 1), 1)
  assert.deepEqual(machine.row(chunk).former, [])
})

test('G1: ids that were never given out are not condemned, older unknown ones are', () => {
  const { machine, a } = scene()
  const next = machine.state.counters.get('nextChunk')
  machine.done({ type: 'chunk.reserve', count: 10 })
  const condemn = (chunk: number) =>
    machine.done({ type: 'replica.condemn', replicas: [{ chunk, server: a, versionMax: 1 }] })
  condemn(next + 10)
  assert.equal(machine.state.condemned.size, 0)
  condemn(next + 3)
  assert.equal(machine.state.condemned.size, 1)
})

test('G1: while there is an alarm nothing is condemned; it is kept until somebody acknowledges it', () => {
  const { machine, a } = scene()
  const next = machine.state.counters.get('nextChunk')
  machine.done({ type: 'chunk.reserve', count: 10 })
  const condemn = (chunk: number) => {
    machine.done({ type: 'replica.condemn', replicas: [{ chunk, server: a, versionMax: 1 }] })
    return machine.state.condemned.size
  }
  const alarm = { type: 'recovery.alarm', server: a, chunk: next + 100, version: 7 } as const
  assert.deepEqual(machine.done(alarm), { isNew: true })
  assert.deepEqual(machine.done(alarm), { isNew: false })
  assert.equal(machine.state.counters.get('nextChunk'), next + 101)
  assert.equal(condemn(next + 3), 0)
  machine.done({ type: 'recovery.acknowledge' })
  assert.equal(condemn(next + 3), 0, 'unknown, and perhaps of what we lost')
  machine.done({ type: 'recovery.discard' })
  assert.equal(condemn(next + 3), 1)
  assert.deepEqual(machine.apply({ type: 'recovery.acknowledge' }), {
    error: 'REFUSED',
    message: 'there is no alarm',
  })
})

test('T1: shrinking drops whole chunks and marks the tail in one command; growing past the mark waits for zeroing', () => {
  const { machine, session, inode, lease, servers } = scene()
  const second = machine.createChunk(lease, inode, 1, servers.slice(0, 3))
  const call = { session, inode, lease }
  machine.done({ type: 'lease.update', mutation: machine.mutation(), ...call, size: 2 * CHUNK_SIZE_BYTES })
  const cut = machine.done({ type: 'lease.truncate', mutation: machine.mutation(), ...call, size: 100 })
  assert.equal(cut.zeroFrom, 100)
  assert.ok(!machine.state.chunks.has(second))
  assert.equal(machine.state.condemned.size, 3)
  const grow = machine.apply({ type: 'lease.update', mutation: machine.mutation(), ...call, size: 200 })
  assert.equal('error' in grow && grow.error, 'REFUSED')
  machine.done({ type: 'lease.zeroed', mutation: machine.mutation(), ...call, zeroFrom: 100 })
  machine.done({ type: 'lease.update', mutation: machine.mutation(), ...call, size: 200 })
  assert.equal(machine.state.inodes.get(inode)?.size, 200)
})

test('E6: a step of a truncation that is over cuts nothing', () => {
  const { machine, session, inode, lease, servers } = scene()
  const grown = { size: 4 * CHUNK_SIZE_BYTES }
  const call = { session, inode, lease }
  for (const index of [1, 2]) machine.createChunk(lease, inode, index, servers.slice(0, 3))
  machine.done({ type: 'lease.update', mutation: machine.mutation(), ...call, ...grown })
  const truncation = machine.mutation()
  const step = { type: 'file.shrink', ...call, truncation } as const
  machine.done({ ...step, size: 2 * CHUNK_SIZE_BYTES })
  assert.deepEqual(machine.state.inodes.get(inode)?.size, 2 * CHUNK_SIZE_BYTES)
  assert.deepEqual(machine.state.inodes.get(inode)?.chunks.has(2), false)
  machine.done({ type: 'lease.truncate', mutation: truncation, ...call, size: CHUNK_SIZE_BYTES })
  // The holder goes on, while the step of a request that was repeated is still under way.
  machine.createChunk(lease, inode, 3, servers.slice(0, 3))
  machine.done({ type: 'lease.update', mutation: machine.mutation(), ...call, ...grown })
  assert.equal('error' in machine.apply({ ...step, size: 2 * CHUNK_SIZE_BYTES }), true)
  assert.equal(machine.state.inodes.get(inode)?.size, grown.size)
  assert.ok(machine.state.inodes.get(inode)?.chunks.has(3))
})

test('F8: a recovered size never passes what the dead holder was allowed', () => {
  const { machine, inode, lease, chunk } = scene()
  machine.done({ type: 'intent.grant', lease, inode, chunks: [chunk], sizeLimit: 5000 })
  machine.done({ type: 'file.recoverSize', inode, size: 4000 })
  assert.equal(machine.state.inodes.get(inode)?.size, 4000)
  machine.done({ type: 'file.recoverSize', inode, size: 9000 })
  assert.equal(machine.state.inodes.get(inode)?.size, 5000)
  machine.done({ type: 'file.recoverSize', inode, size: 10 })
  assert.equal(machine.state.inodes.get(inode)?.size, 5000, 'it never shrinks')
})

test('B3: a registration number below the confirmed one is refused, a lost answer is forgiven', () => {
  const machine = new ChunkMachine()
  const [server = 0] = machine.addServers(1)
  assert.equal(server, SERVER_ID_FIRST)
  const facts = { hostId: 'h', hostName: 'h', location: '0.0.0', host: 'h', tier: 0, port: 1, totalBytes: 1 }
  const register = (registration: number) =>
    machine.apply({
      type: 'server.register',
      server,
      storeUuid: 'store 1',
      registration,
      incarnation: 2,
      crashes: 0,
      checksums: true,
      ...facts,
    })
  assert.ok('ok' in register(1), 'number 1 is confirmed; 2 is given out and its answer lost')
  assert.ok('ok' in register(1))
  machine.done({ type: 'server.state', server, state: 'active' })
  assert.ok('error' in register(1), 'now 3 is confirmed')
  assert.ok('error' in register(9), 'a number nobody gave out')
})

test('B3: fewer marks than the quorum knows of are a disk that went back, until it has said that it knows', () => {
  const machine = new ChunkMachine()
  const [server = 0] = machine.addServers(1)
  const facts = { hostId: 'h', hostName: 'h', location: '0.0.0', host: 'h', tier: 0, port: 1, totalBytes: 1 }
  const register = (incarnation: number, marks: number, marksHeard = 0) => {
    const { registration = 0 } = machine.state.servers.get(server) ?? {}
    const numbers = { registration, incarnation, crashes: 0, checksums: true, marks, marksHeard }
    return machine.done({ type: 'server.register', server, storeUuid: 'store 1', ...numbers, ...facts })
  }
  const tell = (incarnation: number, marks: number, chunks: number[] = [], through = machine.index) =>
    machine.done({ type: 'server.marks', marks: [{ server, incarnation, marks }], through, chunks })
  const active = (marks?: number) =>
    machine.done({ type: 'server.state', server, state: 'active', ...(marks === undefined ? {} : { marks }) })
  assert.deepEqual([register(2, 10).rolledBack, machine.state.servers.get(server)?.marks], [false, 10])
  active()
  tell(2, 30)
  tell(2, 20)
  tell(1, 90)
  assert.equal(machine.state.servers.get(server)?.marks, 30, 'they only rise, as that process said')
  assert.equal(register(3, 29).rolledBack, true)
  assert.equal(register(4, 29).rolledBack, true, 'it stopped before it had reported')
  active(29)
  assert.equal(register(5, 29).rolledBack, false)
  active()
  assert.equal(register(6, 40, 41).rolledBack, true, 'the master has heard of more')
})

test('F5: an epoch that may have lost writes says so, until the intent is given back', () => {
  const machine = new ChunkMachine()
  const [server = 0] = machine.addServers(1)
  const session = machine.openSession()
  const inode = machine.createFile(session, 'file')
  const lease = machine.lease(session, inode)
  const chunk = machine.createChunk(lease, inode, 0, [server])
  const lossVersion = () => machine.state.chunks.get(chunk)?.lossVersion
  const reconcile = (version: number, losses: number[]): void => {
    const members = [{ server, role: 'in-sync' as const, since: 0, attempt: 0 }]
    const proposal = { chunk, from: version - 1, members, reconcile: true, leaving: [] }
    machine.done({ type: 'epoch.propose', epochs: [proposal] })
    machine.done({ type: 'epoch.activate', epochs: [{ chunk, version }], losses })
  }
  reconcile(2, [chunk])
  reconcile(3, [])
  assert.equal(lossVersion(), 2, 'it stays when others follow')
  const [, text = ''] = [...machine.state.chunks.rows()].find(([key]) => key === String(chunk)) ?? []
  machine.state.chunks.loadRow(String(chunk), text)
  assert.equal(lossVersion(), 2)
  machine.done({ type: 'intent.clear', lease, inode, chunks: [chunk] })
  assert.equal(lossVersion(), undefined)
})

test('B3: what was given back is remembered until marks cover it', () => {
  const machine = new ChunkMachine()
  const [server = 0] = machine.addServers(1)
  const session = machine.openSession()
  const clear = (): number => {
    const inode = machine.createFile(session, `file ${machine.index}`)
    const lease = machine.lease(session, inode)
    const chunk = machine.createChunk(lease, inode, 0, [server])
    machine.done({ type: 'intent.clear', lease, inode, chunks: [chunk] })
    return chunk
  }
  assert.equal(machine.state.unsettled.has(clear()), false, 'not before all metadata servers know it')
  machine.done({ type: 'level.raise', level: 3 })
  const chunk = clear()
  const settle = (through: number) =>
    machine.done({ type: 'server.marks', marks: [], through, chunks: [chunk, 999] }).settled
  assert.deepEqual(settle(machine.index - 1), [], 'it was given back later')
  assert.ok(machine.state.unsettled.has(chunk))
  assert.deepEqual(settle(machine.index), [chunk])
  assert.equal(machine.state.unsettled.size, 0)
})

test('L11: one tick advances log time by a bounded amount, never backward', () => {
  const machine = new ChunkMachine()
  machine.done({ type: 'tick', elapsedMs: 86_400_000 })
  machine.done({ type: 'tick', elapsedMs: -5 })
  assert.equal(machine.state.counters.get('logTimeMs'), 10_000)
})

test('a parameter of a newer version is refused as an older one refuses it, until all members know it', () => {
  const machine = new ChunkMachine()
  const session = machine.openSession()
  const set = (key: string, value: string) =>
    machine.apply({ type: 'admin.setConfig', session, mutation: machine.mutation(), key, value })
  const unknown = set('mds.wd.no_such', '3')
  const early = set('mds.wd.verify_chunks', '3')
  assert.deepEqual(early, JSON.parse(JSON.stringify(unknown).replace('no_such', 'verify_chunks')))
  machine.done({ type: 'level.raise', level: 3 })
  assert.ok('ok' in set('mds.wd.verify_chunks', '3'))
  assert.equal(machine.state.config.get('mds.wd.verify_chunks'), 3)
})

test('parameters: units, bounds and unknown names', () => {
  const machine = new ChunkMachine()
  const session = machine.openSession()
  const set = (key: string, value: string) =>
    machine.apply({ type: 'admin.setConfig', session, mutation: machine.mutation(), key, value })
  assert.ok('ok' in set('mds.wd.offline_tout', '5s'))
  assert.equal(machine.state.config.get('mds.wd.offline_tout'), 5000)
  assert.ok('ok' in set('mds.wd.offline_tout', '2min'))
  for (const [key, value] of [
    ['mds.wd.offline_tout', '1y'],
    ['mds.wd.offline_tout', '0'],
    ['mds.x', '1'],
    ['cluster.uuid', '1'],
  ]) {
    assert.ok('error' in set(key ?? '', value ?? ''))
  }
})

test('epochs: whatever is proposed, activated and completed in whatever order, the invariants hold', () => {
  const servers = fc.subarray([0, 1, 2, 3, 4])
  const step = fc.oneof(
    fc.record({
      kind: fc.constant('propose' as const),
      from: fc.nat(2),
      inSync: servers,
      joining: servers,
      reconcile: fc.boolean(),
    }),
    fc.record({ kind: fc.constant('activate' as const), ahead: fc.nat(2) }),
    fc.record({ kind: fc.constant('join' as const), server: fc.nat(4), behind: fc.nat(1) }),
    fc.record({ kind: fc.constant('expire' as const) }),
    fc.record({ kind: fc.constant('condemn' as const), server: fc.nat(4) }),
  )
  fc.assert(
    fc.property(fc.array(step, { maxLength: 40 }), (steps) => {
      const { machine, chunk, servers: ids, session } = scene()
      const id = (index: number) => ids[index] ?? 0
      // Since when each server has missed nothing, as a model that follows committed epochs only.
      let complete = new Set(machine.row(chunk).members.map((member) => member.server))
      let version = 1
      for (const next of steps) {
        const before = machine.row(chunk)
        const committed = before.pending?.version ?? before.version
        if (next.kind === 'propose') {
          const joining = next.joining.filter((index) => !next.inSync.includes(index)).map(id)
          machine.propose(chunk, committed - next.from, next.inSync.map(id), {
            joining,
            reconcile: next.reconcile,
          })
        } else if (next.kind === 'activate') machine.activate(chunk, before.version + next.ahead)
        else if (next.kind === 'join') {
          const server = id(next.server)
          const attempt = before.members.find((member) => member.server === server)?.attempt ?? 0
          const join = { chunk, version: before.version - next.behind, server, attempt }
          machine.done({ type: 'join.complete', joins: [join] })
        } else if (next.kind === 'expire') machine.done({ type: 'session.expire', session, clean: false })
        else {
          const replica = { chunk, server: id(next.server), versionMax: before.version, damaged: true }
          machine.done({ type: 'replica.condemn', replicas: [replica] })
        }
        const row = machine.row(chunk)
        const inSync = row.members
          .filter((member) => member.role === 'in-sync')
          .map((member) => member.server)
        assert.ok(inSync.length > 0, 'somebody is in sync')
        assert.ok(row.version >= version && (row.pending === null || row.pending.version > row.version))
        for (const member of row.pending?.members ?? []) {
          if (member.role === 'in-sync') assert.ok(inSync.includes(member.server), 'a legal subset')
        }
        for (const server of inSync) {
          const isJoined = next.kind === 'join' && id(next.server) === server
          assert.ok(complete.has(server) || isJoined, 'who was out comes back by joining only')
        }
        for (const { server } of row.members) {
          assert.ok(!machine.state.condemned.has(row.chunk, server))
        }
        complete = new Set(inSync)
        version = row.version
      }
    }),
  )
})

test('the same commands give the same state, also over a stored copy of it', () => {
  const first = scene()
  const second = scene()
  first.machine.propose(first.chunk, 1, [first.a], { joining: [first.d] })
  second.machine.propose(second.chunk, 1, [second.a], { joining: [second.d] })
  assert.equal(stateDigest(first.machine.state), stateDigest(second.machine.state))
})
