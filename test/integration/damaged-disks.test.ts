/**
 * Disks that rot, fill up and die under a running cluster. Reads return good data from another replica, the
 * event log says which was bad, and it is repaired; a full cluster says "no space" and recovers by deletion.
 * Rules P1-P7, R1, A2, F7; guide: flags of failed chunk servers.
 */
import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import fs from 'node:fs'
import path from 'node:path'
import { after, before, describe, it } from 'node:test'
import { DATA_POSITION, pagePosition, regionSlotPosition } from '../../core/chunkserver/chunk-layout.ts'
import { must, smallFileSystem, TestCluster, until } from './support/cluster.ts'

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

const damages: readonly [string, (file: string) => void][] = [
  ['a flipped byte in the data', (file) => flipByte(file, pagePosition(5) + 17)],
  [
    'flipped bytes in the checksum area',
    (file) => {
      // Both slots of the first region, so that there is nothing to fall back to.
      for (let slot = 0; slot < 2; slot++) flipByte(file, regionSlotPosition(0, slot) + 200)
    },
  ],
  ['a truncated file', (file) => fs.truncateSync(file, DATA_POSITION + 3 * PAGE + 100)],
  [
    'two swapped pages',
    (file) =>
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
  ],
  ['a deleted file', (file) => fs.unlinkSync(file)],
]

describe('bit rot', { timeout: 340_000 }, () => {
  let cluster: TestCluster
  const ends: (() => Promise<void>)[] = []
  before(async () => {
    // One in-sync replica answers all reads: the other server of the pair is not there when it is read.
    cluster = await TestCluster.start((end) => ends.push(end), { chunkServers: 2, replicas: '2:1' })
  })
  after(async () => {
    for (const end of ends.reverse()) await end()
  })

  for (const [what, damage] of damages) {
    it(`${what} costs nothing: good data, an event, repair`, async () => {
      const file = path.join(cluster.mount, `file ${what}`)
      const data = randomBytes(MIB)
      const known = new Set(chunkFiles(path.join(cluster.directory, 'cs1')))
      fs.writeFileSync(file, data)
      await must('sync', ['-f', file])
      const added = chunkFiles(path.join(cluster.directory, 'cs1')).filter((name) => !known.has(name))
      assert.equal(added.length, 1)
      await cluster.allHealthy()
      const lastEvent = (await cluster.events()).at(-1)?.id ?? 0
      // The chunk server must not have it in memory: restart it, then damage what it finds on its disk.
      await restart(cluster, 'cs1', () => damage(added[0] ?? ''))
      // Every read of this process goes to all replicas in turn, so the damaged one is asked as well.
      for (let attempt = 0; attempt < 8; attempt++) {
        fs.writeFileSync('/proc/sys/vm/drop_caches', '3')
        const descriptor = fs.openSync(file, fs.constants.O_RDONLY | fs.constants.O_DIRECT)
        const seen = Buffer.alloc(MIB + PAGE)
        const aligned = seen.subarray(PAGE - (Number(0) % PAGE), PAGE + MIB)
        fs.readSync(descriptor, aligned, 0, MIB, 0)
        fs.closeSync(descriptor)
        assert.ok(aligned.equals(data), `read ${attempt} differs`)
      }
      await until('an event names the bad replica', async () => {
        const events = (await cluster.events()).filter((event) => event.id > lastEvent)
        return (
          events.some((event) => /CS#\d+/.test(event.message) && /(BAD|DAMAGE|CHECKSUM)/.test(event.code)) ||
          JSON.stringify(events)
        )
      })
      await cluster.allHealthy()
      await cluster.fsckClean()
    })
  }
})

async function restart(cluster: TestCluster, name: string, whileDown: () => void): Promise<void> {
  const pid = await cluster.signal(name, 'SIGTERM')
  await until(`${name} is down`, () => !fs.existsSync(`/proc/${pid}`))
  whileDown()
  await until(`${name} is back`, async () =>
    (await cluster.statistics()).cs.every((server) => server.status === 'active'),
  )
}

describe('a disk dies', { timeout: 340_000 }, () => {
  it('flag H, and the data is created anew elsewhere', async (t) => {
    const disk = await smallFileSystem((end) => t.after(end), 700)
    const cluster = await TestCluster.start((end) => t.after(end), {
      chunkServers: 4,
      replicas: '3:2',
      repositories: { 1: path.join(disk, 'cs') },
      config: { 'mds.wd.offline_tout': '5s' },
    })
    const contents = randomBytes(40 * MIB)
    const file = path.join(cluster.mount, 'data')
    for (let copy = 0; copy < 3; copy++) fs.writeFileSync(`${file}${copy}`, contents)
    await must('sync', ['-f', `${file}0`])
    const victim = (await cluster.statistics()).cs.find((server) => server.replicas > 0)
    assert.ok(victim !== undefined)
    await must('xfs_io', ['-x', '-c', 'shutdown', disk])
    for (let copy = 0; copy < 3; copy++) fs.writeFileSync(`${file}${copy}-after`, contents)
    await must('sync', ['-f', `${file}0-after`])
    await until('flag H', async () =>
      (await cluster.statistics()).cs.some((server) => server.flags.includes('H')),
    )
    await cluster.allHealthy()
    for (let copy = 0; copy < 3; copy++) {
      assert.ok(fs.readFileSync(`${file}${copy}`).equals(contents))
      assert.ok(fs.readFileSync(`${file}${copy}-after`).equals(contents))
    }
  })
})

describe('disks fill up', { timeout: 340_000 }, () => {
  it('a clear "no space", nothing hangs, deleting frees space', async (t) => {
    const disks = await Promise.all([1, 2, 3].map(() => smallFileSystem((end) => t.after(end), 400)))
    const cluster = await TestCluster.start((end) => t.after(end), {
      chunkServers: 3,
      replicas: '2:1',
      repositories: Object.fromEntries(disks.map((disk, index) => [index + 1, path.join(disk, 'cs')])),
    })
    const piece = randomBytes(4 * MIB)
    let written = 0
    let failure: NodeJS.ErrnoException | null = null
    for (let index = 0; index < 200 && failure === null; index++) {
      try {
        const descriptor = fs.openSync(path.join(cluster.mount, `fill-${index}`), 'w')
        try {
          for (let part = 0; part < 4; part++) fs.writeSync(descriptor, piece)
          fs.fsyncSync(descriptor)
          written += 1
        } finally {
          fs.closeSync(descriptor)
        }
      } catch (error) {
        failure = error as NodeJS.ErrnoException
      }
    }
    assert.equal(failure?.code, 'ENOSPC')
    assert.ok(written > 3, `${written} files fit`)
    // Reads and status go on.
    const last = fs.readFileSync(path.join(cluster.mount, `fill-${written - 1}`))
    assert.ok(last.subarray(0, piece.length).equals(piece))
    await cluster.statistics()
    for (let index = 0; index < written; index++) fs.unlinkSync(path.join(cluster.mount, `fill-${index}`))
    await until('space is free again', async () => {
      const { space } = await cluster.statistics()
      return space.allocatable > 0.5 * space.allocatableTotal || JSON.stringify(space)
    })
    const again = path.join(cluster.mount, 'again')
    fs.writeFileSync(again, piece)
    assert.ok(fs.readFileSync(again).equals(piece))
  })
})
