/** Proves that the real disk keeps the disk contract in every mode, and names errors of the kernel. */
import { deepEqual, equal, notEqual, rejects, throws } from 'node:assert/strict'
import { mkdir, mkdtemp, rm, writeFile as writeText } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { test } from 'node:test'
import { diskContract, readFile, syncFile, writeFile } from '../disk-contract.ts'
import { NodeDisk, type NodeDiskOptions } from './disk.ts'
import { diskIdentity } from './disk-identity.ts'
import { Pace } from './pace.ts'

async function place(options: NodeDiskOptions): Promise<{ disk: NodeDisk; remove: () => Promise<void> }> {
  const directory = await mkdtemp(join(tmpdir(), 'cairn-disk-'))
  return { disk: new NodeDisk(directory, options), remove: () => rm(directory, { recursive: true }) }
}

for (const mode of ['adaptive', 'synchronous', 'asynchronous'] as const)
  diskContract(`NodeDisk (${mode})`, () => place({ mode }))

for (const mode of ['synchronous', 'asynchronous'] as const)
  test(`errors of the kernel have codes (${mode})`, async () => {
    const full = new NodeDisk('/dev', { mode }).open('full')
    await rejects(writeFile(full, [Buffer.alloc(10)], 0), { code: 'DISK_NO_SPACE' })
    await rejects(writeFile(full, [Buffer.alloc(10), Buffer.alloc(10)], 0), { code: 'DISK_NO_SPACE' })
    await rejects(syncFile(full), { code: 'DISK_IO' })
    full.close()
    // address 0 of this process is not mapped: EIO
    const memory = new NodeDisk('/proc/self', { mode }).open('mem')
    await rejects(readFile(memory, 10, 0), { code: 'DISK_IO' })
    memory.close()
  })

test('a file may be closed while operations are in flight: they end first', async () => {
  const { disk, remove } = await place({ mode: 'asynchronous' })
  const file = disk.open('a', { create: true })
  const writes = Array.from({ length: 20 }, (_, i) => writeFile(file, [Buffer.alloc(1000, i)], i * 1000))
  const sync = syncFile(file)
  file.close()
  await Promise.all([...writes, sync])
  const again = disk.open('a')
  equal(again.sizeBytes(), 20_000)
  equal((await readFile(again, 1, 19_500))[0], 19)
  again.close()
  throws(() => again.sizeBytes(), { name: 'AssertionError' })
  await remove()
})

test('paths stay below the root', async () => {
  const { disk, remove } = await place({})
  for (const path of ['../x', '/etc/passwd', 'a/../../x', '..'])
    throws(() => disk.open(path, { create: true }), { name: 'AssertionError' }, path)
  await remove()
  throws(() => new NodeDisk('/nowhere/at/all'), { code: 'DISK_NOT_FOUND' })
})

test('identity: the same for the same mount, another for another one, never the same when unknown', () => {
  deepEqual(diskIdentity(tmpdir()).bootId, diskIdentity('/').bootId)
  // proc is no disk: nothing can be told
  notEqual(diskIdentity('/proc').deviceSequence, diskIdentity('/proc').deviceSequence)
  notEqual(diskIdentity('/proc').mountInstance, diskIdentity('/proc').mountInstance)
})

test('identity: what the kernel recorded against the file system or its disk makes another instance (rule B2)', async () => {
  const system = await mkdtemp(join(tmpdir(), 'cairn-identity-'))
  const put = async (path: string, text: string): Promise<void> => {
    await mkdir(dirname(join(system, path)), { recursive: true })
    await writeText(join(system, path), text)
  }
  const types = { e: ['ext4', '8:1'], x: ['xfs', '8:2'], f: ['f2fs', '8:3'] } as const
  const lines = Object.entries(types).map(
    ([name, [type, device]], index) => `${index} 0 ${device} / /${name} rw - ${type} /dev/sda${index} rw`,
  )
  await put('proc/self/mountinfo', lines.join('\n'))
  await put('proc/sys/kernel/random/boot_id', 'boot')
  for (const [type, device] of Object.values(types)) {
    await put(`sys/dev/block/${device}/diskseq`, '7')
    await put(`sys/fs/${type}/${device}/some`, '')
  }
  await put('sys/fs/ext4/8:1/errors_count', '0')
  const instanceOf = (name: string): string => diskIdentity(`/${name}/cs`, system).mountInstance
  const ext4 = instanceOf('e')
  equal(instanceOf('e'), ext4)
  await put('sys/fs/ext4/8:1/errors_count', '1')
  notEqual(instanceOf('e'), ext4)
  const xfs = instanceOf('x')
  equal(instanceOf('x'), xfs)
  // Of the disk below: counted by its driver.
  await put('sys/dev/block/8:2/device/ioerr_cnt', '0x1')
  notEqual(instanceOf('x'), xfs)
  notEqual(instanceOf('f'), instanceOf('f'), 'nobody counts: unknown')
  await rm(join(system, 'sys/fs/ext4/8:1/errors_count'))
  notEqual(instanceOf('e'), instanceOf('e'), 'not told: unknown')
  await rm(system, { recursive: true })
})

test('pace: slow after one slow operation, direct again after eight quick ones', () => {
  const pace = new Pace('adaptive')
  pace.took(0.01, 4096)
  equal(pace.slow, false)
  pace.took(5, 4096)
  equal(pace.slow, true)
  for (let i = 0; i < 7; i++) pace.took(0.1, 4096)
  equal(pace.slow, true)
  pace.took(3, 4096)
  for (let i = 0; i < 7; i++) pace.took(0.1, 4096)
  equal(pace.slow, true)
  pace.took(0.1, 4096)
  equal(pace.slow, false)
  pace.took(8, 16 * 1024 * 1024)
  equal(pace.slow, false, 'large operations may take longer')
})
