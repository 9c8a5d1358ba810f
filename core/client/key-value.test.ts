// Proves what api.ts says of the key-value store, with the real servers on simulated time: transactions,
// bound keys, listings at one revision, and watches that miss nothing and double nothing through lost
// connections, restarts of the master and histories that no longer reach.

import assert from 'node:assert/strict'
import test from 'node:test'
import { startTestCluster, type TestCluster } from '../testing/test-cluster.ts'
import type { Client, KeyValue, KeyValueEvent } from './api.ts'

const bytes = (text: string): Buffer => Buffer.from(text)
const start = (seed: number): Promise<TestCluster> => startTestCluster({ seed, chunkServers: 1 })

/** What a watcher knows. Asserts that revisions rise, and that a put is never told twice. */
class Watcher {
  readonly events: KeyValueEvent[] = []
  readonly known = new Map<string, string>()
  readonly abort = new AbortController()
  revision = 0
  outcome = 'running'

  constructor(keyValue: KeyValue, prefix: string) {
    this.#run(keyValue, prefix).then(
      () => (this.outcome = 'ended'),
      (error: unknown) => (this.outcome = (error as { code: string }).code),
    )
  }

  get stateCount(): number {
    return this.events.filter(({ kind }) => kind === 'state').length
  }

  async #run(keyValue: KeyValue, prefix: string): Promise<void> {
    for await (const event of keyValue.watch(prefix, { signal: this.abort.signal })) {
      this.events.push(event)
      assert.ok(event.kind === 'state' ? event.revision >= this.revision : event.revision > this.revision)
      this.revision = event.revision
      if (event.kind === 'state') {
        this.known.clear()
        for (const { key, value } of event.entries) this.known.set(key, value.toString())
        continue
      }
      for (const change of event.changes) {
        assert.equal(change.revision, event.revision)
        if (change.kind === 'delete') this.known.delete(change.key)
        else this.known.set(change.key, change.value.toString())
      }
    }
  }
}

async function contents(keyValue: KeyValue, prefix = ''): Promise<Map<string, string>> {
  const { entries } = await keyValue.list(prefix)
  return new Map(entries.map(({ key, value }) => [key, value.toString()]))
}

test('get, put, delete, compare-and-set and transactions', async () => {
  const cluster = await start(21)
  const keyValue = cluster.client.keyValue('test.one')
  const run = <T>(promise: Promise<T>) => cluster.run(promise)
  assert.equal(await run(keyValue.get('a')), null)
  const first = await run(keyValue.put('a', bytes('1')))
  const second = await run(keyValue.put('a', bytes('2')))
  assert.ok(second > first)
  const entry = { key: 'a', value: bytes('2'), revision: second, created: first, isBound: false }
  assert.deepEqual(await run(keyValue.get('a')), entry)
  assert.equal(await run(cluster.client.keyValue('test.two').get('a')), null)

  const refused = await run(keyValue.compareAndSet('a', 'absent', bytes('3')))
  assert.ok(!refused.succeeded)
  assert.deepEqual([refused.failedGuard, refused.present, refused.value], [0, [second], bytes('2')])
  const gone = await run(keyValue.compareAndSet('b', { value: bytes('') }, null))
  assert.ok(!gone.succeeded)
  assert.deepEqual([gone.present, gone.value], [[0], null])
  assert.ok((await run(keyValue.compareAndSet('a', { revision: second }, bytes('3')))).succeeded)
  assert.ok((await run(keyValue.compareAndSet('a', { value: bytes('3') }, null))).succeeded)
  assert.equal(await run(keyValue.get('a')), null)

  const outcome = await run(
    keyValue.transact(
      [{ key: 'a', expected: 'absent' }],
      ['x/1', 'x/2', 'y'].map((key) => ({ key, value: bytes(key) })),
    ),
  )
  const { revision, entries } = await run(keyValue.list('x/'))
  assert.deepEqual(
    entries.map(({ key, value }) => [key, value.toString()]),
    [
      ['x/1', 'x/1'],
      ['x/2', 'x/2'],
    ],
  )
  assert.ok(entries.every((listed) => listed.revision === outcome.revision))
  assert.ok(revision >= outcome.revision)
  await assert.rejects(run(keyValue.put('', bytes(''))), { code: 'EINVAL' })
  await assert.rejects(run(keyValue.put('k', Buffer.alloc(65_537))), { code: 'TOO_LARGE' })
  await assert.rejects(run(cluster.client.keyValue('No').get('k')), { code: 'EINVAL' })
  await cluster.stop()
})

