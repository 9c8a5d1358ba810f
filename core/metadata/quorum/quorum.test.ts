// Proves the quorum as clients see it, on three real members on a simulated network and clock: kills, power
// cuts, stalls and partitions of masters and others lose nothing that was acknowledged; the pause is bounded;
// a minority never answers; a clean stop hands over at once; members come, move up, and leave.

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { CHUNK_SIZE_BYTES } from '../../base/units.ts'
import { SimulatedStoreContents } from '../../testing/simulation/simulated-store.ts'
import { stateDigest } from '../state/state.ts'
import { SeededRandom } from '../../testing/simulation/seeded-random.ts'
import { startTestCluster, type TestCluster } from '../../testing/test-cluster.ts'
import type { MetadataServerNode } from '../../testing/simulation/simulated-metadata-server.ts'

const owner = { uid: 0, gid: 0 }
/** The goal of the quorum: what any client sees. */
const PAUSE_MS_MAX = 3_000

function make(cluster: TestCluster, name: string): Promise<unknown> {
  return cluster.client.fileSystem.makeNode(1, name, 'file', 0o600, 0, owner)
}

function masterOf(cluster: TestCluster): MetadataServerNode {
  const master = cluster.master()
  assert.ok(master !== null, 'there is a master')
  return master
}

async function names(cluster: TestCluster): Promise<Set<string>> {
  const { fileSystem } = cluster.client
  const found = new Set<string>()
  for (let cookie = 0; ; ) {
    const { entries, end } = await cluster.run(fileSystem.readDirectory(1, cookie, 1_000, false))
    for (const entry of entries) found.add(entry.name)
    const last = entries.at(-1)
    if (end || last === undefined) return found
    cookie = last.cookie
  }
}

/** Everything is as it was, all members are level. */
async function level(cluster: TestCluster): Promise<void> {
  await cluster.until(() => {
    const states = cluster.metadataServers.map((node) => node.role?.server.log.status)
    const commit = states[0]?.commitIndex
    return (
      cluster.master() !== null &&
      states.every(
        (state) => state !== undefined && state.commitIndex === commit && state.appliedIndex === commit,
      )
    )
  }, 60_000)
}

type Trouble = (cluster: TestCluster, node: MetadataServerNode) => () => void

const troubles: Readonly<Record<string, Trouble>> = {
  'kill -9': (_cluster, node) => {
    node.crash()
    return () => node.restart()
  },
  'power cut': (_cluster, node) => {
    node.losePower()
    return () => node.restart()
  },
  stall: (_cluster, node) => {
    node.pause()
    return () => node.resume()
  },
  'hanging disk': (_cluster, node) => {
    node.diskHang.begin()
    return () => node.diskHang.end()
  },
  isolation: (cluster, node) => {
    const others = [...cluster.metadataServers, ...cluster.chunkServers].filter((other) => other !== node)
    const hosts = [...others.map(({ host }) => host), 'client.host']
    for (const host of hosts) cluster.network.partition(node.host, host)
    return () => {
      for (const host of hosts) cluster.network.heal(node.host, host)
    }
  },
}

for (const [name, trouble] of Object.entries(troubles)) {
  test(`${name} of the master: a short pause, and nothing acknowledged is lost`, async () => {
    for (let seed = 1; seed <= 8; seed++) {
      const cluster = await startTestCluster({ seed, metadataServers: 3 })
      const acknowledged: string[] = []
      for (let round = 0; round < 3; round++) {
        for (let count = 0; count < 5; count++) {
          await cluster.run(make(cluster, `${round}-${count}`))
          acknowledged.push(`${round}-${count}`)
        }
        const master = masterOf(cluster)
        const end = trouble(cluster, master)
        const sinceMs = cluster.clock.nowMs()
        await cluster.run(make(cluster, `${round}-after`))
        const pauseMs = cluster.clock.nowMs() - sinceMs
        assert.ok(pauseMs <= PAUSE_MS_MAX, `seed ${seed}: ${pauseMs} ms`)
        assert.ok(masterOf(cluster) !== master, `seed ${seed}, round ${round}: ${pauseMs} ms`)
        acknowledged.push(`${round}-after`)
        await cluster.advance(1_000)
        end()
        await level(cluster)
      }
      const found = await names(cluster)
      for (const one of acknowledged) assert.ok(found.has(one), `seed ${seed}: ${one} is lost`)
    }
  })
}

test('kill -9 of the master: a writer goes on after a short pause, and no member leaves its chunk', async () => {
  for (const seed of [31, 32, 33]) {
    const cluster = await startTestCluster({ seed, metadataServers: 3 })
    const { file } = await cluster.run(cluster.client.fileSystem.create(1, 'file', 0o600, owner, true))
    const write = (position: number): Promise<void> =>
      new Promise((resolve, reject) =>
        file.write(position, Buffer.alloc(4096, 1), (error) => (error === null ? resolve() : reject(error))),
      )
    await cluster.run(write(0))
    const master = masterOf(cluster)
    master.crash()
    const sinceMs = cluster.clock.nowMs()
    // one chunk has an intent, the other one must be made by the next master
    await cluster.run(Promise.all([write(4096), write(CHUNK_SIZE_BYTES)]))
    const pauseMs = cluster.clock.nowMs() - sinceMs
    assert.ok(pauseMs <= PAUSE_MS_MAX, `seed ${seed}: ${pauseMs} ms`)
    await cluster.advance(10_000)
    const chunks = masterOf(cluster).role?.chunks() ?? []
    assert.deepEqual([chunks[0]?.version, chunks[0]?.inSync.length], [1, 3], 'as it was')
    assert.deepEqual([chunks[1]?.version, chunks[1]?.inSync.length], [1, 3], 'made on all three')
    master.restart()
    await level(cluster)
  }
})

