/**
 * Rule E9: a chunk server applies writes to one page strictly in order of arrival, one at a time, also when they come
 * over different connections, and the disk, or the account of what is unsynced, keeps the first one waiting.
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { MIB, PAGE_SIZE_BYTES } from '../../base/units.ts'
import { DataOp } from '../../wire/data.ts'
import {
  createReplica,
  dataRequest,
  makeRig,
  pattern,
  read,
  send,
  write,
} from '../../testing/chunk-store-rig.ts'

const FIRST_END = 3000
const SECOND_BEGIN = 2000
/** Of two sessions, so that no client keeps them apart. */
const first = { session: 7, offset: 0, length: FIRST_END }
const second = { session: 8, offset: SECOND_BEGIN, length: PAGE_SIZE_BYTES - SECOND_BEGIN }
const firstContent = pattern(1, first.length)
const secondContent = pattern(2, second.length)
const expected = Buffer.concat([firstContent.subarray(0, SECOND_BEGIN), secondContent])

test('a disk that stalls the first of two overlapping writes keeps the second behind it (rule E9)', async () => {
  const rig = await makeRig(41)
  await createReplica(rig)
  await write(rig, 0, pattern(3, PAGE_SIZE_BYTES))
  rig.disk.faults.hanging = true
  const answers = [send(rig, dataRequest(DataOp.write, first), firstContent)]
  await rig.clock.advance(10)
  // the disk is quick again; only what it holds back is late
  rig.disk.faults.hanging = false
  answers.push(send(rig, dataRequest(DataOp.write, second), secondContent))
  let secondCode: string | null = null
  void answers[1]?.then(({ code }) => (secondCode = code))
  await rig.clock.advance(1000)
  assert.equal(secondCode, null, 'it waits for the first')
  rig.disk.releaseHanging()
  const codes = (await rig.clock.settled(Promise.all(answers))).map(({ code }) => code)
  assert.deepEqual(codes, ['', ''])
  assert.deepEqual(await read(rig, 0, PAGE_SIZE_BYTES), expected)
})

test('a write that waits for a disk that does not keep up is overtaken by none (rule E9)', async () => {
  const rig = await makeRig(42)
  await createReplica(rig)
  await write(rig, 0, pattern(3, PAGE_SIZE_BYTES))
  const { writeBack } = rig.store
  const unsyncedBytes = 600 * MIB
  writeBack.cleaned(-unsyncedBytes, 0)
  assert.ok(writeBack.isOverloaded)
  const answers = [send(rig, dataRequest(DataOp.write, first), firstContent)]
  // much has just become clean, but the sync that did it has not ended
  writeBack.cleaned(unsyncedBytes, 0)
  answers.push(send(rig, dataRequest(DataOp.write, second), secondContent))
  writeBack.syncDone()
  const codes = (await rig.clock.settled(Promise.all(answers))).map(({ code }) => code)
  assert.deepEqual(codes, ['', ''])
  assert.deepEqual(await read(rig, 0, PAGE_SIZE_BYTES), expected)
})

test('what waits for unsynced data that is dropped goes on', async () => {
  const rig = await makeRig(43)
  await createReplica(rig)
  await write(rig, 0, pattern(3, PAGE_SIZE_BYTES))
  const { writeBack } = rig.store
  writeBack.cleaned(-600 * MIB, 0)
  const answer = send(rig, dataRequest(DataOp.write, first), firstContent)
  writeBack.cleaned(600 * MIB, 0)
  await rig.clock.advance(10_000)
  assert.equal((await rig.clock.settled(answer)).code, '')
})
