/**
 * Processes die in the middle of work: chunk servers, the metadata server, everything. No error reaches the
 * programs, every fsynced byte is there, repair restores what is missing, a returning server copies only
 * what changed. Rules F1-F8, E1, J1-J10; guide: chunk states.
 */
import assert from 'node:assert/strict'
import { createHash, randomBytes } from 'node:crypto'
import fs from 'node:fs'
import path from 'node:path'
import { after, before, describe, it } from 'node:test'
import { metadataServerCount, TestCluster, until } from './support/cluster.ts'
import { repeat, workloads } from './support/workloads.ts'
import { startWriter } from './support/writer.ts'

const MIB = 1024 * 1024

describe('a chunk server dies for good in the middle of work', { timeout: 450_000 }, () => {
  let cluster: TestCluster
  const ends: (() => Promise<void>)[] = []
  before(async () => {
    cluster = await TestCluster.start((end) => ends.push(end), {
      metadataServers: metadataServerCount(3),
      chunkServers: 4,
      restart: false,
      replicas: '3:2',
      config: { 'mds.wd.inactive_tout': '1s', 'mds.wd.offline_tout': '5s' },
    })
  })
  after(async () => {
    for (const end of ends.reverse()) await end()
  })

  for (const workload of workloads) {
    it(`${workload.name}: no error, repair, a clean check, and it comes back`, async () => {
      const directory = path.join(cluster.mount, workload.name)
      fs.mkdirSync(directory)
      const running = repeat(workload, directory)
      let victim = 0
      await until('somebody holds what is being written', async () => {
        const most = (await cluster.chunkServersByReplicas())[0]
        victim = most?.number ?? 0
        return (most?.replicas ?? 0) > 0
      })
      await cluster.killChunkServer(victim)
      await until('the loss is seen: fewer replicas, or new ones being made', async () => {
        const { chunks, cs } = await cluster.statistics()
        if (cs.some((server) => server.status === 'offline')) return true
        return chunks.degraded + chunks.urgent + chunks.standby + chunks.replicating > 0
      })
      await until('the server is offline', async () =>
        (await cluster.statistics()).cs.some((server) => server.status === 'offline'),
      )
      await running.stop()
      assert.ok(running.rounds > 0)
      await cluster.allHealthy()
      assert.equal((await cluster.statistics()).status, 'degraded')
      await cluster.fsckClean()
      cluster.startChunkServer(victim)
      await until('the cluster is healthy', async () => (await cluster.statistics()).status === 'healthy')
    })
  }

  it('afterwards everything verifies', async () => {
    await cluster.allHealthy()
    await cluster.fsckClean()
  })
})

describe('processes die, short absences', { timeout: 450_000 }, () => {
  let cluster: TestCluster
  const ends: (() => Promise<void>)[] = []
  before(async () => {
    cluster = await TestCluster.start((end) => ends.push(end), {
      metadataServers: metadataServerCount(3),
      replicas: '3:2',
    })
  })
  after(async () => {
    for (const end of ends.reverse()) await end()
  })

  it('a chunk server that returns copies only what changed', async () => {
    const file = path.join(cluster.mount, 'large')
    // fsync(2): what is only acknowledged, a killed server has not got on its disk.
    const written = fs.openSync(file, 'w')
    fs.writeSync(written, randomBytes(96 * MIB))
    fs.fsyncSync(written)
    fs.closeSync(written)
    const before = (await cluster.events()).at(-1)?.id ?? 0
    await cluster.signal('cs2', 'SIGKILL')
    const descriptor = fs.openSync(file, 'r+')
    const changed = 40
    for (let page = 0; page < changed; page++)
      fs.writeSync(descriptor, randomBytes(4096), 0, 4096, page * 500 * 4096)
    fs.fsyncSync(descriptor)
    fs.closeSync(descriptor)
    const hash = createHash('sha256').update(fs.readFileSync(file)).digest('hex')
    await until('the server is back', async () =>
      (await cluster.statistics()).cs.every((server) => server.status === 'active'),
    )
    await cluster.allHealthy()
    let copied = 0
    await until('the event log says what was copied', async () => {
      copied = (await cluster.events())
        .filter((event) => event.id > before && event.code === 'REPLICAS_REJOINED')
        .reduce((sum, event) => sum + Number(/(\d+) bytes/.exec(event.message)?.[1] ?? 0), 0)
      return copied > 0
    })
    await cluster.allHealthy()
    assert.ok(
      copied <= 1.1 * changed * 4096 + 64 * 4096,
      `${copied} bytes copied for ${changed * 4096} changed`,
    )
    await cluster.fsckClean()
    assert.equal(createHash('sha256').update(fs.readFileSync(file)).digest('hex'), hash)
  })

  it('I/O pauses while the metadata server is away and goes on after its restart', async () => {
    const writer = startWriter(path.join(cluster.mount, 'during-mds-restart'))
    await until('the writer writes', () => fs.existsSync(path.join(cluster.mount, 'during-mds-restart')))
    const master = await cluster.master()
    const pid = await cluster.signal(master, 'SIGKILL')
    await until('a new metadata server', async () => {
      const service = (await cluster.processes()).find((entry) => entry.id === master)
      return service?.pid !== null && service?.pid !== pid
    })
    fs.writeFileSync(path.join(cluster.mount, 'created-afterwards'), 'yes')
    assert.equal(fs.readFileSync(path.join(cluster.mount, 'created-afterwards'), 'utf8'), 'yes')
    await writer.stop()
    await cluster.allHealthy()
    await cluster.fsckClean()
  })

  it('after kill -9 of everything every fsynced byte is there', async () => {
    const contents = new Map<string, Buffer>()
    for (let index = 0; index < 8; index++) {
      const file = path.join(cluster.mount, `fsynced-${index}`)
      const data = randomBytes(index * 300_000 + 777)
      const descriptor = fs.openSync(file, 'w')
      fs.writeSync(descriptor, data)
      fs.fsyncSync(descriptor)
      fs.closeSync(descriptor)
      contents.set(file, data)
    }
    const writer = startWriter(path.join(cluster.mount, 'in-flight'))
    await until('the writer writes', () => fs.existsSync(path.join(cluster.mount, 'in-flight')))
    writer.kill()
    await cluster.killEverything()
    await cluster.up()
    for (const [file, data] of contents) assert.ok(fs.readFileSync(file).equals(data), file)
    await cluster.allHealthy()
    await cluster.fsckClean()
  })
})
