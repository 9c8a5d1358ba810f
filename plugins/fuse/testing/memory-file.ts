/**
 * The contents of one file of the in-memory client: sparse pages, and the File face over them. Callbacks
 * run before the call returns unless the test holds operations back.
 */
import type { File, IoCallback, Operation, ReadCallback } from '@cairn/core/client'
import { Readable, Writable } from 'node:stream'
import { type MemoryNode, type MemoryOptions, memoryError, touch } from './memory-node.ts'

const PAGE_BYTES = 64 * 1024
const FILE_BYTES_MAX = 2 ** 50
const NOTHING: Operation = { cancel: () => {} }
const NO_BYTES = Buffer.alloc(0)

/** Sparse bytes. */
export class MemoryContents {
  readonly pages = new Map<number, Buffer>()

  get allocatedBytes(): number {
    return this.pages.size * PAGE_BYTES
  }

  copyTo(target: Buffer, offset: number): void {
    let position = 0
    while (position < target.length) {
      const at = offset + position
      const index = Math.floor(at / PAGE_BYTES)
      const start = at - index * PAGE_BYTES
      const count = Math.min(PAGE_BYTES - start, target.length - position)
      const page = this.pages.get(index)
      if (page === undefined) target.fill(0, position, position + count)
      else page.copy(target, position, start, start + count)
      position += count
    }
  }

  write(source: Buffer, offset: number): void {
    let position = 0
    while (position < source.length) {
      const at = offset + position
      const index = Math.floor(at / PAGE_BYTES)
      const start = at - index * PAGE_BYTES
      const count = Math.min(PAGE_BYTES - start, source.length - position)
      let page = this.pages.get(index)
      if (page === undefined) {
        page = Buffer.alloc(PAGE_BYTES)
        this.pages.set(index, page)
      }
      source.copy(page, start, position, position + count)
      position += count
    }
  }

  zero(offset: number, end: number): void {
    for (const [index, page] of this.pages) {
      const pageStart = index * PAGE_BYTES
      const from = Math.max(offset, pageStart)
      const to = Math.min(end, pageStart + PAGE_BYTES)
      if (from >= to) continue
      if (to - from === PAGE_BYTES) this.pages.delete(index)
      else page.fill(0, from - pageStart, to - pageStart)
    }
  }
}

export class MemoryFile implements File {
  readonly inode: number
  readonly #node: MemoryNode
  readonly #options: MemoryOptions
  readonly #onClose: () => void
  #scratch = NO_BYTES
  #closed = false

  constructor(node: MemoryNode, options: MemoryOptions, onClose: () => void) {
    this.inode = node.attributes.inode
    this.#node = node
    this.#options = options
    this.#onClose = onClose
  }

  attributes() {
    return this.#node.attributes
  }

  /** Runs now, or when the test lets held operations go. */
  #perform(kind: 'read' | 'write' | 'flush' | 'publish', work: () => void, cancel: () => void): Operation {
    this.#options.counts[kind]++
    const held = this.#options.hold
    if (held === undefined || !held.kinds.has(kind)) {
      work()
      return NOTHING
    }
    const entry = { run: work }
    held.waiting.add(entry)
    held.onHeld?.()
    return {
      cancel: () => {
        if (held.waiting.delete(entry)) cancel()
      },
    }
  }

  read(offset: number, length: number, callback: ReadCallback): Operation {
    const work = () => {
      const { contents, attributes } = this.#node
      const count = Math.max(0, Math.min(length, attributes.size - offset))
      if (this.#scratch.length < count) this.#scratch = Buffer.alloc(Math.max(count, PAGE_BYTES))
      const data = this.#scratch.subarray(0, count)
      if (this.#options.isNull !== true) contents.copyTo(data, offset)
      callback(null, data)
    }
    return this.#perform('read', work, () => callback(memoryError('EINTR'), NO_BYTES))
  }

  write(offset: number, borrowedData: Buffer, callback: IoCallback): Operation {
    const work = () => {
      const end = offset + borrowedData.length
      const full = this.#options.bytesMax !== undefined && end > this.#options.bytesMax
      if (end > FILE_BYTES_MAX || full) {
        callback(memoryError(full ? 'ENOSPC' : 'EFBIG'))
        return
      }
      if (this.#options.isNull !== true) this.#node.contents.write(borrowedData, offset)
      this.#changed(Math.max(this.#node.attributes.size, end))
      callback(null)
    }
    return this.#perform('write', work, () => callback(memoryError('EINTR')))
  }

  #changed(size: number): void {
    const { contents } = this.#node
    this.#node.attributes = touch(this.#node.attributes, { size, allocated: contents.allocatedBytes }, true)
  }

  flush(callback: IoCallback): Operation {
    return this.#perform(
      'flush',
      () => callback(null),
      () => callback(memoryError('EINTR')),
    )
  }

  publish(callback: IoCallback): Operation {
    return this.#perform(
      'publish',
      () => callback(null),
      () => callback(memoryError('EINTR')),
    )
  }

  truncate(size: number) {
    if (size > FILE_BYTES_MAX) return Promise.reject(memoryError('EFBIG'))
    this.#node.contents.zero(size, Number.POSITIVE_INFINITY)
    this.#changed(size)
    return Promise.resolve(this.#node.attributes)
  }

  zero(offset: number, length: number, keepSize: boolean): Promise<void> {
    const { size } = this.#node.attributes
    this.#node.contents.zero(offset, offset + length)
    this.#changed(keepSize ? size : Math.max(size, offset + length))
    return Promise.resolve()
  }

  allocate(offset: number, length: number, keepSize: boolean): Promise<void> {
    const { size } = this.#node.attributes
    if (this.#options.bytesMax !== undefined && offset + length > this.#options.bytesMax) {
      return Promise.reject(memoryError('ENOSPC'))
    }
    this.#changed(keepSize ? size : Math.max(size, offset + length))
    return Promise.resolve()
  }

  close(): void {
    if (this.#closed) return
    this.#closed = true
    this.#onClose()
  }

  createReadStream(): Readable {
    const data = Buffer.alloc(this.#node.attributes.size)
    this.#node.contents.copyTo(data, 0)
    return Readable.from([data])
  }

  createWriteStream(): Writable {
    let position = 0
    return new Writable({
      write: (chunk: Buffer, _encoding, done) => {
        this.write(position, chunk, (error) => done(error))
        position += chunk.length
      },
    })
  }
}
