/** Joins compare digests of regions first, and page records only where these differ (rule L8, decision 7). */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { MIB, PAGE_SIZE_BYTES } from '../../base/units.ts'
import { Joiner } from './joiner.ts'
import type { PageSource, SourceAddress } from './page-source.ts'
import { Verifier } from './verifier.ts'
import { Repairer } from './repairer.ts'
import { Role } from '../format/replica-state.ts'
import {
  createReplica,
  flush,
  makeRig,
  pattern,
  persist,
  type Rig,
  settleAll,
  sourceAddress,
  sourceOf,
  write,
} from '../../testing/chunk-store-rig.ts'

interface Outcome {
  joined: { bytesPulled: number; lostPages: number } | null
  failed: string | null
}

function makeJoiner(rig: Rig, sources: Map<number, PageSource>): { joiner: Joiner; outcome: Outcome } {
  const outcome: Outcome = { joined: null, failed: null }
  const open = (source: SourceAddress): Promise<PageSource> => {
    const found = sources.get(source.server)
    return found === undefined ? Promise.reject(new Error('unreachable')) : Promise.resolve(found)
  }
  const joiner = new Joiner(rig.store, open, {
    onJoined: (_order, bytesPulled, lostPages) => {
      outcome.joined = { bytesPulled, lostPages }
    },
    onJoinFailed: (_order, reason) => {
      outcome.failed = reason
    },
  })
  rig.control.onEpochChange = (replica) => joiner.abort(replica)
  return { joiner, outcome }
}

async function verified(rig: Rig): Promise<unknown> {
  return await rig.clock.settled(new Verifier(rig.store).verify(1, 2, 'pages'))
}

test('only regions whose digests differ are compared page by page (rule L8), and all with an older source', async () => {
  const differ = 10
  const same = 40
  for (const isOlder of [false, true]) {
    const source = await makeRig(31)
    const rig = await makeRig(32)
    for (const each of [source, rig]) {
      await createReplica(each)
      await write(each, differ * MIB, pattern(1, MIB))
      await write(each, same * MIB, pattern(2, MIB))
      await write(each, 50 * MIB, pattern(3, 100))
      await flush(each)
    }
    // the last one that a dead writer sent; the end of what is written is told by a digest, too
    await write(source, differ * MIB, pattern(4, PAGE_SIZE_BYTES))
    await write(source, 50 * MIB + 50, Buffer.alloc(2 * PAGE_SIZE_BYTES))
    for (const each of [source, rig]) await persist(each, 2, Role.reconciling)
    const from = sourceOf(source, rig)
    const compared: number[] = []
    const counted: PageSource = {
      regionDigests: (...chunk) => (isOlder ? Promise.resolve(null) : from.regionDigests(...chunk)),
      digest(chunk, version, firstPage, count) {
        for (let page = firstPage; page < firstPage + count; page += 256) compared.push(page / 256)
        return from.digest(chunk, version, firstPage, count)
      },
      pull: (...range) => from.pull(...range),
    }
    const { joiner, outcome } = makeJoiner(rig, new Map([[1, counted]]))
    joiner.join({ chunk: 1, version: 2, attempt: 0, sources: [sourceAddress(1)] })
    await settleAll([rig, source], () => outcome.joined !== null || outcome.failed !== null)
    assert.equal(outcome.joined?.bytesPulled, 4 * PAGE_SIZE_BYTES)
    if (isOlder) assert.equal(compared.length, 64)
    else assert.deepEqual(compared, [differ, 50])
    for (const each of [source, rig]) {
      const repairer = new Repairer(each.store, () => Promise.reject(new Error('none')))
      const { writtenEnd } = await each.clock.settled(repairer.heal(1, 2, []))
      assert.equal(writtenEnd, 50 * MIB + 50 + 2 * PAGE_SIZE_BYTES)
      await each.clock.settled(each.control.promote(1, 2))
    }
    assert.deepEqual(await verified(rig), await verified(source))
  }
})

test('a page that is bad here and at the source is not equal, whatever digests say: another member has it (rules L8, R1)', async () => {
  const [source, third, rig] = [await makeRig(33), await makeRig(34), await makeRig(35)]
  for (const each of [source, third, rig]) {
    await createReplica(each)
    await write(each, 0, pattern(1, MIB))
    await flush(each)
    const replica = each.store.replicas.get(1)
    assert.ok(replica !== undefined)
    if (each !== third) each.store.markBad(replica, [3], 'test')
    await persist(each, 2, Role.reconciling)
  }
  const sources = new Map([
    [1, sourceOf(source, rig)],
    [3, sourceOf(third, rig)],
  ])
  const { joiner, outcome } = makeJoiner(rig, sources)
  joiner.join({ chunk: 1, version: 2, attempt: 0, sources: [sourceAddress(1), sourceAddress(3)] })
  await settleAll([rig, source, third], () => outcome.joined !== null || outcome.failed !== null)
  assert.deepEqual(outcome.joined, { bytesPulled: PAGE_SIZE_BYTES, lostPages: 0 })
})
