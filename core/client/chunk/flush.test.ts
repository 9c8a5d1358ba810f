/** What fsync promises: rules F1 to F8, as far as the client keeps them. */
import assert from 'node:assert/strict'
import test from 'node:test'
import { CairnError } from '../../base/errors.ts'
import { CHUNK_SIZE_BYTES } from '../../base/units.ts'
import type { File } from '../api.ts'
import { FakeCluster, flushOf, writeOf } from '../testing/fake-cluster.ts'

async function withFile(serverCount = 3) {
  const cluster = new FakeCluster(serverCount)
  const client = await cluster.connect()
  const file = await cluster.create(client)
  return { cluster, client, file, clock: cluster.clock }
}

async function flushCode(cluster: FakeCluster, file: File): Promise<string> {
  let code = 'pending'
  file.flush((error) => (code = error?.code ?? 'ok'))
  await cluster.clock.until(() => code !== 'pending')
  return code
}

test('a flush goes to joining members too (F2)', async () => {
  const { cluster, file, clock } = await withFile(4)
  await clock.wait(writeOf(file, 0, Buffer.from('aaaa')))
  const chunk = cluster.master.chunkAt(file.inode, 0)
  cluster.master.join(chunk, 4)
  await clock.wait(writeOf(file, 0, Buffer.from('bbbb')))
  const before = cluster.servers.map((server) => server.flushCount)
  await clock.wait(flushOf(file))
  assert.deepEqual(
    cluster.servers.map((server, i) => server.flushCount - (before[i] ?? 0)),
    [1, 1, 1, 1],
  )
})

test('members replaced one by one while nobody flushes: no flush is left without a witness (F5)', async () => {
  const { cluster, file, clock } = await withFile(4)
  await clock.wait(writeOf(file, 0, Buffer.from('aaaa')))
  const chunk = cluster.master.chunkAt(file.inode, 0)
  for (const id of [1, 2, 3]) {
    cluster.kill(id)
    await clock.wait(writeOf(file, 8192 * id, Buffer.from('bbbb')))
    cluster.revive(id)
    cluster.master.join(chunk, id)
    await clock.advance(100)
    cluster.master.promote(chunk, id)
  }
  assert.equal(await flushCode(cluster, file), 'ok')
})

test('a flush is answered only when all members of one active epoch have synced (F3)', async () => {
  const { cluster, file, clock } = await withFile()
  await clock.wait(writeOf(file, 0, Buffer.from('aaaa')))
  const chunk = cluster.master.chunkAt(file.inode, 0)
  cluster.kill(3)
  await clock.wait(flushOf(file))
  assert.equal(chunk.members.length, 2)
  for (const id of [1, 2]) assert.ok(cluster.master.server(id).log.includes(`flush ${chunk.id}@2`))
})

test('when every host crashed the flush says EIO once, to every open of the file (F5)', async () => {
  const { cluster, client, file, clock } = await withFile()
  const other = await clock.wait(client.fileSystem.open(file.inode))
  await clock.wait(writeOf(file, 0, Buffer.from('aaaa')))
  const chunk = cluster.master.chunkAt(file.inode, 0)
  for (const id of [1, 2, 3]) cluster.crashHost(id)
  // The quorum learns of it and goes on with what there is.
  cluster.master.equalize(chunk)
  assert.equal(await flushCode(cluster, file), 'EIO')
  assert.equal(await flushCode(cluster, file), 'ok')
  assert.equal(await flushCode(cluster, other), 'EIO')
  assert.equal(await flushCode(cluster, other), 'ok')
  const late = await clock.wait(client.fileSystem.open(file.inode))
  assert.equal(await flushCode(cluster, late), 'ok')
})

test('all processes restarted, no host crashed: nothing is lost and the flush succeeds (F5)', async () => {
  const { cluster, file, clock } = await withFile()
  await clock.wait(writeOf(file, 0, Buffer.from('aaaa')))
  for (const id of [1, 2, 3]) cluster.revive(id)
  cluster.master.reconfigure(cluster.master.chunkAt(file.inode, 0), [
    { server: 1, role: 'in-sync' },
    { server: 2, role: 'in-sync' },
    { server: 3, role: 'in-sync' },
  ])
  assert.equal(await flushCode(cluster, file), 'ok')
})

