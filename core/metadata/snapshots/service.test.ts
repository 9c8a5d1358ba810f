// Proves, with the whole metadata server and fake chunk servers, that a snapshot waits for its writer (rule S1), that
// children are overlays on the members in sync, and that merging lets parents go (rules S3, S5).
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { MetadataScene, type SceneSession } from '../../testing/metadata-scene.ts'

const MIB = 2 ** 20

async function open(chunkServerCount = 3) {
  const placement = { replicasNormal: 3, replicasMinimum: 2, failureDomain: 'host' as const }
  const scene = await MetadataScene.open({ chunkServerCount, placement })
  const writer = await scene.session('writer')
  const admin = await scene.session('admin')
  const inode = await writer.createFile('file')
  const lease = await writer.lease(inode)
  const grant = (indexes: number[], by: SceneSession = writer, of = lease) =>
    by.insist(() => by.call('intent.grant', { inode, lease: of, indexes, sizeLimit: 2 * 64 * MIB }))
  const clear = (chunks: number[]) => writer.call('intent.clear', { inode, lease, chunks })
  const create = (name: string) =>
    admin.mutate('snapshot.create', { inode, name, path: '/file' }).then(({ snapshot }) => snapshot)
  const chunksOf = async (holder: number) => {
    const { locations } = await admin.call('chunk.locate', { inode: holder, indexes: [0, 1] })
    return locations.map(({ chunk }) => chunk)
  }
  return { scene, writer, admin, inode, lease, grant, clear, create, chunksOf }
}

test('S1: a snapshot pauses the writer, who flushes and gives back its intents and keeps its lease', async () => {
  const { scene, writer, inode, lease, grant, clear, create, chunksOf } = await open()
  const { locations } = await grant([0, 1])
  const chunks = locations.map(({ chunk }) => chunk)
  let isCleared = false
  writer.onPause = ({ lease: paused }) => {
    assert.equal(paused, lease)
    // What has begun gets what it needs to end.
    void writer.start('intent.grant', { inode, lease, indexes: [0], sizeLimit: 1 }).then(async () => {
      await writer.start('intent.clear', { inode, lease, chunks })
      isCleared = true
    })
  }
  const snapshot = await create('one')
  assert.ok(isCleared)
  assert.deepEqual(await chunksOf(snapshot), chunks)
  assert.equal(scene.mds.state.leaseByInode.get(inode), lease, 'the lease stays')
  const after = await grant([0])
  const child = after.locations[0]?.chunk ?? 0
  assert.ok(child > Math.max(...chunks))
  assert.deepEqual(await chunksOf(inode), [child, chunks[1]])
  for (const server of scene.chunkServers) assert.equal(server.replicas.get(child)?.parent, chunks[0])
  await clear([child])
  scene.crashMetadataServer()
})

test('S1: while a snapshot waits for what a dead writer left nobody gets an intent', async () => {
  const { scene, writer, admin, inode, lease, grant } = await open()
  await writer.mutate('lease.update', { inode, lease, size: 70 * MIB })
  await grant([0])
  for (const server of scene.chunkServers) server.joinsHang = true
  writer.crash()
  await scene.until(() => scene.mds.state.chunks.dirtyDeadCount === 1, 'dirty')
  const other = await scene.session('other')
  const next = await other.lease(inode)
  const ask = () => other.call('intent.grant', { inode, lease: next, indexes: [1], sizeLimit: 2 * 64 * MIB })
  const asked = admin.mutateLater('snapshot.create', { inode, name: 'one', path: '' })
  asked.catch(() => {})
  await scene.clock.advance(100)
  await assert.rejects(ask(), { code: 'TRY_AGAIN' })
  await scene.clock.advance(20_000)
  assert.equal((await ask()).locations.length, 1, 'nobody asks for the snapshot any more')
})

