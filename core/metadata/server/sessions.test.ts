/** Sessions over time: when they expire, and what keeps them alive (rules L1, L2, L6). */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { MetadataScene } from '../../testing/metadata-scene.ts'

const placement = { replicasNormal: 1, replicasMinimum: 1, failureDomain: 'host' } as const
/** mds.session_tout x 1.1 / 0.9. */
const EXPIRY_MS = 5000 * (1.1 / 0.9)

test('a silent session keeps its leases for session_tout x 1.1 / 0.9, then loses them (rules L1, L2)', async () => {
  const scene = await MetadataScene.open({ chunkServerCount: 1, placement })
  const session = await scene.session('client')
  const inode = await session.createFile('file')
  const lease = await session.lease(inode)
  session.crash()
  await scene.clock.advance(EXPIRY_MS - 1000)
  assert.ok(scene.mds.state.leases.has(lease))
  await scene.clock.advance(1600)
  assert.ok(!scene.mds.state.leases.has(lease))
  assert.ok(!scene.mds.state.sessions.has(session.id))
})

test('a session that resumes in time keeps everything; a wrong secret or an ended session does not', async () => {
  const scene = await MetadataScene.open({ chunkServerCount: 1, placement })
  const session = await scene.session('client')
  const inode = await session.createFile('file')
  const lease = await session.lease(inode)
  session.crash()
  await scene.clock.advance(4000)
  await session.resume([inode])
  await scene.clock.advance(20_000)
  assert.ok(scene.mds.state.leases.has(lease))
  const thief = await scene.session('thief')
  const theft = { session: session.id, secret: 'guess', openInodes: [] }
  await assert.rejects(thief.call('session.resume', theft), { code: 'NO_SESSION' })
  session.crash()
  await scene.clock.advance(10_000)
  await assert.rejects(session.resume(), { code: 'NO_SESSION' })
})

test('a new master counts every session from its own start (rule L1)', async () => {
  const scene = await MetadataScene.open({ chunkServerCount: 1, placement })
  const session = await scene.session('client')
  const inode = await session.createFile('file')
  const lease = await session.lease(inode)
  session.crash()
  await scene.clock.advance(4000)
  scene.crashMetadataServer()
  await scene.clock.advance(60_000)
  await scene.startMetadataServer()
  await scene.clock.advance(EXPIRY_MS - 1000)
  assert.ok(scene.mds.state.leases.has(lease))
  await session.resume([inode])
  await scene.clock.advance(20_000)
  assert.ok(scene.mds.state.leases.has(lease))
})

test('once its expiry is proposed a session is confirmed no more, however it ends (rule L1)', async () => {
  const scene = await MetadataScene.open({ chunkServerCount: 1, placement })
  const session = await scene.session('client')
  const lease = await session.lease(await session.createFile('file'))
  scene.network.blockOneWay('client', 'mds')
  const renewal = session.start('session.renew', {})
  await scene.until(() => scene.mds.control.sessions.get(session.id)?.isExpiring === true)
  // what was sent before arrives while the outcome is not known
  scene.network.heal('client', 'mds')
  await assert.rejects(scene.clock.settled(renewal), { code: 'TRY_AGAIN' })
  await scene.until(() => !scene.mds.state.leases.has(lease))
})

test('an unlinked open file stays through a restart until its session closes it (rule T2)', async () => {
  const scene = await MetadataScene.open({ chunkServerCount: 1, placement })
  const session = await scene.session('client')
  const inode = await session.createFile('file')
  await session.mutate('fs.unlink', { parent: 1, name: 'file' })
  scene.crashMetadataServer()
  await scene.startMetadataServer()
  await scene.clock.advance(2000)
  assert.ok(scene.mds.state.inodes.has(inode), 'nobody has said yet that it is closed')
  await session.resume([inode])
  await scene.clock.advance(2000)
  assert.ok(scene.mds.state.inodes.has(inode))
  await session.call('fs.close', { inodes: [inode] })
  await scene.until(() => !scene.mds.state.inodes.has(inode))
})

test('requests without a session are refused; an administrator may ask without one', async () => {
  const scene = await MetadataScene.open({ chunkServerCount: 1, placement })
  const session = await scene.session('client')
  await session.call('session.close', {})
  await assert.rejects(session.call('fs.getattr', { inode: 1 }), { code: 'NO_SESSION' })
  const statistics = (await session.call('admin.stat', {})) as { cs: unknown[]; chunks: { total: number } }
  assert.equal(statistics.cs.length, 1)
  const { values } = await session.call('admin.getConfig', {})
  assert.equal(values['mds.wd.offline_tout'], '5min')
})
