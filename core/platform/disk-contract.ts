/** What every Disk must do, as tests over a factory: the real one (in each of its modes) and the simulated one. */
import { deepEqual, equal, ok, throws } from 'node:assert/strict'
import { test } from 'node:test'
import type { Disk, DiskFile } from './disk.ts'

export interface DiskPlace {
  readonly disk: Disk
  /** Lets time pass in a simulated disk until what is in flight has ended. */
  settle?(): void
  remove(): Promise<void>
}

/** Promise faces of the callbacks, for tests. */
export function writeFile(file: DiskFile, buffers: readonly Buffer[], position: number): Promise<void> {
  return new Promise((resolve, reject) => {
    file.write(buffers, position, (error) => (error === null ? resolve() : reject(error)))
  })
}

export function readFile(file: DiskFile, sizeBytes: number, position: number): Promise<Buffer> {
  return new Promise((resolve, reject) => {
    const buffer = Buffer.alloc(sizeBytes, 0xee)
    file.read(buffer, position, (error, count) =>
      error === null ? resolve(buffer.subarray(0, count)) : reject(error),
    )
  })
}

export function syncFile(file: DiskFile): Promise<void> {
  return new Promise((resolve, reject) => {
    file.sync((error) => (error === null ? resolve() : reject(error)))
  })
}

type Case = (disk: Disk, settled: <T>(promise: Promise<T>) => Promise<T>) => Promise<void>

const cases: Readonly<Record<string, Case>> = {
  'what was written is read back, at any offset, in one or many buffers': async (disk, settled) => {
    const file = disk.open('a', { create: true })
    await settled(writeFile(file, [Buffer.from('hello '), Buffer.alloc(0), Buffer.from('world')], 3))
    equal(file.sizeBytes(), 14)
    equal((await settled(readFile(file, 11, 3))).toString(), 'hello world')
    equal((await settled(readFile(file, 100, 9))).toString(), 'world')
    equal((await settled(readFile(file, 10, 14))).length, 0)
    equal((await settled(readFile(file, 10, 1000))).length, 0)
    deepEqual([...(await settled(readFile(file, 3, 0)))], [0, 0, 0])
    const many = Array.from({ length: 1500 }, (_, i) => Buffer.from([i & 255, (i >> 8) & 255]))
    await settled(writeFile(file, many, 4096))
    deepEqual(await settled(readFile(file, 3000, 4096)), Buffer.concat(many))
    await settled(syncFile(file))
    file.close()
    file.close()
  },
  'another opening sees the same file; truncate shrinks and grows with zeros': async (disk, settled) => {
    const file = disk.open('a', { create: true })
    await settled(writeFile(file, [Buffer.alloc(10_000, 7)], 0))
    const other = disk.open('a')
    file.truncate(5000)
    equal(other.sizeBytes(), 5000)
    file.truncate(6000)
    deepEqual(
      await settled(readFile(other, 1001, 4999)),
      Buffer.concat([Buffer.from([7]), Buffer.alloc(1000)]),
    )
    file.close()
    other.close()
  },
  'a file that was removed while open is still there for those who have it': async (disk, settled) => {
    const file = disk.open('a', { create: true })
    await settled(writeFile(file, [Buffer.from('x')], 0))
    disk.remove('a')
    equal(disk.exists('a'), false)
    equal((await settled(readFile(file, 1, 0))).toString(), 'x')
    file.close()
  },
  'missing and existing names have their codes': async (disk) => {
    throws(() => disk.open('none'), { code: 'DISK_NOT_FOUND' })
    throws(() => disk.open('none/a', { create: true }), { code: 'DISK_NOT_FOUND' })
    throws(() => disk.remove('none'), { code: 'DISK_NOT_FOUND' })
    throws(() => disk.rename('none', 'other'), { code: 'DISK_NOT_FOUND' })
    throws(() => disk.list('none'), { code: 'DISK_NOT_FOUND' })
    disk.open('a', { create: true }).close()
    disk.open('a', { create: true }).close()
    throws(() => disk.open('a', { create: true, exclusive: true }), { code: 'DISK_EXISTS' })
  },
  'directories: made, listed in order, renamed over, synced, removed': async (disk, settled) => {
    disk.makeDirectory('d')
    for (const name of ['b', 'a10', 'a9', 'B']) disk.open(`d/${name}`, { create: true }).close()
    deepEqual(disk.list('d'), ['B', 'a10', 'a9', 'b'])
    const file = disk.open('d/a9')
    await settled(writeFile(file, [Buffer.from('nine')], 0))
    file.close()
    disk.rename('d/a9', 'd/b')
    deepEqual(disk.list('d'), ['B', 'a10', 'b'])
    const renamed = disk.open('d/b')
    equal((await settled(readFile(renamed, 10, 0))).toString(), 'nine')
    renamed.close()
    await settled(
      new Promise<void>((resolve, reject) => {
        disk.syncDirectory('d', (error) => (error === null ? resolve() : reject(error)))
      }),
    )
    for (const name of disk.list('d')) disk.remove(`d/${name}`)
    deepEqual(disk.list('d'), [])
  },
  'space and identity': async (disk) => {
    const { totalBytes, freeBytes } = disk.space()
    ok(totalBytes > 0 && freeBytes >= 0 && freeBytes <= totalBytes)
    for (const part of Object.values(disk.identity())) ok(part.length > 0)
  },
}

export function diskContract(name: string, makePlace: () => Promise<DiskPlace>): void {
  for (const [title, body] of Object.entries(cases))
    test(`${name}: ${title}`, async () => {
      const place = await makePlace()
      try {
        await body(place.disk, (promise) => {
          place.settle?.()
          return promise
        })
      } finally {
        await place.remove()
      }
    })
}
