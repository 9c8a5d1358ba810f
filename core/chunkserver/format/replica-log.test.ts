/** The replica log: torn tails are dropped, damage is seen, compaction loses nothing. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { Prng } from '../../base/prng.ts'
import { SimulatedClock } from '../../testing/simulation/simulated-clock.ts'
import { SimulatedDisk } from '../../testing/simulation/simulated-disk.ts'
import { LOG_RECORD_BYTES, readLog } from './replica-log-format.ts'
import { LOG_NAMES, ReplicaLog } from './replica-log.ts'
import { ReplicaState, Role } from './replica-state.ts'

interface Rig {
  readonly disk: SimulatedDisk
  readonly clock: SimulatedClock
  readonly states: Map<number, ReplicaState>
  log: ReplicaLog
}

function stateOf(version: number): ReplicaState {
  const state = new ReplicaState()
  state.version = version
  state.role = Role.inSync
  state.lease = version * 10
  state.openLow = -1
  return state
}

async function makeLog(seed: number): Promise<Rig> {
  const disk = new SimulatedDisk({ seed })
  const clock = new SimulatedClock()
  await ReplicaLog.create(disk, clock)
  const rig = { disk, clock, states: new Map<number, ReplicaState>(), log: new ReplicaLog(disk, clock) }
  await rig.log.load()
  await startLog(rig)
  return rig
}

function startLog(rig: Rig): Promise<void> {
  const { states } = rig
  return rig.log.start({
    get stateCount() {
      return states.size
    },
    states: () => states,
  })
}

/** Appends; the promise says whether it became durable. */
function append(rig: Rig, chunk: number, state: ReplicaState | null): Promise<boolean> {
  if (state === null) rig.states.delete(chunk)
  else rig.states.set(chunk, state)
  return new Promise((resolve) => {
    rig.log.append(chunk, state, { onLogged: (error) => resolve(error === null) })
  })
}

function currentFile(disk: SimulatedDisk): string {
  return LOG_NAMES.find((name) => disk.contents(name).length > 0) ?? LOG_NAMES[0]
}

test('what is appended in one turn shares one sync and reads back', async () => {
  const rig = await makeLog(1)
  const before = rig.disk.syncCount
  const results = [append(rig, 1, stateOf(3)), append(rig, 2, stateOf(4)), append(rig, 1, stateOf(5))]
  results.push(append(rig, 2, null))
  assert.deepEqual(await rig.clock.settled(Promise.all(results)), [true, true, true, true])
  assert.equal(rig.disk.syncCount - before, 1)
  rig.disk.losePower(0)
  const loaded = await new ReplicaLog(rig.disk, rig.clock).load()
  assert.equal(loaded.damaged, false)
  assert.deepEqual([...loaded.states.keys()], [1])
  assert.deepEqual(loaded.states.get(1), stateOf(5))
})

test('rule P2: power loss at any operation keeps every acknowledged record', async () => {
  for (let stopAfter = 0; stopAfter < 60; stopAfter++) {
    const rig = await makeLog(stopAfter)
    const prng = new Prng(stopAfter)
    const acknowledged = new Map<number, number>()
    rig.disk.faults.stopAfter = stopAfter
    for (let batch = 0; batch < 30 && !rig.disk.stopped; batch++) {
      for (let count = 0; count <= prng.below(4); count++) {
        const chunk = prng.below(10)
        const version = batch * 10 + count + 1
        void append(rig, chunk, stateOf(version)).then((durable) => {
          if (durable) acknowledged.set(chunk, version)
        })
      }
      await rig.clock.settle()
    }
    rig.disk.losePower()
    const loaded = await new ReplicaLog(rig.disk, rig.clock).load()
    assert.equal(loaded.damaged, false, `stop ${stopAfter}`)
    for (const [chunk, version] of acknowledged) {
      assert.ok((loaded.states.get(chunk)?.version ?? 0) >= version, `stop ${stopAfter}, chunk ${chunk}`)
    }
  }
})

