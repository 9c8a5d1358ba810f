/** What the namespace needs of the chunk side of the state machine (`chunks/`), inside `apply`. */
import type { ApplyContext } from '../state/apply.ts'

export interface ChunkActions {
  /**
   * The chunks left the list of `inode`: if nobody else needs them their rows go, and their replicas are condemned
   * (rules G1, S3). The caller takes them out of the list.
   */
  dropChunks(context: ApplyContext, inode: number, chunks: readonly number[]): void
  /** The write lease of a file that nobody else can know yet. Undefined: not granted. */
  grantLease(context: ApplyContext, inode: number, session: number): number | undefined
}
