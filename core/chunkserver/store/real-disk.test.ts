/** The store on a real file system, every read and write through the thread pool: many operations at once. */
import assert from 'node:assert/strict'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { BufferPool } from '../../base/buffer-pool.ts'
import { Prng } from '../../base/prng.ts'
import { MIB, PAGE_SIZE_BYTES } from '../../base/units.ts'
import { silentLogger } from '../../platform/logger.ts'
import { NodeClock } from '../../platform/node/clock.ts'
import { NodeDisk } from '../../platform/node/disk.ts'
import { nodeRandom } from '../../platform/node/random.ts'
import { pageChecksums } from '../../wire/checksum.ts'
import { DataFlag, DataOp, type DataRequest } from '../../wire/data.ts'
import { dataRequest, pattern } from '../../testing/chunk-store-rig.ts'
import type { ChunkStore } from './chunk-store.ts'
import { ReplicaControl } from './replica-control.ts'
import { Role } from '../format/replica-state.ts'
import { closeStore, createStore, openStore } from './store-open.ts'

const AREA_BYTES = 4 * MIB

function exchange(
  store: ChunkStore,
  pool: BufferPool,
  request: DataRequest,
  content: Buffer | null,
): Promise<Buffer | string> {
  const sums = content === null ? new Uint32Array() : pageChecksums(content, request.offset)
  let owned: Buffer | null = null
  if (content !== null) {
    owned = pool.acquire(content.length)
    content.copy(owned)
  }
  return new Promise((resolve) => {
    const respond = (
      answer: { code: string; flags: number },
      _table: unknown,
      payload: Buffer | null,
    ): void => {
      const zeros = (answer.flags & DataFlag.zeros) !== 0
      resolve(
        answer.code === '' ? Buffer.from(payload ?? Buffer.alloc(zeros ? request.length : 0)) : answer.code,
      )
      if (payload !== null) pool.release(payload)
    }
    store.submit(request, Buffer.from(sums.buffer), owned, { respond }, null)
  })
}

test('concurrent operations on disjoint pages agree with a byte array, before and after a restart', async () => {
  const root = mkdtempSync(join(tmpdir(), 'cairn-store-'))
  try {
    const clock = new NodeClock()
    const disk = new NodeDisk(root, { mode: 'asynchronous' })
    const pool = new BufferPool({ poison: true })
    await createStore({ disk, clock, random: nodeRandom, clusterName: 'test', tier: 0, checksums: true })
    const opening = { disk, clock, logger: silentLogger, pool, clusterName: 'test' }
    let store = await openStore(opening)
    assert.equal(
      await new ReplicaControl(store).create({ chunk: 1, version: 1, role: Role.inSync, lease: 10 }),
      '',
    )
    const prng = new Prng(3)
    const model = Buffer.alloc(AREA_BYTES)
    for (let round = 0; round < 40; round++) {
      const running: Promise<unknown>[] = []
      for (let lane = 0; lane < 16; lane++) {
        // each lane keeps to its own 64 pages (rule E9)
        const begin = lane * 64 * PAGE_SIZE_BYTES
        const offset = begin + prng.below(60 * PAGE_SIZE_BYTES)
        const length = 1 + prng.below(4 * PAGE_SIZE_BYTES)
        const kind = prng.below(5)
        const fields = { offset, length }
        if (kind < 2) {
          const content = pattern(prng.uint32(), length)
          content.copy(model, offset)
          running.push(
            exchange(store, pool, dataRequest(DataOp.write, fields), content).then((got) =>
              assert.ok(got instanceof Buffer),
            ),
          )
        } else if (kind === 2) {
          model.fill(0, offset, offset + length)
          running.push(
            exchange(store, pool, dataRequest(DataOp.zero, fields), null).then((got) =>
              assert.ok(got instanceof Buffer),
            ),
          )
        } else {
          const expected = Buffer.from(model.subarray(offset, offset + length))
          const reading = exchange(store, pool, dataRequest(DataOp.read, fields), null)
          running.push(reading.then((got) => assert.ok(got instanceof Buffer && got.equals(expected))))
        }
      }
      if (round % 8 === 0)
        running.push(
          exchange(store, pool, dataRequest(DataOp.flush, { incarnation: store.incarnation }), null),
        )
      await Promise.all(running)
    }
    await closeStore(store)
    store = await openStore(opening)
    assert.equal(store.uncleanStop, 'none')
    for (let offset = 0; offset < AREA_BYTES; offset += MIB) {
      const got = await exchange(store, pool, dataRequest(DataOp.read, { offset, length: MIB }), null)
      assert.ok(got instanceof Buffer && got.equals(model.subarray(offset, offset + MIB)))
    }
    await closeStore(store)
  } finally {
    rmSync(root, { recursive: true })
  }
})
