/**
 * The superblock: identity of the store, two alternating 4 KiB slots (rule P2), docs/formats/chunk-store.md.
 *
 *   0 magic u32 · 4 CRC32C u32 of 8..4096 · 8 format u16 · 10 slot u16 · 12 body length u32
 *   16 sequence u64 · 24 body: JSON, UTF-8 · zeros
 *
 * Format 2: the replica log and chunk files may hold overlays, which a program of format 1 does not know. A store is
 * of format 1 until it gets the first one; nothing else differs.
 *
 * JSON because it is written once per start and stop, and read by people when things are wrong.
 */
import { Type, type Static } from '@sinclair/typebox'
import { Value } from '@sinclair/typebox/value'
import { assert } from '../../base/assert.ts'
import type { Disk, DiskIdentity } from '../../platform/disk.ts'
import { crc32c } from '../../wire/checksum.ts'
import { readUInt64, SLOT_BYTES, writeUInt64 } from './chunk-layout.ts'
import { readFile, syncFile, writeFile } from './disk-calls.ts'
import { storeError } from './errors.ts'

export const SUPERBLOCK_NAME = 'superblock'
export const STORE_FORMAT = 1
export const STORE_FORMAT_OVERLAYS = 2
const SUPERBLOCK_MAGIC = 0x534e5243 // 'CRNS'
const BODY_AT = 24
const BODY_BYTES_MAX = SLOT_BYTES - BODY_AT

const Count = Type.Integer({ minimum: 0, maximum: Number.MAX_SAFE_INTEGER })

const SuperblockBody = Type.Object(
  {
    storeUuid: Type.String({ minLength: 1, maxLength: 64 }),
    clusterName: Type.String({ maxLength: 255 }),
    /** Empty until the first registration. */
    clusterUuid: Type.String({ maxLength: 64 }),
    /** 0 until the first registration. */
    server: Count,
    /** Given out by the quorum at each registration, stored before serving (rule B3). */
    registration: Count,
    /** Must be loaded before the store is opened (rule B4). */
    decorators: Type.Array(Type.String({ maxLength: 64 }), { maxItems: 8 }),
    checksums: Type.Boolean(),
    tier: Type.Integer({ minimum: 0, maximum: 3 }),
    /** New per process start (rule F6). */
    incarnation: Count,
    /** Host crashes this store has seen (rules B2, F6). */
    crashes: Count,
    /** Of the disk at the last start, to tell a process crash from a host crash (rule B2). */
    bootId: Type.String({ maxLength: 128 }),
    deviceSequence: Type.String({ maxLength: 128 }),
    mountInstance: Type.String({ maxLength: 128 }),
    /** Stopped with everything synced. */
    cleanStop: Type.Boolean(),
    /** Of the replica log at a clean stop: the log must reach it. */
    logSequence: Count,
  },
  { additionalProperties: false },
)
export type Superblock = Static<typeof SuperblockBody>

export function encodeSuperblock(superblock: Superblock, sequence: number, format: number): Buffer {
  const image = Buffer.alloc(SLOT_BYTES)
  const body = Buffer.from(JSON.stringify(superblock))
  assert(body.length <= BODY_BYTES_MAX, 'bounded fields fit into one slot')
  image.writeUInt32LE(SUPERBLOCK_MAGIC, 0)
  image.writeUInt16LE(format, 8)
  image.writeUInt16LE(sequence % 2, 10)
  image.writeUInt32LE(body.length, 12)
  writeUInt64(image, sequence, 16)
  body.copy(image, BODY_AT)
  image.writeUInt32LE(crc32c(image.subarray(8)), 4)
  return image
}

export interface LoadedSuperblock {
  readonly superblock: Superblock
  readonly sequence: number
  readonly format: number
}

function decodeSlot(image: Buffer, slot: number): LoadedSuperblock | null {
  if (image.length < SLOT_BYTES || image.readUInt32LE(0) !== SUPERBLOCK_MAGIC) return null
  if (image.readUInt32LE(4) !== crc32c(image.subarray(8))) return null
  const format = image.readUInt16LE(8)
  if (format < STORE_FORMAT || format > STORE_FORMAT_OVERLAYS || image.readUInt16LE(10) !== slot) return null
  const length = image.readUInt32LE(12)
  if (length > BODY_BYTES_MAX) return null
  try {
    const body: unknown = JSON.parse(image.toString('utf8', BODY_AT, BODY_AT + length))
    if (!Value.Check(SuperblockBody, body)) return null
    return { superblock: body, sequence: readUInt64(image, 16), format }
  } catch {
    return null
  }
}

/** Throws STORE_INVALID when the path holds no readable store (flag R). */
export async function loadSuperblock(disk: Disk): Promise<LoadedSuperblock> {
  let area: Buffer
  try {
    const file = disk.open(SUPERBLOCK_NAME)
    try {
      area = await readFile(file, 0, 2 * SLOT_BYTES)
    } finally {
      file.close()
    }
  } catch (error) {
    throw storeError(
      'STORE_INVALID',
      `no chunk store here: ${error instanceof Error ? error.message : String(error)}`,
      'make sure the disk is attached and mounted, and that the path is the one make-cs was given',
    )
  }
  let newest: LoadedSuperblock | null = null
  for (let slot = 0; slot < 2; slot++) {
    const loaded = decodeSlot(area.subarray(slot * SLOT_BYTES, (slot + 1) * SLOT_BYTES), slot)
    if (loaded !== null && (newest === null || loaded.sequence > newest.sequence)) newest = loaded
  }
  if (newest === null) {
    throw storeError(
      'STORE_INVALID',
      'neither copy of the superblock can be read',
      'check the disk for errors; if it is broken, replace it and make a new chunk server',
    )
  }
  return newest
}

/** Durable when it resolves. Writes the slot that does not hold the newest copy. */
export async function saveSuperblock(
  disk: Disk,
  superblock: Superblock,
  sequence: number,
  format: number,
): Promise<void> {
  const file = disk.open(SUPERBLOCK_NAME, { create: true })
  try {
    await writeFile(file, encodeSuperblock(superblock, sequence, format), (sequence % 2) * SLOT_BYTES)
    await syncFile(file)
  } finally {
    file.close()
  }
}

export type UncleanStop = 'none' | 'process' | 'host'

/** Rule B2: anything unknown counts as a host crash. The caller still has to sync what is open. */
export function stopKind(superblock: Superblock, identity: DiskIdentity): UncleanStop {
  if (superblock.cleanStop) return 'none'
  const same =
    identity.bootId !== '' &&
    identity.deviceSequence !== '' &&
    identity.mountInstance !== '' &&
    identity.bootId === superblock.bootId &&
    identity.deviceSequence === superblock.deviceSequence &&
    identity.mountInstance === superblock.mountInstance
  return same ? 'process' : 'host'
}