test('a member that restarted since the writes refuses and leaves before the flush is answered (F6)', async () => {
  const { cluster, file, clock } = await withFile()
  await clock.wait(writeOf(file, 0, Buffer.from('aaaa')))
  cluster.crashHost(2)
  assert.equal(await flushCode(cluster, file), 'ok')
  assert.deepEqual(
    cluster.master.chunkAt(file.inode, 0).members.map((member) => member.server),
    [1, 3],
  )
})

test('a replica that lost the writes and came back under a later epoch does not vouch for them (F5, F6)', async () => {
  const { cluster, file, clock } = await withFile(1)
  await clock.wait(writeOf(file, 0, Buffer.from('aaaa')))
  cluster.crashHost(1)
  cluster.master.reconfigure(cluster.master.chunkAt(file.inode, 0), [{ server: 1, role: 'in-sync' }])
  await clock.wait(writeOf(file, 8192, Buffer.from('bbbb')))
  assert.equal(await flushCode(cluster, file), 'EIO')
  await clock.wait(writeOf(file, 0, Buffer.from('aaaa')))
  assert.equal(await flushCode(cluster, file), 'ok')
})

/** Members 2 and 3 leave, 4 joins from 1, whose disk hangs; then 1 leaves before it has synced. */
async function handedOver({ cluster, file, clock }: Awaited<ReturnType<typeof withFile>>, loses: boolean) {
  await clock.wait(writeOf(file, 0, Buffer.from('aaaa')))
  const { master } = cluster
  const chunk = master.chunkAt(file.inode, 0)
  const first = chunk.members.filter(({ server }) => server === 1)
  master.server(1).isHanging = true
  if (loses) cluster.crashHost(1)
  // rule E8: who was reconciled is in sync since then
  master.reconfigure(chunk, loses ? first.map((member) => ({ ...member, since: 2 })) : first)
  master.join(chunk, 4)
  await clock.advance(100)
  master.promote(chunk, 4)
  await clock.advance(100)
  cluster.kill(1)
  master.leave(chunk, 1)
  master.tellHolder(chunk)
}

test('who joined from a member that held everything is a witness when that one dies (F1, F5)', async () => {
  const scene = await withFile(4)
  await handedOver(scene, false)
  assert.equal(await flushCode(scene.cluster, scene.file), 'ok')
})

test('who joined from a member that had lost the writes is no witness for them (F5)', async () => {
  const scene = await withFile(4)
  await handedOver(scene, true)
  assert.equal(await flushCode(scene.cluster, scene.file), 'EIO')
})

/** While the client does not hear the master, 2 and 3 leave, 1 restarts and is reconciled, and 2 joins from it. */
async function missedEpochs(
  { cluster, file, clock }: Awaited<ReturnType<typeof withFile>>,
  { loses, restarts }: { readonly loses: boolean; readonly restarts: boolean },
) {
  await clock.wait(writeOf(file, 0, Buffer.from('aaaa')))
  const { master } = cluster
  const chunk = master.chunkAt(file.inode, 0)
  cluster.masterDown = true
  cluster.cutMaster()
  master.reconfigure(
    chunk,
    chunk.members.filter(({ server }) => server === 1),
  )
  if (loses) cluster.crashHost(1)
  else cluster.revive(1)
  master.reconfigure(chunk, [{ server: 1, role: 'in-sync', since: chunk.version + 1 }])
  if (restarts) cluster.revive(2)
  master.join(chunk, 2)
  master.promote(chunk, 2)
  cluster.masterDown = false
}

for (const restarts of [true, false]) {
  test(`who left and joined again from a member that had lost the writes, ${restarts ? '' : 'not '}restarted, is no witness, also when nobody told that it left (E8, F5; simulator seed 1275)`, async () => {
    const scene = await withFile()
    await missedEpochs(scene, { loses: true, restarts })
    assert.equal(await flushCode(scene.cluster, scene.file), 'EIO')
    assert.equal(await flushCode(scene.cluster, scene.file), 'ok')
  })
}