test('a chunk server that does not know overlays is not asked for any: it would make empty replicas', async () => {
  const { scene, grant, clear, create } = await open(3)
  const [chunk = 0] = (await grant([0])).locations.map((location) => location.chunk)
  await clear([chunk])
  const [older] = scene.chunkServers
  if (older === undefined) throw new Error('no server')
  const restart = async (knows: boolean) => {
    older.crash()
    older.knowsOverlays = knows
    older.start()
    await scene.until(() => older.isRegistered && scene.inSync(chunk).length === 3)
  }
  await restart(false)
  await assert.rejects(create('refused'), { code: 'FEATURE_LEVEL', message: /update it/ })
  await restart(true)
  await create('one')
  await restart(false)
  const child = (await grant([0])).locations[0]?.chunk ?? 0
  assert.notEqual(child, chunk)
  assert.ok(!older.replicas.has(child))
  assert.equal(scene.mds.state.chunks.sharing.overlays(child).length, 2)
})

test('S1: a writer that does not pause keeps the file: EBUSY, and it gets its intents again', async () => {
  const { writer, admin, grant, create } = await open()
  await grant([0])
  await assert.rejects(
    admin.insist(() => create('one')),
    { code: 'EBUSY' },
  )
  assert.ok(writer.pauses.length > 0)
  const { locations } = await grant([0, 1])
  assert.equal(locations.length, 2)
})

test('S1: what a dead writer left is reconciled before the snapshot is made', async () => {
  const { scene, writer, admin, grant, create, chunksOf } = await open()
  const { locations } = await grant([0])
  writer.crash()
  const snapshot = await admin.insist(() => create('one'))
  assert.deepEqual(await chunksOf(snapshot), [locations[0]?.chunk])
  assert.ok(scene.chunk(locations[0]?.chunk ?? 0).version > 1)
})

test('S3, S5: a deleted snapshot lets its chunk go once every overlay over it is merged', async () => {
  const { scene, admin, grant, clear, create } = await open()
  const first = await grant([0])
  const parent = first.locations[0]?.chunk ?? 0
  await clear([parent])
  const snapshot = await create('one')
  const child = (await grant([0])).locations[0]?.chunk ?? 0
  const [stuck, ...others] = scene.chunkServers
  if (stuck === undefined) throw new Error('no server')
  stuck.mergesHang = true
  await admin.mutate('snapshot.delete', { snapshot })
  await scene.until(() => others.every((server) => (server.replicas.get(child)?.parent ?? 0) === 0), 'merged')
  await scene.clock.advance(5_000)
  assert.equal(scene.mds.state.chunks.sharing.overlays(child).length, 1)
  for (const server of scene.chunkServers) assert.ok(server.replicas.has(parent))
  stuck.mergesHang = false
  await scene.until(
    () => scene.chunkServers.every((server) => !server.replicas.has(parent)),
    'the parent goes',
  )
  await scene.until(() => scene.mds.state.condemned.size === 0, 'confirmed')
  assert.deepEqual(
    scene.chunkServers.flatMap((server) => [...server.replicas.keys()]),
    [child, child, child],
  )
})

test('S3: a server that was merged while nobody listened says so when it registers', async () => {
  const { scene, admin, grant, clear, create } = await open()
  const parent = (await grant([0])).locations[0]?.chunk ?? 0
  await clear([parent])
  const snapshot = await create('one')
  const child = (await grant([0])).locations[0]?.chunk ?? 0
  await clear([child])
  for (const server of scene.chunkServers) server.mergesHang = true
  await admin.mutate('snapshot.delete', { snapshot })
  for (const server of scene.chunkServers) {
    const replica = server.replicas.get(child)
    if (replica !== undefined) replica.parent = 0
    server.crash()
    server.start()
  }
  await scene.until(
    () => scene.chunkServers.every((server) => !server.replicas.has(parent)),
    'the parent goes',
  )
})

