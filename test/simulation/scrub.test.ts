// Proves on a whole simulated cluster that scrubbing finds and repairs, before anybody reads it, what one disk lost:
// a flipped bit, a write that never arrived, and a write that was lost together with its checksum (rules R1, R2,
// promise 6); and that a file which is written all the time is compared, too.
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { DATA_POSITION } from '../../core/chunkserver/format/chunk-layout.ts'
import type { File } from '../../core/client/api.ts'
import type { SimulatedDisk } from '../../core/testing/simulation/simulated-disk.ts'
import { startTestCluster, type TestCluster } from '../../core/testing/test-cluster.ts'

const owner = { uid: 0, gid: 0 }
const PAGE = 4096
const LENGTH = 20 * PAGE
const PATH = /^chunks\/[0-9a-f]{2}\/\d+$/

function write(file: File, offset: number, data: Buffer): Promise<void> {
  return new Promise((resolve, reject) => {
    file.write(offset, data, (error) => (error === null ? resolve() : reject(error)))
  })
}

function flush(file: File): Promise<void> {
  return new Promise((resolve, reject) => {
    file.flush((error) => (error === null ? resolve() : reject(error)))
  })
}

/** The file of the only chunk. */
function chunkPath(disk: SimulatedDisk): string {
  const paths = disk
    .list('chunks')
    .flatMap((directory) => disk.list(`chunks/${directory}`).map((name) => `chunks/${directory}/${name}`))
  assert.equal(paths.length, 1)
  assert.match(paths[0] ?? '', PATH)
  return paths[0] ?? ''
}

function contentOf(disk: SimulatedDisk, position = DATA_POSITION, length = LENGTH): Buffer {
  const content = Buffer.alloc(length)
  disk.open(chunkPath(disk)).read(content, position, (error) => assert.equal(error, null))
  return content
}

/** What is on the disk from now on, as if what was written since had never arrived. */
function rollBack(disk: SimulatedDisk, old: Buffer): void {
  const file = disk.open(chunkPath(disk))
  file.write([old], 0, (error) => assert.equal(error, null))
  file.sync((error) => assert.equal(error, null))
}

async function filled(): Promise<{ cluster: TestCluster; file: File; data: Buffer; disk: SimulatedDisk }> {
  const cluster = await startTestCluster({ parameters: { 'mds.wd.verify_chunks': '600' } })
  const { file } = await cluster.run(cluster.client.fileSystem.create(1, 'a', 0o644, owner, true))
  const data = Buffer.alloc(LENGTH, 'what was flushed ')
  await cluster.run(write(file, 0, data))
  await cluster.run(flush(file))
  const disk = cluster.chunkServers[0]?.simulatedDisk ?? assert.fail()
  return { cluster, file, data, disk }
}

function eventCodes(cluster: TestCluster): string[] {
  const { state } = cluster.master()?.role?.server ?? assert.fail()
  return [...state.events.values()].map(({ code }) => code)
}

test('a flipped bit', async () => {
  const { cluster, data, disk } = await filled()
  disk.flipBit(chunkPath(disk), DATA_POSITION + 17 * PAGE + 9, 3)
  assert.ok(!contentOf(disk).equals(data))
  await cluster.until(() => contentOf(disk).equals(data), 60_000)
  assert.ok(eventCodes(cluster).includes('BAD_PAGES'))
  await cluster.stop()
})

test('a write that never arrived', async () => {
  const { cluster, file, data, disk } = await filled()
  const old = contentOf(disk, 0, DATA_POSITION + LENGTH)
  await cluster.run(write(file, 5 * PAGE, Buffer.alloc(2 * PAGE, 'news')))
  await cluster.run(flush(file))
  data.fill('news', 5 * PAGE, 7 * PAGE)
  rollBack(disk, old)
  // its server still knows what it had written
  await cluster.until(() => contentOf(disk).equals(data), 60_000)
  assert.ok(eventCodes(cluster).includes('BAD_PAGES'))
  assert.ok(!eventCodes(cluster).includes('REPLICAS_DIFFER'))
  await cluster.stop()
})

test('a write that was lost with its checksum: only comparison finds it', async () => {
  const { cluster, file, data, disk } = await filled()
  const old = contentOf(disk, 0, DATA_POSITION + LENGTH)
  await cluster.run(write(file, 5 * PAGE, Buffer.alloc(2 * PAGE, 'news')))
  await cluster.run(flush(file))
  data.fill('news', 5 * PAGE, 7 * PAGE)
  // the intent is given back, so that a restart leaves nothing to be reconciled
  file.close()
  const clean = (): boolean => cluster.master()?.role?.server.state.leases.size === 0
  await cluster.until(clean, 60_000)
  await cluster.advance(1000)
  const server = cluster.chunkServers[0] ?? assert.fail()
  server.crash()
  rollBack(disk, old)
  server.restart()
  await cluster.until(() => contentOf(disk).equals(data), 60_000)
  assert.ok(eventCodes(cluster).includes('REPLICAS_DIFFER'))
  assert.ok(!eventCodes(cluster).includes('REPLICAS_GUESSED'), 'two agree')
  await cluster.stop()
})

test('a file that is written all the time is compared once in the period, and its writer only waits', async () => {
  const { cluster, file } = await filled()
  const oldestMs = (): number =>
    Math.max(
      ...(cluster.master()?.role?.server.control.statistics.stat().cs ?? []).map(
        (cs) => cs.oldestUnverifiedMs,
      ),
    )
  const beganMs = cluster.clock.nowMs()
  const config = cluster.master()?.role?.server.state.config ?? assert.fail()
  // a period shorter than any that can be set: days of writing would take too long
  config.set('cs.scrub.period_days', 20 / 86_400)
  let longestMs = 0
  let compared = false
  while (!compared) {
    const beforeMs = cluster.clock.nowMs()
    await cluster.run(write(file, 0, Buffer.alloc(PAGE, 1)))
    await cluster.run(flush(file))
    longestMs = Math.max(longestMs, cluster.clock.nowMs() - beforeMs)
    await cluster.advance(100)
    const elapsedMs = cluster.clock.nowMs() - beganMs
    compared = elapsedMs > 15_000 && oldestMs() < 10_000
    assert.ok(elapsedMs < 120_000, 'never compared')
  }
  assert.ok(longestMs < 2000, `a write took ${longestMs} ms`)
  await cluster.stop()
})
