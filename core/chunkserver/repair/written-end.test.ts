/**
 * Where the written bytes end on a replica that joined (rule F8): the size of the file is recovered from it when
 * its writer has died (simulator seed 1430).
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { CHUNK_SIZE_BYTES, PAGE_SIZE_BYTES } from '../../base/units.ts'
import { DataOp } from '../../wire/data.ts'
import {
  type Answer,
  ask,
  createReplica,
  dataRequest,
  flush,
  makeRig,
  openRig,
  pattern,
  persist,
  type Rig,
  sourceOf,
  write,
} from '../../testing/chunk-store-rig.ts'
import { chunkPath, regionSlotPosition } from '../format/chunk-layout.ts'
import { Role } from '../format/replica-state.ts'
import { closeStore } from '../store/store-open.ts'
import { Joiner } from './joiner.ts'
import type { PageSource } from './page-source.ts'
import { Repairer } from './repairer.ts'

const OLD_END = 3 * PAGE_SIZE_BYTES + 900
const CUT = PAGE_SIZE_BYTES
const atThree = { version: 3, lease: 11 }

function truncate(rig: Rig, version: number, size: number): Promise<Answer> {
  const fields = { version, lease: 11, offset: size, length: CHUNK_SIZE_BYTES - size }
  return ask(rig, dataRequest(DataOp.zero, fields))
}

/** Equal at version 1; `rig` leaves, the file is truncated and written again at version 2; `rig` is to join. */
async function scene(newEnd: number): Promise<{ source: Rig; rig: Rig }> {
  const source = await makeRig(91)
  const rig = await makeRig(92)
  for (const each of [source, rig]) {
    await createReplica(each)
    await write(each, 0, pattern(1, OLD_END))
    await flush(each)
  }
  await persist(source, 2, Role.inSync)
  assert.equal((await truncate(source, 2, CUT)).code, '')
  if (newEnd > CUT) await write(source, CUT, pattern(2, newEnd - CUT), { version: 2, lease: 11 })
  await persist(source, 3, Role.inSync)
  await persist(rig, 3, Role.joining)
  return { source, rig }
}

async function join(rig: Rig, source: Rig, page: PageSource = sourceOf(source, rig)): Promise<void> {
  let outcome: string | null = null
  const joiner = new Joiner(rig.store, () => Promise.resolve(page), {
    onJoined: () => (outcome = 'joined'),
    onJoinFailed: (_order, reason) => (outcome = reason),
  })
  joiner.join({ chunk: 1, version: 3, attempt: 1, sources: [{ server: 1, host: 'test', port: 1 }] })
  for (let round = 0; round < 2000 && outcome === null; round++)
    for (const each of [rig, source]) await each.clock.advance(1)
  assert.equal(outcome, 'joined')
  await rig.clock.settled(rig.control.promote(1, 3))
}

/** What the master of a dead writer's chunk is told by this replica, as the authority. */
async function writtenEnd(rig: Rig): Promise<number> {
  await persist(rig, 4, Role.reconciling)
  const repairer = new Repairer(rig.store, () => Promise.reject(new Error('no peer')))
  return (await rig.clock.settled(repairer.heal(1, 4, []))).writtenEnd
}

/** The source, with something that happens once, when its digest is on the way. */
function digestThen(source: Rig, rig: Rig, then: () => Promise<void>): PageSource {
  const plain = sourceOf(source, rig)
  let isFirst = true
  return {
    pull: (...order) => plain.pull(...order),
    regionDigests: (...order) => plain.regionDigests(...order),
    digest: async (...order) => {
      const digest = await plain.digest(...order)
      const isNow = isFirst && order[2] === 0
      if (isNow) isFirst = false
      if (isNow) await then()
      return digest
    },
  }
}

test('rule F8: a joiner forgets the written end from before a truncation that it missed', async () => {
  for (const newEnd of [CUT, CUT + 100, OLD_END - 47]) {
    const { source, rig } = await scene(newEnd)
    await join(rig, source)
    // durable (rule F1)
    rig.disk.losePower(0)
    const again = await openRig(rig.disk)
    assert.equal(await writtenEnd(again), newEnd)
    assert.equal(await writtenEnd(source), newEnd)
  }
})

test('rules F8, P4: what writers do while it joins counts, not what it said before', async () => {
  // grown here before the source is asked; there it arrives later
  const early = await scene(CUT)
  await write(early.rig, 2 * PAGE_SIZE_BYTES, pattern(3, PAGE_SIZE_BYTES), atThree)
  await join(early.rig, early.source)
  assert.equal(await writtenEnd(early.rig), 3 * PAGE_SIZE_BYTES)

  // truncated here and there after the source was asked
  const late = await scene(OLD_END + 100)
  const both = [late.rig, late.source]
  const digest = digestThen(late.source, late.rig, async () => {
    for (const each of both) assert.equal((await truncate(each, 3, CUT)).code, '')
    for (const each of both) await write(each, CUT, pattern(4, 50), atThree)
  })
  await join(late.rig, late.source, digest)
  for (const each of both) assert.equal(await writtenEnd(each), CUT + 50)
})

test('rules F8, P6: a source whose page records were damaged does not shorten what a joiner knows', async () => {
  const source = await makeRig(93)
  const rig = await makeRig(94)
  for (const each of [source, rig]) {
    await createReplica(each)
    await write(each, 0, pattern(1, OLD_END))
    await flush(each)
  }
  await source.clock.settled(closeStore(source.store))
  for (const slot of [0, 1]) source.disk.flipBit(chunkPath(1), regionSlotPosition(0, slot) + 40, 1)
  const again = await openRig(source.disk)
  await persist(again, 3, Role.inSync)
  await persist(rig, 3, Role.joining)
  await join(rig, again)
  assert.equal(await writtenEnd(rig), OLD_END)
})
