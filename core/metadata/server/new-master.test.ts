/** A new master and the chunk servers that it has not heard of yet: they are awaited for a while, not silent. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { CHUNK_SIZE_BYTES } from '../../base/units.ts'
import type { FakeChunkServer } from '../../testing/fake-chunk-server.ts'
import { MetadataScene, type SceneSession } from '../../testing/metadata-scene.ts'

const three = { replicasNormal: 3, replicasMinimum: 2, failureDomain: 'host' } as const

async function written(session: SceneSession, name: string) {
  const inode = await session.createFile(name)
  const lease = await session.lease(inode)
  const grant = (index = 0) =>
    session.call('intent.grant', {
      ...{ inode, lease, indexes: [index], sizeLimit: (index + 1) * CHUNK_SIZE_BYTES },
    })
  const { locations } = await session.insist(() => grant())
  const { chunk = 0, version = 0 } = locations[0] ?? {}
  return { inode, lease, chunk, version, grant }
}

/** A chunk with a writer on three servers; `changeMaster`: only the first one gets through to the next master. */
async function scene(replicasMinimum = 2) {
  const placement = { ...three, replicasMinimum }
  const stage = await MetadataScene.open({ chunkServerCount: 3, placement })
  const session = await stage.session('client')
  await session.mutate('admin.setConfig', { key: 'mds.wd.inactive_tout', value: '60s' })
  const file = await written(session, 'file')
  const [first, ...late] = stage.chunkServers
  assert.ok(first !== undefined)
  const changeMaster = async (cutOff: readonly FakeChunkServer[] = late): Promise<void> => {
    stage.crashMetadataServer()
    // They notice with their next heartbeat.
    for (const server of stage.chunkServers) server.isRegistered = false
    for (const server of cutOff) stage.network.partition(server.name, 'mds')
    await stage.startMetadataServer()
    await stage.until(() =>
      stage.chunkServers.every((server) => cutOff.includes(server) || server.isRegistered),
    )
  }
  const heal = async (servers: readonly FakeChunkServer[]): Promise<void> => {
    for (const server of servers) stage.network.heal(server.name, 'mds')
    await stage.until(() => servers.every((server) => server.isRegistered))
  }
  return { stage, session, first, late, changeMaster, heal, ...file }
}

test('a chunk with a writer keeps members that register with a new master a little later', async () => {
  const { stage, session, late, changeMaster, heal, chunk, version, grant } = await scene()
  await changeMaster()
  await session.resume()
  await stage.clock.advance(1500)
  await assert.rejects(grant(), { code: 'TRY_AGAIN' })
  await assert.rejects(grant(1), { code: 'TRY_AGAIN' })
  const report = session.call('chunk.locate', { inode: stage.chunk(chunk).inode, indexes: [0] })
  assert.equal((await report).locations[0]?.version, version, 'readers go on')
  assert.equal(stage.chunk(chunk).pending, null)
  await heal(late)
  await session.insist(() => grant())
  await stage.clock.advance(10_000)
  assert.equal(stage.chunk(chunk).version, version)
  assert.equal(stage.inSync(chunk).length, 3)
  assert.ok(!stage.eventCodes().includes('ALLOCATION_FAILED'), 'nothing was short')
})

test('nobody that a new master awaits becomes inactive meanwhile, however short that time is (rules F5, J3)', async () => {
  const { stage, session, late, changeMaster, heal, chunk, version } = await scene()
  await session.mutate('admin.setConfig', { key: 'mds.wd.inactive_tout', value: '1s' })
  await changeMaster()
  await stage.clock.advance(4000)
  assert.deepEqual(
    late.map(({ server }) => stage.mds.state.servers.get(server)?.state),
    ['active', 'active'],
  )
  await heal(late)
  await stage.clock.advance(2000)
  assert.deepEqual([stage.chunk(chunk).version, stage.inSync(chunk).length], [version, 3])
})

test('a new chunk is not made of the one server that a new master has heard of first', async () => {
  const { stage, session, changeMaster, chunk, grant } = await scene(1)
  await changeMaster()
  await session.resume()
  await assert.rejects(grant(1), { code: 'TRY_AGAIN' })
  assert.equal(stage.mds.state.condemned.size, 0, 'nothing was begun')
  // those that do not come soon are not waited for: `min` is enough
  await stage.clock.advance(2000)
  const { locations } = await grant(1)
  assert.equal(locations[0]?.members.length, 1)
  assert.equal(stage.inSync(chunk).length, 3, 'what they have is')
})

test('a grant waits for nobody when all members of its chunk have registered', async () => {
  const { stage, session, changeMaster, first } = await scene()
  stage.addChunkServer('cs4').start()
  await stage.until(() => stage.chunkServers.every((server) => server.isRegistered))
  let file = await written(session, 'other')
  for (let at = 0; stage.inSync(file.chunk).includes(first.server); at++)
    file = await written(session, `other ${at}`)
  await changeMaster([first])
  await session.resume()
  const { locations } = await file.grant()
  assert.equal(locations[0]?.version, file.version)
})

test('members that do not register within the grace leave, long before they count as inactive', async () => {
  const { stage, session, changeMaster, first, chunk } = await scene()
  await changeMaster()
  await session.resume()
  await stage.clock.advance(3500)
  assert.equal(stage.inSync(chunk).length, 3)
  await stage.until(() => stage.inSync(chunk).length === 1 && stage.chunk(chunk).pending === null)
  assert.deepEqual(stage.inSync(chunk), [first.server])
})

