/**
 * The on-disk format stays what it is: a store written by a fixed script is, byte for byte, the one in
 * testdata/, and the one in testdata/ opens. To accept a new version of the format: write a migration,
 * add a file for the new version, and run with CAIRN_GOLDEN=write.
 */
import assert from 'node:assert/strict'
import { readFileSync, writeFileSync } from 'node:fs'
import { test } from 'node:test'
import { PAGE_SIZE_BYTES } from '../../base/units.ts'
import { SimulatedDisk } from '../../testing/simulation/simulated-disk.ts'
import { DataOp } from '../../wire/data.ts'
import { CHUNK_FILE_BYTES } from './chunk-layout.ts'
import { Role } from './replica-state.ts'
import { closeStore } from '../store/store-open.ts'
import {
  ask,
  createOverlay,
  createReplica,
  dataRequest,
  flush,
  makeRig,
  openRig,
  read,
  write,
} from '../../testing/chunk-store-rig.ts'

const GOLDEN = new URL('testdata/store-format-1.txt', import.meta.url)
/** The same with overlays. */
const GOLDEN_2 = new URL('testdata/store-format-2.txt', import.meta.url)
const LINE_BYTES = 64

/** Little content, so that the file stays small: a counter in a few sectors. */
function content(length: number): Buffer {
  const bytes = Buffer.alloc(length)
  for (let at = 0; at < length; at += 512) bytes.writeUInt32LE(at + 1, at)
  return bytes
}

async function script(): Promise<SimulatedDisk> {
  const rig = await makeRig(42)
  await createReplica(rig, 1)
  await createReplica(rig, 0x1_0000_0102, Role.joining, 7)
  await createReplica(rig, 3)
  await write(rig, 0, content(3 * PAGE_SIZE_BYTES))
  await flush(rig)
  await write(rig, 70 * PAGE_SIZE_BYTES + 10, content(1000), { lease: 12 })
  await ask(rig, dataRequest(DataOp.zero, { offset: PAGE_SIZE_BYTES, length: PAGE_SIZE_BYTES, lease: 12 }))
  await write(rig, 63 * 256 * PAGE_SIZE_BYTES, content(600), { lease: 12 })
  await flush(rig)
  await rig.clock.settled(rig.control.persist({ chunk: 1, version: 2, role: Role.inSync, lease: 15 }))
  await rig.clock.settled(rig.control.delete(3, 1))
  await rig.clock.settled(closeStore(rig.store))
  return rig.disk
}

/** An overlay over an overlay, with a page of its own, one that was zeroed, and a written end that was cut. */
async function overlayScript(): Promise<SimulatedDisk> {
  const rig = await makeRig(43)
  await createReplica(rig, 1)
  await write(rig, 0, content(3 * PAGE_SIZE_BYTES))
  await flush(rig)
  assert.equal(await createOverlay(rig, 2, 1, 5), '')
  const top = { chunk: 0x1_0000_0203, version: 7 }
  assert.equal(await createOverlay(rig, top.chunk, 2, 7), '')
  await write(rig, PAGE_SIZE_BYTES, content(PAGE_SIZE_BYTES).reverse(), top)
  const tail = { offset: 2 * PAGE_SIZE_BYTES, length: 254 * PAGE_SIZE_BYTES }
  await ask(rig, dataRequest(DataOp.zero, { ...top, ...tail }))
  await rig.clock.settled(closeStore(rig.store))
  return rig.disk
}

/** One line per 64 bytes that are not all zero. */
function dump(disk: SimulatedDisk): string {
  const lines: string[] = []
  for (const path of disk.paths) {
    const bytes = disk.contents(path)
    lines.push(`${path} ${bytes.length} bytes`)
    for (let at = 0; at < bytes.length; at += LINE_BYTES) {
      const piece = bytes.subarray(at, at + LINE_BYTES)
      if (piece.some((byte) => byte !== 0))
        lines.push(`${at.toString(16).padStart(8, '0')} ${piece.toString('hex')}`)
    }
  }
  return `${lines.join('\n')}\n`
}

