/** Sessions, leases and time: rules E3, L1, L2, L5, L6, L7, L9. */
import assert from 'node:assert/strict'
import test from 'node:test'
import { CairnError } from '../../base/errors.ts'
import { FileHandle } from '../file/file-handle.ts'
import { FakeCluster, flushOf, readOf, writeOf } from '../testing/fake-cluster.ts'

async function withFile(options = {}) {
  const cluster = new FakeCluster(3)
  const client = await cluster.connect(options)
  const file = await cluster.create(client)
  return { cluster, client, file, clock: cluster.clock }
}

test('a mutation whose answer was lost is applied once', async () => {
  const { cluster, client, clock } = await withFile()
  let creations = 0
  const serve = cluster.master.create.bind(cluster.master)
  cluster.master.create = (name) => {
    creations++
    // The connection breaks before the answer arrives.
    if (creations === 1) cluster.cutMaster()
    return serve(name)
  }
  const owner = { uid: 0, gid: 0 }
  const made = await clock.wait(client.fileSystem.makeNode(1, 'n', 'file', 0o600, 0, owner))
  assert.equal(creations, 1)
  assert.equal(cluster.master.names.get('n'), made.inode)
})

test('a restart of the master delays and loses nothing', async () => {
  const { cluster, file, clock } = await withFile()
  await clock.wait(writeOf(file, 0, Buffer.from('aaaa')))
  cluster.masterDown = true
  cluster.cutMaster()
  let flushed = false
  file.flush((error) => {
    assert.equal(error, null)
    flushed = true
  })
  await clock.advance(3000)
  assert.equal(flushed, false)
  cluster.masterDown = false
  await clock.until(() => flushed)
  assert.equal(cluster.master.log.filter((method) => method === 'session.open').length, 1)
})

test('at most 64 mutations are in flight, the rest waits', async () => {
  const { cluster, client, clock } = await withFile()
  cluster.masterSilent = true
  const before = cluster.master.log.length
  const owner = { uid: 0, gid: 0 }
  for (let i = 0; i < 200; i++)
    void client.fileSystem.makeNode(1, `n${i}`, 'file', 0o600, 0, owner).catch(() => undefined)
  await clock.advance(100)
  assert.equal(cluster.master.log.length, before)
  cluster.masterSilent = false
  cluster.cutMaster()
  await clock.until(() => cluster.master.names.size === 201)
})

test('an unconfirmed holder holds reads and acknowledgements without error, readers go on (L2, L5, L6)', async () => {
  const { cluster, client, file, clock } = await withFile()
  await clock.wait(writeOf(file, 0, Buffer.from('aaaa')))
  await clock.wait(flushOf(file))
  const plain = await cluster.create(client, 'plain')
  assert.equal(plain.attributes().size, 0)
  cluster.masterSilent = true
  await clock.advance(5500)
  let written = false
  let read = ''
  file.write(0, Buffer.from('bbbb'), () => (written = true))
  void readOf(file, 4, 4).catch(() => undefined)
  file.read(0, 4, (_error, borrowed) => (read = borrowed.toString()))
  await clock.advance(1000)
  assert.equal(written, false)
  assert.equal(read, '')
  cluster.masterSilent = false
  cluster.cutMaster()
  await clock.until(() => written && read !== '')
  assert.equal(read, 'bbbb')
})

test('time spent suspended counts (L2)', async () => {
  const { cluster, client, file, clock } = await withFile()
  await clock.wait(writeOf(file, 0, Buffer.from('aaaa')))
  assert.equal(client.engine.session.isConfirmed(), true)
  clock.suspend(6000)
  assert.equal(client.engine.session.isConfirmed(), false)
  await clock.advance(3000)
  assert.equal(client.engine.session.isConfirmed(), true)
  assert.equal(cluster.master.session, 1)
})

test('a renewal is valid from its sending (L1)', async () => {
  const { cluster, client, clock } = await withFile()
  cluster.latencyMs = 900
  await clock.advance(3000)
  // The answer takes 1.8 s: less is left than a full time-out.
  cluster.masterSilent = true
  await clock.advance(5000 - 1800 + 1000)
  assert.equal(client.engine.session.isConfirmed(), false)
})

