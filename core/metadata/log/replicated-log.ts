/**
 * The seam between the state machine and what makes a command durable and ordered (quorum/raft-log.ts). What
 * is above it knows nothing of members and terms.
 */
import type { OutcomeOf } from '../state/apply.ts'
import type { Command, LogCommand } from '../state/commands.ts'
import type { CommandResult } from '../state/result.ts'

/** Sees every command after it was applied, in order: caches and soft state follow the state this way. */
export type AppliedListener = (entry: LogCommand, result: CommandResult, index: number) => void

export interface ReplicatedLog {
  /**
   * Resolves after the command is durable in the quorum and applied, with its result. Refused without
   * having been tried: STARTING, OVERLOADED (retryable). NOT_MASTER: this member is not, or no longer, the
   * master, and whether the command was or will be applied is unknown. Never rejects; after a fatal error of
   * the store it never resolves, because the process ends.
   */
  propose<C extends Command>(command: C): Promise<CommandResult<OutcomeOf<C['type']>>>
  /** The state in memory is the state after this log index. */
  readonly appliedIndex: number
  /** May this member answer reads from its state, and propose? */
  readonly isReady: boolean
  /**
   * Listeners are called synchronously, before the proposer hears; of entries that a start replays they are
   * not told. Returns how to unsubscribe.
   */
  onApplied(listener: AppliedListener): () => void
}
