/**
 * What a metadata server must never forget and never ship: who it is in the quorum, its term and its vote
 * (rule L4). It lies in a place of its own beside the store, so that a snapshot of the store never carries it.
 * `node/hard-state-file.ts` is the real one; the simulator has a model with the same crash contract; one
 * contract test runs on both.
 */

export interface MemberHardState {
  /** Id of this member in its cluster; never used again by another. */
  readonly member: number
  readonly term: number
  /** Whom it voted for in `term`; 0: nobody. */
  readonly vote: number
}

export interface HardStateFile {
  /** What was saved last, or what was being saved when the process ended. Null: nothing was ever saved. */
  load(): Promise<MemberHardState | null>
  /** Durable when it resolves. One at a time. After a failure nothing more is saved. */
  save(state: MemberHardState): Promise<void>
}