test('after expiry what is in flight and unflushed gets EIO once, other files go on (E3)', async () => {
  const { cluster, client, file, clock } = await withFile()
  const clean = await cluster.create(client, 'clean')
  await clock.wait(writeOf(clean, 0, Buffer.from('safe')))
  await clock.wait(flushOf(clean))
  await clock.wait(writeOf(file, 0, Buffer.from('aaaa')))
  cluster.masterDown = true
  cluster.cutMaster()
  cluster.master.server(2).isHanging = true
  let inFlight = ''
  file.write(0, Buffer.from('bbbb'), (error) => (inFlight = error?.code ?? 'ok'))
  await clock.advance(6500)
  cluster.unhang(2)
  await clock.advance(100)
  // All members have answered; without a confirmed session that is not passed on (L5).
  assert.equal(inFlight, '')
  cluster.master.expireSession()
  cluster.masterDown = false
  await clock.until(() => inFlight !== '')
  assert.equal(inFlight, 'EIO')
  await assert.rejects(clock.wait(flushOf(file)), { code: 'EIO' })
  await clock.wait(flushOf(file))
  await clock.wait(flushOf(clean))
  assert.equal((await clock.wait(readOf(clean, 0, 4))).toString(), 'safe')
  await clock.wait(writeOf(file, 0, Buffer.from('cccc')))
  await clock.wait(flushOf(file))
})

test('a write of an ended lease is never sent under the next one (E3)', async () => {
  const { cluster, file, clock } = await withFile()
  await clock.wait(writeOf(file, 0, Buffer.from('aaaa')))
  const chunk = cluster.master.chunkAt(file.inode, 0)
  cluster.master.server(2).isHanging = true
  let code = ''
  file.write(0, Buffer.from('evil'), (error) => (code = error?.code ?? 'ok'))
  await clock.advance(100)
  cluster.master.expireSession()
  cluster.cutMaster()
  await clock.until(() => code !== '')
  assert.equal(code, 'EIO')
  cluster.unhang(2)
  const logged = cluster.servers.map((server) => server.log.length)
  await clock.advance(3000)
  assert.deepEqual(
    cluster.servers.map((server) => server.log.length),
    logged,
  )
  assert.equal(chunk.intent, 0)
})

test('a lease nobody uses is given back: flushed, its size published, intents cleared, released (F8, L7)', async () => {
  const { cluster, file, clock } = await withFile()
  await clock.wait(writeOf(file, 0, Buffer.from('aaaa')))
  await clock.until(() => cluster.master.inodes.get(file.inode)?.lease === 0, 10_000)
  const asked = cluster.master.log.filter((method) => /^(intent|lease)\./.test(method))
  assert.deepEqual(asked, ['lease.acquire', 'intent.grant', 'lease.update', 'intent.clear', 'lease.release'])
  assert.equal(cluster.servers[0]?.flushCount, 1)
  assert.equal((await clock.wait(readOf(file, 0, 4))).toString(), 'aaaa')
})

/** Written and closed. */
async function closedFiles(count: number) {
  const cluster = new FakeCluster(3)
  const client = await cluster.connect()
  const files = []
  for (let number = 0; number < count; number++) files.push(await cluster.create(client, `f${number}`))
  for (const file of files) await cluster.clock.wait(writeOf(file, 0, Buffer.from('a')))
  for (const file of files) file.close()
  const callsOf = (method: string): number => cluster.master.log.filter((one) => one === method).length
  return { cluster, client, callsOf }
}

test('files closed at about the same time are one message', async () => {
  const { cluster, callsOf } = await closedFiles(20)
  await cluster.clock.advance(1_000)
  assert.equal(callsOf('fs.close'), 1)
})

test('closes that wait are not sent after the session was resumed: that said what is open', async () => {
  const { cluster, client, callsOf } = await closedFiles(3)
  cluster.cutMaster()
  await cluster.clock.until(() => callsOf('session.resume') > 0, 10_000)
  await cluster.clock.advance(1_000)
  assert.equal(callsOf('fs.close'), 0)
  await cluster.clock.wait(client.close())
})

