/** What the namespace needs of the chunk side of the state machine (`chunks/`), inside `apply`. */
import type { ApplyContext } from '../state/apply.ts'

export interface ChunkActions {
  /**
   * The chunks left their file: their rows go, their replicas are condemned (rule G1). The caller takes them
   * out of the file's list.
   */
  dropChunks(context: ApplyContext, chunks: readonly number[]): void
  /** The write lease of a file that nobody else can know yet. Undefined: not granted. */
  grantLease(context: ApplyContext, inode: number, session: number): number | undefined
}
