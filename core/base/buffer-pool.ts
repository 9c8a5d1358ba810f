/**
 * Reuses large buffers. Size classes are powers of two; what is kept is bounded; a buffer that never
 * comes back is simply collected. With `poison` (tests) released bytes are overwritten and a double
 * release is an assertion.
 */
import { assert } from './assert.ts'
import { KIB, MIB } from './units.ts'

const CLASS_BYTES_MIN = 4 * KIB
const CLASS_BYTES_MAX = 2 * MIB
const CLASS_COUNT = Math.log2(CLASS_BYTES_MAX / CLASS_BYTES_MIN) + 1
const POISON = 0xdb

export interface BufferPoolOptions {
  /** Most bytes kept for reuse (not: handed out). */
  readonly retainedBytesMax?: number
  readonly poison?: boolean
}

export class BufferPool {
  readonly #free: Buffer[][] = Array.from({ length: CLASS_COUNT }, () => [])
  readonly #own = new WeakSet<ArrayBufferLike>()
  readonly #released = new Set<ArrayBufferLike>()
  readonly #retainedBytesMax: number
  readonly #poison: boolean
  #retainedBytes = 0

  constructor(options: BufferPoolOptions = {}) {
    this.#retainedBytesMax = options.retainedBytesMax ?? 32 * MIB
    this.#poison = options.poison ?? false
  }

  get retainedBytes(): number {
    return this.#retainedBytes
  }

  /** A buffer of exactly `sizeBytes` with arbitrary contents. Above 2 MiB it is not pooled. */
  acquire(sizeBytes: number): Buffer {
    if (sizeBytes > CLASS_BYTES_MAX) return Buffer.allocUnsafeSlow(sizeBytes)
    const classIndex = classIndexOf(sizeBytes)
    let block = this.#free[classIndex]?.pop()
    if (block === undefined) {
      block = Buffer.allocUnsafeSlow(CLASS_BYTES_MIN << classIndex)
      this.#own.add(block.buffer)
    } else {
      this.#retainedBytes -= block.length
      if (this.#poison) this.#released.delete(block.buffer)
    }
    return block.length === sizeBytes ? block : block.subarray(0, sizeBytes)
  }

  /** Gives back what `acquire` gave, or any view that starts with it. Other buffers are ignored. */
  release(ownedBuffer: Buffer): void {
    const memory = ownedBuffer.buffer
    if (!this.#own.has(memory)) return
    const blockBytes = memory.byteLength
    if (this.#poison) {
      assert(!this.#released.has(memory), 'a pooled buffer is released once')
      Buffer.from(memory).fill(POISON)
    }
    if (this.#retainedBytes + blockBytes > this.#retainedBytesMax) return
    const block = ownedBuffer.length === blockBytes ? ownedBuffer : Buffer.from(memory)
    if (this.#poison) this.#released.add(memory)
    this.#free[classIndexOf(blockBytes)]?.push(block)
    this.#retainedBytes += blockBytes
  }
}

function classIndexOf(sizeBytes: number): number {
  return sizeBytes <= CLASS_BYTES_MIN ? 0 : 32 - Math.clz32((sizeBytes - 1) >>> 12)
}