test('a close whose answer was lost is not sent again: the resumption has said what is open (T2)', async () => {
  const { cluster, client, callsOf } = await closedFiles(2)
  const file = await cluster.create(client, 'twice')
  const again = await cluster.clock.wait(client.fileSystem.open(file.inode))
  const opens: number[][] = []
  cluster.master.intercept = (method, params) => {
    if (method === 'session.resume') opens.push(params['openInodes'] as unknown as number[])
    if (method === 'fs.close' && opens.length === 0) cluster.cutMaster()
    return undefined
  }
  again.close()
  await cluster.clock.until(() => opens.length === 1, 10_000)
  await cluster.clock.advance(5_000)
  assert.deepEqual(opens, [[file.inode]])
  assert.equal(callsOf('fs.close'), 1)
})

test('leases that go back in one turn are one message, or one each when that is not understood', async () => {
  const { cluster, client, callsOf } = await closedFiles(3)
  const leases = [...cluster.master.inodes.values()].map(({ attributes, lease }) => ({
    inode: attributes.inode,
    lease,
  }))
  const give = () =>
    Promise.all(leases.map(({ inode, lease }) => client.engine.leaseReturns.give(inode, lease)))
  cluster.master.intercept = (method) => {
    if (method === 'lease.return') throw new CairnError('FEATURE_LEVEL', 'not yet')
    if (method === 'lease.release') return {}
    return undefined
  }
  await cluster.clock.wait(give())
  assert.deepEqual([callsOf('lease.return'), callsOf('lease.release')], [1, leases.length])
  cluster.master.intercept = () => undefined
  await cluster.clock.wait(give())
  assert.deepEqual([callsOf('lease.return'), callsOf('lease.release')], [2, leases.length])
  assert.ok([...cluster.master.inodes.values()].every(({ lease }) => lease === 0))
})

test('recall: drain, flush, release; a write that comes meanwhile takes the lease again (L9)', async () => {
  const { cluster, file, clock } = await withFile()
  await clock.wait(writeOf(file, 0, Buffer.from('aaaa')))
  const first = cluster.master.inodes.get(file.inode)?.lease
  cluster.master.notify('lease.recall', { inode: file.inode, lease: first, deadlineMs: 5000 })
  await clock.advance(1)
  const later = writeOf(file, 0, Buffer.from('bbbb'))
  await clock.wait(later)
  const second = cluster.master.inodes.get(file.inode)?.lease ?? 0
  assert.ok(second > (first ?? 0))
  const at = cluster.master.log.indexOf('lease.release')
  assert.ok(at > 0 && cluster.master.log.indexOf('intent.clear') < at)
})

test('a lease of ours that we do not know of goes back when it is recalled (L9)', async () => {
  const { cluster, file, clock } = await withFile()
  await clock.wait(writeOf(file, 0, Buffer.from('aaaa')))
  const node = cluster.master.inodes.get(file.inode)
  const lease = node?.lease ?? 0
  // What a chunk server may say when its word is older than the master's.
  assert.ok(file instanceof FileHandle)
  file.state.leaseEnded('NO_LEASE')
  // As the quorum does: what was not given back in order before is reconciled.
  cluster.master.intercept = (method, params) => {
    if (method !== 'lease.release' || params['lease'] !== lease || node === undefined) return undefined
    const chunk = cluster.master.chunkAt(file.inode, 0)
    chunk.intent = 0
    cluster.master.equalize(chunk)
    node.lease = 0
    return {}
  }
  cluster.master.notify('lease.recall', { inode: file.inode, lease, deadlineMs: 5000 })
  await clock.until(() => node?.lease === 0)
  await clock.wait(writeOf(file, 0, Buffer.from('bbbb')))
  assert.ok((node?.lease ?? 0) > lease)
})