test('repair makes flat members; the parent of the others stays as long as they need it', async () => {
  const { scene, admin, grant, clear, create } = await open(4)
  const parent = (await grant([0])).locations[0]?.chunk ?? 0
  await clear([parent])
  const snapshot = await create('one')
  const child = (await grant([0])).locations[0]?.chunk ?? 0
  await clear([child])
  const lost = scene.server(scene.inSync(child)[0] ?? 0)
  lost.crash()
  for (const server of scene.chunkServers) server.mergesHang = true
  await admin.mutate('admin.setConfig', { key: 'mds.wd.offline_tout', value: '10s' })
  await scene.until(
    () => scene.inSync(child).length === 3 && !scene.inSync(child).includes(lost.server),
    'repaired',
  )
  const fresh = scene.chunkServers.find(
    (server) =>
      server !== lost && !scene.chunk(parent).overlays && (server.replicas.get(child)?.parent ?? 0) === 0,
  )
  assert.ok(fresh !== undefined && scene.inSync(child).includes(fresh.server))
  assert.equal(scene.mds.state.chunks.sharing.overlays(child).length, 2)
  await admin.mutate('snapshot.delete', { snapshot })
  await scene.until(() => scene.chunk(parent).inode === 0, 'hidden')
})

test('a list of many chunks is shared over several commands, also when the master changes in between', async () => {
  const { scene, writer, admin, inode, lease, clear, create } = await open()
  for (let index = 0; index < 2_560; index += 64) {
    const indexes = Array.from({ length: 64 }, (_, at) => index + at)
    const limits = indexes.map(() => 4096)
    const answer = await writer.call('intent.grant', {
      limits,
      inode,
      lease,
      indexes,
      sizeLimit: 2_560 * 64 * MIB,
    })
    await clear(answer.locations.map(({ chunk }) => chunk))
  }
  const asked = admin.mutateLater('snapshot.create', { inode, name: 'long', path: '' })
  asked.catch(() => {})
  await scene.until(() => scene.mds.state.copies.size > 0, 'begun')
  scene.crashMetadataServer()
  await scene.startMetadataServer()
  await admin.resume()
  await writer.resume()
  await scene.until(
    () => scene.mds.state.snapshots.size === 1 && scene.mds.state.copies.size === 0,
    'complete',
  )
  const { snapshots } = await admin.call('snapshot.list', { source: inode, after: 0, limit: 10 })
  assert.deepEqual(
    snapshots.map(({ name, chunks, ready }) => ({ name, chunks, ready })),
    [{ name: 'long', chunks: 2_560, ready: true }],
  )
  const again = await create('long').catch((error: { code: string }) => error.code)
  assert.equal(again, 'EEXIST')
})

test('rollback recalls the lease; info tells what is shared; a clone appears under its name', async () => {
  const { scene, writer, admin, inode, lease, grant, clear, create, chunksOf } = await open()
  const chunks = (await grant([0, 1])).locations.map(({ chunk }) => chunk)
  await writer.mutate('lease.update', { inode, lease, size: 70 * MIB })
  await clear(chunks)
  const snapshot = await create('one')
  const child = (await grant([0])).locations[0]?.chunk ?? 0
  const info = await admin.call('snapshot.info', { snapshot })
  assert.deepEqual([info.ownChunks, info.sharedChunks, info.snapshot.size], [1, 1, 70 * MIB])
  writer.onRecall = () => {
    void writer
      .start('intent.clear', { inode, lease, chunks: [child] })
      .then(() => writer.mutateLater('lease.release', { inode, lease }))
  }
  await admin.insist(() => admin.mutate('snapshot.rollback', { snapshot }))
  assert.deepEqual(await chunksOf(inode), chunks)
  await scene.until(() => scene.chunkServers.every((server) => !server.replicas.has(child)), 'the child goes')
  const clone = { source: snapshot, parent: 1, name: 'copy', uid: 0, gid: 0 }
  const { inode: copy } = await admin.mutate('snapshot.clone', clone)
  const { attributes } = await admin.call('fs.lookup', { parent: 1, name: 'copy' })
  assert.deepEqual([attributes.inode, attributes.size], [copy, 70 * MIB])
  assert.deepEqual(await chunksOf(copy), chunks)
})
