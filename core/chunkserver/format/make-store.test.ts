/** What make-cs warns about, and that gathering facts of the test machine works. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { GIB, MIB } from '../../base/units.ts'
import { gatherDiskFacts } from '../../platform/node/disk-facts.ts'
import { SeededRandom } from '../../testing/simulation/seeded-random.ts'
import { checkNewStore, type DiskFacts } from './make-store.ts'
import { createStore, openStore } from '../store/store-open.ts'
import { makeRig } from '../../testing/chunk-store-rig.ts'

const fine: DiskFacts = {
  device: 'sdb1',
  fileSystem: 'ext4',
  partitionStartBytes: MIB,
  isSystemDisk: false,
  holdsSwap: false,
  isMemory: false,
  totalBytes: 100 * GIB,
  freeBytes: 90 * GIB,
}

function warn(disk: Partial<DiskFacts>, knownHosts = [{ hostId: 'a', hostName: 'one' }]): string[] {
  const facts = { disk: { ...fine, ...disk }, hostId: 'a', hostName: 'one', knownHosts }
  return checkNewStore(facts).map((warning) => warning.code)
}

test('a disk of its own gives no warning', () => {
  assert.deepEqual(warn({}), [])
  assert.deepEqual(warn({ partitionStartBytes: null }), [])
})

test('each unsuitable disk gives its warning', () => {
  assert.deepEqual(warn({ partitionStartBytes: 63 * 512 }), ['PARTITION_MISALIGNED'])
  assert.deepEqual(warn({ isSystemDisk: true }), ['SYSTEM_DISK'])
  assert.deepEqual(warn({ holdsSwap: true }), ['SWAP_DISK'])
  assert.deepEqual(warn({ freeBytes: 10 * MIB }), ['LITTLE_SPACE'])
  assert.deepEqual(warn({ isMemory: true }), ['NOT_PERSISTENT'])
})

test('a host_id that another host has gives a warning, our own does not', () => {
  assert.deepEqual(warn({}, [{ hostId: 'a', hostName: 'two' }]), ['HOST_ID_IN_USE'])
})

test('facts of this machine can be gathered, also for a directory that does not exist yet', () => {
  const facts = gatherDiskFacts('/tmp/not/there/yet')
  assert.ok(facts.totalBytes > 0 && facts.fileSystem !== '')
  assert.equal(gatherDiskFacts('/').isSystemDisk, gatherDiskFacts('/').device !== '')
})

test('a store that was written through a decorator is not opened without it (rule B4)', async () => {
  const { disk, clock, pool, store } = await makeRig(1)
  const opening = { disk, clock, pool, logger: store.logger, clusterName: 'test' }
  await store.superblocks.change({ decorators: ['ssd-journal'] })
  disk.crashProcess()
  await assert.rejects(openStore(opening), { code: 'STORE_DECORATED' })
  await assert.rejects(openStore({ ...opening, decorators: ['ssd-cache'] }), { code: 'STORE_DECORATED' })
  await openStore({ ...opening, decorators: ['ssd-cache', 'ssd-journal'] })
})

test('a second store in the directory, another cluster and a damaged superblock are refused', async () => {
  const { disk, clock, pool, store } = await makeRig(1)
  const options = { disk, clock, random: new SeededRandom(1), clusterName: 'x', tier: 0, checksums: true }
  await assert.rejects(createStore(options), { code: 'STORE_EXISTS' })
  disk.crashProcess()
  const opening = { disk, clock, pool, logger: store.logger }
  await assert.rejects(openStore({ ...opening, clusterName: 'other' }), { code: 'STORE_FOREIGN' })
  disk.resize('superblock', 0)
  await assert.rejects(openStore({ ...opening, clusterName: 'test' }), { code: 'STORE_INVALID' })
})
