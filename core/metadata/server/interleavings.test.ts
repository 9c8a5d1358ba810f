/** Situations that a hostile reading of the data-safety rules came up with, on the side that decides. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { CHUNK_SIZE_BYTES, MIB } from '../../base/units.ts'
import { MetadataScene, type SceneSession } from '../../testing/metadata-scene.ts'

const three = { replicasNormal: 3, replicasMinimum: 2, failureDomain: 'host' } as const

async function granted(session: SceneSession, indexes: number[]) {
  const inode = await session.createFile('file')
  const lease = await session.lease(inode)
  const sizeLimit = indexes.length * CHUNK_SIZE_BYTES
  const { locations } = await session.insist(() =>
    session.call('intent.grant', { inode, lease, indexes, sizeLimit }),
  )
  return { inode, lease, chunks: locations.map((location) => location.chunk), locations }
}

test('of members that all restarted uncleanly the one whose host stayed up is the authority (rule J3)', async () => {
  const scene = await MetadataScene.open({ chunkServerCount: 3, placement: three })
  const session = await scene.session('client')
  const { chunks } = await granted(session, [0])
  const [chunk = 0] = chunks
  const [first, second, third] = scene.chunkServers
  assert.ok(first !== undefined && second !== undefined && third !== undefined)
  // only the page cache of the second has everything that was acknowledged
  first.losePower()
  second.crash()
  third.losePower()
  await scene.clock.advance(1000)
  for (const server of scene.chunkServers) server.start([chunk])
  await scene.until(() => scene.chunk(chunk).version > 1 && scene.chunk(chunk).pending === null)
  const healed = scene.chunkServers.filter((server) => server.ordersOf('replica.heal').length > 0)
  assert.deepEqual(
    healed.map((server) => server.name),
    [second.name],
  )
})

test('a member that falls silent while a new epoch waits for it is waited for, not replaced by a crashed one (rule J3)', async () => {
  const placement = { ...three, replicasNormal: 2, replicasMinimum: 1 }
  const scene = await MetadataScene.open({ chunkServerCount: 2, placement })
  const session = await scene.session('client')
  const { chunks } = await granted(session, [0])
  const [chunk = 0] = chunks
  const [whole, crashed] = scene.chunkServers
  assert.ok(whole !== undefined && crashed !== undefined)
  // nobody has noticed yet when the other one is back from its power loss
  scene.network.partition(whole.name, 'mds')
  crashed.losePower()
  crashed.start([chunk])
  await scene.until(() => scene.chunk(chunk).pending !== null)
  await scene.until(() => scene.mds.state.servers.get(whole.server)?.state === 'inactive')
  await scene.clock.advance(5000)
  assert.deepEqual(crashed.ordersOf('replica.heal'), [], 'it is no authority')
  scene.network.heal(whole.name, 'mds')
  await scene.until(() => scene.inSync(chunk).length === 2 && scene.chunk(chunk).pending === null)
  assert.deepEqual(crashed.ordersOf('replica.heal'), [])
  assert.equal(crashed.ordersOf('replica.join').length, 1)
})

test('an epoch whose only in-sync member crashed after it had persisted it does not become active (rules E1, J3)', async () => {
  const placement = { ...three, replicasNormal: 2, replicasMinimum: 2 }
  const scene = await MetadataScene.open({ chunkServerCount: 3, placement })
  const session = await scene.session('client')
  const { chunks, locations } = await granted(session, [0])
  const [chunk = 0] = chunks
  const [silent, crashed] = locations[0]?.members.map((member) => scene.server(member.server)) ?? []
  const joiner = scene.chunkServers.find((server) => server !== silent && server !== crashed)
  assert.ok(silent !== undefined && crashed !== undefined && joiner !== undefined)
  scene.network.setDelay('mds', joiner.name, 1000)
  silent.crash()
  await scene.until(() => crashed.replicas.get(chunk)?.version === 2)
  await scene.clock.advance(50)
  crashed.losePower()
  crashed.start([chunk])
  await scene.clock.advance(500)
  assert.notEqual(scene.chunk(chunk).pending, null, 'the joiner has not answered yet')
  // it was silent only and has everything
  silent.start()
  await scene.until(() => scene.chunk(chunk).pending === null && scene.inSync(chunk).length === 2)
  assert.deepEqual(crashed.ordersOf('replica.heal'), [], 'it is no authority')
  assert.ok(scene.inSync(chunk).includes(silent.server))
})

test('nothing is created for a chunk that went with its file while its joiner was away (rule E12)', async () => {
  const placement = { ...three, replicasNormal: 2, replicasMinimum: 2 }
  const scene = await MetadataScene.open({ chunkServerCount: 3, placement })
  const session = await scene.session('client')
  const { inode, lease, chunks, locations } = await granted(session, [0])
  const [chunk = 0] = chunks
  const members = locations[0]?.members.map((member) => scene.server(member.server)) ?? []
  const joiner = scene.chunkServers.find((server) => !members.includes(server))
  assert.ok(joiner !== undefined)
  scene.network.partition(joiner.name, 'mds')
  members[0]?.crash()
  await scene.until(() => members[1]?.replicas.get(chunk)?.version === 2)
  await session.mutate('lease.truncate', { inode, lease, size: 0 })
  assert.equal(scene.mds.state.chunks.get(chunk), undefined)
  joiner.crash()
  scene.network.heal(joiner.name, 'mds')
  joiner.start()
  await scene.clock.advance(20_000)
  assert.ok(joiner.isRegistered)
  assert.ok(!joiner.replicas.has(chunk), 'nobody would ever delete it')
})

test('a new holder is told what a dead one left dirty in front of the end of the file (rule F4)', async () => {
  const scene = await MetadataScene.open({ chunkServerCount: 3, placement: three })
  const first = await scene.session('first')
  const second = await scene.session('second')
  const { inode, lease, chunks } = await granted(first, [0, 1])
  await first.mutate('lease.update', { inode, lease, size: CHUNK_SIZE_BYTES + 10 })
  await first.call('intent.clear', { inode, lease, chunks: chunks.slice(1) })
  for (const server of scene.chunkServers) server.joinsHang = true
  first.crash()
  const answer = await second.insist(() => second.mutate('lease.acquire', { inode, pinned: false }))
  assert.deepEqual(answer.dirty, [0])
  await assert.rejects(second.call('chunk.locate', { inode, indexes: [0] }), { code: 'TRY_AGAIN' })
})

test('of very many chunks of a dead writer the one that somebody waits for is reconciled first (rule L8)', async () => {
  const scene = await MetadataScene.open({ chunkServerCount: 3, placement: three })
  const first = await scene.session('first')
  const second = await scene.session('second')
  const { inode, lease } = await granted(first, [0])
  const count = 160
  const sizeLimit = count * CHUNK_SIZE_BYTES
  const chunkAt = new Map<number, number>()
  for (let begin = 0; begin < count; begin += 32) {
    const indexes = Array.from({ length: 32 }, (_, number) => begin + number)
    const grant = () => first.call('intent.grant', { inode, lease, indexes, sizeLimit })
    for (const { chunk, index } of (await first.insist(grant)).locations) chunkAt.set(index, chunk)
  }
  for (const server of scene.chunkServers) server.joinsHang = true
  first.crash()
  const healed = (): number[] =>
    scene.chunkServers.flatMap((server) =>
      server.ordersOf('replica.heal').map((order) => (order as { chunk: number }).chunk),
    )
  await scene.until(() => healed().length === 32)
  await scene.clock.advance(1000)
  assert.equal(healed().length, 32, 'the rest waits for those that run')
  const last = chunkAt.get(count - 1) ?? 0
  assert.ok(!healed().includes(last))
  const located = second.call('chunk.locate', { inode, indexes: [count - 1] })
  await scene.until(() => healed().includes(last))
  for (const server of scene.chunkServers) {
    const share = server.ordersOf('replica.heal').length
    assert.ok(share > 7 && share < 15, `the authorities are spread: ${share} of 33`)
  }
  await assert.rejects(located, { code: 'TRY_AGAIN' })
})

test('a bad page is not declared lost behind the back of a silent member (rule J7)', async () => {
  const scene = await MetadataScene.open({ chunkServerCount: 3, placement: three })
  const session = await scene.session('client')
  const { inode, lease, chunks, locations } = await granted(session, [0])
  const [chunk = 0] = chunks
  await session.call('intent.clear', { inode, lease, chunks })
  const [bad = 0, silent = 0] = locations[0]?.members.map((member) => member.server) ?? []
  scene.server(silent).crash()
  await scene.until(() => scene.mds.state.servers.get(silent)?.state === 'inactive')
  assert.ok(scene.inSync(chunk).includes(silent), 'nothing is being written that it could miss')
  scene.server(bad).report('cs.badPages', { chunk, version: 1, pages: [7], reason: 'does not verify' })
  await scene.until(() => scene.server(bad).ordersOf('replica.repair').length > 0)
  const [order] = scene.server(bad).ordersOf('replica.repair') as { sources: { server: number }[] }[]
  assert.ok(order?.sources.some((source) => source.server === silent))
})

test('while nobody in sync has a page, those that left are asked, and not collected (rules J7, G2)', async () => {
  const scene = await MetadataScene.open({ chunkServerCount: 4, placement: three })
  const session = await scene.session('client')
  await session.mutate('admin.setConfig', { key: 'mds.gc.stale_grace', value: '10s' })
  await session.mutate('admin.setConfig', { key: 'mds.gc.grace', value: '0s' })
  await session.mutate('admin.setConfig', { key: 'mds.wd.offline_tout', value: '2s' })
  const { inode, lease, chunks, locations } = await granted(session, [0])
  const [chunk = 0] = chunks
  const [bad = 0, left = 0] = locations[0]?.members.map((member) => member.server) ?? []
  await session.call('intent.clear', { inode, lease, chunks })
  scene.server(left).crash()
  for (const server of scene.chunkServers) server.refuse.set('replica.repair', 'TRY_AGAIN')
  const tell = (): void => {
    const { version } = scene.chunk(chunk)
    scene.server(bad).report('cs.badPages', { chunk, version, pages: [7], reason: 'does not verify' })
  }
  await scene.until(() => scene.inSync(chunk).length === 3 && !scene.inSync(chunk).includes(left))
  scene.server(left).start([chunk])
  await scene.until(() => scene.mds.state.servers.get(left)?.state === 'active')
  tell()
  await scene.until(() => scene.server(bad).ordersOf('replica.repair').length > 0)
  const [order] = scene.server(bad).ordersOf('replica.repair') as {
    sources: { server: number }[]
    formers: { server: number }[]
  }[]
  assert.deepEqual(
    order?.formers.map(({ server }) => server),
    [left],
  )
  assert.ok(!order.sources.some(({ server }) => server === left))
  await scene.clock.advance(30_000)
  assert.ok(scene.server(left).replicas.has(chunk), 'it may have the last good copy')
  for (const server of scene.chunkServers) server.refuse.delete('replica.repair')
  tell()
  await scene.until(() => !scene.server(left).replicas.has(chunk))
})

test('a session number without its secret opens nothing; a connection without a session gets nothing', async () => {
  const scene = await MetadataScene.open({ chunkServerCount: 3, placement: three })
  const first = await scene.session('first')
  const second = await scene.session('second')
  const { inode, lease, chunks } = await granted(first, [0])
  const session = scene.mds.state.leases.get(lease)?.session ?? 0
  await assert.rejects(second.call('session.resume', { session, secret: 'guessed', openInodes: [] }), {
    code: 'NO_SESSION',
  })
  // a lease is known by its number, which is easy to guess: it works in its own session only
  await assert.rejects(second.call('intent.clear', { inode, lease, chunks }), { code: 'NO_LEASE' })
  const grant = { inode, lease, indexes: [1], sizeLimit: MIB }
  await assert.rejects(second.call('intent.grant', grant), { code: 'NO_LEASE' })
  for (const method of ['lease.update', 'lease.release'] as const) {
    await assert.rejects(second.mutate(method, { inode, lease, size: 1 }), { code: 'NO_LEASE' })
  }
  await assert.rejects(second.mutate('lease.truncate', { inode, lease, size: 0 }), { code: 'NO_LEASE' })
  await assert.rejects(second.mutate('lease.unmap', { inode, lease, indexes: [0] }), { code: 'NO_LEASE' })
  assert.ok(scene.mds.state.leases.has(lease))
  assert.equal(scene.chunk(chunks[0] ?? 0).intentLease, lease)
})

test('a joiner that restarted joins under a new version, one that only registers again under the same (rules J4, E11)', async () => {
  const scene = await MetadataScene.open({ chunkServerCount: 3, placement: three })
  const session = await scene.session('client')
  const { chunks } = await granted(session, [0])
  const [chunk = 0] = chunks
  const [joiner] = scene.chunkServers
  assert.ok(joiner !== undefined)
  joiner.joinsHang = true
  const roleOf = () => scene.chunk(chunk).members.find(({ server }) => server === joiner.server)?.role
  const isJoining = () => roleOf() === 'joining' && scene.chunk(chunk).pending === null
  joiner.crash()
  joiner.start([chunk])
  await scene.until(isJoining)
  const { version } = scene.chunk(chunk)
  // an order to join without an answer would raise the version, too
  const ordered = async (count: number) => {
    await scene.until(() => joiner.ordersOf('replica.join').length === count)
    await scene.clock.advance(100)
  }
  await ordered(1)

  scene.network.cut(joiner.name, 'mds')
  await ordered(2)
  assert.equal(scene.chunk(chunk).version, version)

  // a clean stop: what it had answered is there, but nobody knows of which pages the source has it, too
  const replica = joiner.replicas.get(chunk)
  assert.ok(replica !== undefined)
  replica.unclean = false
  joiner.crash()
  joiner.start()
  await scene.until(() => scene.chunk(chunk).version > version && isJoining())
  await ordered(joiner.ordersOf('replica.join').length + 1)
  const restarted = scene.chunk(chunk).version
  joiner.crash()
  joiner.start([chunk])
  await scene.until(() => scene.chunk(chunk).version > restarted && isJoining())
  joiner.joinsHang = false
  joiner.crash()
  joiner.start([chunk])
  await scene.until(() => scene.inSync(chunk).length === 3 && scene.chunk(chunk).pending === null)
})

test('a member that restarted stays where min needs it; the chunk begins anew (rules A1, F6)', async () => {
  const placement = { replicasNormal: 2, replicasMinimum: 2, failureDomain: 'host' } as const
  const scene = await MetadataScene.open({ chunkServerCount: 2, placement })
  const session = await scene.session('client')
  const { inode, chunks } = await granted(session, [0])
  const [chunk = 0] = chunks
  const [server = 0] = scene.inSync(chunk)
  const report = { inode, chunk, version: 1, server, reason: 'WRONG_INCARNATION', kind: 'failed' } as const
  await assert.rejects(session.call('chunk.report', report), { code: 'TRY_AGAIN' })
  await scene.until(() => scene.chunk(chunk).version === 2)
  assert.equal(scene.inSync(chunk).length, 2)
})

test('who returns while its replacement is being copied joins beside it; the first in sync stays (rule J10)', async () => {
  const scene = await MetadataScene.open({ chunkServerCount: 4, placement: three })
  const session = await scene.session('client')
  await session.mutate('admin.setConfig', { key: 'mds.wd.offline_tout', value: '2s' })
  await session.mutate('admin.setConfig', { key: 'mds.gc.stale_grace', value: '1s' })
  const { chunks } = await granted(session, [0])
  const [chunk = 0] = chunks
  const [away = 0] = scene.inSync(chunk)
  const spare = scene.chunkServers.find(({ server }) => !scene.inSync(chunk).includes(server))
  assert.ok(spare !== undefined)
  spare.joinsHang = true
  scene.server(away).crash()
  const isCopying = () =>
    scene.chunk(chunk).members.some(({ server, role }) => server === spare.server && role === 'joining')
  await scene.until(() => isCopying() && spare.ordersOf('replica.join').length > 0)
  scene.server(away).start([chunk])
  await scene.until(() => scene.inSync(chunk).includes(away))
  assert.ok(
    scene.server(away).ordersOf('replica.create').length <= 1,
    'its replica was compared, not made anew',
  )
  await scene.until(() => !isCopying())
  await scene.until(() => !spare.replicas.has(chunk))
  assert.equal(scene.inSync(chunk).length, 3)
})

test('a chunk that comes into the list while another one is waited for is no hole (rule E4)', async () => {
  const scene = await MetadataScene.open({ chunkServerCount: 6, placement: three })
  const session = await scene.session('client')
  const { inode, lease, chunks, locations } = await granted(session, [1])
  const [chunk = 0] = chunks
  await session.call('intent.clear', { inode, lease, chunks })
  const late = scene.server(locations[0]?.members[0]?.server ?? 0)
  // a fourth replica: the epoch stays pending while this member does not answer
  scene.network.partition(late.name, 'mds')
  await session.mutate('attr.set', {
    inode,
    recursive: false,
    attributes: { replicasNormal: 4, replicasMinimum: 2 },
  })
  await scene.until(() => scene.chunk(chunk).pending !== null)
  const reader = await scene.session('reader')
  const locating = reader.start('chunk.locate', { inode, indexes: [0, 1] })
  const grant = { inode, lease, indexes: [0], sizeLimit: CHUNK_SIZE_BYTES }
  await session.insist(() => session.call('intent.grant', grant))
  assert.notEqual(scene.chunk(chunk).pending, null, 'it is waited for still')
  scene.network.heal(late.name, 'mds')
  const answer = await scene.clock.settled(locating)
  assert.deepEqual(new Set(answer.locations.map(({ index }) => index)), new Set([0, 1]))
})

test('a join that fails while its source is silent is tried again when that is back (rules J6, J10)', async () => {
  const placement = { ...three, replicasNormal: 2, replicasMinimum: 1 }
  const scene = await MetadataScene.open({ chunkServerCount: 2, placement })
  const session = await scene.session('client')
  const { chunks } = await granted(session, [0])
  const [chunk = 0] = chunks
  const [source, joiner] = scene.chunkServers
  assert.ok(source !== undefined && joiner !== undefined)
  joiner.crash()
  await scene.until(() => scene.inSync(chunk).length === 1)
  joiner.joinsHang = true
  joiner.start([chunk])
  await scene.until(() => joiner.ordersOf('replica.join').length === 1)
  scene.network.partition(source.name, 'mds')
  await scene.until(() => scene.mds.state.servers.get(source.server)?.state === 'inactive')
  const { version, attempt } = joiner.ordersOf('replica.join')[0] as { version: number; attempt: number }
  joiner.report('cs.joinFailed', { chunk, version, attempt, reason: 'DISCONNECTED' })
  await scene.clock.advance(1000)
  joiner.joinsHang = false
  scene.network.heal(source.name, 'mds')
  await scene.until(() => scene.inSync(chunk).length === 2)
})
