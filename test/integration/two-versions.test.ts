/**
 * An update from the previous version, one process after the other under load: metadata servers of both versions
 * form one quorum with either as master, chunk servers and clients of both work with both, nothing acknowledged is
 * lost. The feature level rises when the last metadata server is updated, not before, and then the older version
 * is refused. docs/formats/metadata.md, "Feature level".
 */
import assert from 'node:assert/strict'
import type { ChildProcess } from 'node:child_process'
import { after, before, describe, it } from 'node:test'
import { setTimeout as pause } from 'node:timers/promises'
import { type AdminConnection, connectAdmin } from '../../core/cli/admin.ts'
import { EtcDirectory, parseAddress } from '../../core/cli/etc.ts'
import type { Client } from '../../core/client/api.ts'
import { connect } from '../../core/client/connect.ts'
import { HIGHEST_LEVEL } from '../../core/metadata/state/feature-levels.ts'
import { HistoryRecorder, KeyValueWorker } from '../../core/testing/linearizability/key-value-workload.ts'
import { checkLinearizability, describeVerdict } from '../../core/testing/linearizability/linearizability.ts'
import { mapModel } from '../../core/testing/linearizability/linearizability-models.ts'
import { SeededRandom } from '../../core/testing/simulation/seeded-random.ts'
import type { ClusterStatistics } from '../../core/wire/messages/statistics.ts'
import { CAIRN, isAlive, must, runProgram, until } from './support/cluster.ts'
import { TestHost } from './support/hosts.ts'
import { type PreviousVersion, previousVersion } from './support/previous-version.ts'

const CLUSTER = 'demo'
const BASE_PORT = 12_610
/** Together more than the log of a metadata server holds, 8 MiB: whoever lacks them gets a copy. */
const FILLER_BYTES = 60 * 1024
const FILLER_COUNT = 200
const owner = { uid: 0, gid: 0 }

type Version = 'old' | 'new'

