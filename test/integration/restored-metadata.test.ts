/**
 * Metadata that begin anew, for real: from a copy, and from one survivor of a lost majority. The chunk servers are
 * newer than the metadata: nothing they hold is lost or mixed up, nobody is served before an administrator has
 * looked, and what is left of the former quorum cannot come between.
 */
import assert from 'node:assert/strict'
import fs from 'node:fs'
import path from 'node:path'
import { describe, it, type TestContext } from 'node:test'
import type { Client, File } from '../../core/client/api.ts'
import { connect } from '../../core/client/connect.ts'
import { CAIRN, runProgram, TestCluster, until } from './support/cluster.ts'
import { MetadataServersByHand } from './support/metadata-servers.ts'

const owner = { uid: 0, gid: 0 }
const SIZE_BYTES = 1024 * 1024

const write = (file: File, data: Buffer): Promise<void> =>
  new Promise((resolve, reject) => {
    file.write(0, data, (error) => (error === null ? resolve() : reject(error)))
  })
const flush = (file: File): Promise<void> =>
  new Promise((resolve, reject) => {
    file.flush((error) => (error === null ? resolve() : reject(error)))
  })
const read = (file: File): Promise<Buffer> =>
  new Promise((resolve, reject) => {
    file.read(0, SIZE_BYTES, (error, borrowed) =>
      error === null ? resolve(Buffer.from(borrowed)) : reject(error),
    )
  })

/** Runs with a client of its own, which ends. */
async function withClient<T>(cluster: TestCluster, use: (client: Client) => Promise<T>): Promise<T> {
  const { metadataServers, keyFile } = cluster
  const client = await connect({ cluster: 'demo', metadataServers, kind: 'test', name: 'test' }, { keyFile })
  try {
    return await use(client)
  } finally {
    await client.close()
  }
}

/** One megabyte of one byte, flushed. */
async function put(cluster: TestCluster, name: string, byte: number): Promise<void> {
  await withClient(cluster, async ({ fileSystem }) => {
    const { file } = await fileSystem.create(1, name, 0o600, owner, false)
    await write(file, Buffer.alloc(SIZE_BYTES, byte))
    await flush(file)
    file.close()
  })
}

async function bytesOf(cluster: TestCluster, name: string): Promise<number[]> {
  return withClient(cluster, async ({ fileSystem }) => {
    const { inode } = await fileSystem.lookup(1, name)
    const file = await fileSystem.open(inode)
    const data = await read(file)
    file.close()
    return [...new Set(data)]
  })
}

function chunkFileCount(cluster: TestCluster, number: number): number {
  const names = fs.readdirSync(path.join(cluster.directory, `cs${number}`), {
    recursive: true,
    encoding: 'utf8',
  })
  return names.filter((name) => name.includes('chunks/') && !name.endsWith('.new')).length
}

function start(t: TestContext, metadataServers: number): Promise<TestCluster> {
  return TestCluster.start((end) => t.after(end), {
    ...{ metadataServers, chunkServers: 3, replicas: '2:1', mount: false, restart: false },
    config: { 'mds.wd.offline_tout': '2s', 'mds.gc.grace': '0', 'mds.gc.stale_grace': '0' },
  })
}

/** Fifty names are enough to be behind. */
async function makeNames(cluster: TestCluster, prefix: string): Promise<void> {
  await withClient(cluster, async ({ fileSystem }) => {
    for (let count = 0; count < 50; count++)
      await fileSystem.makeNode(1, `${prefix}${count}`, 'file', 0o600, 0, owner)
  })
}

const isThere = (cluster: TestCluster, name: string): Promise<boolean> =>
  withClient(cluster, ({ fileSystem }) =>
    fileSystem.lookup(1, name).then(
      () => true,
      () => false,
    ),
  )

async function looksAll(cluster: TestCluster): Promise<true | string> {
  const finished = await cluster.tryCairn('mds', 'recover', '--dry-run')
  return /have not reported: none/.test(finished.stdout) || finished.stdout + finished.stderr
}

