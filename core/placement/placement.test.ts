/** Placement: what may never be chosen, what is preferred, and what happens to a chunk in each situation. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { SeededRandom } from '../testing/simulation/seeded-random.ts'
import { logicalCapacity } from './capacity.ts'
import { type ChunkSituation, type Plan, planChunk } from './plan.ts'
import { chooseServers, type SelectionPolicy } from './selection.ts'
import { domainKeyOf, type PlacementServer } from './topology.ts'

const GIB = 2 ** 30
const policy: SelectionPolicy = { failureDomain: 'host', tier: 0, fillMarginPct: 5, replicaBytes: GIB }

function server(id: number, facts: Partial<PlacementServer> = {}): PlacementServer {
  return {
    server: id,
    hostId: `host ${id}`,
    location: '0.0.0',
    tier: 0,
    totalBytes: 100 * GIB,
    freeBytes: 80 * GIB,
    state: 'active',
    accepts: true,
    ...facts,
  }
}

const anyServers = fc
  .array(
    fc.record({
      host: fc.nat(4),
      rack: fc.nat(3),
      tier: fc.nat(3),
      freeBytes: fc.nat(100).map((count) => count * GIB),
      state: fc.constantFrom('active' as const, 'active' as const, 'inactive' as const, 'offline' as const),
      accepts: fc.boolean(),
    }),
    { maxLength: 12 },
  )
  .map((all) =>
    all.map((facts, index) =>
      server(1025 + index, { ...facts, hostId: `h${facts.host}`, location: `0.0.${facts.rack}` }),
    ),
  )

test('never two replicas in one failure domain, never on a server that is silent, unwilling or full', () => {
  const domains = fc.constantFrom('disk' as const, 'host' as const, 'rack' as const)
  fc.assert(
    fc.property(
      anyServers,
      domains,
      fc.nat(5),
      fc.nat(),
      fc.nat(2),
      (servers, domain, count, seed, taken) => {
        const occupied = servers.slice(0, taken)
        const chosenPolicy = { ...policy, failureDomain: domain }
        const { chosen, shortage } = chooseServers(
          count,
          servers,
          occupied,
          chosenPolicy,
          new SeededRandom(seed),
        )
        const keys = [...occupied, ...chosen].map((entry) => domainKeyOf(entry, domain))
        assert.equal(new Set(keys.slice(occupied.length)).size, chosen.length)
        for (const entry of chosen) {
          assert.ok(entry.state === 'active' && entry.accepts && entry.freeBytes >= 6 * GIB)
          assert.ok(!occupied.some((other) => domainKeyOf(other, domain) === domainKeyOf(entry, domain)))
        }
        assert.equal(shortage === '', chosen.length >= count)
      },
    ),
  )
})

test('the order in which servers are known changes nothing', () => {
  fc.assert(
    fc.property(anyServers, fc.nat(), (servers, seed) => {
      const choose = (list: PlacementServer[]) =>
        chooseServers(3, list, [], policy, new SeededRandom(seed)).chosen.map((entry) => entry.server)
      assert.deepEqual(choose(servers), choose(servers.toReversed()))
    }),
  )
})

test('the wished tier comes first, the nearest other one before none', () => {
  const servers = [server(1, { tier: 2 }), server(2, { tier: 1 }), server(3, { tier: 3 })]
  const choose = (count: number, tier: number) =>
    chooseServers(count, servers, [], { ...policy, tier }, new SeededRandom(1)).chosen.map(
      (entry) => entry.server,
    )
  assert.deepEqual(choose(1, 1), [2])
  assert.deepEqual(choose(3, 3), [3, 1, 2])
})

test('emptier servers get more of the new replicas', () => {
  const servers = [server(1, { freeBytes: 10 * GIB }), server(2, { freeBytes: 90 * GIB })]
  const random = new SeededRandom(7)
  let count = 0
  for (let round = 0; round < 1000; round++) {
    if (chooseServers(1, servers, [], policy, random).chosen[0]?.server === 2) count += 1
  }
  // 85 of 90 parts of the usable space.
  assert.ok(count > 900 && count < 980, `${count}`)
})

test('allocatable space as in the examples of the guide', () => {
  const capacities = [200, 500, 1000]
  assert.equal(logicalCapacity(capacities, 3), 200)
  assert.equal(logicalCapacity(capacities, 2), 700)
  assert.equal(logicalCapacity(capacities, 1), 1700)
  assert.equal(logicalCapacity(capacities, 4), 0)
})

test('allocatable space is exact for servers that differ by little, and for parts of bytes', () => {
  const free = 71 * GIB - 252.4 * GIB * 0.05
  const level = logicalCapacity([free + 0.3, free - 4096.1, free + 0.7], 3)
  assert.equal(level, Math.floor(free - 4096.1))
})

function plan(chunk: Partial<ChunkSituation>, servers: PlacementServer[]): Plan {
  const situation: ChunkSituation = {
    members: [1, 2, 3].map((id) => ({ server: id, role: 'in-sync' })),
    former: [],
    hasIntent: false,
    dirtyDead: false,
    writable: true,
    replicasNormal: 3,
    replicasMinimum: 2,
    failed: new Map(),
    unclean: new Set(),
    rolledBack: new Set(),
    fresh: new Set(),
    awaited: new Set(),
    barred: new Set(),
    mayCopy: true,
    ...chunk,
  }
  const serverOf = (id: number) => servers.find((candidate) => candidate.server === id)
  return planChunk(situation, serverOf, servers, policy, new SeededRandom(1))
}

function changed(result: Plan): Extract<Plan, { kind: 'change' }> {
  assert.equal(result.kind, 'change')
  return result as Extract<Plan, { kind: 'change' }>
}

function inSyncOf(result: Plan): number[] {
  return changed(result)
    .members.filter((member) => member.role === 'in-sync')
    .map((member) => member.server)
}

const all = [1, 2, 3, 4].map((id) => server(id))
const without = (id: number, state: PlacementServer['state']) =>
  all.map((entry) => (entry.server === id ? { ...entry, state } : entry))

test('a complete chunk is kept', () => {
  assert.deepEqual(plan({}, all), { kind: 'keep' })
})

test('a failing disk keeps its replica until there are enough others, then it leaves (rule R1)', () => {
  const failing = (servers: PlacementServer[], id: number) =>
    servers.map((entry) => (entry.server === id ? { ...entry, isFailing: true, accepts: false } : entry))
  const copied = changed(plan({}, failing(all, 2)))
  assert.deepEqual([inSyncOf(copied), copied.copying, copied.leaving], [[1, 2, 3], [4], []])
  const members = (...roles: ('in-sync' | 'joining')[]) => roles.map((role, at) => ({ server: at + 1, role }))
  const joining = { members: members('in-sync', 'in-sync', 'in-sync', 'joining') }
  assert.equal(plan(joining, failing(all, 2)).kind, 'keep', 'not before the copy is complete')
  const four = { members: members('in-sync', 'in-sync', 'in-sync', 'in-sync') }
  for (const id of [1, 2, 3, 4]) {
    const left = changed(plan(four, failing(all, id)))
    assert.deepEqual(left.leaving, [{ server: id, exists: true }], 'and no other one')
  }
  assert.equal(
    plan({ ...four, hasIntent: true }, failing(all, 2)).kind,
    'keep',
    'not while it is written (J8)',
  )
  assert.equal(plan({}, failing(all.slice(0, 3), 2)).kind, 'wait', 'nowhere to go: it stays')
  const both = failing(failing(all, 2), 3)
  assert.deepEqual(inSyncOf(plan({}, both)), [1, 2, 3], 'two of them: the same')
  const sameHost = failing([...all.slice(0, 3), server(5, { hostId: 'host 2' })], 2)
  assert.deepEqual(changed(plan({}, sameHost)).copying, [5], 'another disk of its own host will do')
})

test('a silent member leaves a chunk that is being written, and stays where nothing is (no copies yet)', () => {
  const written = changed(plan({ hasIntent: true }, without(1, 'inactive')))
  assert.deepEqual(inSyncOf(written), [2, 3])
  assert.deepEqual(written.copying, [], 'it gets its time to return')
  assert.equal(plan({}, without(1, 'inactive')).kind, 'keep')
})

test('a new master decides nothing about a chunk before its members had time to register (rules F5, J3)', () => {
  const servers = without(1, 'inactive')
  const awaited = new Set([1])
  const waits = { kind: 'wait', reason: 'awaited', shortage: '' }
  for (const chunk of [{ hasIntent: true }, { dirtyDead: true }, { unclean: new Set([2]) }, {}]) {
    assert.deepEqual(plan({ ...chunk, awaited }, servers), waits)
  }
  const members = [1, 2, 3].map((id) => ({ server: id, role: id === 1 ? 'joining' : 'in-sync' }) as const)
  assert.deepEqual(plan({ members, hasIntent: true, awaited }, servers), waits, 'nor about a joiner')
  const failed = new Map([[1, 'exists' as const]])
  assert.deepEqual(inSyncOf(plan({ hasIntent: true, awaited, failed }, servers)), [2, 3])
  assert.deepEqual(inSyncOf(plan({ hasIntent: true, awaited: new Set([4]) }, servers)), [2, 3])
})

test('an offline member is replaced by an empty joiner', () => {
  const result = changed(plan({}, without(1, 'offline')))
  assert.deepEqual(result.copying, [4])
  assert.deepEqual(result.leaving, [{ server: 1, exists: true }])
})

test('the last in-sync member is never removed (rule G2)', () => {
  const members = [{ server: 1, role: 'in-sync' as const }]
  for (const state of ['inactive', 'offline', 'active'] as const) {
    const failed = new Map([[1, 'lost' as const]])
    assert.equal(plan({ members, failed, hasIntent: true }, without(1, state)).kind, 'wait')
  }
})

test('a former replica whose server is back is preferred to a new place', () => {
  const members = [2, 3].map((id) => ({ server: id, role: 'in-sync' as const }))
  const result = changed(plan({ members, former: [1] }, all))
  assert.deepEqual(result.rejoining, [1])
  assert.deepEqual(result.copying, [])
})

test('below min a silent server is not waited for', () => {
  const members = [{ server: 2, role: 'in-sync' as const }]
  const result = changed(plan({ members, former: [1], writable: false }, without(1, 'inactive')))
  assert.equal(result.copying.length, 2)
})

test('while copies are not allowed re-joining goes on (rule A3)', () => {
  const members = [2, 3].map((id) => ({ server: id, role: 'in-sync' as const }))
  assert.equal(plan({ members, mayCopy: false }, all).kind, 'wait')
  assert.deepEqual(changed(plan({ members, former: [1], mayCopy: false }, all)).rejoining, [1])
})

test('a dead writer: reachable uncrashed members at once; crashed ones wait for an uncrashed that may return (rule J3)', () => {
  assert.deepEqual(inSyncOf(plan({ dirtyDead: true, unclean: new Set([1]) }, all)), [2, 3])
  const onlyCrashed = { dirtyDead: true, unclean: new Set([2, 3]) }
  assert.equal(plan(onlyCrashed, without(1, 'inactive')).kind, 'wait')
  const decided = changed(plan(onlyCrashed, without(1, 'offline')))
  assert.deepEqual(inSyncOf(decided), [2, 3])
  assert.equal(decided.reconcile, true)
})

test('crashed members wait for an uncrashed one that failed because it fell silent (rule J3)', () => {
  const members = [1, 2].map((id) => ({ server: id, role: 'in-sync' as const }))
  const failed = new Map([[1, 'exists' as const]])
  const situation = { members, failed, unclean: new Set([2]), hasIntent: true }
  assert.equal(plan(situation, without(1, 'inactive')).kind, 'wait')
  assert.deepEqual(inSyncOf(plan(situation, without(1, 'offline'))), [2])
  const lost = new Map([[1, 'lost' as const]])
  assert.deepEqual(inSyncOf(plan({ ...situation, failed: lost }, without(1, 'inactive'))), [2])
})

test('all restarted uncleanly: reconciled among themselves; one of three: it re-joins', () => {
  assert.equal(changed(plan({ unclean: new Set([1, 2, 3]) }, all)).reconcile, true)
  const result = changed(plan({ unclean: new Set([1]) }, all))
  assert.deepEqual(inSyncOf(result), [2, 3])
  assert.deepEqual(result.rejoining, [1])
})

test('a joiner that restarted joins again in a new epoch (rule J4)', () => {
  const members = [1, 2, 3].map((id) => ({
    server: id,
    role: id === 3 ? ('joining' as const) : ('in-sync' as const),
  }))
  assert.equal(plan({ members }, all).kind, 'keep')
  const result = changed(plan({ members, unclean: new Set([3]) }, all))
  assert.deepEqual([inSyncOf(result), result.rejoining, result.copying], [[1, 2], [3], []])
})

test('surplus replicas leave one chunk only when nobody writes it, and never below the norm (rule J8)', () => {
  const members = [1, 2, 3, 4].map((id) => ({ server: id, role: 'in-sync' as const }))
  assert.equal(changed(plan({ members }, all)).members.length, 3)
  assert.equal(plan({ members, hasIntent: true }, all).kind, 'keep')
  const silent = all.map((one) =>
    one.server === 3 || one.server === 4 ? server(one.server, { state: 'inactive' }) : one,
  )
  assert.equal(
    plan({ members }, silent).kind,
    'keep',
    'two are active, and nobody knows whether the others return',
  )
})

test('a returning replica joins beside an unfinished copy; who is in sync first stays (rule J10)', () => {
  const member = (id: number, role: 'in-sync' | 'joining') => ({ server: id, role })
  const copying = [member(1, 'in-sync'), member(2, 'in-sync'), member(4, 'joining')]
  const fresh = new Set([4])
  assert.equal(plan({ members: copying, fresh }, all).kind, 'keep', 'nobody returns')
  for (const hasIntent of [false, true]) {
    const result = changed(plan({ members: copying, fresh, former: [3], hasIntent }, all))
    assert.deepEqual([result.rejoining, result.copying, result.members.length], [[3], [], 4])
    const racing = [...copying, member(3, 'joining')]
    const rest = { fresh, hasIntent, former: [5] }
    assert.equal(plan({ ...rest, members: racing }, all).kind, 'keep', 'one rival for each copy')
    const won = [member(1, 'in-sync'), member(2, 'in-sync'), member(3, 'in-sync'), member(4, 'joining')]
    assert.deepEqual(
      changed(plan({ ...rest, members: won }, all)).leaving,
      [{ server: 4, exists: true }],
      'the copy is deleted by version later (rule E6)',
    )
  }
  const rejoining = [member(1, 'in-sync'), member(2, 'in-sync'), member(3, 'joining')]
  assert.equal(plan({ members: rejoining, former: [4] }, all).kind, 'keep', 'that one compares itself')
})

test('a change of min is an epoch change (rule A4)', () => {
  assert.equal(changed(plan({ writable: false }, all)).reason, 'writable')
})

test('whatever happens: members are servers that may hold it, and somebody stays in sync', () => {
  const ids = [1, 2, 3, 4, 5]
  const states = fc.array(fc.constantFrom('active' as const, 'inactive' as const, 'offline' as const), {
    minLength: 5,
    maxLength: 5,
  })
  const subset = fc.subarray(ids)
  fc.assert(
    fc.property(
      states,
      fc.subarray([1, 2, 3, 4], { minLength: 1 }),
      subset,
      subset,
      subset,
      fc.record({
        hasIntent: fc.boolean(),
        dirtyDead: fc.boolean(),
        mayCopy: fc.boolean(),
        writable: fc.boolean(),
      }),
      (serverStates, inSync, formerIds, failedIds, uncleanIds, flags) => {
        const servers = ids.map((id, index) => server(id, { state: serverStates[index] ?? 'active' }))
        const members = inSync.map((id) => ({ server: id, role: 'in-sync' as const }))
        const former = formerIds.filter((id) => !inSync.includes(id))
        const failed = new Map(failedIds.map((id) => [id, 'exists' as const]))
        const result = plan({ members, former, failed, unclean: new Set(uncleanIds), ...flags }, servers)
        if (result.kind !== 'change') return
        const synced = result.members.filter((member) => member.role === 'in-sync')
        assert.ok(synced.length > 0)
        assert.ok(
          synced.every((member) => inSync.includes(member.server)),
          'in-sync comes from in-sync (rule E1)',
        )
        assert.equal(new Set(result.members.map((member) => member.server)).size, result.members.length)
        const staying = new Set(result.members.map((member) => member.server))
        for (const { server: id } of members) {
          assert.equal(staying.has(id), !result.leaving.some((entry) => entry.server === id))
        }
        for (const { server: id } of result.members) {
          assert.equal(serverStates[id - 1], 'active', 'who must persist the epoch can answer')
        }
        if (flags.dirtyDead) assert.ok(result.reconcile, 'nothing but reconciliation follows a dead writer')
        if (!flags.mayCopy) assert.deepEqual(result.copying, [])
      },
    ),
  )
})