test('compare-and-set by many at once: each increment counts, and every loser sees what it lost to', async () => {
  const cluster = await start(22)
  const clients = [cluster.client, await cluster.connect('b'), await cluster.connect('c')]
  const increment = async (client: Client): Promise<void> => {
    const keyValue = client.keyValue('counters')
    let expected: 'absent' | { revision: number } = 'absent'
    let value = 0
    for (;;) {
      const outcome = await keyValue.compareAndSet('n', expected, bytes(String(value + 1)))
      if (outcome.succeeded) return
      assert.ok(outcome.value !== null)
      value = Number(outcome.value.toString())
      expected = { revision: outcome.present[0] ?? 0 }
    }
  }
  await cluster.run(
    Promise.all(clients.flatMap((client) => Array.from({ length: 8 }, () => increment(client)))),
  )
  const counted = await cluster.run(cluster.client.keyValue('counters').get('n'))
  assert.equal(counted?.value.toString(), '24')
  await cluster.stop()
})

test('bound keys end with their session, closed or expired, and stay through a restart of the master', async () => {
  const cluster = await start(23)
  const other = await cluster.connect('other')
  const third = await cluster.connect('third')
  const keyValue = cluster.client.keyValue('owners')
  const bound = { bindToSession: true }
  await cluster.run(other.keyValue('owners').put('closed', bytes('o'), bound))
  await cluster.run(third.keyValue('owners').put('cut', bytes('t'), bound))
  await cluster.run(keyValue.put('own', bytes('c'), bound))
  await cluster.run(keyValue.put('plain', bytes('c')))
  cluster.metadataServer.losePower()
  cluster.metadataServer.restart()
  assert.deepEqual([...(await cluster.run(contents(keyValue))).keys()], ['closed', 'cut', 'own', 'plain'])
  assert.equal((await cluster.run(keyValue.get('own')))?.isBound, true)
  // It has found the master again: else it could not say good-bye.
  await cluster.run(other.keyValue('owners').get('closed'))
  await cluster.run(other.close())
  assert.deepEqual([...(await cluster.run(contents(keyValue))).keys()], ['cut', 'own', 'plain'])
  cluster.network.partition('third.host', cluster.metadataServer.host)
  const watcher = new Watcher(keyValue, '')
  await cluster.until(() => watcher.known.size === 3)
  await cluster.until(() => watcher.known.size === 2, 20_000)
  assert.deepEqual([...watcher.known.keys()], ['own', 'plain'])
  await cluster.stop()
})

test('a watch: the state first, then each change, transactions whole; it ends when aborted', async () => {
  const cluster = await start(24)
  const keyValue = cluster.client.keyValue('w')
  await cluster.run(keyValue.put('a/1', bytes('1')))
  const watcher = new Watcher(keyValue, 'a/')
  await cluster.until(() => watcher.stateCount === 1)
  assert.deepEqual([...watcher.known], [['a/1', '1']])
  await cluster.run(keyValue.put('b', bytes('not told')))
  await cluster.run(
    keyValue.transact(
      [],
      [
        { key: 'a/2', value: bytes('2') },
        { key: 'a/1', value: null },
        { key: 'b', value: null },
      ],
    ),
  )
  await cluster.until(() => watcher.events.length === 2)
  const [, event] = watcher.events
  assert.deepEqual(event?.kind === 'changes' && event.changes.map(({ key, kind }) => [key, kind]), [
    ['a/2', 'put'],
    ['a/1', 'delete'],
  ])
  // Longer than one call waits, with nothing to tell.
  await cluster.advance(90_000)
  await cluster.run(keyValue.put('a/3', bytes('3')))
  await cluster.until(() => watcher.known.has('a/3'))
  assert.equal(watcher.stateCount, 1)
  watcher.abort.abort()
  await cluster.until(() => watcher.outcome === 'ended')
  const idle = new Watcher(keyValue, '')
  await cluster.until(() => idle.stateCount === 1)
  await cluster.stop()
  await cluster.until(() => idle.outcome === 'DISCONNECTED')
})

