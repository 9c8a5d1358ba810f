/**
 * The hard state of a metadata server in a file of two slots, each in a page of its own, little-endian:
 *
 *     0        4        8         16        24       32       40
 *     +--------+--------+---------+---------+--------+--------+
 *     | "CRHS" | crc32c | version | sequence| member | term   | vote ...
 *     +--------+--------+---------+---------+--------+--------+
 *                       <------- the checksum covers -------->
 *
 * A save writes and syncs one slot, then the other. So after a save both hold it, and a slot that does not
 * verify can be passed over without going back: the other is at least as new as what was last promised. When
 * neither verifies, term and vote are lost, and the member must not come back under its id (rule L4).
 */
import { type FileHandle, open, rename } from 'node:fs/promises'
import { dirname } from 'node:path'
import { crc32c } from '@node-rs/crc32'
import { assert } from '../../base/assert.ts'
import { CairnError, codeOf } from '../../base/errors.ts'
import type { HardStateFile, MemberHardState } from '../hard-state.ts'

const FORMAT_VERSION = 1
const MAGIC = 0x53485243
const SLOT_BYTES = 4096
const SLOT_COUNT = 2
const USED_BYTES = 48
const CHECKED_FROM = 8

interface Slot extends MemberHardState {
  readonly sequence: number
}

export class NodeHardStateFile implements HardStateFile {
  readonly #path: string
  #sequence = -1
  #isSaving = false
  #failure: CairnError | null = null

  constructor(path: string) {
    this.#path = path
  }

  /** Rejects with HARD_STATE_DAMAGED. */
  async load(): Promise<MemberHardState | null> {
    const bytes = await this.#read()
    if (bytes === null) {
      this.#sequence = 0
      return null
    }
    let newest: Slot | null = null
    for (let slot = 0; slot < SLOT_COUNT; slot++) {
      const found = decodeSlot(bytes.subarray(slot * SLOT_BYTES, (slot + 1) * SLOT_BYTES))
      if (found !== null && (newest === null || found.sequence > newest.sequence)) newest = found
    }
    if (newest === null) throw damaged(this.#path)
    this.#sequence = newest.sequence
    const { member, term, vote } = newest
    return { member, term, vote }
  }

  async save(state: MemberHardState): Promise<void> {
    assert(!this.#isSaving, 'one save at a time')
    if (this.#failure !== null) throw this.#failure
    this.#isSaving = true
    try {
      if (this.#sequence < 0) await this.load()
      this.#sequence += 1
      const slot = encodeSlot({ ...state, sequence: this.#sequence })
      if (this.#sequence === 1) await this.#create(slot)
      else await this.#overwrite(slot)
    } catch (error) {
      this.#failure = new CairnError('STORE_FAILED', `cannot write ${this.#path}: ${codeOf(error)}`, {
        next: 'Check space and health of the disk below the metadata directory, then start the server again.',
        cause: error,
      })
      throw this.#failure
    } finally {
      this.#isSaving = false
    }
  }

  async #read(): Promise<Buffer | null> {
    let handle: FileHandle
    try {
      handle = await open(this.#path, 'r')
    } catch (error) {
      if (codeOf(error) === 'ENOENT') return null
      throw error
    }
    try {
      const bytes = Buffer.alloc(SLOT_COUNT * SLOT_BYTES)
      await handle.read(bytes, 0, bytes.length, 0)
      return bytes
    } finally {
      await handle.close()
    }
  }

  /** Under another name first: a file that is there holds something. */
  async #create(slot: Buffer): Promise<void> {
    const draft = `${this.#path}.new`
    const handle = await open(draft, 'w', 0o600)
    try {
      await handle.write(Buffer.concat([slot, slot]), 0, SLOT_COUNT * SLOT_BYTES, 0)
      await handle.sync()
    } finally {
      await handle.close()
    }
    await rename(draft, this.#path)
    const directory = await open(dirname(this.#path), 'r')
    try {
      await directory.sync()
    } finally {
      await directory.close()
    }
  }

  async #overwrite(slot: Buffer): Promise<void> {
    const handle = await open(this.#path, 'r+')
    try {
      for (let position = 0; position < SLOT_COUNT; position++) {
        await handle.write(slot, 0, SLOT_BYTES, position * SLOT_BYTES)
        await handle.datasync()
      }
    } finally {
      await handle.close()
    }
  }
}

function encodeSlot({ sequence, member, term, vote }: Slot): Buffer {
  const bytes = Buffer.alloc(SLOT_BYTES)
  bytes.writeUInt32LE(MAGIC, 0)
  bytes.writeBigUInt64LE(BigInt(FORMAT_VERSION), 8)
  bytes.writeBigUInt64LE(BigInt(sequence), 16)
  bytes.writeBigUInt64LE(BigInt(member), 24)
  bytes.writeBigUInt64LE(BigInt(term), 32)
  bytes.writeBigUInt64LE(BigInt(vote), 40)
  bytes.writeUInt32LE(crc32c(bytes.subarray(CHECKED_FROM, USED_BYTES)), 4)
  return bytes
}

function decodeSlot(bytes: Buffer): Slot | null {
  if (bytes.readUInt32LE(0) !== MAGIC) return null
  if (bytes.readUInt32LE(4) !== crc32c(bytes.subarray(CHECKED_FROM, USED_BYTES))) return null
  const numbers = [8, 16, 24, 32, 40].map((at) => Number(bytes.readBigUInt64LE(at)))
  const [version, sequence, member, term, vote] = numbers as [number, number, number, number, number]
  if (version !== FORMAT_VERSION || !numbers.every(Number.isSafeInteger) || member === 0) return null
  return { sequence, member, term, vote }
}

function damaged(path: string): CairnError {
  return new CairnError(
    'HARD_STATE_DAMAGED',
    `${path} does not verify: this member no longer knows what it voted for, and must not take part any more`,
    {
      next: 'Build this member again from the others, under a new id: cairn make-mds --rebuild -r DIR.',
    },
  )
}
