/** What is held must neither spread nor be forgotten: hold_timeout and commands under a lease, flushes that do not end. */
import assert from 'node:assert/strict'
import test from 'node:test'
import { CairnError, codeOf } from '../../base/errors.ts'
import { CHUNK_SIZE_BYTES } from '../../base/units.ts'
import { FakeCluster, flushOf, readOf, writeOf } from '../testing/fake-cluster.ts'

async function withFile(serverCount: number, holdTimeoutMs = 0) {
  const cluster = new FakeCluster(serverCount)
  const client = await cluster.connect({ holdTimeoutMs })
  const file = await cluster.create(client)
  const node = cluster.master.inodes.get(file.inode)
  assert.ok(node)
  return { cluster, client, file, node, clock: cluster.clock }
}

const outcome = (work: Promise<unknown>): Promise<string> => work.then(() => 'ok', codeOf)

test('hold_timeout ends the wait for an unmapping, not the unmapping: nothing goes to a chunk that is gone (T2, E11)', async () => {
  for (const method of ['lease.unmap', 'lease.truncate']) {
    const { cluster, file, node, clock } = await withFile(3, 3000)
    await clock.wait(writeOf(file, 0, Buffer.from('aaaa')))
    await clock.wait(flushOf(file))
    let isDelayed = true
    cluster.master.intercept = (asked) => {
      if (asked === method && isDelayed) throw new CairnError('TRY_AGAIN', 'no quorum')
      return undefined
    }
    const cut = outcome(
      method === 'lease.unmap'
        ? file.zero(0, CHUNK_SIZE_BYTES, true)
        : file.truncate(0).then(() => undefined),
    )
    assert.equal(await clock.wait(cut, 6000), 'ETIMEDOUT')
    // Waits its turn, and no longer than it may.
    assert.equal(await clock.wait(outcome(writeOf(file, 0, Buffer.from('bbbb'))), 6000), 'ETIMEDOUT')
    // The entry was in the log all the time; it is applied as soon as there is a quorum again.
    node.chunks.clear()
    isDelayed = false
    await clock.advance(2000)
    await clock.wait(writeOf(file, 0, Buffer.from('cccc')))
    await clock.wait(flushOf(file))
    const chunk = cluster.master.chunkAt(file.inode, 0)
    for (const server of cluster.servers) assert.equal(server.contents(chunk.id, 0, 4).toString(), 'cccc')
    assert.equal((await clock.wait(readOf(file, 0, 4))).toString(), 'cccc')
  }
})

/** Chunk 0 on servers 1 to 3, dirty and out of reach; chunk 1 on the others. */
async function withUnreachableChunk() {
  const room = await withFile(6)
  const { cluster, file, clock } = room
  await clock.wait(writeOf(file, 0, Buffer.from('aaaa')))
  for (const id of [1, 2, 3]) cluster.kill(id)
  await clock.wait(writeOf(file, CHUNK_SIZE_BYTES, Buffer.from('bbbb')))
  return room
}

for (const reason of ['idle', 'lease.recall', 'lease.pause'] as const) {
  test(`a chunk that cannot be flushed keeps the lease, and does not hold writes to others (${reason}; A3, L9)`, async () => {
    const { cluster, file, node, clock } = await withUnreachableChunk()
    const { lease } = node
    const params = { inode: file.inode, lease, deadlineMs: 2000 }
    if (reason === 'idle') await clock.advance(6000)
    else cluster.master.notify(reason, params)
    await clock.advance(10)
    await clock.wait(writeOf(file, CHUNK_SIZE_BYTES, Buffer.from('cccc')), 4000)
    assert.equal(node.lease, lease)
    for (const id of [1, 2, 3]) cluster.revive(id)
    await clock.wait(flushOf(file))
    await clock.until(() => node.lease === 0, 30_000)
    assert.equal((await clock.wait(readOf(file, 0, 4))).toString(), 'aaaa')
  })
}
