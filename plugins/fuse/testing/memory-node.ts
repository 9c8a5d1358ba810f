/** Inodes of the in-memory client, its errors, its clock, and what a test can make it do. */
import type { CacheInvalidation, FileSystem } from '@cairn/core/client'
import { CairnError } from '@cairn/core/plugin'
import type { MemoryContents } from './memory-file.ts'

export type Attributes = Awaited<ReturnType<FileSystem['attributes']>>

export type IoKind = 'read' | 'write' | 'flush' | 'publish'

export interface HeldOperations {
  readonly kinds: Set<IoKind>
  readonly waiting: Set<{ run: () => void }>
  onHeld?: () => void
}

export interface MemoryOptions {
  /** Contents are not kept: for measuring the mount itself. */
  readonly isNull?: boolean
  /** Set: operations of these kinds wait for the test. */
  hold?: HeldOperations | undefined
  /** Files may not grow past this: "no space". */
  bytesMax?: number | undefined
  /** How often the mount called. */
  readonly counts: Record<IoKind | 'lookup' | 'attributes', number>
}

export interface MemoryEntry {
  inode: number
  readonly cookie: number
}

export interface MemoryNode {
  attributes: Attributes
  readonly contents: MemoryContents
  /** Directories only. */
  readonly entries: Map<string, MemoryEntry>
  parent: number
  target: string
  readonly extended: Map<string, Buffer>
  openCount: number
}

export function memoryError(code: string): CairnError {
  return new CairnError(code, `in-memory client: ${code}`)
}

export function now(): { seconds: number; nanoseconds: number } {
  const ms = performance.timeOrigin + performance.now()
  const seconds = Math.floor(ms / 1000)
  return { seconds, nanoseconds: Math.floor((ms - seconds * 1000) * 1e6) }
}

/** A changed copy: attributes are never changed in place, because the mount keeps what it was given. */
export function touch(attributes: Attributes, change: Partial<Attributes>, isModified: boolean): Attributes {
  const { seconds, nanoseconds } = now()
  const times = { changeSeconds: seconds, changeNanoseconds: nanoseconds }
  const modified = isModified ? { modifySeconds: seconds, modifyNanoseconds: nanoseconds } : {}
  return { ...attributes, ...times, ...modified, ...change }
}

export type InvalidationListener = (invalidation: CacheInvalidation) => void
