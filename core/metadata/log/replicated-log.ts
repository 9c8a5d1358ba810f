/**
 * The seam between the state machine and whatever makes a command durable and ordered: one member now
 * (single-log.ts), Raft next. Nobody above it knows which.
 */
import type { OutcomeOf } from '../state/apply.ts'
import type { Command, LogCommand } from '../state/commands.ts'
import type { CommandResult } from '../state/result.ts'

/** Sees every command after it was applied, in order: caches and soft state follow the state this way. */
export type AppliedListener = (entry: LogCommand, result: CommandResult, index: number) => void

export interface ReplicatedLog {
  /**
   * Resolves after the command is durable in the quorum and applied, with its result. Refused without
   * having been tried: STARTING, NOT_MASTER, OVERLOADED (retryable). Never rejects; after a fatal error
   * of the store it never resolves, because the process ends.
   */
  propose<C extends Command>(command: C): Promise<CommandResult<OutcomeOf<C['type']>>>
  /** The state in memory is the state after this log index. */
  readonly appliedIndex: number
  /** May this member answer reads from its state, and propose? */
  readonly isReady: boolean
  /** Listeners are called synchronously, before the proposer hears. Replayed entries are not told. */
  onApplied(listener: AppliedListener): void
}
