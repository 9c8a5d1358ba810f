/** Verification of whole replicas, and pages that are given up because others are right (rules R1, R2). */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { MIB, PAGE_SIZE_BYTES, PAGES_PER_REGION, REGIONS_PER_CHUNK } from '../../base/units.ts'
import {
  createReplica,
  flush,
  makeRig,
  openRig,
  pattern,
  persist,
  read,
  type Rig,
  sourceAddress,
  sourceOf,
  write,
} from '../../testing/chunk-store-rig.ts'
import { PAGE_RECORD_BYTES } from '../../wire/data.ts'
import { pagePosition } from '../format/chunk-layout.ts'
import { Role } from '../format/replica-state.ts'
import { decodePageRecord } from '../store/page-tasks.ts'
import { Repairer } from './repairer.ts'
import { Verifier } from './verifier.ts'

const PATH = 'chunks/01/1'
const pageOf = (seed: number): Buffer => pattern(seed, PAGE_SIZE_BYTES)

async function filled(seed: number): Promise<Rig> {
  const rig = await makeRig(seed)
  await createReplica(rig)
  await write(rig, 0, pattern(7, 3 * PAGE_SIZE_BYTES))
  await write(rig, 5 * MIB, pattern(8, PAGE_SIZE_BYTES))
  assert.equal((await flush(rig)).code, '')
  return rig
}

function reported(rig: Rig): number[] {
  const pages: number[] = []
  rig.store.events.onBadPages = (_chunk, _version, found) => pages.push(...found)
  return pages
}

test('every page with data is read; what rotted is found and reported before anybody reads it (rule R1)', async () => {
  const rig = await filled(1)
  const bad = reported(rig)
  const verifier = new Verifier(rig.store)
  const whole = await rig.clock.settled(verifier.verify(1, 1, 'pages'))
  assert.deepEqual([whole.pages, whole.badPages, whole.digests.length], [4, [], REGIONS_PER_CHUNK])
  rig.disk.flipBit(PATH, pagePosition(2) + 100, 3)
  const rotten = await rig.clock.settled(verifier.verify(1, 1, 'pages'))
  assert.deepEqual([rotten.badPages, bad], [[2], [2]])
  assert.notEqual(rotten.digests[0], whole.digests[0])
  assert.equal(await read(rig, 2 * PAGE_SIZE_BYTES, 10), 'BAD_CHECKSUM')
  assert.deepEqual(await read(rig, 0, 8), pattern(7, 8), 'one page, and no more')
})

test('regions where nobody wrote cost one read of all their slots, and are told as before', async () => {
  const rig = await filled(11)
  const before = await rig.clock.settled(new Verifier(rig.store).verify(1, 1, 'records'))
  const replica = rig.store.replicas.get(1)
  assert.ok(replica)
  replica.forgetRegions()
  let readCount = 0
  const perform = rig.disk.perform.bind(rig.disk)
  rig.disk.perform = (kind, callback, work) => {
    if (kind === 'read') readCount++
    perform(kind, callback, work)
  }
  const verification = await rig.clock.settled(new Verifier(rig.store).verify(1, 1, 'records'))
  assert.deepEqual(verification.digests, before.digests)
  assert.ok(readCount < 8, `${readCount} reads for 2 regions with data`)
  assert.equal(replica.region(30), null, 'nothing is kept of a blank region')
})

test('a region that was written while others are verified is not taken for blank', async () => {
  const rig = await filled(12)
  rig.store.replicas.get(1)?.forgetRegions()
  const before = await rig.clock.settled(new Verifier(rig.store).verify(1, 1, 'records'))
  const verifying = new Verifier(rig.store).verify(1, 1, 'pages')
  await write(rig, 30 * MIB, pattern(9, PAGE_SIZE_BYTES))
  const after = await rig.clock.settled(verifying)
  const changed = after.digests.flatMap((digest, region) =>
    digest === before.digests[region] ? [] : [region],
  )
  assert.deepEqual([changed, after.pages], [[30], 5])
})

test('chunks with bad pages are counted once, and not for what another disk lost (rule R1)', async () => {
  const rig = await filled(1)
  const verifier = new Verifier(rig.store)
  const counted = () => rig.store.counters.snapshot()['badChunks']
  rig.disk.flipBit(PATH, pagePosition(1), 3)
  rig.disk.flipBit(PATH, pagePosition(2), 3)
  await rig.clock.settled(verifier.verify(1, 1, 'pages'))
  await rig.clock.settled(verifier.verify(1, 1, 'pages'))
  assert.equal(await read(rig, PAGE_SIZE_BYTES, 10), 'BAD_CHECKSUM')
  assert.equal(counted(), 1)
  const replica = rig.store.replicas.get(1) ?? assert.fail()
  const other = await filled(2)
  other.store.reportBad(replica, [7], 'no source could supply them', false)
  assert.equal(other.store.counters.snapshot()['badChunks'], 0)
})

test('records alone are compared without reading a page', async () => {
  const rig = await filled(1)
  const verifier = new Verifier(rig.store)
  const { digests } = await rig.clock.settled(verifier.verify(1, 1, 'pages'))
  rig.disk.flipBit(PATH, pagePosition(2) + 100, 3)
  const quick = await rig.clock.settled(verifier.verify(1, 1, 'records'))
  assert.deepEqual([quick.digests, quick.badPages, quick.pages], [digests, [], 0])
})

