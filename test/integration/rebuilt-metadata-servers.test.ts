/**
 * Metadata servers whose directory is damaged, for real: each says so and by which command it comes back, the
 * others go on, and `make-mds --rebuild` builds it again under a new id. It refuses what it must.
 */
import assert from 'node:assert/strict'
import fs from 'node:fs'
import path from 'node:path'
import { after, before, describe, it } from 'node:test'
import { connect } from '../../core/client/connect.ts'
import { TestCluster, until } from './support/cluster.ts'
import { MetadataServersByHand } from './support/metadata-servers.ts'

const owner = { uid: 0, gid: 0 }

describe('damaged metadata servers', { timeout: 400_000 }, () => {
  const ends: (() => Promise<void>)[] = []
  let cluster: TestCluster
  let servers: MetadataServersByHand
  before(async () => {
    const after = (end: () => Promise<void>) => void ends.push(end)
    cluster = await TestCluster.start(after, {
      metadataServers: 3,
      chunkServers: 1,
      mount: false,
      restart: false,
    })
    servers = new MetadataServersByHand(cluster, after)
  })
  after(async () => {
    for (const end of ends.reverse()) await end()
  })

  /** A name that is made, acknowledged, and must be there for ever. */
  async function make(name: string): Promise<void> {
    const { metadataServers, keyFile } = cluster
    const client = await connect({ cluster: 'demo', metadataServers, kind: 'test', name }, { keyFile })
    await client.fileSystem.makeNode(1, name, 'file', 0o600, 0, owner)
    await client.close()
  }

  it('what runs, what is well and what is no repository is refused', async () => {
    const repository = servers.repository('mds3')
    const running = await cluster.tryCairn('make-mds', '--rebuild', '-r', repository)
    assert.equal(running.status, 4)
    assert.match(running.stderr, /is in use by process \d+\n.*stop that process/)
    const none = await cluster.tryCairn('make-mds', '--rebuild', '-r', path.join(cluster.directory, 'cs1'))
    assert.equal(none.status, 3)
    assert.match(none.stderr, /no directory of a metadata server\n.*rm-mds/)
    await servers.end('mds3', 'SIGTERM')
    const well = await cluster.tryCairn('make-mds', '--rebuild', '-r', repository)
    assert.equal(well.status, 4, well.stderr)
    assert.match(well.stderr, /nothing is wrong with .*\n.*add -f/)
    const check = await cluster.cairn('mds', 'check', '-r', repository)
    assert.match(check, /^MDS#3 at 127\.0\.0\.1:\d+ of cluster 'demo' \([0-9a-f]{32}\)$/m)
    assert.match(check, /^other members: MDS#1 at .*, MDS#2 at /m)
    servers.start(repository)
    await until('three metadata servers', () => servers.areActive(3))
  })

  const damages: readonly (readonly [string, RegExp, (repository: string) => void])[] = [
    ['pages of the database are torn', /malformed|SQLITE_CORRUPT|LOG_CORRUPT|ROW_CORRUPT/, tearDatabase],
    ['the database is emptied', /STORE_FORMAT|no metadata database/, emptyDatabase],
    ['term and vote are lost', /HARD_STATE_DAMAGED|term and vote/, loseHardState],
  ]
  for (const [what, reason, damage] of damages) {
    it(`${what}: it ends and says why; rebuilt, it votes under a new id`, async () => {
      const repository = servers.repository('mds3')
      await servers.end('mds3')
      damage(repository)
      await make(`while ${what}`)
      const started = await servers.run(repository)
      assert.equal(started.status, 1, started.stderr)
      assert.match(started.stderr, reason)
      assert.match(started.stderr, /cairn -c demo make-mds --rebuild -r \S+mds3/)
      const check = await cluster.tryCairn('mds', 'check', '-r', repository)
      assert.equal(check.status, 1)
      assert.match(check.stderr, /is damaged: [A-Z_, ]+\n.*make-mds --rebuild/)
      const before = (await cluster.statistics()).mds.map(({ id }) => id)
      const dry = await cluster.cairn('make-mds', '--rebuild', '-r', repository, '--dry-run')
      assert.match(dry, new RegExp(`Would remove MDS#${Math.max(...before)}, `))
      const rebuilt = await cluster.cairn('make-mds', '--rebuild', '-r', repository)
      const aside = /is now (\S+);/.exec(rebuilt)?.[1] ?? ''
      assert.ok(fs.existsSync(path.join(aside, 'listen.json')), 'the damaged one is kept')
      servers.start(repository)
      await until('three metadata servers', () => servers.areActive(3))
      const ids = (await cluster.statistics()).mds.map(({ id }) => id)
      assert.equal(Math.max(...ids), Math.max(...before) + 1, 'rule L4: never under the old id')
      assert.equal(ids.includes(Math.max(...before)), false)
      const { events } = { events: await cluster.events() }
      assert.ok(
        events.some(({ code, message }) => code === 'MDS_INACTIVE' && /does not answer/.test(message)),
      )
    })
  }

  it('without a quorum nothing is changed', async () => {
    for (const name of ['mds1', 'mds2', 'mds3']) await servers.end(name)
    const repository = servers.repository('mds3')
    loseHardState(repository)
    const refused = await cluster.tryCairn('make-mds', '--rebuild', '-r', repository)
    assert.equal(refused.status, 5, refused.stderr)
    assert.match(refused.stderr, /no metadata server of cluster 'demo' answers[^]*--force-new-quorum/)
    assert.ok(fs.existsSync(path.join(repository, 'metadata.db')))
    assert.equal(fs.existsSync(path.join(repository, 'lock')), false)
  })
})

/** Everything behind the first pages, as a disk does that lost them. */
function tearDatabase(repository: string): void {
  fs.rmSync(path.join(repository, 'metadata.db-wal'), { force: true })
  const file = path.join(repository, 'metadata.db')
  const handle = fs.openSync(file, 'r+')
  const { size } = fs.fstatSync(handle)
  for (let at = 8192; at < size; at += 4096) fs.writeSync(handle, Buffer.alloc(2048, 0xa5), 0, 2048, at)
  fs.closeSync(handle)
}

function emptyDatabase(repository: string): void {
  fs.truncateSync(path.join(repository, 'metadata.db'), 0)
  fs.rmSync(path.join(repository, 'metadata.db-wal'), { force: true })
}

function loseHardState(repository: string): void {
  fs.rmSync(path.join(repository, 'hard-state'))
}
