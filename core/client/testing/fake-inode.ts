/** What the fake master knows of a file and its chunks. */
import type { Attributes } from '../../wire/messages/common.ts'

export interface FakeChunk {
  readonly id: number
  readonly inode: number
  readonly index: number
  version: number
  members: { server: number; role: 'in-sync' | 'joining'; since?: number }[]
  /** Lease whose intent is on it; 0: none. */
  intent: number
  lossVersion?: number
}

export interface FakeInode {
  attributes: Attributes
  lease: number
  leaseSession: number
  zeroFrom: number | undefined
  /** Chunk indexes that a dead holder left. */
  dirty?: number[]
  readonly chunks: Map<number, FakeChunk>
}
