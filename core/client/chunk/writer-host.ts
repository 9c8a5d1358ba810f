/** What a chunk writer needs of its file, so that the two do not need each other whole. */
import type { CairnError } from '../../base/errors.ts'
import type { ChunkWriter } from './chunk-writer.ts'
import type { Engine } from '../session/engine.ts'

/** The file a chunk belongs to. */
export interface WriterHost {
  readonly engine: Engine
  readonly inode: number
  readonly leaseNumber: number
  /** How much was written forward, one behind the other. */
  readonly streamBytes: number
  /** An intent, please: ends in `writer.located` or `writer.refused`. */
  wantIntent(writer: ChunkWriter): void
  /** The intent shall reach further (`writer.limit`); ends in `limit.granted` or `writer.refusedMore`. */
  wantMore(writer: ChunkWriter): void
  /** Rule E3: the lease has ended, whoever said so. */
  leaseEnded(reason: string): void
  /** Size and times to the quorum, when there is something new. Rejects when the lease is gone. */
  publish(): Promise<void>
  /** Something ended: waiting reads and flushes look again. */
  writerProgress(writer: ChunkWriter): void
  /** Acknowledged bytes of a chunk are gone (rule F5). Once for each loss. */
  bytesLost(error: CairnError): void
  /** The intent was given back. */
  writerSurrendered(writer: ChunkWriter): void
}