test('a recall does not wait for ever on held writes (L9)', async () => {
  const { cluster, file, clock } = await withFile()
  cluster.master.minimum = 2
  await clock.wait(writeOf(file, 0, Buffer.from('aaaa')))
  const chunk = cluster.master.chunkAt(file.inode, 0)
  cluster.master.reconfigure(chunk, [{ server: 1, role: 'in-sync' }])
  let done = false
  file.write(0, Buffer.from('bbbb'), () => (done = true))
  await clock.advance(100)
  const lease = cluster.master.inodes.get(file.inode)?.lease
  cluster.master.notify('lease.recall', { inode: file.inode, lease, deadlineMs: 2000 })
  await clock.advance(3000)
  assert.equal(cluster.master.inodes.get(file.inode)?.lease, lease)
  cluster.master.join(chunk, 2)
  cluster.master.promote(chunk, 2)
  await clock.until(() => done)
})

test('an intent that is recalled for scrubbing goes back flushed, and a write that waits asks for it again (R2)', async () => {
  const { cluster, file, clock } = await withFile()
  await clock.wait(writeOf(file, 0, Buffer.from('aaaa')))
  const chunk = cluster.master.chunkAt(file.inode, 0)
  const lease = cluster.master.inodes.get(file.inode)?.lease ?? 0
  const callsOf = (name: string): number => cluster.master.log.filter((method) => method === name).length
  const granted = callsOf('intent.grant')
  // of an earlier lease: ignored
  cluster.master.notify('intent.recall', { inode: file.inode, lease: lease + 1, chunks: [chunk.id] })
  await clock.advance(100)
  assert.equal(callsOf('intent.clear'), 0)
  cluster.master.notify('intent.recall', { inode: file.inode, lease, chunks: [chunk.id] })
  await clock.advance(1)
  const later = writeOf(file, 2, Buffer.from('bbbb'))
  await clock.until(() => callsOf('intent.clear') === 1)
  await clock.wait(later)
  assert.equal(callsOf('intent.grant'), granted + 1)
  assert.equal(cluster.master.inodes.get(file.inode)?.lease, lease, 'the lease stays')
  await clock.wait(flushOf(file))
})

test('a block device keeps its lease, and is dead when it is lost (L5)', async () => {
  const { cluster, client, file, clock } = await withFile()
  await clock.wait(file.truncate(1024 * 1024))
  const device = await clock.wait(client.openBlockDevice('file'))
  assert.equal(device.sizeBytes, 1024 * 1024)
  await clock.wait(writeOf(device as never, 512, Buffer.alloc(512, 7)))
  await clock.advance(20_000)
  assert.notEqual(cluster.master.inodes.get(file.inode)?.lease, 0)
  await assert.rejects(clock.wait(writeOf(device as never, 100, Buffer.alloc(512))), { code: 'EINVAL' })
  cluster.master.expireSession()
  cluster.cutMaster()
  await clock.advance(1000)
  await assert.rejects(clock.wait(writeOf(device as never, 0, Buffer.alloc(512))), { code: 'EIO' })
  await assert.rejects(clock.wait(readOf(device as never, 0, 512)), { code: 'EIO' })
})

test('close flushes, gives back all leases and closes the session', async () => {
  const { cluster, client, file, clock } = await withFile()
  await clock.wait(writeOf(file, 0, Buffer.from('aaaa')))
  await clock.wait(client.close())
  assert.equal(cluster.master.inodes.get(file.inode)?.lease, 0)
  assert.equal(cluster.master.inodes.get(file.inode)?.attributes.size, 4)
  assert.ok(cluster.master.log.includes('session.close'))
  await assert.rejects(client.fileSystem.resolve('file'), { code: 'DISCONNECTED' })
})

test('another master is tried when this one is not the master', async () => {
  const cluster = new FakeCluster(1)
  let refusals = 0
  cluster.master.intercept = (method) => {
    if (method === 'session.open' && refusals++ < 3) throw new CairnError('NOT_MASTER', 'no')
    return undefined
  }
  await cluster.connect({ metadataServers: ['mds:1', 'other:1'] })
  assert.equal(refusals, 4)
})
