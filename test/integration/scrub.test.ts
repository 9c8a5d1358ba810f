/**
 * Scrubbing on real files: what rots, or was never written, is found and repaired although nobody reads it.
 * Rules R1, R2; guide: "Configuring Data Scrubbing".
 */
import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import fs from 'node:fs'
import path from 'node:path'
import { after, before, describe, it } from 'node:test'
import { DATA_POSITION, pagePosition } from '../../core/chunkserver/format/chunk-layout.ts'
import { TestCluster, until } from './support/cluster.ts'

const MIB = 1024 * 1024
const PAGE = 4096

function writeDurably(file: string, data: Buffer, position = 0): void {
  const descriptor = fs.openSync(file, fs.existsSync(file) ? 'r+' : 'w')
  fs.writeSync(descriptor, data, 0, data.length, position)
  fs.fsyncSync(descriptor)
  fs.closeSync(descriptor)
}

function flipByte(file: string, offset: number): void {
  const descriptor = fs.openSync(file, 'r+')
  const byte = Buffer.alloc(1)
  fs.readSync(descriptor, byte, 0, 1, offset)
  byte[0] = (byte[0] ?? 0) ^ 0x40
  fs.writeSync(descriptor, byte, 0, 1, offset)
  fs.closeSync(descriptor)
}

describe('scrubbing', { timeout: 300_000 }, () => {
  let cluster: TestCluster
  let file: string
  let data: Buffer
  const ends: (() => Promise<void>)[] = []

  before(async () => {
    cluster = await TestCluster.start((end) => ends.push(end), { replicas: '3:2', restart: false })
    file = path.join(cluster.mount, 'data')
    data = randomBytes(8 * MIB)
    writeDurably(file, data)
    await until('nobody writes it', async () => !(await cluster.isBusy()))
  })
  after(async () => {
    for (const end of ends.reverse()) await end()
  })

  const chunkFile = (number: number): string => {
    const top = path.join(cluster.directory, `cs${number}`, 'chunks')
    const found = fs
      .readdirSync(top)
      .flatMap((directory) =>
        fs.readdirSync(path.join(top, directory)).map((name) => path.join(top, directory, name)),
      )
    assert.equal(found.length, 1)
    return found[0] ?? ''
  }
  const contentOf = (number: number): Buffer =>
    fs.readFileSync(chunkFile(number)).subarray(DATA_POSITION, DATA_POSITION + data.length)
  const eventsOf = async (code: string) => (await cluster.events()).filter((event) => event.code === code)
  const pace = (chunksPerMinute: number) =>
    cluster.cairn('set-config', `mds.wd.verify_chunks=${chunksPerMinute}`)

  it('a flipped byte is found, told and repaired before anybody reads it', async () => {
    flipByte(chunkFile(2), pagePosition(700) + 5)
    assert.ok(!contentOf(2).equals(data))
    await pace(600)
    await until('the disk of that server holds the right byte again', () => contentOf(2).equals(data))
    const [event] = await eventsOf('BAD_PAGES')
    assert.match(
      event?.message ?? '',
      new RegExp(`CS#${cluster.serverId(2)} has reported hard error on 1 pages of chunk`),
    )
    await until('told', async () => (await eventsOf('PAGES_REPAIRED')).length > 0)
  })

  it('stat says how long ago the oldest replica was verified; with scrubbing off it grows', async () => {
    const ages = async () => (await cluster.statistics()).cs.map((server) => server.oldestUnverifiedMs)
    await until('all verified just now', async () => (await ages()).every((ageMs) => ageMs <= 3000))
    await pace(0)
    await until('nobody verifies', async () => (await ages()).every((ageMs) => ageMs > 4000))
    assert.match(await cluster.cairn('stat'), /UNVERIFIED/)
  })

  it('a lost write, page and checksum: the server has an old page that verifies; the others are right', async () => {
    const old = fs.readFileSync(chunkFile(1))
    const news = randomBytes(3 * PAGE)
    writeDurably(file, news, MIB)
    news.copy(data, MIB)
    await until('nobody writes it', async () => !(await cluster.isBusy()))
    await cluster.stopChunkServer(1)
    fs.writeFileSync(chunkFile(1), old)
    cluster.startChunkServer(1)
    await cluster.allHealthy()
    const before = JSON.parse((await cluster.tryCairn('fsck', '--json')).stdout) as {
      problems: { kind: string; server: number; page: number }[]
    }
    assert.deepEqual(
      before.problems.map(({ kind, server, page }) => [kind, server, page]),
      [256, 257, 258].map((page) => ['differs', cluster.serverId(1), page]),
    )
    assert.ok(!contentOf(1).equals(data), 'fsck alone repairs nothing')
    await pace(600)
    await until('equal again', () => contentOf(1).equals(data))
    const [event] = await eventsOf('REPLICAS_DIFFER')
    assert.match(
      event?.message ?? '',
      new RegExp(`CS#${cluster.serverId(1)} has reported hard error on 3 pages`),
    )
    await cluster.fsckClean()
  })

  it('a restart of every process forgets nothing of what was verified when', async () => {
    await pace(0)
    const ages = async () => (await cluster.statistics()).cs.map((server) => server.oldestUnverifiedMs)
    await until('it was some time ago', async () => (await ages()).every((ageMs) => ageMs > 6000))
    // started by hand, which `down` knows nothing of
    await cluster.stopChunkServer(1)
    await cluster.down()
    await cluster.up()
    await until('known at once', async () => {
      const now = await ages()
      return now.length === 3 && now.every((ageMs) => ageMs > 6000)
    })
  })
})
