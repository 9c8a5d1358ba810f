/** When replicas were verified: the order of the work, and that a restart does not forget it (rule R2). */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { createReplica, makeRig, openRig, type Rig } from '../../testing/chunk-store-rig.ts'
import { loadVerified, saveVerified, VERIFIED_NAME } from '../format/verified-file.ts'
import { VerifiedKeeper } from './verified-keeper.ts'

const all = (): boolean => true
const dueOf = (rig: Rig): number[] => rig.store.verified.due(10, all).map(({ chunk }) => chunk)

async function withReplicas(chunks: readonly number[]): Promise<{ rig: Rig; keeper: VerifiedKeeper }> {
  const rig = await makeRig(1)
  const keeper = new VerifiedKeeper(rig.store)
  await rig.clock.settled(keeper.start())
  for (const chunk of chunks) {
    await createReplica(rig, chunk)
    await rig.clock.advance(1000)
  }
  return { rig, keeper }
}

test('the oldest first; looked at is not verified: others come before it, and it stays the oldest', async () => {
  const { rig } = await withReplicas([1, 2, 3])
  const { verified } = rig.store
  assert.deepEqual(dueOf(rig), [1, 2, 3])
  await rig.clock.advance(60_000)
  verified.looked(1)
  assert.deepEqual(dueOf(rig), [2, 3, 1])
  assert.equal(verified.oldestMs(all), 63_000)
  verified.verified(1)
  assert.equal(verified.oldestMs(all), 62_000)
  verified.verified(2)
  verified.verified(3)
  assert.deepEqual([dueOf(rig), verified.oldestMs(all)], [[1, 2, 3], 0])
  await rig.clock.settled(rig.control.delete(1, 5))
  assert.deepEqual(dueOf(rig), [2, 3])
  assert.deepEqual(
    verified.due(10, (chunk) => chunk === 3).map(({ chunk }) => chunk),
    [3],
  )
  assert.deepEqual(dueOf(rig), [3, 2], 'who cannot be verified now makes way')
  assert.equal(
    verified.oldestMs(() => false),
    0,
  )
})

test('a restart, in order or not, goes on where it was', async () => {
  const { rig, keeper } = await withReplicas([1, 2, 3])
  await rig.clock.advance(100_000)
  rig.store.verified.verified(1)
  // written by itself after a while
  await rig.clock.advance(20_000)
  rig.disk.losePower(0)
  const crashed = await openRig(rig.disk, rig.clock)
  const next = new VerifiedKeeper(crashed.store)
  await crashed.clock.settled(next.start())
  assert.deepEqual(dueOf(crashed), [2, 3, 1])
  assert.equal(crashed.store.verified.oldestMs(all), 122_000)
  crashed.store.verified.verified(2)
  await crashed.clock.settled(next.close())
  assert.deepEqual(
    [...(await loadVerified(rig.disk))].map(([chunk]) => chunk),
    [3, 1, 2],
  )
  await rig.clock.settled(keeper.close())
  const again = await openRig(rig.disk, rig.clock)
  await again.clock.settled(new VerifiedKeeper(again.store).start())
  assert.deepEqual(dueOf(again), [3, 1, 2])
})

test('blocks that do not read back are left out, and their replicas count from now on', async () => {
  const rig = await makeRig(1)
  const entries = Array.from({ length: 2000 }, (_, index) => [index + 1, 100 + index] as const)
  await rig.clock.settled(saveVerified(rig.disk, entries, 2000))
  assert.deepEqual([...(await loadVerified(rig.disk))], entries)
  rig.disk.flipBit(VERIFIED_NAME, 4096 + 50, 1)
  const left = await loadVerified(rig.disk)
  assert.deepEqual(
    [left.size, left.has(340), left.has(341), left.has(680), left.has(681)],
    [1660, true, false, false, true],
  )
  await createReplica(rig, 341)
  await rig.clock.settled(new VerifiedKeeper(rig.store).start())
  assert.equal(rig.store.verified.oldestMs(all), 0)
})

test('a disk that cannot keep it loses the order and nothing else', async () => {
  const { rig, keeper } = await withReplicas([1])
  rig.disk.faults.failWrites = 1
  await rig.clock.settled(keeper.close())
  assert.equal(rig.store.verified.isChanged, true)
  assert.equal(rig.store.failure, null)
})
