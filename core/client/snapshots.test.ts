// Proves what api.ts says of snapshots, with the real servers on simulated time: what is in a snapshot and a clone, that
// a writer goes on, what rollback and deletion leave, what open handles see, and the errors.
import assert from 'node:assert/strict'
import test from 'node:test'
import { startTestCluster, type TestCluster } from '../testing/test-cluster.ts'
import type { Client, File } from './api.ts'

const owner = { uid: 7, gid: 8 }

class Files {
  readonly cluster: TestCluster

  constructor(cluster: TestCluster) {
    this.cluster = cluster
  }

  async make(name: string): Promise<File> {
    const { fileSystem } = this.cluster.client
    return (await this.cluster.run(fileSystem.create(1, name, 0o644, owner, true))).file
  }

  async write(file: File, offset: number, text: string): Promise<void> {
    const written = new Promise<void>((resolve, reject) => {
      file.write(offset, Buffer.from(text), (error) => (error === null ? resolve() : reject(error)))
    })
    await this.cluster.run(written)
  }

  async read(file: File): Promise<string> {
    const read = new Promise<string>((resolve, reject) => {
      file.read(0, 100, (error, data) => (error === null ? resolve(data.toString()) : reject(error)))
    })
    return await this.cluster.run(read)
  }

  async contents(inode: number, client: Client = this.cluster.client): Promise<string> {
    const file = await this.cluster.run(client.fileSystem.open(inode))
    const text = await this.read(file)
    file.close()
    return text
  }
}

test('create, list, info, clone and delete: contents of a moment, while the writer goes on', async () => {
  const cluster = await startTestCluster({ seed: 5 })
  const { snapshots } = cluster.client
  const files = new Files(cluster)
  const file = await files.make('f')
  await files.write(file, 0, 'one')
  const first = await cluster.run(snapshots.create(file.inode, 'first', '/f'))
  await files.write(file, 0, 'two and more')
  const second = await cluster.run(snapshots.create(file.inode, 'second', '/f'))
  await files.write(file, 0, 'TWO')
  assert.deepEqual(
    [await files.contents(first), await files.contents(second), await files.read(file)],
    ['one', 'two and more', 'TWO and more'],
  )

  const listed = await cluster.run(snapshots.list(file.inode))
  assert.deepEqual(
    listed.map(({ snapshot, name, path, size, ready }) => ({ snapshot, name, path, size, ready })),
    [
      { snapshot: first, name: 'first', path: '/f', size: 3, ready: true },
      { snapshot: second, name: 'second', path: '/f', size: 12, ready: true },
    ],
  )
  assert.deepEqual(await cluster.run(snapshots.list()), listed)
  const info = await cluster.run(snapshots.info(second))
  assert.deepEqual([info.name, info.source, info.ownChunks + info.sharedChunks], ['second', file.inode, 1])

  const clone = await cluster.run(snapshots.clone(first, 1, 'clone', owner))
  const attributes = await cluster.run(cluster.client.fileSystem.lookup(1, 'clone'))
  assert.deepEqual([attributes.inode, attributes.uid, attributes.size], [clone, owner.uid, 3])
  const opened = await cluster.run(cluster.client.fileSystem.open(clone))
  await files.write(opened, 0, 'C')
  assert.deepEqual([await files.contents(clone), await files.contents(first)], ['Cne', 'one'])

  const reader = await cluster.run(cluster.client.fileSystem.open(first))
  await cluster.run(snapshots.delete(first))
  assert.equal(await files.read(reader), 'one', 'who has it open reads on')
  reader.close()
  assert.deepEqual(
    (await cluster.run(snapshots.list(file.inode))).map(({ name }) => name),
    ['second'],
  )
  assert.deepEqual([await files.contents(clone), await files.read(file)], ['Cne', 'TWO and more'])
  await cluster.stop()
})

test('T2: after a rollback open handles have the contents and the size of the snapshot', async () => {
  const cluster = await startTestCluster({ seed: 6 })
  const { snapshots } = cluster.client
  const files = new Files(cluster)
  const file = await files.make('f')
  await files.write(file, 0, 'old')
  const snapshot = await cluster.run(snapshots.create(file.inode, 's', '/f'))
  await files.write(file, 0, 'new and longer')
  const told: number[] = []
  cluster.client.onInvalidate(({ inodes }) => told.push(...inodes))
  assert.equal(await cluster.run(snapshots.rollback(snapshot)), file.inode)
  assert.equal(file.attributes().size, 3)
  assert.equal(await files.read(file), 'old')
  assert.ok(told.includes(file.inode), 'an export drops what its kernel has')
  await files.write(file, 3, ' and new')
  const other = await cluster.connect('other')
  assert.deepEqual(
    [await files.contents(file.inode, other), await files.contents(snapshot, other)],
    ['old and new', 'old'],
  )
  await cluster.stop()
})

test('T2: a rollback comes about although others write without a pause', async () => {
  const cluster = await startTestCluster({ seed: 8 })
  const { clock } = cluster
  const files = new Files(cluster)
  const file = await files.make('f')
  await files.write(file, 0, 'old')
  const snapshot = await cluster.run(cluster.client.snapshots.create(file.inode, 's', '/f'))
  let writers = 0
  let isOver = false
  const writeOn = (open: File): void => {
    if (isOver) writers -= 1
    else open.write(0, Buffer.from('new'), () => writeOn(open))
  }
  for (const name of ['one', 'two', 'three']) {
    const other = await cluster.connect(name)
    writers += 1
    writeOn(await cluster.run(other.fileSystem.open(file.inode)))
  }
  await cluster.advance(100)
  const askedMs = clock.nowMs()
  await cluster.run(cluster.client.snapshots.rollback(snapshot))
  const lasted = clock.nowMs() - askedMs
  isOver = true
  await cluster.until(() => writers === 0)
  assert.ok(lasted < 1_000, `it took ${lasted} ms`)
  await cluster.stop()
})

test('errors say what is wrong', async () => {
  const cluster = await startTestCluster({ seed: 7 })
  const { snapshots } = cluster.client
  const files = new Files(cluster)
  const file = await files.make('f')
  await files.make('taken')
  const snapshot = await cluster.run(snapshots.create(file.inode, 's', '/f'))
  const rejects = async (promise: Promise<unknown>, code: string): Promise<void> =>
    await assert.rejects(cluster.run(promise), { code })
  await rejects(snapshots.create(file.inode, 's', '/f'), 'EEXIST')
  await rejects(snapshots.create(1, 's', '/'), 'EINVAL')
  await rejects(snapshots.create(snapshot, 's', '/f'), 'EINVAL')
  await rejects(snapshots.clone(snapshot, 1, 'taken', owner), 'EEXIST')
  await rejects(snapshots.info(4_711), 'NOT_FOUND')
  await cluster.run(snapshots.delete(snapshot))
  await rejects(snapshots.delete(snapshot), 'NOT_FOUND')
  await rejects(snapshots.rollback(snapshot), 'NOT_FOUND')
  await cluster.stop()
})
