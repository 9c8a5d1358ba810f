/**
 * The key-value store of a real cluster on SQLite and sockets: the metadata server is killed again and again
 * while programs read, change and watch it. What they saw is linearizable, the watcher ends with what is
 * there, and it is all still there after everything was stopped and started.
 */
import assert from 'node:assert/strict'
import { after, before, describe, it } from 'node:test'
import { setTimeout as pause } from 'node:timers/promises'
import type { Client, KeyValue } from '../../core/client/api.ts'
import { connect } from '../../core/client/connect.ts'
import { HistoryRecorder, KeyValueWorker } from '../../core/testing/linearizability/key-value-workload.ts'
import { checkLinearizability, describeVerdict } from '../../core/testing/linearizability/linearizability.ts'
import { mapModel } from '../../core/testing/linearizability/linearizability-models.ts'
import { SeededRandom } from '../../core/testing/simulation/seeded-random.ts'
import { TestCluster, until } from './support/cluster.ts'

const KILL_COUNT = 3
const CLIENT_COUNT = 3
const WORKERS_PER_CLIENT = 2
const NAMESPACE = 'history'

/** Keeps a copy by watching; its size and revision say how far it is. */
async function follow(keyValue: KeyValue, copy: Map<string, string>, signal: AbortSignal): Promise<number> {
  let revision = 0
  for await (const event of keyValue.watch('', { signal })) {
    assert.ok(event.kind === 'state' || event.revision > revision, 'a revision came twice')
    revision = event.revision
    if (event.kind === 'state') {
      copy.clear()
      for (const { key, value } of event.entries) copy.set(key, value.toString())
      continue
    }
    for (const change of event.changes) {
      if (change.kind === 'delete') copy.delete(change.key)
      else copy.set(change.key, change.value.toString())
    }
  }
  return revision
}

async function contents(keyValue: KeyValue): Promise<Map<string, string>> {
  const { entries } = await keyValue.list()
  return new Map(entries.map(({ key, value }) => [key, value.toString()]))
}

function isSame(left: ReadonlyMap<string, string>, right: ReadonlyMap<string, string>): boolean {
  return left.size === right.size && [...left].every(([key, value]) => right.get(key) === value)
}

describe('the key-value store while its server is killed', { timeout: 300_000 }, () => {
  let cluster: TestCluster
  const ends: (() => Promise<void>)[] = []
  const open = async (name: string): Promise<Client> => {
    const { keyFile, metadataServers } = cluster
    const client = await connect({ cluster: 'demo', metadataServers, kind: 'test', name }, { keyFile })
    ends.push(() => client.close())
    return client
  }
  before(async () => {
    cluster = await TestCluster.start((end) => ends.push(end), { chunkServers: 1, mount: false })
  })
  after(async () => {
    for (const end of ends.reverse()) await end()
  })

  it('what its clients saw is linearizable, and a watcher misses nothing', async () => {
    const recorder = new HistoryRecorder()
    const watching = new AbortController()
    const copy = new Map<string, string>()
    const watcher = await open('watcher')
    const followed = follow(watcher.keyValue(NAMESPACE), copy, watching.signal)
    const running: Promise<void>[] = []
    for (let number = 0; number < CLIENT_COUNT; number++) {
      const client = `client${number}`
      const keyValue = (await open(client)).keyValue(NAMESPACE)
      for (let place = 0; place < WORKERS_PER_CLIENT; place++) {
        const random = new SeededRandom(number * 10 + place)
        const worker = new KeyValueWorker({
          recorder,
          client,
          keyValue,
          random,
          pause: (ms) => pause(ms / 10),
        })
        running.push(worker.run())
      }
    }
    for (let kill = 1; kill <= KILL_COUNT; kill++) {
      const count = recorder.history.length
      await until('operations are answered again', () => recorder.history.length > count + 60)
      await cluster.signal(await cluster.master(), 'SIGKILL')
    }
    const count = recorder.history.length
    await until('operations are answered again', () => recorder.history.length > count + 60)
    recorder.isOver = true
    await Promise.all(running)
    const verdict = checkLinearizability(recorder.history, mapModel)
    assert.equal(verdict.kind, 'linearizable', describeVerdict(verdict))
    const expected = await contents(watcher.keyValue(NAMESPACE))
    await until('the watcher has it all', () => isSame(copy, expected))
    watching.abort()
    assert.ok((await followed) > 0)
  })

  it('everything is there after the cluster was stopped and started; bound keys are not', async () => {
    const client = await open('writer')
    const keyValue = client.keyValue('stays')
    const value = Buffer.alloc(65_536, 7)
    await keyValue.transact(
      [],
      [
        { key: 'schlüssel/😀 "1"', value },
        { key: 'empty', value: Buffer.alloc(0) },
        { key: 'bound', value, bindToSession: true },
      ],
    )
    const { entries } = await keyValue.list()
    assert.equal(entries.length, 3)
    await client.close()
    await cluster.down()
    await cluster.up()
    const again = await (await open('reader')).keyValue('stays').list()
    assert.deepEqual(
      again.entries,
      entries.filter(({ key }) => key !== 'bound'),
    )
  })
})
