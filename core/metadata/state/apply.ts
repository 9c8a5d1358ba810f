/**
 * The replicated state machine: `apply(command, index)` is deterministic, synchronous and total. The same
 * commands in the same order give the same state and the same results on every member. A command that is
 * refused has changed nothing; an exception is a bug and takes the process down. Handlers live in
 * `namespace/` and `chunks/`, keyed by the type of command, and are merged by whoever builds the machine.
 *
 * Mutations of a session are applied once: a repeated one gets the kept answer (state/replies.ts).
 */
import { assert } from '../../base/assert.ts'
import type { MetadataMethods } from '../../wire/messages/metadata.ts'
import type { ResultOf } from '../../wire/messages/method.ts'
import type { Command, LogCommand, RequestCommand, RequestCommandName } from './commands.ts'
import { type CommandResult, refused } from './result.ts'
import type { ChunkTracked, MetadataState } from './state.ts'

export type CommandType = Command['type']
export type CommandOf<T extends CommandType> = Extract<Command, { type: T }>

/** Everything a handler may look at besides its command. */
export interface ApplyContext<Chunks extends ChunkTracked = ChunkTracked> {
  readonly state: MetadataState<Chunks>
  /** Log index of the command: unique, rising. Lease numbers and directory cookies are log indexes. */
  readonly index: number
  /** For file times and events only, never for decisions (rule L11). */
  readonly wallSeconds: number
  readonly wallNanoseconds: number
}

/** What a command answers when it is not refused. Request commands answer as their wire method does. */
export type OutcomeOf<T extends CommandType> = T extends RequestCommandName
  ? ResultOf<MetadataMethods, T>
  : T extends keyof ControlOutcomes
    ? ControlOutcomes[T]
    : unknown

interface ControlOutcomes {
  'session.open': { session: number }
  'chunk.reserve': { from: number }
  'intent.grant': { granted: number[] }
  'file.collect': { collected: number[] }
  'chunk.branch': { branched: number[] }
  /** With the name that a clone got. */
  'snapshot.step': { finished: boolean; parent?: number; name?: string }
  'server.register': { server: number; registration: number; restarted: boolean; rolledBack: boolean }
  'server.marks': { settled: number[] }
  'mds.add': { member: number }
  'event.record': { id: number }
}

export type Handler<T extends CommandType, Chunks extends ChunkTracked = ChunkTracked> = (
  context: ApplyContext<Chunks>,
  command: CommandOf<T>,
) => CommandResult<OutcomeOf<T>>
/** Each half gives a `Pick` of these; together they must be complete. */
export type Handlers<Types extends CommandType = CommandType, Chunks extends ChunkTracked = ChunkTracked> = {
  readonly [T in Types]: Handler<T, Chunks>
}

type AnyHandler<Chunks extends ChunkTracked> = (
  context: ApplyContext<Chunks>,
  command: Command,
) => CommandResult

export class StateMachine<Chunks extends ChunkTracked = ChunkTracked> {
  readonly state: MetadataState<Chunks>
  private readonly handlers: ReadonlyMap<string, AnyHandler<Chunks>>
  private appliedThrough = 0

  /** `Types` is narrower than all commands in tests only. */
  constructor(state: MetadataState<Chunks>, handlers: Partial<Handlers<CommandType, Chunks>>) {
    this.state = state
    this.handlers = new Map(Object.entries(handlers) as [string, AnyHandler<Chunks>][])
  }

  get appliedIndex(): number {
    return this.appliedThrough
  }

  /** After loading rows: they are the state after this index. */
  startFrom(appliedIndex: number): void {
    assert(this.appliedThrough === 0, 'a machine is started once')
    this.appliedThrough = appliedIndex
  }

  /** An entry of the log that is no command. */
  skip(index: number): void {
    assert(index === this.appliedThrough + 1, 'log entries are applied in order, without gaps')
    this.appliedThrough = index
  }

  apply(entry: LogCommand, index: number): CommandResult {
    assert(index === this.appliedThrough + 1, 'log entries are applied in order, without gaps')
    this.appliedThrough = index
    const { command } = entry
    const context: ApplyContext<Chunks> = {
      state: this.state,
      index,
      wallSeconds: entry.wallSeconds,
      wallNanoseconds: entry.wallNanoseconds,
    }
    if (!isRequest(command)) return this.dispatch(context, command)
    const { session, mutation } = command
    if (!this.state.sessions.has(session)) return refused('NO_SESSION', `session ${session} has ended`)
    if (mutation.acknowledgedBelow > mutation.sequence) {
      return refused('BAD_MESSAGE', 'a mutation cannot acknowledge its own answer')
    }
    const earlier = this.state.replies.earlier(session, mutation)
    if (earlier !== undefined) return earlier
    const result = this.dispatch(context, command)
    this.state.replies.store(session, mutation, result)
    return result
  }

  private dispatch(context: ApplyContext<Chunks>, command: Command): CommandResult {
    const handler = this.handlers.get(command.type)
    // A newer member wrote it, or the log is not ours: both are refused by the log's format version first.
    if (handler === undefined) return refused('UNKNOWN_METHOD', `no handler for ${command.type}`)
    return handler(context, command)
  }
}

/** What a log needs of the machine, whatever its chunk table. */
export type AppliedMachine = Pick<StateMachine, 'apply' | 'skip' | 'appliedIndex' | 'startFrom' | 'state'>

export function isRequest(command: Command): command is RequestCommand {
  return 'mutation' in command
}