test('a bad record in an acknowledged batch is damage, in the last batch a torn tail', async () => {
  const rig = await makeLog(3)
  for (let version = 1; version <= 4; version++) {
    await rig.clock.settled(Promise.all([append(rig, 1, stateOf(version)), append(rig, 2, stateOf(version))]))
  }
  const bytes = rig.disk.contents(currentFile(rig.disk))
  const count = bytes.length / LOG_RECORD_BYTES
  assert.equal(count, 2 + 8)
  for (let record = 1; record < count; record++) {
    const copy = Buffer.from(bytes)
    copy[record * LOG_RECORD_BYTES + 33] = (copy[record * LOG_RECORD_BYTES + 33] ?? 0) ^ 1
    const reading = readLog(copy)
    const inLastBatch = record >= count - 2
    if (record === 1) assert.equal(reading.complete, false)
    else assert.equal(reading.damaged, !inLastBatch, `record ${record}`)
    if (inLastBatch) assert.equal(reading.states.get(2)?.version, 3)
  }
})

test('random bytes and truncations are never taken for a log', () => {
  const prng = new Prng(9)
  for (let round = 0; round < 2000; round++) {
    const bytes = Buffer.alloc(prng.below(1000))
    for (let at = 0; at < bytes.length; at++) bytes[at] = prng.below(256)
    const reading = readLog(bytes)
    assert.equal(reading.complete, false)
    assert.equal(reading.states.size, 0)
  }
})

test('compaction moves to the other file, loses nothing, survives power loss in the middle', async () => {
  const rig = await makeLog(5)
  const first = currentFile(rig.disk)
  const write = async (): Promise<void> => {
    const all = Array.from({ length: 4000 }, (_, index) => append(rig, index % 50, stateOf(index + 1)))
    assert.ok((await rig.clock.settled(Promise.all(all))).every((durable) => durable))
  }
  for (let round = 0; round < 5; round++) await write()
  assert.notEqual(currentFile(rig.disk), first)
  assert.ok(rig.disk.contents(currentFile(rig.disk)).length < 1_500_000)
  rig.disk.losePower(0)
  const loaded = await new ReplicaLog(rig.disk, rig.clock).load()
  assert.equal(loaded.states.size, 50)
  assert.equal(loaded.states.get(49)?.version, 4000)
})

test('a full disk fails the batch and later ones succeed; an I/O error ends the log', async () => {
  const rig = await makeLog(6)
  await rig.clock.settled(append(rig, 1, stateOf(1)))
  rig.disk.capacityBytes = rig.disk.usedBytes
  const many = Array.from({ length: 100 }, (_, index) => append(rig, 100 + index, stateOf(1)))
  assert.ok((await rig.clock.settled(Promise.all(many))).every((durable) => !durable))
  rig.disk.capacityBytes = Number.MAX_SAFE_INTEGER
  assert.equal(await rig.clock.settled(append(rig, 2, stateOf(2))), true)
  rig.disk.faults.failSyncs = 1
  assert.equal(await rig.clock.settled(append(rig, 3, stateOf(3))), false)
  assert.equal(await rig.clock.settled(append(rig, 4, stateOf(4))), false)
  rig.disk.losePower(0)
  const loaded = await new ReplicaLog(rig.disk, rig.clock).load()
  assert.deepEqual([loaded.states.get(1)?.version, loaded.states.get(2)?.version], [1, 2])
  assert.equal(loaded.states.has(4), false)
})

test('what a batch that failed on a full disk left behind the next one is not read (rule E2)', async () => {
  const rig = await makeLog(7)
  await rig.clock.settled(append(rig, 1, stateOf(5)))
  const name = currentFile(rig.disk)
  const good = rig.disk.contents(name).length
  // the whole batch is in the file, its sync says that there was no room
  rig.disk.faults.failSyncsFull = 1
  const failed = [append(rig, 2, stateOf(1)), append(rig, 1, stateOf(6)), append(rig, 1, stateOf(7))]
  assert.deepEqual(await rig.clock.settled(Promise.all(failed)), [false, false, false])
  assert.equal(await rig.clock.settled(append(rig, 1, stateOf(9))), true)
  assert.ok(rig.disk.contents(name).length > good + LOG_RECORD_BYTES, 'something is left behind it')
  rig.disk.crashProcess()
  const loaded = await new ReplicaLog(rig.disk, rig.clock).load()
  assert.equal(loaded.states.get(1)?.version, 9)
  assert.equal(loaded.damaged, false)
})