test('a member whose process died, reconciled in an epoch that nobody told of, is a witness (E8, F5)', async () => {
  const scene = await withFile()
  await missedEpochs(scene, { loses: false, restarts: true })
  assert.equal(await flushCode(scene.cluster, scene.file), 'ok')
})

for (const isTold of [true, false]) {
  // The client cannot tell them apart: what is left is a member whose process died, in sync since after the write.
  const what = isTold
    ? 'a crashed replica was the source, as the quorum tells: EIO once'
    : 'no loss is told: ok'
  test(`only who was reconciled, or joined, in missed epochs is left; ${what} (E8, F5; left of seed 1275)`, async () => {
    const scene = await withFile()
    const { cluster, file, clock } = scene
    const { master } = cluster
    await missedEpochs(scene, { loses: isTold, restarts: true })
    const chunk = master.chunkAt(file.inode, 0)
    if (isTold) chunk.lossVersion = chunk.version - 1
    cluster.kill(1)
    master.leave(chunk, 1)
    assert.equal(await flushCode(cluster, file), isTold ? 'EIO' : 'ok')
    await clock.wait(writeOf(file, 0, Buffer.from('bbbb')))
    assert.equal(await flushCode(cluster, file), 'ok')
  })
}

test('who joined in an epoch that nobody told of, from a member that held everything, is a witness when that one dies (F1, F5)', async () => {
  const { cluster, file, clock } = await withFile()
  await clock.wait(writeOf(file, 0, Buffer.from('aaaa')))
  const { master } = cluster
  const chunk = master.chunkAt(file.inode, 0)
  master.server(1).isHanging = true
  cluster.masterDown = true
  cluster.cutMaster()
  master.reconfigure(
    chunk,
    chunk.members.filter(({ server }) => server === 1),
  )
  master.join(chunk, 2)
  master.promote(chunk, 2)
  master.reconfigure(chunk, chunk.members)
  cluster.masterDown = false
  await clock.until(() => master.session !== 0 && master.log.at(-1) === 'session.resume')
  await clock.advance(100)
  master.tellHolder(chunk)
  await clock.advance(100)
  cluster.kill(1)
  master.leave(chunk, 1)
  master.tellHolder(chunk)
  assert.equal(await flushCode(cluster, file), 'ok')
})

test('a write that nobody was told of cannot be lost: the flush after it succeeds (F5)', async () => {
  const { cluster, file, clock } = await withFile()
  const { master } = cluster
  master.server(3).isHanging = true
  const written = writeOf(file, 0, Buffer.from('aaaa'))
  await clock.until(() => [1, 2].every((id) => master.server(id).log.length === 1))
  await clock.advance(100)
  const chunk = master.chunkAt(file.inode, 0)
  // under a new epoch it is sent again, beside a flush of what two members have answered
  master.reconfigure(chunk, chunk.members)
  master.tellHolder(chunk)
  await clock.advance(100)
  for (const id of [1, 2]) assert.equal(master.server(id).flushCount, 1)
  for (const id of [1, 2]) cluster.crashHost(id)
  master.reconfigure(chunk, chunk.members)
  master.tellHolder(chunk)
  await clock.advance(100)
  cluster.unhang(3)
  await clock.wait(written)
  assert.equal(await flushCode(cluster, file), 'ok')
})

test('a flush waits for the writes issued before it, not for later ones', async () => {
  const { cluster, file, clock } = await withFile()
  await clock.wait(writeOf(file, 0, Buffer.from('aaaa')))
  cluster.master.server(1).isHanging = true
  const order: string[] = []
  file.write(0, Buffer.from('bbbb'), () => order.push('write'))
  file.flush(() => order.push('flush'))
  await clock.advance(1000)
  assert.deepEqual(order, [])
  cluster.unhang(1)
  await clock.until(() => order.length === 2)
  assert.deepEqual(order, ['write', 'flush'])
})

