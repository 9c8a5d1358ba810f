/**
 * Read-ahead of one file: when small reads go forward, whole blocks are fetched and the reads are served
 * from them. Blocks are dropped by every write to the file, by invalidation and when the lease comes or
 * goes; what is dropped while it loads still serves those who waited for it before, and nobody after.
 */
import type { CairnError } from '../../base/errors.ts'
import type { ReadCallback } from '../api.ts'
import type { FileState } from './file-state.ts'
import {
  READ_AHEAD_BLOCK_BYTES,
  READ_AHEAD_BLOCKS_MAX,
  READ_AHEAD_BLOCKS_PER_FILE_MAX,
  READ_AHEAD_REQUEST_BYTES_MAX,
} from '../session/limits.ts'
import { ReadOperation } from './read-operation.ts'

interface Block {
  /** Null while it loads. */
  data: Buffer | null
  waiters: (() => void)[]
  error: CairnError | null
  /** Block order of use: the oldest goes first. */
  usedNumber: number
}

/** Sequential reads seen before anything is fetched ahead. */
const SEQUENTIAL_COUNT_MIN = 2

export class ReadAhead {
  readonly #file: FileState
  readonly #blocks = new Map<number, Block>()
  #nextOffset = -1
  #sequentialCount = 0
  #usedNumber = 0

  constructor(file: FileState) {
    this.#file = file
  }

  /** Learns from a read; true when `serve` should be asked for it. */
  wants(offset: number, length: number): boolean {
    // The kernel sends several requests of one stream at once: a little out of order is still forward.
    const distance = offset - this.#nextOffset
    if (this.#nextOffset >= 0 && distance >= -4 * length && distance <= 4 * length) this.#sequentialCount++
    else this.#sequentialCount = 0
    this.#nextOffset = Math.max(offset + length, this.#sequentialCount > 0 ? this.#nextOffset : 0)
    if (length > READ_AHEAD_REQUEST_BYTES_MAX) return false
    return this.#sequentialCount >= SEQUENTIAL_COUNT_MIN
  }

  /**
   * True when the read is answered from blocks (now or later), or `retry` is called because the lease came
   * or went meanwhile, or the file grew. Only for reads inside one block.
   */
  serve(offset: number, length: number, callback: ReadCallback, retry: () => void): boolean {
    const index = Math.floor(offset / READ_AHEAD_BLOCK_BYTES)
    const begin = offset - index * READ_AHEAD_BLOCK_BYTES
    if (begin + length > READ_AHEAD_BLOCK_BYTES) return false
    const block = this.#load(index)
    if (block === null) return false
    block.usedNumber = ++this.#usedNumber
    const ahead = Math.min(1 + (this.#sequentialCount >> 3), READ_AHEAD_BLOCKS_PER_FILE_MAX / 2)
    for (let i = 1; i <= ahead; i++) this.#load(index + i)
    const { session } = this.#file.engine
    const leaseNumber = this.#file.leaseNumber
    const answer = (): void => {
      // Rules L2, L6: cached data too.
      if (leaseNumber !== 0 && leaseNumber === this.#file.leaseNumber && !session.isConfirmed())
        return session.whenConfirmed(() => retry())
      if (leaseNumber !== this.#file.leaseNumber) return retry()
      if (block.error !== null) return callback(block.error, EMPTY)
      const data = block.data ?? EMPTY
      // The read was cut to the file's size: the block was loaded when that was smaller.
      if (data.length < begin + length) {
        this.#forget(index, block)
        return retry()
      }
      this.#file.engine.counters.readAheadHits++
      callback(null, data.subarray(begin, begin + length))
    }
    if (block.data !== null || block.error !== null) answer()
    else block.waiters.push(answer)
    return true
  }

  clear(): void {
    if (this.#blocks.size === 0) return
    this.#file.engine.readAhead.blockCount -= this.#blocks.size
    this.#blocks.clear()
    this.#sequentialCount = 0
  }

  #load(index: number): Block | null {
    const known = this.#blocks.get(index)
    if (known !== undefined) return known
    const offset = index * READ_AHEAD_BLOCK_BYTES
    const length = Math.min(READ_AHEAD_BLOCK_BYTES, this.#file.size - offset)
    if (length <= 0 || !this.#makeRoom()) return null
    const block: Block = { data: null, waiters: [], error: null, usedNumber: ++this.#usedNumber }
    this.#blocks.set(index, block)
    this.#file.engine.readAhead.blockCount++
    const operation = new ReadOperation(this.#file, offset, length, false, (error, borrowed) => {
      block.error = error
      if (error === null) block.data = Buffer.from(borrowed)
      else this.#forget(index, block)
      const { waiters } = block
      block.waiters = []
      for (const waiter of waiters) waiter()
    })
    operation.start()
    return block
  }

  #forget(index: number, block: Block): void {
    if (this.#blocks.get(index) !== block) return
    this.#blocks.delete(index)
    this.#file.engine.readAhead.blockCount--
  }

  #hasRoom(): boolean {
    return this.#file.engine.readAhead.blockCount < READ_AHEAD_BLOCKS_MAX
  }

  #makeRoom(): boolean {
    if (this.#blocks.size < READ_AHEAD_BLOCKS_PER_FILE_MAX) return this.#hasRoom()
    let oldest = -1
    let oldestBlock: Block | null = null
    for (const [index, block] of this.#blocks) {
      if (block.data === null) continue
      if (oldestBlock === null || block.usedNumber < oldestBlock.usedNumber) {
        oldest = index
        oldestBlock = block
      }
    }
    if (oldestBlock === null) return false
    this.#forget(oldest, oldestBlock)
    return this.#hasRoom()
  }
}

const EMPTY = Buffer.alloc(0)