test('pages that the disk cannot read are bad; the others of the region are verified all the same', async () => {
  const rig = await filled(1)
  await rig.clock.settled(new Verifier(rig.store).verify(1, 1, 'records'))
  // the region as a whole, then the first page of it
  rig.disk.faults.failReads = 2
  const found = await rig.clock.settled(new Verifier(rig.store).verify(1, 1, 'pages'))
  assert.deepEqual([found.badPages, found.pages], [[0], 4])
})

test('another version, a joiner, an unclean replica are not verified', async () => {
  const rig = await filled(1)
  const verifier = new Verifier(rig.store)
  await assert.rejects(verifier.verify(1, 2, 'pages'), { code: 'WRONG_VERSION' })
  await assert.rejects(verifier.verify(9, 1, 'pages'), { code: 'NO_REPLICA' })
  await persist(rig, 2, Role.joining)
  await assert.rejects(verifier.verify(1, 2, 'pages'), { code: 'NOT_IN_SYNC' })
  const other = await filled(2)
  await write(other, 0, pageOf(3))
  other.disk.losePower(0)
  const again = await openRig(other.disk)
  await assert.rejects(new Verifier(again.store).verify(1, 1, 'pages'), { code: 'NOT_IN_SYNC' })
})

test('a page that another replica is right about is given up, says what it has to be, and is repaired', async () => {
  const [good, rig] = [await filled(1), await filled(2)]
  // its disk lost the write of the page and of its record: both are old, and verify
  await write(rig, PAGE_SIZE_BYTES, pageOf(99))
  const right = await recordOf(good, 1)
  const wrong = await recordOf(rig, 1)
  const bad = reported(rig)
  const verifier = new Verifier(rig.store)
  const page = { page: 1, ...wrong, rightStamp: right.stamp, rightChecksum: right.checksum }
  assert.equal(await rig.clock.settled(verifier.reject(1, 1, [page])), 1)
  assert.deepEqual(bad, [1])
  assert.equal(await read(rig, PAGE_SIZE_BYTES, 10), 'BAD_CHECKSUM')
  // that the old content is still there must not bring it back
  const repairer = new Repairer(rig.store, () => Promise.resolve(sourceOf(good, rig)))
  const order = { chunk: 1, version: 1, pages: [1], sources: [sourceAddress(1)] }
  assert.deepEqual(await rig.clock.settled(repairer.repair(order)), { repaired: 1, lost: 0 })
  const content = pattern(7, 3 * PAGE_SIZE_BYTES).subarray(PAGE_SIZE_BYTES, 2 * PAGE_SIZE_BYTES)
  assert.deepEqual(await read(rig, PAGE_SIZE_BYTES, PAGE_SIZE_BYTES), content)
  const digests = async (each: Rig) =>
    (await each.clock.settled(new Verifier(each.store).verify(1, 1, 'pages'))).digests
  assert.deepEqual(await digests(rig), await digests(good))
})

test('a page that was written since it was compared is left alone (rule R2)', async () => {
  const rig = await filled(1)
  const before = await recordOf(rig, 1)
  await write(rig, PAGE_SIZE_BYTES, pageOf(5))
  const page = { page: 1, ...before, rightStamp: 1, rightChecksum: 77 }
  assert.equal(await rig.clock.settled(new Verifier(rig.store).reject(1, 1, [page])), 0)
  await assert.rejects(new Verifier(rig.store).reject(1, 2, [page]), { code: 'WRONG_VERSION' })
  assert.deepEqual(await read(rig, PAGE_SIZE_BYTES, PAGE_SIZE_BYTES), pageOf(5))
})

test('while clients are at work verification rests four times as long as it works', async () => {
  const rig = await makeRig(1)
  await createReplica(rig)
  const regions = 8
  for (let region = 0; region < regions; region++) await write(rig, region * MIB, pageOf(region))
  assert.equal((await flush(rig)).code, '')
  const verifier = new Verifier(rig.store)
  rig.disk.faults.delayMs = 10
  const took = async (isUsed: boolean): Promise<number> => {
    const beganMs = rig.clock.nowMs()
    const done = verifier.verify(1, 1, 'pages')
    let isDone = false
    void done.finally(() => {
      isDone = true
    })
    while (!isDone) {
      if (isUsed) rig.store.counters.readOperations++
      await rig.clock.advance(1)
    }
    return rig.clock.nowMs() - beganMs
  }
  await took(false)
  const alone = await took(false)
  const beside = await took(true)
  assert.ok(beside >= 4.5 * alone && beside <= 6 * alone, `${beside} ms beside clients, ${alone} ms alone`)
})

async function recordOf(rig: Rig, page: number): Promise<{ stamp: number; checksum: number }> {
  const region = Math.floor(page / PAGES_PER_REGION)
  const table = await rig.clock.settled(new Verifier(rig.store).records(1, 1, region))
  const record = decodePageRecord(table, (page % PAGES_PER_REGION) * PAGE_RECORD_BYTES)
  assert.ok(record !== null)
  return { stamp: record.stamp, checksum: record.checksum }
}
