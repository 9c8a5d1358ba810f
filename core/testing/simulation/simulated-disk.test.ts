/** The simulated disk keeps what was synced, and loses, tears and reorders the rest as the seed says. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { SimulatedDisk } from './simulated-disk.ts'

const none = (error: unknown): void => assert.equal(error, null)

function written(seed: number): { disk: SimulatedDisk; old: Buffer; fresh: Buffer } {
  const disk = new SimulatedDisk({ seed })
  const old = Buffer.alloc(16_384, 1)
  const fresh = Buffer.alloc(16_384, 2)
  const file = disk.open('a', { create: true })
  file.write([old], 0, none)
  file.sync(none)
  disk.syncDirectory('.', none)
  file.write([fresh], 0, none)
  return { disk, old, fresh }
}

test('a process crash keeps the page cache; power loss keeps what was synced', () => {
  const { disk, old, fresh } = written(1)
  const boot = disk.identity().bootId
  disk.crashProcess()
  assert.ok(disk.contents('a').equals(fresh))
  assert.equal(disk.identity().bootId, boot)
  disk.losePower(0)
  assert.ok(disk.contents('a').equals(old))
  assert.notEqual(disk.identity().bootId, boot)
})

test('power loss tears unsynced writes by sectors, the same way for the same seed', () => {
  const images = [5, 5, 6].map((seed) => {
    const { disk } = written(seed)
    disk.losePower(0.5)
    return disk.contents('a')
  })
  const kinds = new Set(images[0])
  assert.deepEqual(kinds, new Set([1, 2]))
  for (let at = 0; at < 16_384; at += 512) {
    assert.equal(new Set(images[0]?.subarray(at, at + 512)).size, 1)
  }
  assert.ok(images[0]?.equals(images[1] ?? Buffer.alloc(0)))
  assert.ok(images[0]?.equals(images[2] ?? Buffer.alloc(0)) === false)
})

test('names are durable after a sync of their directory', () => {
  const disk = new SimulatedDisk({ seed: 1 })
  disk.makeDirectory('d')
  const file = disk.open('d/x', { create: true })
  file.write([Buffer.from('x')], 0, none)
  file.sync(none)
  disk.losePower(0)
  assert.equal(disk.exists('d/x'), false)
})

test('after a failed sync the data stays in the cache, counts as clean, and is lost (rule F7)', () => {
  const { disk, old, fresh } = written(1)
  disk.faults.failSyncs = 1
  const file = disk.open('a')
  file.sync((error) => assert.equal(error?.code, 'DISK_IO'))
  assert.ok(disk.contents('a').equals(fresh))
  file.sync(none)
  disk.losePower(1)
  assert.ok(disk.contents('a').equals(old))
})

test('a full disk, a stop after N operations, a hanging disk', () => {
  const disk = new SimulatedDisk({ seed: 1, capacityBytes: 8192 })
  const file = disk.open('a', { create: true })
  file.write([Buffer.alloc(8192, 1)], 0, none)
  file.write([Buffer.alloc(10, 1)], 8192, (error) => assert.equal(error?.code, 'DISK_NO_SPACE'))
  disk.faults.hanging = true
  let answers = 0
  file.write([Buffer.alloc(10, 7)], 0, () => answers++)
  assert.equal(answers, 0)
  disk.releaseHanging()
  assert.equal(answers, 1)
  disk.faults.stopAfter = 1
  file.write([Buffer.alloc(10, 8)], 0, () => answers++)
  file.write([Buffer.alloc(10, 9)], 0, () => answers++)
  assert.equal(answers, 2)
  assert.equal(disk.contents('a')[0], 8)
})