test('random troubles of random members under load lose nothing that was acknowledged', async () => {
  for (const seed of [11, 12, 13, 14]) {
    const cluster = await startTestCluster({ seed, metadataServers: 3 })
    const random = new SeededRandom(seed)
    const acknowledged = new Set<string>()
    let isOver = false
    let issued = 0
    const worker = async (): Promise<void> => {
      while (!isOver) {
        const name = `f${issued++}`
        await make(cluster, name)
        acknowledged.add(name)
        await new Promise<void>((resolve) => void cluster.clock.setTimer(30, resolve))
      }
    }
    const workers = [worker(), worker(), worker()]
    const kinds = Object.values(troubles)
    for (let round = 0; round < 8; round++) {
      await cluster.advance(300 + random.below(3_000))
      const node = cluster.metadataServers[random.below(3)] as MetadataServerNode
      const end = (kinds[random.below(kinds.length)] as Trouble)(cluster, node)
      await cluster.advance(500 + random.below(4_000))
      end()
      await level(cluster)
    }
    isOver = true
    await cluster.run(Promise.all(workers))
    const found = await names(cluster)
    assert.ok(acknowledged.size > 100)
    for (const name of acknowledged) assert.ok(found.has(name), `seed ${seed}: ${name} is lost`)
  }
})

test('a minority answers nobody; what it took is undone, and it follows again', async () => {
  const cluster = await startTestCluster({ seed: 5, metadataServers: 3 })
  const master = masterOf(cluster)
  const others = cluster.metadataServers.filter((node) => node !== master)
  for (const other of others) other.crash()
  let isAnswered = false
  const waiting = make(cluster, 'late').then(() => (isAnswered = true))
  await cluster.advance(10_000)
  assert.equal(isAnswered, false, 'one of three decides nothing')
  assert.equal(master.role?.server.isMaster, false, 'and knows it')
  for (const other of others) other.restart()
  await cluster.run(waiting)
  assert.ok((await names(cluster)).has('late'))
})

test('a clean stop hands the place over without an election time-out', async () => {
  const cluster = await startTestCluster({ seed: 6, metadataServers: 3 })
  const master = masterOf(cluster)
  const server = master.role?.server
  assert.ok(server !== undefined)
  const sinceMs = cluster.clock.nowMs()
  const closing = server.close()
  await cluster.run(make(cluster, 'after'))
  const pauseMs = cluster.clock.nowMs() - sinceMs
  assert.ok(pauseMs < 700, `${pauseMs} ms`)
  await cluster.run(closing)
  assert.ok(masterOf(cluster) !== master)
})

test('a member that lacks more than the log holds gets a copy of the store, and so does a new one', async () => {
  const window = { entriesMax: 50, bytesMax: 1e9, step: 10 }
  const cluster = await startTestCluster({ seed: 7, metadataServers: 3, window })
  const master = masterOf(cluster)
  const away = cluster.metadataServers.find((node) => node !== master) as MetadataServerNode
  await cluster.run(make(cluster, 'before'))
  away.crash()
  for (let count = 0; count < 200; count++) await cluster.run(make(cluster, `f${count}`))
  const vote = away.hardState.state
  away.restart()
  await level(cluster)
  const server = away.role?.server
  assert.ok(server !== undefined)
  assert.ok(server.log.status.firstIndex > 100, 'by a copy, not by the log')
  assert.deepEqual(away.hardState.state?.member, vote?.member, 'it is still itself (rule L4)')
  assert.ok((away.hardState.state?.term ?? 0) >= (vote?.term ?? 0), 'and knows what it has promised')
  assert.equal(
    stateDigest(server.state),
    stateDigest(masterOf(cluster).role?.server.state as typeof server.state),
  )
  // It counts again: with it alone the master goes on.
  const third = cluster.metadataServers.find((node) => node !== masterOf(cluster) && node !== away)
  third?.crash()
  await cluster.run(make(cluster, 'with two'))
  // What was installed is on its disk.
  away.losePower()
  third?.restart()
  away.restart()
  await level(cluster)
  const found = await names(cluster)
  assert.ok(found.has('before') && found.has('f199') && found.has('with two'))
})

test('a member is replaced: the old one leaves, a new one takes its place', async () => {
  const cluster = await startTestCluster({ seed: 8, metadataServers: 3 })
  const master = masterOf(cluster)
  const gone = cluster.metadataServers.find((node) => node !== master) as MetadataServerNode
  const id = gone.role?.server.member ?? 0
  gone.crash()
  await cluster.advance(2_000)
  const { control } = master.role?.server ?? assert.fail()
  await cluster.run(control.admin.removeMember({ member: id }))
  await cluster.until(() => master.role?.server.log.configuration.voters.length === 2, 10_000)
  await assert.rejects(
    cluster.run(control.admin.removeMember({ member: master.role?.server.member ?? 0 })),
    (error: { code?: string }) => error.code === 'TRY_AGAIN',
  )
  await cluster.until(() => cluster.master() !== null && cluster.master() !== master, 10_000)
  gone.hardState.state = null
  gone.contents.replaceWith(new SimulatedStoreContents())
  gone.restart()
  await cluster.until(() => masterOf(cluster).role?.server.log.configuration.voters.length === 3, 20_000)
  assert.ok((gone.role?.server.member ?? 0) > 3, 'under an id that nobody had before')
  await cluster.run(make(cluster, 'done'))
})
