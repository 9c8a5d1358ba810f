/**
 * Disks that rot, fill up and die under a running cluster. Reads return good data from another replica, the
 * event log says which was bad, and it is repaired; a full cluster says "no space" and recovers by deletion.
 * Rules P1-P7, R1, A2, F7; guide: flags of failed chunk servers.
 */
import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import fs from 'node:fs'
import path from 'node:path'
import { after, before, describe, it, type TestContext } from 'node:test'
import type { FsckResult } from '../../core/cli/fsck.ts'
import { type Client, connect } from '../../core/client/index.ts'
import {
  DATA_POSITION,
  pagePosition,
  regionSlotPosition,
} from '../../core/chunkserver/format/chunk-layout.ts'
import { metadataServerCount, must, smallFileSystem, TestCluster, until } from './support/cluster.ts'

const MIB = 1024 * 1024
const PAGE = 4096

/** The files of all chunks of one chunk server. */
function chunkFiles(repository: string): string[] {
  const top = path.join(repository, 'chunks')
  return fs
    .readdirSync(top)
    .flatMap((directory) =>
      fs.readdirSync(path.join(top, directory)).map((name) => path.join(top, directory, name)),
    )
}

/** Durable on the replicas, not only with the chunk servers: fsync(2), which `sync -f` is not on FUSE. */
function writeDurably(file: string, data: Buffer): void {
  const descriptor = fs.openSync(file, 'w')
  fs.writeSync(descriptor, data)
  fs.fsyncSync(descriptor)
  fs.closeSync(descriptor)
}

function edit(file: string, change: (descriptor: number) => void): void {
  const descriptor = fs.openSync(file, 'r+')
  change(descriptor)
  fs.closeSync(descriptor)
}

function flipByte(file: string, offset: number): void {
  edit(file, (descriptor) => {
    const byte = Buffer.alloc(1)
    fs.readSync(descriptor, byte, 0, 1, offset)
    byte[0] = (byte[0] ?? 0) ^ 0x40
    fs.writeSync(descriptor, byte, 0, 1, offset)
  })
}

interface Damage {
  readonly name: string
  apply(file: string): void
  /** Seen by the next read also while the server has the file open and its page records in memory. */
  readonly isSeenAtOnce: boolean
}

const damages: readonly Damage[] = [
  {
    name: 'a flipped byte in the data',
    apply: (file) => flipByte(file, pagePosition(5) + 17),
    isSeenAtOnce: true,
  },
  {
    name: 'flipped bytes in the checksum area',
    apply(file) {
      // Both slots of the first region, so that there is nothing to fall back to.
      for (let slot = 0; slot < 2; slot++) flipByte(file, regionSlotPosition(0, slot) + 200)
    },
    isSeenAtOnce: false,
  },
  {
    name: 'a truncated file',
    apply: (file) => fs.truncateSync(file, DATA_POSITION + 3 * PAGE + 100),
    isSeenAtOnce: true,
  },
  {
    name: 'two swapped pages',
    apply: (file) =>
      edit(file, (descriptor) => {
        const pages = [2, 9].map((page) => {
          const data = Buffer.alloc(PAGE)
          fs.readSync(descriptor, data, 0, PAGE, pagePosition(page))
          return data
        })
        for (const [index, page] of [9, 2].entries()) {
          fs.writeSync(descriptor, pages[index] ?? Buffer.alloc(PAGE), 0, PAGE, pagePosition(page))
        }
      }),
    isSeenAtOnce: true,
  },
  { name: 'a deleted file', apply: (file) => fs.unlinkSync(file), isSeenAtOnce: false },
]

