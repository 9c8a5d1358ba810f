/**
 * A Client in memory: one directory tree, no cluster. Tests of the mount run against it, and it shows
 * the least a client library must do.
 */
import type { CacheInvalidation, Client } from '@cairn/core/client'
import { MemoryFileSystem } from './memory-file-system.ts'
import { type InvalidationListener, type MemoryOptions, memoryError } from './memory-node.ts'

export class MemoryClient implements Client {
  readonly fileSystem: MemoryFileSystem
  readonly options: MemoryOptions

  constructor(options: Omit<MemoryOptions, 'counts'> = {}) {
    const counts = { read: 0, write: 0, flush: 0, publish: 0, lookup: 0, attributes: 0 }
    this.options = { ...options, counts }
    this.fileSystem = new MemoryFileSystem(this.options)
  }

  readonly #listeners = new Set<InvalidationListener>()

  onInvalidate(listener: InvalidationListener): () => void {
    this.#listeners.add(listener)
    return () => this.#listeners.delete(listener)
  }

  invalidate(change: Partial<CacheInvalidation>): void {
    for (const listener of this.#listeners) listener({ all: false, inodes: [], entries: [], ...change })
  }

  /** Lets every held operation go on and holds no more. */
  letGo(): void {
    const held = this.options.hold
    this.options.hold = undefined
    for (const entry of held?.waiting ?? []) entry.run()
    held?.waiting.clear()
  }

  openBlockDevice(): Promise<never> {
    return Promise.reject(memoryError('ENOSYS'))
  }

  get snapshots(): never {
    throw memoryError('ENOSYS')
  }

  keyValue(): never {
    throw memoryError('ENOSYS')
  }

  counters(): Readonly<Record<string, number>> {
    return this.options.counts
  }

  close(): Promise<void> {
    return Promise.resolve()
  }
}
