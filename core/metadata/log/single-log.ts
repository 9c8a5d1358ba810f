/**
 * The replicated log with one member. Proposals of one event-loop turn become one batch, one transaction,
 * one sync; while it commits, the next batch gathers. A batch is applied after its commit, so nobody ever
 * reads what a crash could take back. The rows that a batch changes go into a later commit; recovery
 * replays the entries behind the rows.
 *
 *     commit   │ entries 1 │ entries 2, rows 0 │ entries 3, rows 1 │
 *     apply                │ 1                 │ 2                 │ 3
 *
 * Any error of the store is fatal: what reached the disk is unknown, only a restart can tell (rule F7).
 */
import { assert } from '../../base/assert.ts'
import { codeOf } from '../../base/errors.ts'
import { MIB } from '../../base/units.ts'
import type { Clock } from '../../platform/clock.ts'
import type { Logger } from '../../platform/logger.ts'
import type { RowChange, Store, StoreBatch, StoredLogEntry } from '../../platform/store.ts'
import { metadataError } from '../errors.ts'
import type { OutcomeOf, AppliedMachine } from '../state/apply.ts'
import type { Command, LogCommand } from '../state/commands.ts'
import { type CommandResult, refused } from '../state/result.ts'
import { STATE_FORMAT_VERSION } from '../state/state.ts'
import { encodeLogEntry, isEncodable } from './codec.ts'
import { FORMAT_KEY, META_TABLE, type Recovered, recover, REPLAY_ENTRIES_MAX } from './recovery.ts'
import type { AppliedListener, ReplicatedLog } from './replicated-log.ts'
import { TRAILING_ENTRIES_MAX, TrailingWindow } from './trailing-window.ts'

/** Proposals that wait for a batch. */
export const PROPOSALS_QUEUED_MAX = 10_000
/** Two batches may lie behind the rows: REPLAY_ENTRIES_MAX must be more. */
export const BATCH_ENTRIES_MAX = 2_048
export const BATCH_BYTES_MAX = 8 * MIB
/** One member is its own quorum, always in its first term. */
const SINGLE_TERM = 1

interface Proposal {
  readonly entry: LogCommand
  readonly resolve: (result: CommandResult) => void
}

interface Batch {
  readonly proposals: readonly Proposal[]
  readonly entries: readonly StoredLogEntry[]
  readonly firstIndex: number
}

export interface SingleLogOptions {
  readonly store: Store
  readonly machine: AppliedMachine
  readonly clock: Clock
  readonly logger: Logger
  /** The process must end: its state and its disk may differ. Called once. */
  readonly onFatal: (error: Error) => void
  readonly window?: TrailingWindow
}

type Phase = 'new' | 'starting' | 'ready' | 'closing' | 'closed' | 'failed'

export class SingleLog implements ReplicatedLog {
  private readonly store: Store
  private readonly machine: AppliedMachine
  private readonly clock: Clock
  private readonly logger: Logger
  private readonly fatal: (error: Error) => void
  private readonly window: TrailingWindow
  private readonly listeners: AppliedListener[] = []
  private phase: Phase = 'new'
  private queue: Proposal[] = []
  private lastIndex = 0
  /** Written with the next commit besides what the state collects. */
  private extraRows: RowChange[] = []
  private isFlushScheduled = false
  private running: Promise<void> | undefined

  constructor(options: SingleLogOptions) {
    assert(REPLAY_ENTRIES_MAX >= 2 * BATCH_ENTRIES_MAX, 'recovery must take what two batches leave')
    assert(TRAILING_ENTRIES_MAX >= REPLAY_ENTRIES_MAX, 'what recovery needs is not trimmed')
    this.store = options.store
    this.machine = options.machine
    this.clock = options.clock
    this.logger = options.logger
    this.fatal = options.onFatal
    this.window = options.window ?? new TrailingWindow()
  }

  get appliedIndex(): number {
    return this.machine.appliedIndex
  }

  get isReady(): boolean {
    return this.phase === 'ready'
  }

  onApplied(listener: AppliedListener): void {
    this.listeners.push(listener)
  }

  /** Loads and replays. Rejects with an error of errors.ts; then nothing may be served. */
  async start(): Promise<Recovered> {
    this.phase = 'starting'
    const recovered = await recover(this.store, this.machine, this.window)
    this.lastIndex = recovered.lastIndex
    if (!recovered.hasFormat) {
      this.extraRows.push({ table: META_TABLE, key: FORMAT_KEY, value: String(STATE_FORMAT_VERSION) })
    }
    this.phase = 'ready'
    this.logger.info('metadata state loaded', {
      rows: recovered.rowCount,
      replayed: recovered.replayedCount,
      appliedIndex: this.appliedIndex,
    })
    return recovered
  }