test('a server that is still at its report is awaited for longer', async () => {
  const { stage, session, first, late, changeMaster, heal, chunk } = await scene()
  await changeMaster()
  await session.resume()
  const [gone, slow] = late
  assert.ok(gone !== undefined && slow !== undefined)
  stage.network.heal(slow.name, 'mds')
  await stage.until(() => stage.mds.control.replication.connections.has(slow.server))
  stage.network.blockOneWay(slow.name, 'mds')
  await stage.clock.advance(8000)
  assert.equal(slow.isRegistered, false)
  assert.equal(stage.inSync(chunk).length, 3)
  await heal([slow])
  await stage.until(() => stage.inSync(chunk).length === 2 && stage.chunk(chunk).pending === null)
  assert.deepEqual(
    stage.inSync(chunk),
    [first.server, slow.server].toSorted((a, b) => a - b),
  )
})

test('a client that cannot reach a server either ends the wait for it, and for no other', async () => {
  const { stage, session, late, changeMaster, heal, chunk, version, inode, grant } = await scene()
  await changeMaster()
  await session.resume()
  const [gone, slow] = late
  assert.ok(gone !== undefined && slow !== undefined)
  const report = {
    chunk,
    inode,
    version,
    server: gone.server,
    reason: 'DISCONNECTED',
    kind: 'failed',
  } as const
  await session.insist(() => session.call('chunk.report', report))
  await stage.clock.advance(100)
  assert.equal(stage.chunk(chunk).version, version, 'the other one may still come')
  await heal([slow])
  await session.insist(() => grant())
  assert.ok(!stage.inSync(chunk).includes(gone.server))
  assert.ok(stage.inSync(chunk).includes(slow.server))
})

test('a server that is still at its report is asked before a client is believed (rule A1)', async () => {
  const { stage, session, late, changeMaster, chunk, version, inode } = await scene(3)
  const [slow] = late
  assert.ok(slow !== undefined)
  await changeMaster([slow])
  await session.resume()
  stage.network.setDelay(slow.name, 'mds', 800)
  stage.network.heal(slow.name, 'mds')
  await stage.until(() => stage.mds.control.replication.connections.has(slow.server))
  const report = {
    chunk,
    inode,
    version,
    server: slow.server,
    reason: 'DISCONNECTED',
    kind: 'failed',
  } as const
  await assert.rejects(session.call('chunk.report', report), { code: 'TRY_AGAIN' })
  await stage.until(() => slow.isRegistered)
  assert.equal(stage.chunk(chunk).version, version)
  assert.equal(stage.inSync(chunk).length, 3)
})

test('a pending epoch does not lose members that a new master has yet to hear of (rule E1)', async () => {
  const { stage, session, late, changeMaster, heal, chunk } = await scene()
  // what a dead writer leaves behind is pending when the master changes
  for (const server of stage.chunkServers) server.refuse.set('replica.persist', 'OVERLOADED')
  session.crash()
  await stage.until(() => stage.chunk(chunk).pending !== null)
  for (const server of stage.chunkServers) server.refuse.clear()
  await changeMaster()
  await stage.clock.advance(3000)
  assert.equal(stage.chunk(chunk).pending?.members.length, 3)
  await heal(late)
  await stage.until(() => stage.chunk(chunk).pending === null)
  assert.equal(stage.inSync(chunk).length, 3)
})

test('what a dead writer left waits for members that a new master has yet to hear of (rule J3)', async () => {
  const { stage, session, late, changeMaster, heal, chunk, version } = await scene()
  session.crash()
  await stage.until(() => stage.mds.state.leases.size === 0)
  // the verdict on the writer is in the log, and nobody could follow it yet
  assert.ok(stage.chunk(chunk).version === version && stage.chunk(chunk).dirtyDead)
  await changeMaster()
  await stage.clock.advance(3000)
  assert.equal(stage.chunk(chunk).version, version)
  await heal(late)
  await stage.until(() => stage.chunk(chunk).version > version && stage.chunk(chunk).pending === null)
  assert.equal(stage.inSync(chunk).length, 3)
})

test('a new master counts the time until a silent server is given up from its own start (rule L11)', async () => {
  const { stage, session, first, changeMaster } = await scene()
  await session.mutate('admin.setConfig', { key: 'mds.wd.inactive_tout', value: '2s' })
  await session.mutate('admin.setConfig', { key: 'mds.wd.offline_tout', value: '20s' })
  const stateOf = () => stage.mds.state.servers.get(first.server)?.state
  first.crash()
  await stage.until(() => stateOf() === 'inactive')
  await stage.clock.advance(15_000)
  await changeMaster([first])
  await stage.clock.advance(15_000)
  assert.equal(stateOf(), 'inactive')
  await stage.until(() => stateOf() === 'offline')
})

test('a new master counts the grace of condemned replicas from its own start (rules L11, G1)', async () => {
  const { stage, session, first, changeMaster, chunk, inode, lease } = await scene()
  await session.mutate('admin.setConfig', { key: 'mds.gc.grace', value: '20s' })
  await session.mutate('lease.truncate', { inode, lease, size: 0 })
  await stage.until(() => stage.mds.state.condemned.size > 0)
  await stage.clock.advance(15_000)
  await changeMaster([])
  await stage.clock.advance(15_000)
  assert.ok(first.replicas.has(chunk))
  await stage.until(() => !first.replicas.has(chunk))
})

test('a server whose disk died while there was no master registers in vain, and is given up', async () => {
  const { stage, session, first, changeMaster } = await scene()
  await session.mutate('admin.setConfig', { key: 'mds.wd.inactive_tout', value: '2s' })
  await session.mutate('admin.setConfig', { key: 'mds.wd.offline_tout', value: '5s' })
  first.isDiskDead = true
  await changeMaster([first])
  stage.network.heal(first.name, 'mds')
  await stage.until(() => stage.mds.state.servers.get(first.server)?.state === 'offline')
})