test('rule S2: an overlay is two records, and never flat when one of them is missing', async () => {
  const rig = await makeLog(20)
  const overlay = stateOf(3)
  overlay.becomeOverlay(77)
  overlay.leftoversLow = 5
  overlay.leftoversHigh = 1 << 31
  await rig.clock.settled(Promise.all([append(rig, 1, stateOf(1)), append(rig, 2, overlay)]))
  const name = currentFile(rig.disk)
  const sound = readLog(rig.disk.contents(name)).states
  assert.deepEqual(sound.get(2), overlay)
  assert.equal(sound.get(1)?.isOverlay, false)
  // every tail that a stop may leave: both records or none
  const bytes = rig.disk.contents(name)
  for (let end = 0; end <= bytes.length; end += LOG_RECORD_BYTES) {
    const found = readLog(bytes.subarray(0, end)).states.get(2)
    assert.ok(found === undefined || (found.isOverlay && found.parent === 77))
  }
  // a snapshot has both, too
  rig.log = new ReplicaLog(rig.disk, rig.clock)
  await rig.log.load()
  await startLog(rig)
  assert.deepEqual(readLog(rig.disk.contents(currentFile(rig.disk))).states.get(2), overlay)
  // the record of the parent rots: it is not known any more
  const records = rig.disk.contents(currentFile(rig.disk))
  let isFound = false
  for (let at = 0; at < records.length; at += LOG_RECORD_BYTES) {
    if (records[at + 4] !== 5) continue
    isFound = true
    records[at + 41] = (records[at + 41] ?? 0) ^ 1
  }
  assert.ok(isFound)
  const reading = readLog(records)
  const left = reading.states.get(2)
  assert.ok(left === undefined || (left.isOverlay && left.parent === 0))
})

test('marks count what was appended and is durable, over starts and snapshots, which do not count (rule B3)', async () => {
  const rig = await makeLog(31)
  assert.equal(rig.log.marks, 0)
  for (let chunk = 1; chunk <= 5; chunk++) assert.ok(await rig.clock.settled(append(rig, chunk, stateOf(1))))
  assert.equal(rig.log.marks, 5)
  await rig.clock.settled(rig.log.snapshot())
  assert.equal(rig.log.marks, 5)
  assert.ok(await rig.clock.settled(append(rig, 6, stateOf(1))))
  // One that fails has numbers that are not used again, and is not told as durable.
  rig.disk.faults.failSyncsFull = 1
  assert.equal(await rig.clock.settled(append(rig, 7, stateOf(1))), false)
  assert.equal(rig.log.marks, 6)
  assert.ok(await rig.clock.settled(append(rig, 7, stateOf(1))))
  assert.equal(rig.log.marks, 8)
  for (let start = 0; start < 3; start++) {
    rig.disk.losePower(0)
    rig.log = new ReplicaLog(rig.disk, rig.clock)
    await rig.log.load()
    assert.equal(rig.log.marks, 8, 'before anything is written')
    await startLog(rig)
    assert.equal(rig.log.marks, 8, 'a start is no mark')
  }
})

test('a tick is a mark of no replica, at most once a second, and none while others are appended (rule B3)', async () => {
  const rig = await makeLog(32)
  assert.ok(await rig.clock.settled(append(rig, 1, stateOf(1))))
  rig.log.maybeTick()
  await rig.clock.advance(500)
  assert.equal(rig.log.marks, 1)
  await rig.clock.advance(500)
  rig.log.maybeTick()
  rig.log.maybeTick()
  await rig.clock.advance(1)
  assert.equal(rig.log.marks, 2)
  rig.log = new ReplicaLog(rig.disk, rig.clock)
  const { states, damaged } = await rig.log.load()
  assert.deepEqual([[...states.keys()], damaged, rig.log.marks], [[1], false, 2])
})