describe('an update from the previous version', { timeout: 240_000 }, () => {
  const ends: (() => Promise<void>)[] = []
  const servers = new Map<string, ChildProcess>()
  const recorder = new HistoryRecorder()
  /** Names of files whose contents are their name, durably, as a client was told. */
  const acknowledged: string[] = []
  const working: Promise<unknown>[] = []
  let isOver = false
  let host: TestHost
  let previous: PreviousVersion

  const addressOf = (member: number) => `127.0.0.1:${BASE_PORT + 2 * member}`
  const repositoryOf = (name: string) => host.path(name)
  const programOf = (version: Version) => (version === 'old' ? previous.cairn : CAIRN)
  const argumentsOf = (parameters: readonly string[]) => ['--etc', host.etc, '-c', CLUSTER, ...parameters]
  const run = (version: Version, ...parameters: string[]) => must(programOf(version), argumentsOf(parameters))
  const tryRun = (version: Version, ...parameters: string[]) =>
    runProgram(programOf(version), argumentsOf(parameters), { timeoutMs: 60_000 })

  function start(version: Version, name: string): void {
    const role = name.startsWith('mds') ? 'mds' : 'cs'
    const parameters = [role, '-r', repositoryOf(name), '--log', host.path(`${name}.log`)]
    servers.set(name, host.spawn(programOf(version), argumentsOf(parameters)).child)
  }

  async function stop(name: string): Promise<void> {
    await host.stop(servers.get(name) ?? assert.fail())
  }

  async function restart(version: Version, name: string): Promise<void> {
    await stop(name)
    start(version, name)
    await areAllThere()
  }

  async function ask<T>(question: (admin: AdminConnection) => Promise<T>): Promise<T> {
    const addresses = [1, 2, 3].map((member) => parseAddress(addressOf(member)))
    const admin = await connectAdmin(CLUSTER, addresses, new EtcDirectory(host.etc))
    try {
      return await question(admin)
    } finally {
      await admin.close()
    }
  }

  function statistics(): Promise<ClusterStatistics> {
    return ask(async ({ metadata }) => (await metadata.call('admin.stat', {})) as ClusterStatistics)
  }

  async function areAllThere(): Promise<void> {
    await until('all servers are there', async () => {
      const { mds, cs } = await statistics()
      const all = [...mds, ...cs].map(({ id, status }) => `${id} ${status}`)
      return (all.length === 5 && all.every((text) => text.endsWith(' active'))) || all.join(', ')
    })
  }

  /** Until everybody has got something done since now. */
  async function loadGoesOn(): Promise<void> {
    const count = acknowledged.length
    await until(
      'the load goes on',
      () => acknowledged.length > count + 20 || `${acknowledged.length - count}`,
    )
  }

  async function open(version: Version, name: string): Promise<Client> {
    const module = 'core/client/connect.ts'
    const theirs = version === 'old' ? ((await previous.load(module)) as { connect: typeof connect }) : null
    const metadataServers = [1, 2, 3].map(addressOf)
    const keyFile = host.path(`etc/clusters/${CLUSTER}/auth_digest.key`)
    const options = { cluster: CLUSTER, metadataServers, kind: 'test', name }
    const client = await (theirs?.connect ?? connect)(options, { keyFile })
    ends.push(() => client.close())
    return client
  }

  async function beginLoad(version: Version): Promise<void> {
    const client = await open(version, version)
    const random = new SeededRandom(version.length)
    const pausing = (ms: number) => pause(ms / 5)
    const keyValue = client.keyValue('history')
    working.push(new KeyValueWorker({ recorder, client: version, keyValue, random, pause: pausing }).run())
    working.push(
      (async () => {
        for (let count = 0; !isOver; count++) {
          const name = `${version}-${count}`
          await writeFile(client, name)
          acknowledged.push(name)
          await pause(10)
        }
      })(),
    )
  }

  before(async () => {
    const end = (callback: () => Promise<void>) => void ends.push(callback)
    previous = await previousVersion(end)
    host = new TestHost(end, {})
    const password = host.passwordFile('a password')
    const made = ['-r', repositoryOf('mds1'), '--replicas', '2', '--failure-domain', 'disk']
    await run('old', 'make-mds', '-I', '-a', addressOf(1), ...made, '--password-file', password)
    start('old', 'mds1')
    for (const [version, member] of [
      ['old', 2],
      ['new', 3],
    ] as const) {
      await run(version, 'make-mds', '-a', addressOf(member), '-r', repositoryOf(`mds${member}`))
      start(version, `mds${member}`)
    }
    for (const [version, name] of [
      ['old', 'cs1'],
      ['new', 'cs2'],
    ] as const) {
      await run(version, 'make-cs', '-r', repositoryOf(name), '-a', '127.0.0.1')
      start(version, name)
    }
    await areAllThere()
    for (const version of ['old', 'new'] as const) await beginLoad(version)
  })
  after(async () => {
    isOver = true
    recorder.isOver = true
    for (const end of ends.reverse()) await end()
  })

  it('an older master serves servers and clients of both versions', async () => {
    const { mds, featureLevel } = await statistics()
    assert.equal(mds.find(({ master }) => master)?.id, 1)
    assert.equal(featureLevel, undefined)
    await loadGoesOn()
    assert.match(await run('old', 'stat'), /connected to MDS#1/)
  })

  it('a newer master keeps to the level that the older member understands, and tells who is waited for', async () => {
    await restart('new', 'mds1')
    await loadGoesOn()
    // Whichever took over: with the older one away it is a newer one, and stays so.
    await restart('old', 'mds2')
    await until('a newer one leads', async () => {
      const { mds } = await statistics()
      const master = mds.find((server) => server.master)?.id
      return (master !== undefined && master !== 2) || `MDS#${master} leads`
    })
    await loadGoesOn()
    const { featureLevel } = await statistics()
    assert.deepEqual(featureLevel, { inForce: 1, highest: HIGHEST_LEVEL, waitsFor: [2] })
    assert.match(
      await run('new', 'stat'),
      new RegExp(`^Feature level: 1, ${HIGHEST_LEVEL} waits for MDS#2$`, 'm'),
    )
    assert.match(await run('old', 'stat'), /connected to MDS#[13]/, 'the older command line understands it')
  })

  it('an older member that lacks more than the log holds gets a copy of a newer master', async () => {
    await stop('mds2')
    const client = await open('new', 'filler')
    const value = new Uint8Array(FILLER_BYTES)
    for (let count = 0; count < FILLER_COUNT; count++) await client.keyValue('filler').put('key', value)
    start('old', 'mds2')
    await until('it is level', async () => {
      const { events } = await ask(({ metadata }) => metadata.call('admin.events', { after: 0, limit: 1000 }))
      const codes = events.map(({ code }) => code)
      return (codes.includes('MDS_RESYNC') && codes.includes('MDS_RESYNCED')) || codes.slice(-5).join(', ')
    })
    await areAllThere()
    await loadGoesOn()
    assert.equal((await statistics()).featureLevel?.inForce, 1)
  })

  it('until the level rises an updated server can go back', async () => {
    await restart('old', 'mds3')
    await loadGoesOn()
    await restart('new', 'mds3')
  })

  it('the level rises with the last update, and the older version is refused', async () => {
    await restart('new', 'mds2')
    await until('the highest level is in force', async () => {
      const { featureLevel } = await statistics()
      return featureLevel?.inForce === HIGHEST_LEVEL || JSON.stringify(featureLevel)
    })
    await loadGoesOn()
    await stop('mds2')
    const back = await tryRun('old', 'mds', '-r', repositoryOf('mds2'))
    assert.notEqual(back.status, 0)
    assert.match(back.stderr, /STATE_FORMAT|format this version does not know|has format [23]/)
    start('new', 'mds2')
    const joining = await tryRun('old', 'make-mds', '-a', addressOf(4), '-r', repositoryOf('mds4'))
    assert.notEqual(joining.status, 0)
    assert.match(joining.stderr, new RegExp(`feature level 1 at most, in force is ${HIGHEST_LEVEL}`))
    await areAllThere()
    const { mds } = await statistics()
    assert.equal(mds.length, 3)
  })

  it('chunk servers are updated, too, and nothing that was acknowledged is lost', async () => {
    await restart('new', 'cs1')
    await loadGoesOn()
    isOver = true
    recorder.isOver = true
    await Promise.all(working)
    const verdict = checkLinearizability(recorder.history, mapModel)
    assert.equal(verdict.kind, 'linearizable', describeVerdict(verdict))
    const client = await open('new', 'reader')
    for (const name of acknowledged) assert.equal(await readFile(client, name), name)
    for (const child of servers.values()) assert.ok(child.pid !== undefined && isAlive(child.pid))
  })
})

async function writeFile(client: Client, name: string): Promise<void> {
  const { file } = await client.fileSystem.create(1, name, 0o600, owner, true)
  const data = Buffer.from(name)
  await settled((callback) => file.write(0, data, callback))
  await settled((callback) => file.flush(callback))
  file.close()
}

async function readFile(client: Client, name: string): Promise<string> {
  const { inode } = await client.fileSystem.lookup(1, name)
  const file = await client.fileSystem.open(inode)
  let text = ''
  await settled((callback) =>
    file.read(0, 100, (error, borrowedData) => {
      text = borrowedData.toString()
      callback(error)
    }),
  )
  file.close()
  return text
}

function settled(begin: (callback: (error: Error | null) => void) => unknown): Promise<void> {
  return new Promise((resolve, reject) => {
    begin((error) => (error === null ? resolve() : reject(error)))
  })
}