test('a flush asks the quorum again only for a new size, or for times that moved by a tick (F8)', async () => {
  const { cluster, file, clock } = await withFile()
  const updates = (): number => cluster.master.log.filter((method) => method === 'lease.update').length
  const writeAndFlush = async (offset: number): Promise<number> => {
    const before = updates()
    await clock.wait(writeOf(file, offset, Buffer.from('aaaa')))
    await clock.wait(flushOf(file))
    return updates() - before
  }
  const published = (): number => cluster.master.inodes.get(file.inode)?.attributes.modifySeconds ?? 0
  assert.equal(await writeAndFlush(0), 1, 'the first')
  assert.equal(await writeAndFlush(0), 0, 'nothing that the quorum has to know')
  assert.equal(await writeAndFlush(4), 1, 'a larger file')
  await clock.advance(1000)
  assert.equal(await writeAndFlush(0), 1, 'another second: the clock of this test knows no shorter times')
  assert.equal(published(), file.attributes().modifySeconds)
  await clock.wait(writeOf(file, 0, Buffer.from('bbbb')))
  await clock.until(() => cluster.master.inodes.get(file.inode)?.lease === 0, 10_000)
  assert.equal(published(), file.attributes().modifySeconds, 'the return of the lease leaves nothing behind')
})

test('size and times are in the quorum when the flush is answered (F8)', async () => {
  const { cluster, file, clock } = await withFile()
  await clock.wait(writeOf(file, 0, Buffer.alloc(5000, 1)))
  const node = cluster.master.inodes.get(file.inode)
  assert.equal(node?.attributes.size, 0)
  await clock.wait(flushOf(file))
  assert.equal(node?.attributes.size, 5000)
  assert.equal(node?.attributes.modifySeconds, file.attributes().modifySeconds)
})

test('publish tells the size without a disk flush', async () => {
  const { cluster, file, clock } = await withFile()
  await clock.wait(writeOf(file, 0, Buffer.alloc(5000, 1)))
  let done = false
  file.publish(() => (done = true))
  await clock.until(() => done)
  assert.equal(cluster.master.inodes.get(file.inode)?.attributes.size, 5000)
  assert.equal(cluster.servers[0]?.flushCount, 0)
})

test('a flush with nothing unflushed asks no chunk server', async () => {
  const { cluster, file, clock } = await withFile()
  await clock.wait(writeOf(file, 0, Buffer.from('aaaa')))
  await clock.wait(flushOf(file))
  await clock.wait(flushOf(file))
  assert.equal(cluster.servers[0]?.flushCount, 1)
})

test('an epoch that is not writable yet when it comes: the flush that runs goes on under it later (A4)', async () => {
  const { cluster, file, clock } = await withFile()
  cluster.master.minimum = 2
  await clock.wait(writeOf(file, 0, Buffer.from('aaaa')))
  const chunk = cluster.master.chunkAt(file.inode, 0)
  cluster.master.server(2).isHanging = true
  let code = ''
  file.flush((error) => (code = error?.code ?? 'ok'))
  await clock.advance(10)
  cluster.master.reconfigure(chunk, [
    { server: 1, role: 'in-sync' },
    { server: 3, role: 'joining' },
  ])
  cluster.master.tellHolder(chunk)
  await clock.advance(1000)
  cluster.unhang(2)
  assert.equal(code, '')
  // In sync again at the same version: not below min any more.
  cluster.master.promote(chunk, 3)
  await clock.until(() => code !== '', 30_000)
  assert.equal(code, 'ok')
})

test('a flush under a new lease waits for what a dead holder left dirty (F4)', async () => {
  const { cluster, file, clock } = await withFile()
  const node = cluster.master.inodes.get(file.inode)
  assert.ok(node !== undefined)
  node.dirty = [0, 3]
  let isReconciled = false
  cluster.master.intercept = (method) => {
    if (method !== 'chunk.locate' || isReconciled) return undefined
    throw new CairnError('TRY_AGAIN', 'chunks are being reconciled', { retryable: true })
  }
  // it writes elsewhere: nothing of its own touches the dirty chunks
  await clock.wait(writeOf(file, 5 * CHUNK_SIZE_BYTES, Buffer.from('aaaa')))
  let code = 'pending'
  file.flush((error) => (code = error?.code ?? 'ok'))
  await clock.advance(10_000)
  assert.equal(code, 'pending')
  isReconciled = true
  await clock.until(() => code !== 'pending')
  assert.equal(code, 'ok')
})
