// Proves that what concerns very many chunks goes in steps: however large a file is, no command drops more of it
// than a few hundred chunks, and no commit has many more rows than one command changes.

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { CHUNK_SIZE_BYTES } from '../../base/units.ts'
import { MetadataScene, type SceneSession } from '../../testing/metadata-scene.ts'
import { SLICE_ROWS_MAX } from '../quorum/applier.ts'
import { COLLECT_CHUNKS_MAX } from './orphan-collector.ts'
import { TRUNCATED_CHUNKS_MAX } from './services/lease-service.ts'

const CHUNK_COUNT = 2_560
const GRANTED_AT_ONCE = 64
/** Of a chunk with one replica: its own, and that of the replica that waits for deletion. */
const ROWS_PER_CHUNK = 2

/** Files of that many chunks, and what happened to the number of chunks and of rows, command by command. */
class Scene {
  readonly scene: MetadataScene
  readonly session: SceneSession
  /** Of each command that dropped any. */
  readonly dropped: number[] = []
  readonly sizes: number[] = []
  rowCountMax = 0

  private constructor(scene: MetadataScene, session: SceneSession) {
    this.scene = scene
    this.session = session
  }

  static async open(): Promise<Scene> {
    let noteRows: (count: number) => void = () => {}
    const scene = await MetadataScene.open({
      chunkServerCount: 0,
      placement: { replicasNormal: 1, replicasMinimum: 1, failureDomain: 'host' },
      onCommit: (batch) => noteRows(batch.rows.length),
    })
    const server = scene.addChunkServer('cs1', { totalBytes: 2 ** 50, freeBytes: 2 ** 50 })
    server.start()
    await scene.until(() => server.isRegistered)
    const made = new Scene(scene, await scene.session('client'))
    noteRows = (count) => {
      made.rowCountMax = Math.max(made.rowCountMax, count)
    }
    return made
  }

  async file(): Promise<{ inode: number; lease: number }> {
    const { session } = this
    const inode = await session.createFile('file')
    const lease = await session.lease(inode)
    const sizeLimit = CHUNK_COUNT * CHUNK_SIZE_BYTES
    for (let from = 0; from < CHUNK_COUNT; from += GRANTED_AT_ONCE) {
      const indexes = Array.from({ length: GRANTED_AT_ONCE }, (_, number) => from + number)
      const { locations } = await session.insist(() =>
        session.call('intent.grant', { inode, lease, indexes, sizeLimit }),
      )
      const chunks = locations.map(({ chunk }) => chunk)
      await session.call('intent.clear', { inode, lease, chunks })
    }
    await session.mutate('lease.update', { inode, lease, size: sizeLimit })
    this.#watch(inode)
    return { inode, lease }
  }

  #watch(inode: number): void {
    const { state, log } = this.scene.mds
    let before = state.chunks.size
    log.onApplied(() => {
      if (state.chunks.size < before) this.dropped.push(before - state.chunks.size)
      before = state.chunks.size
      const size = state.inodes.get(inode)?.size
      if (size !== undefined && size !== this.sizes.at(-1)) this.sizes.push(size)
    })
    this.rowCountMax = 0
  }
}

test('a truncation cuts a large file step by step, from its end', async () => {
  const stage = await Scene.open()
  const { session } = stage
  const { inode, lease } = await stage.file()
  const size = 100 * CHUNK_SIZE_BYTES + 10
  const { attributes, zeroFrom } = await session.mutate('lease.truncate', { inode, lease, size })
  assert.deepEqual([attributes.size, zeroFrom, stage.scene.mds.state.chunks.size], [size, size, 101])
  assert.ok(stage.dropped.length >= 3)
  for (const count of stage.dropped)
    assert.ok(count <= TRUNCATED_CHUNKS_MAX, `${count} chunks in one command`)
  assert.deepEqual(
    stage.sizes,
    stage.sizes.toSorted((a, b) => b - a),
    'it only gets shorter',
  )
  assert.equal(stage.sizes.at(-1), size)
})

test('a large file without a name ends step by step, and so do its rows', async () => {
  const stage = await Scene.open()
  const { scene, session } = stage
  const { inode, lease } = await stage.file()
  await session.mutate('lease.release', { inode, lease })
  await session.mutate('fs.unlink', { parent: 1, name: 'file' })
  await session.call('fs.close', { inodes: [inode] })
  await scene.until(() => scene.mds.state.inodes.get(inode) === undefined)
  assert.equal(scene.mds.state.chunks.size, 0)
  for (const count of stage.dropped) assert.ok(count <= COLLECT_CHUNKS_MAX, `${count} chunks in one command`)
  await scene.until(() => scene.mds.state.condemned.size === 0)
  // The last rows are written now.
  await scene.clock.settled(scene.mds.close())
  const rowCountMax = SLICE_ROWS_MAX + ROWS_PER_CHUNK * COLLECT_CHUNKS_MAX
  assert.ok(stage.rowCountMax <= rowCountMax, `${stage.rowCountMax} rows in one commit`)
})
