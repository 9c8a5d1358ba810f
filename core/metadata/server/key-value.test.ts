// Proves the server's side of the key-value store: repeated transactions, also over a restart; what a failed
// guard tells; watchers that wait, are told whole revisions in bounded pieces, are replaced, cancelled, and
// told "compacted" when the history is not theirs.

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { MetadataScene, type SceneSession } from '../../testing/metadata-scene.ts'
import { ROWS_BEHIND_ENTRIES_MAX } from '../quorum/applier.ts'
import { WATCHES_PER_SESSION_MAX } from './services/key-value-watchers.ts'

const placement = { replicasNormal: 1, replicasMinimum: 1, failureDomain: 'host' } as const
const open = () => MetadataScene.open({ chunkServerCount: 0, placement })
const namespace = 'n'
const bytes = (text: string): Uint8Array => new Uint8Array(Buffer.from(text))

async function put(session: SceneSession, key: string, value: Uint8Array): Promise<number> {
  const answer = await session.mutate('kv.transact', { namespace, guards: [], writes: [{ key, value }] })
  return answer.revision
}

function watch(session: SceneSession, after: number, given: { watch?: number; waitMs?: number } = {}) {
  return session.start('kv.watch', { namespace, prefix: '', after, watch: 1, waitMs: 60_000, ...given })
}

test('a repeated transaction has the first answer, also after a restart; a lost value is asked for anew', async () => {
  const scene = await open()
  const session = await scene.session('client')
  const writes = [{ key: 'k', value: bytes('mine') }]
  const create = { namespace, guards: [{ key: 'k', revision: 0 }], writes }
  const first = { ...create, mutation: { sequence: 1, acknowledgedBelow: 0 } }
  const { revision } = await session.call('kv.transact', first)
  assert.deepEqual(await session.call('kv.transact', first), { revision })
  const second = { ...create, mutation: { sequence: 2, acknowledgedBelow: 0 } }
  const refused = await session.call('kv.transact', second)
  const { failed, present, value } = refused
  assert.deepEqual([failed, present, Buffer.from(value ?? []).toString()], [0, [revision], 'mine'])
  const third = { namespace, guards: [], writes: [{ key: 'k', value: bytes('other') }] }
  await session.call('kv.transact', { ...third, mutation: { sequence: 3, acknowledgedBelow: 0 } })
  assert.deepEqual(await session.call('kv.transact', second), refused, 'from the history')
  // Rows lag the log; what is replayed from the log is in the history again.
  const later = { namespace, guards: [], writes: [{ key: 'later', value: bytes('') }] }
  for (let sequence = 4; sequence < 4 + 2 * ROWS_BEHIND_ENTRIES_MAX; sequence++) {
    await session.call('kv.transact', { ...later, mutation: { sequence, acknowledgedBelow: 0 } })
  }
  scene.crashMetadataServer()
  await scene.startMetadataServer()
  await session.resume()
  assert.deepEqual(await session.call('kv.transact', first), { revision })
  await assert.rejects(session.call('kv.transact', second), { code: 'TRY_AGAIN' })
})

test('a watcher waits, is told at once, and begins again where it was', async () => {
  const scene = await open()
  const session = await scene.session('client')
  const writer = await scene.session('writer')
  const { revision } = await session.call('kv.list', { namespace, prefix: '', after: '', limit: 10 })
  const waiting = watch(session, revision)
  const first = await put(writer, 'a', bytes('1'))
  const told = await scene.clock.settled(waiting)
  assert.equal(told.compacted, false)
  assert.deepEqual(
    told.changes.map(({ key, revision: at }) => [key, at]),
    [['a', first]],
  )
  const second = await put(writer, 'b', bytes('2'))
  const more = await scene.clock.settled(watch(session, told.revision))
  assert.deepEqual(
    more.changes.map(({ revision: at }) => at),
    [second],
  )
  const startedMs = scene.clock.nowMs()
  const nothing = await scene.clock.settled(watch(session, more.revision, { waitMs: 5000 }))
  assert.deepEqual(nothing.changes, [])
  assert.ok(scene.clock.nowMs() - startedMs >= 5000)
  const none = await scene.clock.settled(watch(session, nothing.revision + 1000))
  assert.ok(none.compacted, 'a revision of the future')
})

test('many changes come in bounded pieces of whole revisions', async () => {
  const scene = await open()
  const session = await scene.session('client')
  const { revision } = await session.call('kv.list', { namespace, prefix: '', after: '', limit: 10 })
  const revisions: number[] = []
  for (let round = 0; round < 6; round++) {
    const writes = [1, 2, 3].map((key) => ({ key: String(key), value: new Uint8Array(60_000) }))
    revisions.push((await session.mutate('kv.transact', { namespace, guards: [], writes })).revision)
  }
  const told: number[] = []
  let pieces = 0
  for (let after = revision; told.length < 18; pieces++) {
    const answer = await scene.clock.settled(watch(session, after))
    assert.ok(answer.changes.length > 0 && answer.changes.length % 3 === 0)
    told.push(...answer.changes.map(({ revision: at }) => at))
    after = answer.revision
  }
  assert.deepEqual(
    told,
    revisions.flatMap((at) => [at, at, at]),
  )
  assert.ok(pieces > 2)
})

test('a watcher is replaced under its number, cancelled, and ends with its session; their number is bounded', async () => {
  const scene = await open()
  const session = await scene.session('client')
  const { revision } = await session.call('kv.list', { namespace, prefix: '', after: '', limit: 10 })
  const replaced = watch(session, revision)
  const cancelled = watch(session, revision)
  assert.deepEqual((await scene.clock.settled(replaced)).changes, [])
  await session.call('kv.unwatch', { watch: 1 })
  assert.deepEqual((await scene.clock.settled(cancelled)).changes, [])
  const all = Array.from({ length: WATCHES_PER_SESSION_MAX }, (_, number) =>
    watch(session, revision, { watch: number }).catch((error: { code: string }) => error.code),
  )
  await assert.rejects(scene.clock.settled(watch(session, revision, { watch: 9999 })), { code: 'OVERLOADED' })
  assert.ok((await scene.clock.settled(watch(session, revision, { watch: 9999, waitMs: 0 }))).revision > 0)
  await session.call('session.close', {})
  const outcomes = await scene.clock.settled(Promise.all(all))
  assert.ok(outcomes.every((outcome) => outcome === 'NO_SESSION'))
})

test('a new master knows no history: compacted', async () => {
  const scene = await open()
  const session = await scene.session('client')
  const revision = await put(session, 'a', bytes('1'))
  scene.crashMetadataServer()
  await scene.startMetadataServer()
  await session.resume()
  const answer = await scene.clock.settled(watch(session, revision - 1))
  assert.ok(answer.compacted)
  const page = { namespace, prefix: '', after: '', limit: 10, revision: revision - 1 }
  await assert.rejects(session.call('kv.list', page), { code: 'COMPACTED' })
  const { entry } = await session.call('kv.get', { namespace, key: 'a' })
  assert.equal(entry?.revision, revision)
})
