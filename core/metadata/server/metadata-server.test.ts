/** The metadata server with fake chunk servers and plain sessions on simulated time: what it orders and answers. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { MIB } from '../../base/units.ts'
import { MetadataScene, type SceneSession } from '../../testing/metadata-scene.ts'

const three = { replicasNormal: 3, replicasMinimum: 2, failureDomain: 'host' } as const

async function writtenFile(session: SceneSession, name = 'file') {
  const inode = await session.createFile(name)
  const lease = await session.lease(inode)
  const located = await session.insist(() =>
    session.call('intent.grant', { inode, lease, indexes: [0], sizeLimit: MIB }),
  )
  const location = located.locations[0]
  assert.ok(location !== undefined)
  return { inode, lease, chunk: location.chunk, location }
}

test('a new chunk has its replicas on different hosts, durable before the intent is granted (rule E12)', async () => {
  const scene = await MetadataScene.open({ chunkServerCount: 4, placement: three })
  const session = await scene.session('client')
  const { chunk, location } = await writtenFile(session)
  assert.equal(location.version, 1)
  assert.equal(location.writable, true)
  assert.equal(new Set(location.members.map((member) => member.server)).size, 3)
  for (const { server } of location.members)
    assert.equal(scene.server(server).replicas.get(chunk)?.version, 1)
})

test('a reported member whose server is gone leaves at once; the holder is told the new epoch (rules A1, F3)', async () => {
  const scene = await MetadataScene.open({ chunkServerCount: 3, placement: three })
  const session = await scene.session('client')
  const { inode, chunk, location } = await writtenFile(session)
  const victim = scene.server(location.members[0]?.server ?? 0)
  victim.crash()
  const located = await session.insist(() =>
    session.call('chunk.report', {
      inode,
      chunk,
      version: 1,
      server: victim.server,
      reason: 'DISCONNECTED',
      kind: 'failed',
    }),
  )
  const next = located.locations[0]
  assert.equal(next?.version, 2)
  assert.equal(next?.writable, true)
  assert.ok(next?.members.every((member) => member.server !== victim.server))
  assert.ok(session.moved.some((moved) => moved.locations[0]?.version === 2))
})

test('a client alone sees a failure below min: it is told to hold (rule A1)', async () => {
  const scene = await MetadataScene.open({
    chunkServerCount: 2,
    placement: { replicasNormal: 2, replicasMinimum: 2, failureDomain: 'host' },
  })
  const session = await scene.session('client')
  const { inode, chunk, location } = await writtenFile(session)
  const server = location.members[0]?.server ?? 0
  const report = { inode, chunk, version: 1, server, reason: 'TIMED_OUT', kind: 'failed' } as const
  // Nor is it believed what the server is said to have answered: the server itself is asked.
  for (const reason of ['TIMED_OUT', 'DISK_FAILED', 'DISK_FULL', 'NO_REPLICA', 'NOT_IN_SYNC'])
    await assert.rejects(session.call('chunk.report', { ...report, reason }), { code: 'TRY_AGAIN' })
  assert.equal(scene.inSync(chunk).length, 2)
  const replica = scene.server(server).replicas.get(chunk)
  assert.ok(replica !== undefined)
  replica.damaged = true
  session.start('chunk.report', { ...report, reason: 'DISK_FAILED' }).catch(() => undefined)
  await scene.until(() => scene.inSync(chunk).length === 1)
})

test('a client that blames everybody is not believed (rule A1)', async () => {
  const scene = await MetadataScene.open({ chunkServerCount: 6, placement: { ...three, replicasNormal: 5 } })
  const session = await scene.session('client')
  const { inode, chunk } = await writtenFile(session)
  const blame = async (server: number) => {
    const report = { inode, chunk, version: scene.chunk(chunk).version, server, reason: 'TIMED_OUT' }
    return await session.call('chunk.report', { ...report, kind: 'failed' as const })
  }
  const [first = 0, second = 0, third = 0] = scene.inSync(chunk)
  for (const server of [first, second]) await blame(server)
  await assert.rejects(blame(third), { code: 'TRY_AGAIN' })
})

test('a dead server: inactive, offline, replicas re-created elsewhere, healthy again', async () => {
  const scene = await MetadataScene.open({ chunkServerCount: 4, placement: three })
  const session = await scene.session('client')
  await session.mutate('admin.setConfig', { key: 'mds.wd.offline_tout', value: '5s' })
  const { inode, lease, chunk, location } = await writtenFile(session)
  await session.call('intent.clear', { inode, lease, chunks: [chunk] })
  const victim = scene.server(location.members[0]?.server ?? 0)
  victim.crash()
  await scene.until(() => scene.mds.state.servers.get(victim.server)?.state === 'inactive')
  assert.ok(scene.inSync(chunk).includes(victim.server), 'without a writer it stays until offline')
  await scene.until(() => scene.mds.state.servers.get(victim.server)?.state === 'offline')
  await scene.until(() => scene.inSync(chunk).length === 3 && !scene.inSync(chunk).includes(victim.server))
  await scene.until(() => scene.eventCodes().includes('REPLICATION_COMPLETED'))
  await scene.until(() => scene.mds.control.census.counts.healthy === 1)
  const statistics = await session.call('admin.stat', {})
  assert.equal((statistics as { status: string }).status, 'degraded')
  assert.ok(scene.eventCodes().includes('CS_OFFLINE'))
})

test('a server that returns in time re-joins by comparison; the bytes copied are in the event log', async () => {
  const scene = await MetadataScene.open({ chunkServerCount: 3, placement: three })
  const session = await scene.session('client')
  const { inode, lease, chunk, location } = await writtenFile(session)
  const victim = scene.server(location.members[0]?.server ?? 0)
  victim.crash()
  // It becomes inactive: the writer cannot wait for it.
  await scene.until(() => scene.chunk(chunk).version === 2 && scene.chunk(chunk).pending === null)
  assert.deepEqual(scene.chunk(chunk).former, [{ server: victim.server, version: 1 }])
  await session.call('intent.clear', { inode, lease, chunks: [chunk] })
  victim.start([chunk])
  await scene.until(() => scene.inSync(chunk).length === 3)
  assert.ok(victim.ordersOf('replica.create').length === 1, 'it kept its replica')
  await scene.until(() => victim.replicas.get(chunk)?.role === 'in-sync')
  await scene.until(() => scene.eventCodes().includes('REPLICAS_REJOINED'))
})

test('a dead client: its chunks are reconciled, its size recovered, its lease goes to the next (rules J1, J5, F8)', async () => {
  const scene = await MetadataScene.open({ chunkServerCount: 3, placement: three })
  const first = await scene.session('first')
  const second = await scene.session('second')
  const { inode, lease, chunk } = await writtenFile(first)
  for (const server of scene.chunkServers) {
    const replica = server.replicas.get(chunk)
    if (replica !== undefined) replica.writtenEnd = 12_345
  }
  first.crash()
  const answer = await second.insist(() => second.mutate('lease.acquire', { inode, pinned: false }))
  assert.ok(answer.lease > lease)
  assert.equal(answer.attributes.size, 12_345)
  const row = scene.chunk(chunk)
  assert.equal(row.dirtyDead, false)
  assert.equal(row.version, 2)
  for (const { server } of row.members) {
    const replica = scene.server(server).replicas.get(chunk)
    assert.equal(replica?.role, 'in-sync')
    assert.ok((replica?.lease ?? 0) > lease, 'writes of the dead lease are fenced (rule E3)')
  }
})

test('a living holder is recalled; after its release the next one gets the lease without a new version', async () => {
  const scene = await MetadataScene.open({ chunkServerCount: 3, placement: three })
  const first = await scene.session('first')
  const second = await scene.session('second')
  const { inode, lease, chunk } = await writtenFile(first)
  first.onRecall = () => {
    const mutation = { sequence: 1000, acknowledgedBelow: 1000 }
    const done = first
      .start('intent.clear', { inode, lease, chunks: [chunk] })
      .then(() => first.start('lease.release', { mutation, inode, lease, size: 5 }))
    done.catch((error: unknown) => scene.fatal.push(error as Error))
  }
  const answer = await second.mutate('lease.acquire', { inode, pinned: false })
  assert.equal(answer.attributes.size, 5)
  assert.equal(scene.chunk(chunk).version, 1)
  assert.deepEqual(scene.fatal, [])
})

test('a holder that does not give up: EBUSY after the deadline, and it keeps its lease (rule L9)', async () => {
  const scene = await MetadataScene.open({ chunkServerCount: 3, placement: three })
  const first = await scene.session('first')
  const second = await scene.session('second')
  const { inode, lease } = await writtenFile(first)
  await assert.rejects(
    second.insist(() => second.mutate('lease.acquire', { inode, pinned: false })),
    { code: 'EBUSY' },
  )
  assert.ok(first.recalls.length > 0)
  assert.ok(scene.mds.state.leases.has(lease))
})

test('all members restarted uncleanly: reconciled with each other, the last one is never removed (rules G2, J3)', async () => {
  const scene = await MetadataScene.open({ chunkServerCount: 3, placement: three })
  const session = await scene.session('client')
  const { chunk } = await writtenFile(session)
  for (const server of scene.chunkServers) server.losePower()
  await scene.clock.advance(1000)
  for (const server of scene.chunkServers) server.start([chunk])
  await scene.until(() => scene.chunk(chunk).version > 1 && scene.chunk(chunk).pending === null)
  await scene.until(() => scene.inSync(chunk).length === 3)
  assert.ok(scene.chunkServers.some((server) => server.ordersOf('replica.heal').length > 0))
})

test('the metadata server restarts in the middle of an epoch change: it is carried on (rule E1)', async () => {
  const scene = await MetadataScene.open({ chunkServerCount: 4, placement: three })
  const session = await scene.session('client')
  const { chunk, location } = await writtenFile(session)
  const [victim, ...others] = location.members.map((member) => scene.server(member.server))
  for (const server of others) server.refuse.set('replica.persist', 'OVERLOADED')
  victim?.crash()
  await scene.until(() => scene.chunk(chunk).pending !== null)
  scene.crashMetadataServer()
  for (const server of others) server.refuse.clear()
  await scene.startMetadataServer()
  await session.resume()
  await scene.until(() => scene.chunk(chunk).version > 1 && scene.chunk(chunk).pending === null)
  assert.ok(!scene.inSync(chunk).includes(victim?.server ?? 0))
  assert.equal(scene.chunk(chunk).intentLease !== 0, true, 'the writer goes on')
})

test('fewer servers than min: held while silent ones may return, ENOSPC afterwards (rule A4)', async () => {
  const scene = await MetadataScene.open({ chunkServerCount: 3, placement: three })
  const session = await scene.session('client')
  await session.mutate('admin.setConfig', { key: 'mds.wd.offline_tout', value: '10s' })
  const inode = await session.createFile('file')
  const lease = await session.lease(inode)
  for (const server of scene.chunkServers.slice(1)) server.crash()
  const ask = () => session.call('intent.grant', { inode, lease, indexes: [0], sizeLimit: MIB })
  await assert.rejects(ask(), { code: 'TRY_AGAIN' })
  await assert.rejects(
    session.insist(async () => {
      await scene.clock.advance(500)
      return await ask()
    }),
    { code: 'ENOSPC' },
  )
})

test('full servers are refused when the intent is granted, as ENOSPC (rule A2)', async () => {
  const scene = await MetadataScene.open({ chunkServerCount: 3, placement: three })
  for (const server of scene.chunkServers) server.freeBytes = MIB
  await scene.clock.advance(2000)
  const session = await scene.session('client')
  await assert.rejects(writtenFile(session), { code: 'ENOSPC' })
})

test('statfs: the margin is free and not available; with fewer servers than norm but enough there is room', async () => {
  const scene = await MetadataScene.open({ chunkServerCount: 3, placement: three })
  for (const server of scene.chunkServers) server.freeBytes = 75_276_734_464
  await scene.clock.advance(2000)
  const session = await scene.session('client')
  const status = await session.call('fs.statfs', {})
  assert.equal(status.totalBytes, 100 * 2 ** 30)
  assert.equal(status.freeBytes, 75_276_734_464)
  assert.ok(Math.abs(status.freeBytes - status.availableBytes - 5 * 2 ** 30) <= 1)
  scene.chunkServers[0]?.crash()
  await scene.clock.advance(2000)
  const there = await session.call('fs.statfs', {})
  assert.equal(there.availableBytes, status.availableBytes, 'min is 2')
})

test('replicas of a deleted file are deleted by version after the grace, and confirmed (rule G1)', async () => {
  const scene = await MetadataScene.open({ chunkServerCount: 3, placement: three })
  const session = await scene.session('client')
  const { inode, lease, chunk } = await writtenFile(session)
  await session.call('intent.clear', { inode, lease, chunks: [chunk] })
  await session.mutate('lease.release', { inode, lease })
  await session.mutate('fs.unlink', { parent: 1, name: 'file' })
  await scene.clock.advance(2000)
  assert.ok(scene.mds.state.chunks.has(chunk), 'it is open')
  await session.call('fs.close', { inodes: [inode] })
  await scene.until(() => !scene.mds.state.chunks.has(chunk))
  assert.ok(scene.chunkServers.every((server) => server.replicas.has(chunk)))
  await scene.until(() => scene.chunkServers.every((server) => !server.replicas.has(chunk)))
  await scene.until(() => scene.mds.state.condemned.size === 0)
})

test('an unknown older id is garbage: condemned and deleted', async () => {
  const scene = await MetadataScene.open({ chunkServerCount: 3, placement: three })
  const session = await scene.session('client')
  const { chunk } = await writtenFile(session)
  const [server] = scene.chunkServers
  server?.crash()
  const facts = { role: 'in-sync', lease: 0, unclean: false, damaged: false, complete: true } as const
  server?.replicas.set(chunk + 500, { ...facts, version: 1, writtenEnd: 0 })
  server?.start()
  await scene.until(() => server?.replicas.has(chunk + 500) === false)
})

test('a store that presents an older registration number is refused (rule B3)', async () => {
  const scene = await MetadataScene.open({ chunkServerCount: 3, placement: three })
  const [server] = scene.chunkServers
  assert.ok(server !== undefined)
  server.crash()
  server.rollBackRegistration(0)
  server.start()
  await scene.clock.advance(3000)
  assert.equal(server.isRegistered, false)
  assert.equal((server.lastError as { code?: string }).code, 'REFUSED')
})

test('a replica whose disk went back in time re-joins (rule E8)', async () => {
  const scene = await MetadataScene.open({ chunkServerCount: 4, placement: three })
  const session = await scene.session('client')
  const { inode, chunk, location } = await writtenFile(session)
  const [gone = 0, stale = 0] = location.members.map((member) => member.server)
  scene.server(gone).crash()
  const report = { inode, chunk, version: 1, server: gone, reason: 'DISCONNECTED', kind: 'failed' } as const
  await session.insist(() => session.call('chunk.report', report))
  scene.server(stale).crash()
  const replica = scene.server(stale).replicas.get(chunk)
  if (replica !== undefined) replica.version = 1
  scene.server(stale).start()
  await scene.until(() => scene.eventCodes().includes('REPLICA_ROLLED_BACK'))
  await scene.until(() => scene.server(stale).ordersOf('replica.join').length > 0)
  await scene.until(() => scene.inSync(chunk).includes(stale))
})

test('a missing replica is re-created, never believed to be a hole (rule E12)', async () => {
  const scene = await MetadataScene.open({ chunkServerCount: 3, placement: three })
  const session = await scene.session('client')
  const { inode, lease, chunk } = await writtenFile(session)
  await session.call('intent.clear', { inode, lease, chunks: [chunk] })
  const [server] = scene.chunkServers
  server?.crash()
  server?.replicas.delete(chunk)
  server?.start()
  await scene.until(() => scene.eventCodes().includes('REPLICAS_MISSING'))
  await scene.until(() => scene.inSync(chunk).length === 3 && server?.replicas.get(chunk)?.role === 'in-sync')
})

test('a replica that cannot be read is deleted and made anew on the same server, as there is no other', async () => {
  const scene = await MetadataScene.open({ chunkServerCount: 3, placement: three })
  const session = await scene.session('client')
  const { chunk } = await writtenFile(session)
  const [server] = scene.chunkServers
  const replica = server?.replicas.get(chunk)
  assert.ok(server !== undefined && replica !== undefined)
  replica.damaged = true
  server.report('cs.badReplica', { chunk, version: 1, reason: 'the chunk file is missing' })
  await scene.until(() => scene.chunk(chunk).version > 1)
  await scene.until(() => scene.inSync(chunk).length === 3)
  assert.notEqual(server.replicas.get(chunk), replica)
})

test('a void replica is known after a restart of the metadata server: the report says so', async () => {
  const scene = await MetadataScene.open({ chunkServerCount: 3, placement: three })
  const session = await scene.session('client')
  const { inode, lease, chunk } = await writtenFile(session)
  await session.call('intent.clear', { inode, lease, chunks: [chunk] })
  await session.mutate('lease.release', { inode, lease })
  const [server, second, third] = scene.chunkServers
  assert.ok(server !== undefined)
  // It leaves the chunk while it is away, and comes back unreadable, to a master that knows nothing.
  server.crash()
  const again = await session.lease(inode)
  await session.insist(() =>
    session.call('intent.grant', { inode, lease: again, indexes: [0], sizeLimit: MIB }),
  )
  await scene.until(() => scene.inSync(chunk).length === 2)
  scene.crashMetadataServer()
  const replica = server.replicas.get(chunk)
  assert.ok(replica !== undefined)
  replica.damaged = true
  const persisted = server.ordersOf('replica.persist').length
  await scene.startMetadataServer()
  server.start()
  await scene.until(() => scene.inSync(chunk).length === 3)
  assert.notEqual(server.replicas.get(chunk), replica, 'condemned and made anew, not asked in vain')
  assert.equal(server.ordersOf('replica.persist').length, persisted)
  // The last in-sync member: nothing can be done, and it stays said.
  second?.crash()
  third?.crash()
  const left = server.replicas.get(chunk)
  assert.ok(left !== undefined)
  scene.crashMetadataServer()
  left.damaged = true
  await scene.startMetadataServer()
  await scene.clock.advance(10_000)
  assert.equal(scene.mds.control.census.counts.void, 1)
})

test('the last in-sync member refused its promotion: it is asked again until it follows', async () => {
  const placement = { replicasNormal: 2, replicasMinimum: 1, failureDomain: 'host' } as const
  const scene = await MetadataScene.open({ chunkServerCount: 1, placement })
  const session = await scene.session('client')
  const { inode, lease, chunk } = await writtenFile(session)
  await session.call('intent.clear', { inode, lease, chunks: [chunk] })
  const [first] = scene.chunkServers
  const second = scene.addChunkServer('cs2')
  second.refuse.set('replica.promote', 'REFUSED')
  second.start()
  await scene.until(() => second.ordersOf('replica.promote').length > 0)
  // Nobody else is there who could go on without it, and nothing changes the epoch.
  first?.crash()
  await scene.clock.advance(5000)
  const { version } = scene.chunk(chunk)
  assert.ok(scene.inSync(chunk).includes(second.server))
  second.refuse.clear()
  await scene.until(() => second.replicas.get(chunk)?.role === 'in-sync')
  assert.equal(scene.chunk(chunk).version, version)
})

test('whoever lost more than the authority does not help to heal it (rules J3, P1)', async () => {
  const scene = await MetadataScene.open({ chunkServerCount: 3, placement: three })
  const session = await scene.session('client')
  const { chunk } = await writtenFile(session)
  const [first, second, third] = scene.chunkServers
  first?.losePower()
  second?.crash()
  third?.crash()
  await scene.clock.advance(1000)
  for (const server of scene.chunkServers) server.start([chunk])
  await scene.until(() => scene.chunk(chunk).version > 1 && scene.chunk(chunk).pending === null)
  const orders = scene.chunkServers.flatMap((server) =>
    server.ordersOf('replica.heal').map((params) => ({ server, params })),
  )
  assert.ok(orders.length > 0)
  for (const { server, params } of orders) {
    const { peers } = params as { peers: { server: number }[] }
    assert.notEqual(server, first)
    const other = server === second ? third : second
    assert.deepEqual(
      peers.map((peer) => peer.server),
      [other?.server],
    )
  }
  assert.equal(scene.inSync(chunk).length, 3)
})

test('bad pages are repaired from the others; the replica stays (rule R1)', async () => {
  const scene = await MetadataScene.open({ chunkServerCount: 3, placement: three })
  const session = await scene.session('client')
  const { chunk } = await writtenFile(session)
  const [server] = scene.chunkServers
  server?.report('cs.badPages', { chunk, version: 1, pages: [3], reason: 'BAD_CHECKSUM' })
  await scene.until(() => scene.eventCodes().includes('PAGES_REPAIRED'))
  assert.equal(scene.chunk(chunk).version, 1)
})

test('more replicas are made when the norm rises, and surplus ones go when it falls', async () => {
  const scene = await MetadataScene.open({ chunkServerCount: 4, placement: three })
  const session = await scene.session('client')
  await session.mutate('admin.setConfig', { key: 'mds.gc.stale_grace', value: '1s' })
  const { inode, lease, chunk } = await writtenFile(session)
  await session.call('intent.clear', { inode, lease, chunks: [chunk] })
  const attributes = { replicasNormal: 4, replicasMinimum: 2 }
  await session.mutate('attr.set', { inode, recursive: false, attributes })
  await scene.until(() => scene.inSync(chunk).length === 4)
  await session.mutate('attr.set', {
    inode,
    recursive: false,
    attributes: { ...attributes, replicasNormal: 2 },
  })
  await scene.until(() => scene.inSync(chunk).length === 2)
  await scene.until(() => scene.chunkServers.filter((server) => server.replicas.has(chunk)).length === 2)
})

test('too many offline servers on too many hosts: the cluster fails, nothing is copied', async () => {
  const scene = await MetadataScene.open({ chunkServerCount: 7, placement: three })
  const session = await scene.session('client')
  await session.mutate('admin.setConfig', { key: 'mds.wd.offline_tout', value: '2s' })
  const { inode, lease, chunk } = await writtenFile(session)
  await session.call('intent.clear', { inode, lease, chunks: [chunk] })
  const before = scene.inSync(chunk)
  const victims = [
    ...scene
      .inSync(chunk)
      .slice(0, 1)
      .map((server) => scene.server(server)),
  ]
  victims.push(
    ...scene.chunkServers.filter((server) => !scene.inSync(chunk).includes(server.server)).slice(0, 2),
  )
  for (const victim of victims) victim.crash()
  await scene.until(() => scene.eventCodes().includes('CLUSTER_FAILURE'))
  await scene.clock.advance(10_000)
  const members = scene.chunk(chunk).members.map((member) => member.server)
  assert.ok(members.every((server) => before.includes(server)))
})