function restore(text: string): SimulatedDisk {
  const disk = new SimulatedDisk({ seed: 1 })
  let path = ''
  for (const line of text.trimEnd().split('\n')) {
    const header = /^(\S+) (\d+) bytes$/.exec(line)
    if (header !== null) {
      path = header[1] ?? ''
      if (path.includes('/')) disk.makeDirectory(path.slice(0, path.lastIndexOf('/')))
      const file = disk.open(path, { create: true })
      file.truncate(Number(header[2]))
      file.close()
      continue
    }
    const [at, hex] = line.split(' ')
    disk.overwrite(path, Number.parseInt(at ?? '', 16), Buffer.from(hex ?? '', 'hex'))
  }
  return disk
}

test('format 1: the script writes the bytes of the golden file', async () => {
  const text = dump(await script())
  if (process.env['CAIRN_GOLDEN'] === 'write') writeFileSync(GOLDEN, text)
  assert.equal(text, readFileSync(GOLDEN, 'utf8'))
})

test('format 1: the golden store opens and has its data', async () => {
  const rig = await openRig(restore(readFileSync(GOLDEN, 'utf8')))
  assert.equal(rig.store.uncleanStop, 'none')
  assert.deepEqual([...rig.store.replicas.keys()], [1, 0x1_0000_0102])
  const other = rig.store.replicas.get(0x1_0000_0102)
  assert.deepEqual([other?.state.version, other?.state.role, other?.isWritten], [7, Role.joining, false])
  assert.equal(rig.disk.contents('chunks/01/1').length, CHUNK_FILE_BYTES)
  const expected = content(3 * PAGE_SIZE_BYTES)
  expected.fill(0, PAGE_SIZE_BYTES, 2 * PAGE_SIZE_BYTES)
  assert.deepEqual(await read(rig, 0, expected.length, { version: 2 }), expected)
  assert.deepEqual(await read(rig, 70 * PAGE_SIZE_BYTES + 10, 1000, { version: 2 }), content(1000))
  assert.equal((await write(rig, 0, content(10), { version: 2, lease: 14 })).code, 'STALE_LEASE')
})

test('format 2: the script with overlays writes the bytes of its golden file', async () => {
  const text = dump(await overlayScript())
  if (process.env['CAIRN_GOLDEN'] === 'write') writeFileSync(GOLDEN_2, text)
  assert.equal(text, readFileSync(GOLDEN_2, 'utf8'))
})

test('format 2: the golden store opens, its overlays read through their parents', async () => {
  const rig = await openRig(restore(readFileSync(GOLDEN_2, 'utf8')))
  assert.equal(rig.store.uncleanStop, 'none')
  const top = rig.store.replicas.get(0x1_0000_0203)
  assert.deepEqual(
    [top?.state.parent, top?.parent?.state.parent, top?.parent?.parent?.state.parent],
    [2, 1, 0],
  )
  const expected = content(3 * PAGE_SIZE_BYTES)
  content(PAGE_SIZE_BYTES).reverse().copy(expected, PAGE_SIZE_BYTES)
  expected.fill(0, 2 * PAGE_SIZE_BYTES)
  const fields = { chunk: 0x1_0000_0203, version: 7 }
  assert.deepEqual(await read(rig, 0, expected.length, fields), expected)
  assert.deepEqual(await read(rig, 0, 3 * PAGE_SIZE_BYTES), content(3 * PAGE_SIZE_BYTES))
})

test('a store is of format 1 until it has an overlay: an older program opens it until then', async () => {
  const rig = await makeRig(44)
  const format = (): number => {
    const slots = rig.disk.contents('superblock')
    return Math.max(slots.readUInt16LE(8), slots.readUInt16LE(4096 + 8))
  }
  await createReplica(rig, 1)
  assert.equal(format(), 1)
  await createOverlay(rig, 2, 1)
  assert.equal(format(), 2)
})
