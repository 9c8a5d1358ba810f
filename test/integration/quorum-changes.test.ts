/**
 * Members of a quorum come and go while clients work: 3, then 5, then 3 metadata servers; a dead one is replaced;
 * one that was away for 100,000 operations catches up. What the clients saw is linearizable to the end, their
 * pauses are short, and the member that catches up holds up nobody and needs little memory.
 */
import assert from 'node:assert/strict'
import fs from 'node:fs'
import { performance } from 'node:perf_hooks'
import { after, before, describe, it } from 'node:test'
import type { Client } from '../../core/client/api.ts'
import { SeededRandom } from '../../core/testing/simulation/seeded-random.ts'
import { Crew } from '../campaign/crew.ts'
import { distribution } from '../campaign/figures.ts'
import { NamesLoad } from '../campaign/names-load.ts'
import { Pulse } from '../campaign/pulse.ts'
import { until } from './support/cluster.ts'
import { type MemberPlace, QuorumCluster } from './support/quorum-cluster.ts'

const CLIENT_COUNT = 3
/** Nobody is killed while the master works: only elections and hand-overs, on a machine that does other work too. */
const PAUSE_MS_MAX = 5_000
const AWAY_OPERATION_COUNT = 100_000
const FILLERS = 4
const FILLERS_IN_FLIGHT = 64
/** Of the others' operations while a member catches up. */
const LATENCY_P99_MS_MAX = 1_000
const MEMBER_BYTES_MAX = 400 * 1024 * 1024
/** An address of loopback for each member, so that ports are free whatever else runs. */
const NETWORK = `127.77.${1 + (process.pid % 250)}`

describe('metadata servers come and go', { timeout: 300_000 }, () => {
  const ends: (() => Promise<void>)[] = []
  const pulse = new Pulse()
  const crew = new Crew()
  let cluster: QuorumCluster
  let load: NamesLoad
  let placeCount = 0

  function newPlace(): MemberPlace {
    placeCount += 1
    const directory = fs.mkdtempSync(`${process.env['TMPDIR'] ?? '/tmp'}/cairn-member-`)
    ends.unshift(() => Promise.resolve(fs.rmSync(directory, { recursive: true, force: true })))
    return { address: `${NETWORK}.${placeCount}:2510`, repository: `${directory}/mds` }
  }

  async function open(name: string): Promise<Client> {
    const client = await cluster.connect(name)
    ends.push(() => client.close())
    return client
  }

  /** What the clients have to say of the time since the last call. */
  function assertServed(): void {
    assert.deepEqual(crew.problems, [])
    const longestMs = Math.max(...pulse.takeWindow().values())
    assert.ok(longestMs < PAUSE_MS_MAX, `a pause of ${longestMs} ms`)
  }

  before(async () => {
    const places = [newPlace(), newPlace(), newPlace()]
    cluster = await QuorumCluster.start((end) => ends.push(end), { places, chunkServers: 0, replicas: '1' })
    const clients: Client[] = []
    for (let number = 1; number <= CLIENT_COUNT; number++) clients.push(await open(`names${number}`))
    load = new NamesLoad(pulse, crew, clients)
    await load.newRound('growing', new SeededRandom(1))
    await until('everybody is served', () => pulse.count > 100)
    pulse.takeWindow()
  })
  after(async () => {
    load.stop()
    for (const end of ends.reverse()) await end()
  })

  it('3 become 5, and 3 again', async () => {
    for (let count = 0; count < 2; count++) await cluster.addMember(newPlace())
    await cluster.allThere()
    assertServed()
    const master = await cluster.master()
    const [follower] = cluster.members.filter((member) => member !== master)
    assert.ok(follower !== undefined)
    await cluster.removeMember(follower)
    await cluster.allThere()
    await cluster.removeMember(master)
    await cluster.allThere()
    assert.equal(cluster.members.length, 3)
    assertServed()
  })

  it('a dead one is replaced', async () => {
    await load.newRound('replaced', new SeededRandom(2))
    const dead = await cluster.master()
    await dead.stop('SIGKILL')
    await cluster.removeMember(dead)
    await cluster.addMember(newPlace())
    await cluster.allThere()
    assertServed()
  })

  it('one that was away for 100,000 operations catches up and holds up nobody', async (t) => {
    await load.newRound('away', new SeededRandom(3))
    const master = await cluster.master()
    const away = cluster.members.find((member) => member !== master)
    assert.ok(away !== undefined)
    await away.stop('SIGKILL')
    const fillStartedMs = performance.now()
    await fill(await Promise.all(Array.from({ length: FILLERS }, (_, number) => open(`filler${number}`))))
    const fillMs = performance.now() - fillStartedMs
    assertServed()
    await load.newRound('back', new SeededRandom(4))
    const startedMs = performance.now()
    away.start()
    await cluster.allThere()
    const caughtUpMs = performance.now() - startedMs
    const latencies = distribution(load.latenciesSince(startedMs))
    const bytes = residentBytesMax(away.pid)
    t.diagnostic(
      `100,000 operations in ${Math.round(fillMs)} ms, caught up in ${Math.round(caughtUpMs)} ms with ${Math.round(bytes / 2 ** 20)} MiB; the others' operations meanwhile: p50 ${latencies.p50Ms} ms, p99 ${latencies.p99Ms} ms, max ${latencies.maxMs} ms`,
    )
    assert.ok(latencies.count > 50 && latencies.p99Ms < LATENCY_P99_MS_MAX, JSON.stringify(latencies))
    assert.ok(bytes < MEMBER_BYTES_MAX, `${bytes} bytes`)
    assertServed()
  })

  it('all of it is there, in an order that explains every answer', async () => {
    load.stop()
    await until('everything is answered', () => crew.pendingCount === 0)
    await load.lookAtEverything(await open('last'))
    assert.deepEqual([...crew.problems, ...load.check()], [])
  })
})

/** Each operation is an entry of the log of its own. */
async function fill(clients: readonly Client[]): Promise<void> {
  let begun = 0
  const value = Buffer.alloc(32, 7)
  const worker = async (client: Client, name: string): Promise<void> => {
    const keyValue = client.keyValue('fill')
    while (begun++ < AWAY_OPERATION_COUNT) await keyValue.put(name, value)
  }
  await Promise.all(
    clients.flatMap((client, number) =>
      Array.from({ length: FILLERS_IN_FLIGHT }, (_, place) => worker(client, `${number}-${place}`)),
    ),
  )
}

/** The most that a process ever had in memory. */
function residentBytesMax(pid: number): number {
  const kibibytes = /^VmHWM:\s+(\d+) kB/m.exec(fs.readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1]
  return Number(kibibytes) * 1024
}
