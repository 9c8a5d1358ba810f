/**
 * The file of one thread of the flush check: a ring of blocks, block c in place c modulo their number. Each carries
 * its counter, a pattern that follows from it, and a checksum. A block is written when the one before it was synced,
 * so after a power cut all but the one that was under way are there, in order, unless the disk did not flush.
 *
 *   0 magic u32 · 4 CRC32C u32 of 8..4096 · 8 format u16 · 10 thread u16 · 12 zero · 16 counter u64 · 24 pattern
 */
import { Prng } from '../../base/prng.ts'
import { KIB } from '../../base/units.ts'
import type { Disk, DiskFile } from '../../platform/disk.ts'
import { crc32c } from '../../wire/checksum.ts'

export const BLOCK_BYTES = 4 * KIB
/** 4 MiB: more than the cache of a disk's track, little enough to be read in a moment. */
export const BLOCKS_PER_FILE = 1024
const BLOCKS_PER_READ = 64
const MAGIC = 0x464e5243 // 'CRNF'
const FORMAT = 1
const PATTERN_AT = 24
const NAME = /^cairn-hwflush-\d{1,3}$/

export interface Validation {
  /** The last one up to which everything is there that has to be; 0: none. */
  readonly lastValid: number
  /** The highest one that is there. More than `lastValid`: something in front of it is lost. */
  readonly highest: number
}

export class CounterFile {
  readonly #file: DiskFile
  readonly #thread: number
  readonly #block = Buffer.alloc(BLOCK_BYTES)

  private constructor(file: DiskFile, thread: number) {
    this.#file = file
    this.#thread = thread
  }

  /** Made when it is missing; its name is durable when this resolves. */
  static async open(disk: Disk, thread: number): Promise<CounterFile> {
    const file = new CounterFile(disk.open(nameOf(thread), { create: true }), thread)
    await new Promise<void>((resolve, reject) => {
      disk.syncDirectory('.', (error) => (error === null ? resolve() : reject(error)))
    })
    return file
  }

  /** Files of earlier checks go. */
  static removeAll(disk: Disk): void {
    for (const name of disk.list('.')) if (NAME.test(name)) disk.remove(name)
  }

  /** Reads all of it. */
  async validate(): Promise<Validation> {
    const counters = new Array<number>(BLOCKS_PER_FILE).fill(0)
    const piece = Buffer.alloc(BLOCKS_PER_READ * BLOCK_BYTES)
    for (let first = 0; first < BLOCKS_PER_FILE; first += BLOCKS_PER_READ) {
      const length = await this.#read(piece, first * BLOCK_BYTES)
      for (let at = 0; at + BLOCK_BYTES <= length; at += BLOCK_BYTES) {
        const counter = this.#counterOf(piece.subarray(at, at + BLOCK_BYTES))
        const place = first + at / BLOCK_BYTES
        if (counter % BLOCKS_PER_FILE === place) counters[place] = counter
      }
    }
    const highest = Math.max(...counters)
    let lastValid = highest
    // the place behind the highest one may hold what was under way
    for (let counter = highest; counter > Math.max(0, highest - BLOCKS_PER_FILE + 1); counter--)
      if (counters[counter % BLOCKS_PER_FILE] !== counter) lastValid = counter - 1
    return { lastValid, highest }
  }

  /** On the disk, as far as the disk says, when it resolves. */
  write(counter: number): Promise<void> {
    const block = this.#block
    block.fill(0, 0, PATTERN_AT)
    block.writeUInt32LE(MAGIC, 0)
    block.writeUInt16LE(FORMAT, 8)
    block.writeUInt16LE(this.#thread, 10)
    block.writeBigUInt64LE(BigInt(counter), 16)
    fillPattern(block, this.#thread, counter)
    block.writeUInt32LE(crc32c(block.subarray(8)), 4)
    return new Promise((resolve, reject) => {
      this.#file.write([block], (counter % BLOCKS_PER_FILE) * BLOCK_BYTES, (error) => {
        if (error !== null) return reject(error)
        this.#file.sync((failure) => (failure === null ? resolve() : reject(failure)))
      })
    })
  }

  close(): void {
    this.#file.close()
  }

  #read(target: Buffer, position: number): Promise<number> {
    return new Promise((resolve, reject) => {
      this.#file.read(target, position, (error, count) => (error === null ? resolve(count) : reject(error)))
    })
  }

  /** 0: not a block of this thread, or damaged. */
  #counterOf(block: Buffer): number {
    if (block.readUInt32LE(0) !== MAGIC || block.readUInt16LE(8) !== FORMAT) return 0
    if (block.readUInt32LE(4) !== crc32c(block.subarray(8))) return 0
    if (block.readUInt16LE(10) !== this.#thread) return 0
    const counter = Number(block.readBigUInt64LE(16))
    return Number.isSafeInteger(counter) ? counter : 0
  }
}

function nameOf(thread: number): string {
  return `cairn-hwflush-${thread}`
}

/** So that no compression, deduplication or zero detection of a disk makes it less than a block. */
function fillPattern(block: Buffer, thread: number, counter: number): void {
  const prng = new Prng((counter * 257 + thread) >>> 0)
  for (let at = PATTERN_AT; at < BLOCK_BYTES; at += 4) block.writeUInt32LE(prng.uint32(), at)
}