describe('bit rot on the replica that is read', { timeout: 450_000 }, () => {
  const VICTIM = 1
  let cluster: TestCluster
  let reader: Client
  const ends: (() => Promise<void>)[] = []
  before(async () => {
    cluster = await TestCluster.start((end) => ends.push(end), {
      metadataServers: metadataServerCount(3),
      replicas: '3:2',
      restart: false,
    })
    const { keyFile, metadataServers } = cluster
    const preferredServer = cluster.serverId(VICTIM)
    const name = 'reader of one replica'
    reader = await connect(
      { cluster: 'demo', metadataServers, kind: 'test', name, preferredServer },
      { keyFile },
    )
    ends.push(() => reader.close())
  })
  after(async () => {
    for (const end of ends.reverse()) await end()
  })

  /** From the victim's replica when it is any good. */
  async function read(name: string): Promise<Buffer> {
    const { inode } = await reader.fileSystem.resolve(`/${name}`)
    const file = await reader.fileSystem.open(inode)
    try {
      return await new Promise((resolve, reject) => {
        file.read(0, MIB, (error, borrowedData) => {
          if (error === null) resolve(Buffer.from(borrowedData))
          else reject(error)
        })
      })
    } finally {
      file.close()
    }
  }

  for (const withRestart of [false, true]) {
    for (const damage of damages) {
      const when = withRestart ? 'while its server is down' : 'under its running server'
      it(`${damage.name} ${when}: good data, an event, repair`, async () => {
        const name = `${damage.name}, ${when}`
        const data = randomBytes(MIB)
        const repository = path.join(cluster.directory, `cs${VICTIM}`)
        const known = new Set(chunkFiles(repository))
        writeDurably(path.join(cluster.mount, name), data)
        const added = chunkFiles(repository).filter((file) => !known.has(file))
        assert.equal(added.length, 1)
        assert.ok((await read(name)).equals(data))
        const lastEvent = (await cluster.events()).at(-1)?.id ?? 0
        if (withRestart) await cluster.stopChunkServer(VICTIM)
        damage.apply(added[0] ?? '')
        if (withRestart) {
          cluster.startChunkServer(VICTIM)
          await until('all servers are active', async () =>
            (await cluster.statistics()).cs.every((server) => server.status === 'active'),
          )
        }
        const victim = `CS#${cluster.serverId(VICTIM)} `
        await until('good data, and an event that names the bad replica', async () => {
          // After a restart, the victim is asked first as soon as the reader has a connection to it again.
          assert.ok((await read(name)).equals(data), 'good data')
          if (!withRestart && !damage.isSeenAtOnce) return true
          const events = (await cluster.events()).filter((event) => event.id > lastEvent)
          return (
            events.some(({ severity, message }) => severity !== 'info' && message.includes(victim)) ||
            JSON.stringify(events)
          )
        })
        await cluster.allHealthy()
        await until('it is repaired', async () => {
          const result = JSON.parse((await cluster.tryCairn('fsck', '--json')).stdout) as FsckResult
          return result.problemCount === 0 || JSON.stringify(result.problems)
        })
        assert.ok((await read(name)).equals(data), 'good data after the repair')
      })
    }
  }

  it('afterwards nothing is bad on any replica, nor after a restart of the server', async () => {
    await cluster.stopChunkServer(VICTIM)
    cluster.startChunkServer(VICTIM)
    await until('all servers are active', async () =>
      (await cluster.statistics()).cs.every((server) => server.status === 'active'),
    )
    await cluster.allHealthy()
    await cluster.tryCairn('fsck', '--repair')
    await cluster.allHealthy()
    await cluster.fsckClean()
  })
})

/** Like `t.after`, but a cluster ends before the disks under it are taken away. */
function lastFirst(t: TestContext): (end: () => Promise<void>) => void {
  const ends: (() => Promise<void>)[] = []
  t.after(async () => {
    for (const end of ends.reverse()) await end()
  })
  return (end) => ends.push(end)
}

describe('a disk dies', { timeout: 450_000 }, () => {
  it('flag H, the data is created anew elsewhere, and the server neither crashes nor restarts', async (t) => {
    const after = lastFirst(t)
    const disks = await Promise.all([1, 2, 3, 4].map(() => smallFileSystem(after, 700)))
    const cluster = await TestCluster.start(after, {
      metadataServers: metadataServerCount(3),
      chunkServers: 4,
      replicas: '3:2',
      repositories: Object.fromEntries(disks.map((disk, index) => [index + 1, path.join(disk, 'cs')])),
      config: { 'mds.wd.offline_tout': '5s' },
    })
    const contents = randomBytes(20 * MIB)
    const file = path.join(cluster.mount, 'data')
    for (let copy = 0; copy < 3; copy++) writeDurably(`${file}${copy}`, contents)
    const victim = (await cluster.chunkServersByReplicas())[0]
    assert.ok(victim !== undefined && victim.replicas > 0)
    await must('xfs_io', ['-x', '-c', 'shutdown', disks[victim.number - 1] ?? ''])
    for (let copy = 0; copy < 3; copy++) writeDurably(`${file}${copy}-after`, contents)
    // Rewrites and reads reach the dead disk, whoever had been chosen for the new files.
    for (let copy = 0; copy < 3; copy++) writeDurably(`${file}${copy}`, contents)
    await until('flag H', async () => {
      const dead = (await cluster.statistics()).cs.find(({ id }) => id === cluster.serverIds[victim.number])
      return dead?.flags.includes('H') === true || JSON.stringify(dead)
    })
    await until('nothing relies on it', async () => {
      const dead = (await cluster.statistics()).cs.find(({ id }) => id === cluster.serverIds[victim.number])
      return dead?.replicas === 0 || JSON.stringify(dead)
    })
    await cluster.allHealthy()
    for (let copy = 0; copy < 3; copy++) {
      assert.ok(fs.readFileSync(`${file}${copy}`).equals(contents))
      assert.ok(fs.readFileSync(`${file}${copy}-after`).equals(contents))
    }
    await cluster.fsckClean()
    const process = (await cluster.processes()).find((service) => service.id === `cs${victim.number}`)
    assert.ok((process?.restarts ?? 99) <= 1, `restarted ${process?.restarts} times`)
    assert.match(await cluster.cairn('stat'), /^\d+ .*\bC?h?H/m)
  })
})

