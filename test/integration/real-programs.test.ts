/**
 * Ordinary programs on the mount of a real cluster keep their data and agree with what they see on a local
 * disk. Issue: what ordinary software expects of a POSIX file system.
 */
import assert from 'node:assert/strict'
import fs from 'node:fs'
import path from 'node:path'
import { after, before, describe, it } from 'node:test'
import { metadataServerCount, TestCluster } from './support/cluster.ts'
import {
  compileProgram,
  copyTree,
  fioPatterns,
  fioVerify,
  gitHistory,
  makeTree,
  packAndUnpack,
  sqliteWriters,
} from './support/workloads.ts'

describe('real programs on the mount', { timeout: 450_000 }, () => {
  let cluster: TestCluster
  const ends: (() => Promise<void>)[] = []
  before(async () => {
    cluster = await TestCluster.start((end) => ends.push(end), {
      metadataServers: metadataServerCount(),
    })
  })
  after(async () => {
    for (const end of ends.reverse()) await end()
  })

  const place = (name: string): string => {
    const directory = path.join(cluster.mount, name)
    fs.mkdirSync(directory)
    return directory
  }

  it('cp -a of /usr/share/doc is the same tree', () => copyTree('/usr/share/doc', place('documentation')))

  it('cp -a of a tree with links of both kinds, odd owners, modes, names and times is the same tree', async () => {
    const source = path.join(cluster.directory, 'source')
    fs.mkdirSync(source)
    await makeTree(source)
    await copyTree(source, place('tree'))
  })

  it('git commits, packs and verifies a real tree', () => gitHistory(place('repository')))

  it('a SQLite database in WAL mode stays whole under parallel writers', () =>
    sqliteWriters(place('database'), 60))

  it('tar packs and unpacks', () => packAndUnpack(place('archive')))

  it('gcc compiles, links, and the program runs', () => compileProgram(place('build')))

  for (const [name, parameters] of fioPatterns) {
    it(`fio verifies what it wrote: ${name}`, () => fioVerify(place(`fio ${name}`), 96, parameters))
  }

  it('a 20 GiB sparse file has its size, its holes and its data', async () => {
    const file = path.join(cluster.mount, 'sparse')
    const size = 20 * 1024 ** 3
    const descriptor = fs.openSync(file, 'w+')
    try {
      fs.ftruncateSync(descriptor, size)
      const marks = [0, 5 * 1024 ** 3 + 12_345, size - 7]
      for (const [index, offset] of marks.entries())
        fs.writeSync(descriptor, Buffer.from(`mark #${index}`), 0, 7, offset)
      fs.fsyncSync(descriptor)
      for (const [index, offset] of marks.entries()) {
        const seen = Buffer.alloc(7)
        fs.readSync(descriptor, seen, 0, 7, offset)
        assert.equal(seen.toString(), `mark #${index}`)
      }
      const hole = Buffer.alloc(1024 * 1024, 1)
      assert.equal(fs.readSync(descriptor, hole, 0, hole.length, 11 * 1024 ** 3), hole.length)
      assert.ok(hole.every((byte) => byte === 0))
    } finally {
      fs.closeSync(descriptor)
    }
    const status = fs.statSync(file)
    assert.equal(status.size, size)
    assert.ok(status.blocks * 512 <= 4 * 64 * 1024 ** 2, `${status.blocks} blocks`)
    fs.unlinkSync(file)
  })

  it('afterwards every replica verifies and all are equal', async () => {
    await cluster.allHealthy()
    await cluster.fsckClean()
  })
})
