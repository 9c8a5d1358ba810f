// Proves what a client does when it is paused so that its file can be shared (rule S1): what has begun ends, in order,
// everything is flushed on every member, all intents go back, the lease stays, and writes wait until it goes on.
import assert from 'node:assert/strict'
import test from 'node:test'
import { CHUNK_SIZE_BYTES } from '../../base/units.ts'
import { CairnError } from '../../base/errors.ts'
import { FakeCluster, flushOf, writeOf } from '../testing/fake-cluster.ts'

async function withFile() {
  const cluster = new FakeCluster(3)
  const client = await cluster.connect({})
  const file = await cluster.create(client)
  const callsOf = (name: string): number => cluster.master.log.filter((method) => method === name).length
  const leaseOf = (): number => cluster.master.inodes.get(file.inode)?.lease ?? 0
  const flushes = (): number =>
    cluster.servers.flatMap((server) => server.log).filter((entry) => entry.includes('flush')).length
  const pause = (lease: number): void =>
    cluster.master.notify('lease.pause', { inode: file.inode, lease, deadlineMs: 5_000 })
  return { cluster, client, file, clock: cluster.clock, callsOf, leaseOf, flushes, pause }
}

test('S1: a paused writer flushes every member, clears its intents and publishes its size; the lease stays', async () => {
  const { cluster, file, clock, callsOf, leaseOf, flushes, pause } = await withFile()
  await clock.wait(writeOf(file, 0, Buffer.from('aaaa')))
  await clock.wait(writeOf(file, CHUNK_SIZE_BYTES, Buffer.from('bbbb')))
  const lease = leaseOf()
  const before = flushes()
  pause(lease + 1)
  await clock.advance(100)
  assert.equal(callsOf('intent.clear'), 0, 'of another lease: ignored')
  pause(lease)
  await clock.until(() => callsOf('intent.clear') === 1)
  assert.ok(flushes() - before >= 6, 'two chunks on three members')
  assert.equal(cluster.master.inodes.get(file.inode)?.attributes.size, CHUNK_SIZE_BYTES + 4)
  assert.ok(cluster.master.log.lastIndexOf('lease.update') < cluster.master.log.indexOf('intent.clear'))
  await clock.advance(100)
  assert.equal(leaseOf(), lease)
  assert.equal(callsOf('lease.release') + callsOf('lease.return'), 0)
})

test('S1: a write that was issued later does not pass before the pause, and goes on after it', async () => {
  const { cluster, file, clock, callsOf, leaseOf, pause } = await withFile()
  await clock.wait(writeOf(file, 0, Buffer.from('aaaa')))
  let isHeld = false
  cluster.master.intercept = (method) => {
    if (method === 'intent.clear') isHeld = true
    if (method === 'intent.grant' && isHeld) throw new CairnError('TRY_AGAIN', 'being shared')
    return undefined
  }
  pause(leaseOf())
  await clock.advance(1)
  const chunk = cluster.master.chunkAt(file.inode, 0)
  const seen = (): string => String(cluster.servers[0]?.contents(chunk.id, 0, 4))
  let isDone = false
  file.write(0, Buffer.from('bbbb'), (error) => (isDone = error === null))
  await clock.until(() => isHeld)
  await clock.advance(2_000)
  assert.equal(seen(), 'aaaa')
  assert.equal(isDone, false)
  isHeld = false
  await clock.until(() => isDone)
  assert.equal(seen(), 'bbbb')
  assert.equal(callsOf('lease.acquire'), 1)
  await clock.wait(flushOf(file))
})

test('S1: a block export keeps its lease and is paused all the same', async () => {
  const { cluster, client, file, clock, callsOf, leaseOf, pause } = await withFile()
  await clock.wait(file.truncate(1024 * 1024))
  const device = await clock.wait(client.openBlockDevice('file'))
  await clock.wait(writeOf(device as never, 512, Buffer.alloc(512, 7)))
  const cleared = callsOf('intent.clear')
  pause(leaseOf())
  await clock.until(() => callsOf('intent.clear') === cleared + 1)
  await clock.wait(writeOf(device as never, 512, Buffer.alloc(512, 8)))
  assert.notEqual(leaseOf(), 0)
  assert.equal(cluster.master.inodes.get(file.inode)?.attributes.size, 1024 * 1024)
})

test('S1: while writes are held below min a pause is given up, and the file goes on', async () => {
  const { cluster, file, clock, callsOf, leaseOf, pause } = await withFile()
  cluster.master.minimum = 2
  await clock.wait(writeOf(file, 0, Buffer.from('aaaa')))
  const chunk = cluster.master.chunkAt(file.inode, 0)
  cluster.master.reconfigure(chunk, [{ server: 1, role: 'in-sync' }])
  let isDone = false
  file.write(0, Buffer.from('bbbb'), () => (isDone = true))
  await clock.advance(100)
  pause(leaseOf())
  await clock.advance(6_000)
  assert.equal(callsOf('intent.clear'), 0)
  cluster.master.join(chunk, 2)
  cluster.master.promote(chunk, 2)
  await clock.until(() => isDone)
})