describe('metadata that begin anew', { timeout: 600_000 }, () => {
  it('from a copy: newer replicas win, unknown ones are kept, numbers are not used twice', async (t) => {
    const cluster = await start(t, 1)
    const servers = new MetadataServersByHand(cluster, (end) => t.after(end))
    const copy = path.join(cluster.directory, 'copy')
    await put(cluster, 'old', 1)
    assert.match(await cluster.cairn('mds', 'backup', copy), /metadata of 'demo' as of entry \d+, term \d+/)
    const piped = await runProgram('sh', [
      '-c',
      `${CAIRN} --etc ${cluster.directory}/etc mds backup - | ${CAIRN} --etc ${cluster.directory}/etc -c demo mds restore - -a 127.0.0.1:3999 -r ${cluster.directory}/piped`,
    ])
    assert.equal(piped.status, 0, piped.stderr)

    // Behind the copy: the only replica that is written moves on, one that the copy counts on falls behind.
    const [first] = await cluster.chunkServersByReplicas()
    const stale = first?.number ?? 0
    const others = [1, 2, 3].filter((number) => number !== stale)
    await cluster.killChunkServer(stale)
    await put(cluster, 'old', 2)
    await until('a replica elsewhere', async () => {
      const [location] = await cluster.chunks()
      const servers_ = location?.members.map(({ server }) => server) ?? []
      const ids = others.map((number) => cluster.serverId(number))
      return ids.every((id) => servers_.includes(id)) || JSON.stringify(location)
    })
    await put(cluster, 'old', 3)
    await put(cluster, 'new', 4)
    const filesBefore = others.map((number) => chunkFileCount(cluster, number))

    await cluster.killEverything()
    const repository = servers.repository('mds1')
    const address = cluster.metadataServers[0] ?? ''
    const busy = await cluster.tryCairn('-c', 'demo', 'mds', 'restore', copy, '-a', address, '-r', repository)
    assert.equal(busy.status, 4)
    assert.match(busy.stderr, /holds a metadata server already/)
    fs.renameSync(repository, `${repository}.lost`)
    const half = path.join(cluster.directory, 'half')
    fs.writeFileSync(half, fs.readFileSync(copy).subarray(0, -9))
    const damaged = await cluster.tryCairn('mds', 'restore', half, '-a', address, '-r', repository)
    assert.equal(damaged.status, 1)
    assert.match(damaged.stderr, /cannot be used: its end is missing/)
    assert.equal(fs.existsSync(repository), false)
    const restored = await cluster.cairn('mds', 'restore', copy, '-a', address, '-r', repository)
    assert.match(restored, /MDS#2 holds the metadata of 'demo'[^]*mds recover --dry-run/)
    servers.start(repository)

    // The stale one alone: it has what the copy remembers, and is not good enough.
    cluster.startChunkServer(stale)
    await until('the stale one reports', async () => {
      const { stdout } = await cluster.tryCairn('mds', 'recover', '--dry-run')
      return /1 of 1 chunks are on/.test(stdout) || stdout
    })
    const early = await cluster.tryCairn('mds', 'recover')
    assert.equal(early.status, 4, early.stderr)
    assert.match(early.stderr, /CS#\d+, CS#\d+ have not reported\n.*--without-missing/)
    for (const number of others) cluster.startChunkServer(number)
    await until('all report', () => looksAll(cluster))
    const seen = JSON.parse(await cluster.cairn('mds', 'recover', '--dry-run', '--json')) as {
      summary: Record<string, number>
    }
    assert.deepEqual(
      [seen.summary['newerCount'], seen.summary['missingCount'], seen.summary['unknownCount']],
      [1, 0, 1],
    )
    assert.match(await cluster.cairn('mds', 'recover'), /recovery has ended/)
    assert.deepEqual(await bytesOf(cluster, 'old'), [3], 'the newest, on every page')
    assert.equal(await isThere(cluster, 'new'), false)
    await cluster.allHealthy()
    assert.deepEqual(await bytesOf(cluster, 'old'), [3])
    await cluster.fsckClean()
    await put(cluster, 'after', 5)
    assert.deepEqual(await bytesOf(cluster, 'after'), [5])
    const events = await cluster.events()
    for (const code of ['METADATA_RENEWED', 'RECOVERY_ENDED'])
      assert.ok(
        events.some((event) => event.code === code),
        code,
      )
    assert.equal(
      events.some((event) => event.code === 'METADATA_BEHIND'),
      false,
    )

    // Rule G1: what the metadata do not know goes only when an administrator says so.
    const unknownKept = others.every(
      (number, at) => chunkFileCount(cluster, number) >= (filesBefore[at] ?? 0) - 1,
    )
    assert.ok(unknownKept, 'nothing unknown was deleted')
    const countBefore = [1, 2, 3].reduce((sum, number) => sum + chunkFileCount(cluster, number), 0)
    await cluster.cairn('mds', 'recover', '--discard-unknown')
    await until('unknown replicas are deleted', () => {
      const count = [1, 2, 3].reduce((sum, number) => sum + chunkFileCount(cluster, number), 0)
      return count === countBefore - 2 || `${count} of ${countBefore}`
    })
    assert.deepEqual(await bytesOf(cluster, 'old'), [3])
  })

  it('from a copy of a stopped directory, without a chunk server that is gone for good', async (t) => {
    const cluster = await start(t, 1)
    const servers = new MetadataServersByHand(cluster, (end) => t.after(end))
    const repository = servers.repository('mds1')
    const copy = path.join(cluster.directory, 'copy')
    await put(cluster, 'kept', 1)
    await cluster.allHealthy()
    const running = await cluster.tryCairn('mds', 'backup', copy, '-r', repository)
    assert.equal(running.status, 4, running.stderr)
    assert.match(running.stderr, /is in use by process \d+/)
    assert.equal(fs.existsSync(copy), false)
    const holder = (await cluster.chunkServersByReplicas())[0]?.number ?? 0
    const id = cluster.serverId(holder)
    await cluster.killEverything()
    const told = await cluster.cairn('mds', 'backup', copy, '-r', repository)
    assert.match(told, /metadata of 'demo' as of entry \d+, term \d+/)
    const names = fs.readdirSync(repository).filter((name) => /backup|^lock/.test(name))
    assert.deepEqual(names, [], 'it leaves nothing behind')
    fs.renameSync(repository, `${repository}.lost`)
    const address = cluster.metadataServers[0] ?? ''
    await cluster.cairn('mds', 'restore', copy, '-a', address, '-r', repository)
    const again = await cluster.cairn('mds', 'backup', `${copy}-again`, '-r', repository, '--json')
    assert.ok(JSON.parse(again).generation > 0, 'its metadata began anew, and the copy says so')
    servers.start(repository)
    for (const number of [1, 2, 3].filter((number) => number !== holder)) cluster.startChunkServer(number)
    await until('only the one is missing', async () => {
      const { stdout, stderr } = await cluster.tryCairn('mds', 'recover', '--dry-run')
      return new RegExp(`have not reported: CS#${id}\\.`).test(stdout) || stdout + stderr
    })
    const early = await cluster.tryCairn('mds', 'recover')
    assert.equal(early.status, 4, early.stderr)
    assert.match(early.stderr, new RegExp(`CS#${id} have not reported\\n.*--without-missing`))
    assert.match(await cluster.cairn('mds', 'recover', '--without-missing'), /recovery has ended/)
    assert.deepEqual(await bytesOf(cluster, 'kept'), [1])
    await until('a replica takes the place of the lost one', async () => {
      const [location] = await cluster.chunks()
      const holders = location?.members.map(({ server }) => server) ?? []
      return (holders.length === 2 && !holders.includes(id)) || JSON.stringify(location)
    })
    await cluster.allHealthy()
    assert.deepEqual(await bytesOf(cluster, 'kept'), [1])
  })

  it('from one survivor: refused while it must be, and the others cannot come between', async (t) => {
    const cluster = await start(t, 3)
    const servers = new MetadataServersByHand(cluster, (end) => t.after(end))
    const survivor = servers.repository('mds3')
    const force = ['make-mds', '--force-new-quorum', '-r', survivor] as const
    await put(cluster, 'data', 1)
    await makeNames(cluster, 'early')
    await servers.end('mds3', 'SIGTERM')
    const living = await cluster.tryCairn(...force, '--yes-lose-data', 'demo')
    assert.equal(living.status, 4, living.stderr)
    assert.match(living.stderr, /has a master: its quorum is not lost\n.*--rebuild/)
    await makeNames(cluster, 'late')
    await put(cluster, 'data', 2)
    for (const name of ['mds1', 'mds2']) await servers.end(name)

    const nameless = await cluster.tryCairn(...force, '--yes-lose-data', 'other')
    assert.equal(nameless.status, 4)
    assert.match(nameless.stderr, /compare all survivors[^]*nothing was changed.*\n.*--yes-lose-data demo/)
    assert.equal((await cluster.tryCairn(...force, '--rebuild')).status, 2)
    const typed = await runProgram(CAIRN, ['--etc', path.join(cluster.directory, 'etc'), ...force], {
      input: 'demo\n',
    })
    assert.equal(typed.status, 0, typed.stderr)
    assert.match(typed.stdout, /MDS#4 is the only metadata server of 'demo' now[^]*mds3\.survivor-/)
    servers.start(survivor)
    await until('all report', () => looksAll(cluster))
    await cluster.cairn('mds', 'recover')
    assert.deepEqual(await bytesOf(cluster, 'data'), [2], 'what the chunk servers hold is not lost')
    assert.equal(await isThere(cluster, 'early49'), true)
    assert.equal(await isThere(cluster, 'late49'), false, 'what only the lost majority knew')

    // A majority of the former three comes back: they meet the new one and end.
    for (const name of ['mds1', 'mds2']) {
      const old = await servers.run(servers.repository(name))
      assert.equal(old.status, 1, old.stderr)
      assert.match(old.stderr, /has replaced this one\n.*--rebuild -f/)
    }
    const ended = await Promise.all(['mds1', 'mds2'].map((name) => servers.run(servers.repository(name))))
    for (const { status, stderr } of ended) assert.equal(status, 1, stderr)
    assert.deepEqual(await bytesOf(cluster, 'data'), [2])

    for (const name of ['mds1', 'mds2']) {
      await cluster.cairn('make-mds', '--rebuild', '-f', '-r', servers.repository(name))
      servers.start(servers.repository(name))
      await until('it votes', () => servers.areActive(name === 'mds1' ? 2 : 3))
    }
    const ids = (await cluster.statistics()).mds.map(({ id }) => id)
    assert.deepEqual(ids, [4, 5, 6])
    await cluster.allHealthy()
    assert.deepEqual(await bytesOf(cluster, 'data'), [2])
  })
})