  propose<C extends Command>(command: C): Promise<CommandResult<OutcomeOf<C['type']>>> {
    if (this.phase !== 'ready') return Promise.resolve(this.refusal())
    if (this.queue.length >= PROPOSALS_QUEUED_MAX) {
      return Promise.resolve(refused('OVERLOADED', 'too many commands wait for the log'))
    }
    if (!isEncodable(command)) return Promise.resolve(refused('BAD_MESSAGE', 'a text is not well-formed'))
    const wall = this.clock.wall()
    const entry: LogCommand = {
      command,
      wallSeconds: wall.seconds,
      wallNanoseconds: wall.nanoseconds,
    }
    return new Promise((resolve) => {
      this.queue.push({ entry, resolve: resolve as (result: CommandResult) => void })
      this.scheduleFlush()
    })
  }

  /** Commits what was proposed and the last rows, then closes the store. Later proposals are refused. */
  async close(): Promise<void> {
    if (this.phase === 'closed' || this.phase === 'failed') return
    const wasReady = this.phase === 'ready'
    this.phase = 'closing'
    if (wasReady) {
      this.startRunning()
      await this.running
      await this.commit(this.storeBatch([]))
    }
    if (this.isFailed()) return
    this.phase = 'closed'
    await this.store.close()
  }

  private refusal(): CommandResult<never> {
    return this.phase === 'new' || this.phase === 'starting'
      ? refused('STARTING', 'the metadata server is loading its state')
      : refused('NOT_MASTER', 'the metadata server is stopping')
  }

  private isFailed(): boolean {
    return this.phase === 'failed'
  }

  private scheduleFlush(): void {
    if (this.isFlushScheduled || this.running !== undefined) return
    this.isFlushScheduled = true
    this.clock.defer(() => {
      this.isFlushScheduled = false
      this.startRunning()
    })
  }

  private startRunning(): void {
    // Without a queue the loop would end before it is assigned.
    if (this.running !== undefined || this.isFailed() || this.queue.length === 0) return
    this.running = this.run().catch((error: unknown) => this.fail(error))
  }

  /** Commits batch after batch until none waits. The commit of one overlaps the applying of the one before. */
  private async run(): Promise<void> {
    let committed: Batch | undefined
    let batch = this.takeBatch()
    while (batch !== undefined) {
      const committing = this.commit(this.storeBatch(batch.entries))
      if (committed !== undefined) this.applyBatch(committed)
      if (!(await committing)) return
      committed = batch
      batch = this.takeBatch()
    }
    // Cleared before callers hear: what they propose next starts a new loop.
    this.running = undefined
    if (committed !== undefined) this.applyBatch(committed)
  }

  private takeBatch(): Batch | undefined {
    const proposals: Proposal[] = []
    const entries: StoredLogEntry[] = []
    const firstIndex = this.lastIndex + 1
    let bytes = 0
    for (const proposal of this.queue) {
      if (proposals.length === BATCH_ENTRIES_MAX || bytes >= BATCH_BYTES_MAX) break
      const index = firstIndex + proposals.length
      const data = encodeLogEntry(proposal.entry, index)
      bytes += data.length
      proposals.push(proposal)
      entries.push({ index, term: SINGLE_TERM, data })
    }
    if (proposals.length === 0) return undefined
    this.queue = this.queue.slice(proposals.length)
    this.lastIndex += proposals.length
    return { proposals, entries, firstIndex }
  }

  /** The rows are exactly those of the state after `appliedIndex`: both are read in one turn. */
  private storeBatch(entries: readonly StoredLogEntry[]): StoreBatch {
    const { appliedIndex } = this.machine
    const rows = this.machine.state.collectChanges().concat(this.extraRows)
    this.extraRows = []
    for (const entry of entries) this.window.add(entry.index, entry.data.length)
    const trimThrough = this.window.maybeTrim(appliedIndex)
    return { entries, rows, appliedIndex, ...(trimThrough === undefined ? {} : { trimThrough }) }
  }

  private async commit(batch: StoreBatch): Promise<boolean> {
    if (this.isFailed()) return false
    try {
      await this.store.commit(batch)
      return true
    } catch (error) {
      this.fail(metadataError('STORE_FAILED', codeOf(error), error))
      return false
    }
  }

  private applyBatch(batch: Batch): void {
    let index = batch.firstIndex
    for (const { entry, resolve } of batch.proposals) {
      const result = this.machine.apply(entry, index)
      for (const listener of this.listeners) listener(entry, result, index)
      resolve(result)
      index += 1
    }
  }

  private fail(error: unknown): void {
    if (this.phase === 'failed') return
    this.phase = 'failed'
    this.queue = []
    const fatal = error instanceof Error ? error : new Error(String(error))
    this.logger.error('the metadata log failed; the process ends', {
      code: codeOf(error),
      message: fatal.message,
    })
    this.fatal(fatal)
  }
}