test('a watch through lost connections and restarts of the master: nothing missed, nothing doubled', async () => {
  const cluster = await start(25)
  const writer = (await cluster.connect('writer')).keyValue('w')
  const watcher = new Watcher(cluster.client.keyValue('w'), 'k')
  const mds = cluster.metadataServer
  for (let round = 0; round < 30; round++) {
    const writes = Array.from({ length: 7 }, (_, index) =>
      writer.put(`k${(round * 3 + index) % 11}`, bytes(`${round}.${index}`)),
    )
    if (round % 5 === 1) cluster.network.cut('client.host', mds.host)
    if (round % 5 === 2) cluster.network.partition('client.host', mds.host)
    if (round % 5 === 4) cluster.network.heal()
    if (round % 10 === 7) {
      mds.crash()
      await cluster.advance(300)
      mds.restart()
    }
    await cluster.run(Promise.all(writes))
    await cluster.run(writer.delete(`k${round % 11}`))
  }
  cluster.network.heal()
  const expected = await cluster.run(contents(writer))
  const isSame = () =>
    watcher.known.size === expected.size &&
    [...expected].every(([key, value]) => watcher.known.get(key) === value)
  await cluster.until(isSame, 60_000)
  assert.ok(watcher.stateCount > 1, 'a restarted master knows no history')
  const revisions = watcher.events.filter(({ kind }) => kind === 'changes').map(({ revision }) => revision)
  assert.equal(new Set(revisions).size, revisions.length)
  await cluster.stop()
})

test('a watcher that was away for longer than the history reaches gets the state again', async () => {
  const cluster = await start(26)
  const writer = (await cluster.connect('writer')).keyValue('w')
  const watcher = new Watcher(cluster.client.keyValue('w'), '')
  await cluster.until(() => watcher.stateCount === 1)
  cluster.network.partition('client.host', cluster.metadataServer.host)
  const value = Buffer.alloc(60_000, 1)
  for (let round = 0; round < 80; round++) {
    const writes = Array.from({ length: 8 }, (_, index) => ({ key: `${index}`, value }))
    await cluster.run(writer.transact([], writes))
  }
  cluster.network.heal()
  await cluster.until(() => watcher.known.size === 8, 60_000)
  assert.equal(watcher.stateCount, 2)
  await cluster.run(writer.put('last', bytes('x')))
  await cluster.until(() => watcher.known.get('last') === 'x')
  assert.equal(watcher.stateCount, 2)
  await cluster.stop()
})

test('a listing of many pages is of one revision, whatever happens meanwhile', async () => {
  const cluster = await start(27)
  const writer = (await cluster.connect('writer')).keyValue('w')
  for (let from = 0; from < 3000; from += 50) {
    const writes = Array.from({ length: 50 }, (_, index) => ({
      key: `${10_000 + from + index}`,
      value: bytes('0'),
    }))
    await cluster.run(writer.transact([], writes))
  }
  // Each transaction moves one key and keeps the number of keys.
  let isOver = false
  const moving = (async () => {
    for (let round = 0; !isOver; round++) {
      await writer.transact(
        [],
        [
          { key: `${10_000 + round}`, value: null },
          { key: `${30_000 - round}`, value: bytes('moved') },
        ],
      )
    }
  })()
  const keyValue = cluster.client.keyValue('w')
  for (let round = 0; round < 5; round++) {
    const { entries, revision } = await cluster.run(keyValue.list())
    assert.equal(entries.length, 3000)
    assert.ok(entries.every((entry) => entry.revision <= revision))
    const moved = entries.filter(({ value }) => value.toString() === 'moved').length
    assert.equal(entries[0]?.key, `${10_000 + moved}`)
  }
  const old = await cluster.run(keyValue.listPage('', { limit: 3 }))
  const page = await cluster.run(keyValue.listPage('', { after: '10005', limit: 2, revision: old.revision }))
  assert.equal(page.revision, old.revision)
  await assert.rejects(cluster.run(keyValue.listPage('', { revision: 0 })), { code: 'COMPACTED' })
  isOver = true
  await cluster.run(moving)
  await cluster.stop()
})