describe('disks fill up', { timeout: 450_000 }, () => {
  it('a clear "no space", nothing hangs, deleting frees space', async (t) => {
    const after = lastFirst(t)
    const disks = await Promise.all([1, 2, 3].map(() => smallFileSystem(after, 400)))
    const cluster = await TestCluster.start(after, {
      metadataServers: metadataServerCount(3),
      chunkServers: 3,
      replicas: '2:1',
      repositories: Object.fromEntries(disks.map((disk, index) => [index + 1, path.join(disk, 'cs')])),
    })
    const piece = randomBytes(4 * MIB)
    const parts = 4
    const fill = (index: number): NodeJS.ErrnoException | null => {
      try {
        const descriptor = fs.openSync(path.join(cluster.mount, `fill-${index}`), 'w')
        try {
          for (let part = 0; part < parts; part++) fs.writeSync(descriptor, piece)
          fs.fsyncSync(descriptor)
        } finally {
          fs.closeSync(descriptor)
        }
        return null
      } catch (error) {
        return error as NodeJS.ErrnoException
      }
    }
    const written: number[] = []
    // Room that was promised to files which have ended comes back: only a row of failures is the end.
    for (let index = 0, failures = 0; index < 200 && failures < 5; index++) {
      const failure = fill(index)
      if (failure === null) {
        written.push(index)
        failures = 0
        continue
      }
      assert.equal(failure.code, 'ENOSPC')
      failures += 1
    }
    const sizeMib = (parts * piece.length) / MIB
    t.diagnostic(`${written.length} files of ${sizeMib} MiB on 3 disks of 400 MiB with 2 replicas`)
    assert.ok(written.length > 9 && written.length < 40, `${written.length} files fit`)
    // What was there stays readable, and the cluster can be asked.
    const all = Buffer.concat(Array.from({ length: parts }, () => piece))
    for (const index of written)
      assert.ok(fs.readFileSync(path.join(cluster.mount, `fill-${index}`)).equals(all))
    await must('df', [cluster.mount], { timeoutMs: 10_000 })
    assert.match(await cluster.cairn('stat'), /^Space: /m)
    const names = fs.readdirSync(cluster.mount)
    assert.ok(names.length >= written.length)
    for (const name of names) fs.unlinkSync(path.join(cluster.mount, name))
    await until('space is free again', async () => {
      const { space } = await cluster.statistics()
      return space.allocatable > 0.5 * space.allocatableTotal || JSON.stringify(space)
    })
    for (let index = 0; index < 4; index++) assert.equal(fill(index), null)
    assert.ok(fs.readFileSync(path.join(cluster.mount, 'fill-0')).equals(all))
    await cluster.allHealthy()
    await cluster.fsckClean()
  })

  it('while one disk is full, writes go to the others', async (t) => {
    const after = lastFirst(t)
    const disk = await smallFileSystem(after, 200)
    const cluster = await TestCluster.start(after, {
      metadataServers: metadataServerCount(3),
      chunkServers: 3,
      replicas: '2:1',
      repositories: { 1: path.join(disk, 'cs') },
    })
    const data = randomBytes(150 * MIB)
    for (let copy = 0; copy < 3; copy++) writeDurably(path.join(cluster.mount, `large-${copy}`), data)
    // Files that were begun while it had space grow beyond it.
    const rest = fs.statfsSync(disk)
    fs.writeFileSync(
      path.join(disk, 'ballast'),
      Buffer.alloc(Math.max(0, rest.bavail * rest.bsize - 8 * MIB)),
    )
    for (let copy = 0; copy < 3; copy++) {
      const descriptor = fs.openSync(path.join(cluster.mount, `large-${copy}`), 'r+')
      fs.writeSync(descriptor, data, 0, 60 * MIB, 150 * MIB)
      fs.fsyncSync(descriptor)
      fs.closeSync(descriptor)
    }
    for (let copy = 0; copy < 3; copy++) {
      const seen = fs.readFileSync(path.join(cluster.mount, `large-${copy}`))
      assert.ok(seen.subarray(0, data.length).equals(data))
      assert.ok(seen.subarray(data.length).equals(data.subarray(0, 60 * MIB)))
    }
    await cluster.fsckClean()
  })
})
