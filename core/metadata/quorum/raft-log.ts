/**
 * The replicated log of one member: commands in, results out when a majority holds them durably and they are
 * applied here. One member alone is a group of one voter and goes the same way. Proposals that come while the
 * disk works go into the log together (group commit); driver.ts makes them durable.
 *
 * It is *ready* while it leads, has applied an entry of its own term, and holds the leader's lease: then its
 * state has everything that was ever acknowledged, and only it acknowledges (rule L1). What it proposed as
 * master and did not see committed when it lost that place has an unknown outcome: NOT_MASTER.
 */
import { assert } from '../../base/assert.ts'
import { codeOf } from '../../base/errors.ts'
import type { Clock } from '../../platform/clock.ts'
import type { HardStateFile } from '../../platform/hard-state.ts'
import type { Logger } from '../../platform/logger.ts'
import type { Random } from '../../platform/random.ts'
import type { RowChange, Store } from '../../platform/store.ts'
import {
  type Accepted,
  type Configuration,
  type ConfigurationChange,
  decodeConfiguration,
  type Entry,
  type MemberId,
  type Message,
  RaftNode,
  type RaftOptions,
  type RaftStatus,
  type Refusal,
  type Snapshot,
} from '../../raft/index.ts'
import { decodeLogEntry, encodeLogEntry, isEncodable } from '../log/codec.ts'
import type { AppliedListener, ReplicatedLog } from '../log/replicated-log.ts'
import type { AppliedMachine, OutcomeOf } from '../state/apply.ts'
import type { Command, LogCommand } from '../state/commands.ts'
import { type CommandResult, refused } from '../state/result.ts'
import { META_TABLE } from '../state/feature-levels.ts'
import { RaftDriver } from './driver.ts'
import { type LevelStatus, levelStatus, refusalAboveLevel } from './level-gate.ts'
import { Proposals } from './proposals.ts'
import { ReadyWaiters } from './ready-waiters.ts'
import {
  CONFIGURATION_KEY,
  configurationText,
  type Recovered,
  recover,
  recoverMembership,
  type WindowLimits,
  windowLimits,
} from './recovery.ts'

/**
 * In ticks of 50 ms: an election after 0.7 to 1.4 s without the leader, so that also a second one, when the
 * first was split, is over within 3 s; a lease of 0.45 s. A leader whose followers' disks all stall for 0.7 s
 * loses its place: shorter than this it must not be.
 */
const tuning: Partial<RaftOptions> = { electionTicks: 14 }

/** Proposed in one turn; the rest follows in the next. */
const BATCH_ENTRIES_MAX = 2_048

export interface RaftLogOptions {
  readonly store: Store
  readonly hardState: HardStateFile
  readonly machine: AppliedMachine
  readonly clock: Clock
  readonly random: Random
  readonly logger: Logger
  /** An empty store founds a cluster here. Else it belongs to a member that others will tell who they are. */
  readonly isFounder?: boolean
  readonly window?: WindowLimits
  readonly raft?: Partial<RaftOptions>
  /** The feature level that another member announced; null while there is no word of it. */
  readonly announcedLevel?: (member: MemberId) => number | null
  readonly events: RaftLogEvents
}

export interface RaftLogEvents {
  /** To another member; best effort. */
  send(message: Message): void
  /** This member has become the master: its state is complete. */
  becameMaster(): void
  /** It is not any more. Answers nothing from now on; proposals are settled after this. */
  lostMastership(): void
  /** A member lacks more than the log holds: it is owed a file, and one `reportSnapshot`. */
  sendSnapshot(member: MemberId): void
  /** The received file is the state from now on. This log is over. */
  install(snapshot: Snapshot): void
  /** The process must end: its state and its disk may differ. Called once. */
  failed(error: Error): void
}

type Phase = 'new' | 'starting' | 'running' | 'closing' | 'closed' | 'failed'

export class RaftLog implements ReplicatedLog {
  readonly #options: RaftLogOptions
  readonly #machine: AppliedMachine
  readonly #proposals = new Proposals()
  readonly #waiters = new ReadyWaiters()
  readonly #listeners = new Set<AppliedListener>()
  #phase: Phase = 'new'
  #node: RaftNode | null = null
  #driver: RaftDriver | null = null
  /** Written with the next commit besides what the state collects. */
  #extraRows: RowChange[] = []
  /** The term of which an entry was applied while leading it; 0: none yet. */
  #masteredTerm = 0
  /** The term in which `becameMaster` was told; 0: no master now. */
  #masterTerm = 0

  constructor(options: RaftLogOptions) {
    this.#options = options
    this.#machine = options.machine
  }

  /** Loads; the member takes part from now on. Rejects when nothing may be served. */
  async start(): Promise<Recovered> {
    this.#phase = 'starting'
    const { store, hardState: file, clock, random, logger, window = windowLimits, raft } = this.#options
    const turn = (): Promise<void> => new Promise((resolve) => clock.defer(resolve))
    const recovered = await recover(store, this.#machine, turn)
    const membership = await recoverMembership(recovered, file, this.#options.isFounder === true)
    const { log } = recovered
    const { appliedIndex } = this
    const { member: id, term, vote } = membership.hardState
    const hardState = { term, vote }
    this.#setConfiguration(membership.configuration)
    const { configuration } = membership
    const node = new RaftNode({
      ...{ id, storage: log, hardState, appliedIndex, configuration, random },
      options: { ...tuning, ...raft },
    })
    this.#node = node
    const { events } = this.#options
    this.#driver = new RaftDriver(
      {
        ...{ node, log, store, hardStateFile: file, hardState, clock, window },
        host: {
          gather: () => this.#gather(),
          send: (message) => events.send(message),
          apply: (entry) => this.#apply(entry),
          changedRowCount: () => this.#machine.state.changedCount,
          hasUrgentRows: () => this.#extraRows.length > 0,
          takeRows: () => this.#takeRows(),
          turned: () => this.#turned(),
          resigned: (silentMs) => logger.error('the disk hangs; another may lead', { silentMs }),
          sendSnapshot: (member) => events.sendSnapshot(member),
          install: (snapshot) => this.#end('closed', () => events.install(snapshot)),
          failed: (error) => this.#failed(error),
        },
      },
      appliedIndex,
    )
    this.#phase = 'running'
    const { rowCount: rows, unappliedCount: unapplied } = recovered
    logger.info('metadata state loaded', { member: id, rows, appliedIndex, unapplied, term })
    this.#driver.start()
    return recovered
  }

  // --- for the state machine's users ---

  get appliedIndex(): number {
    return this.#machine.appliedIndex
  }

  get isReady(): boolean {
    // A driver that closes gives the node no time any more: its lease would never end.
    if (this.#masterTerm === 0 || this.#node === null || this.#phase !== 'running') return false
    this.#driver?.catchUp()
    return this.#isStillMaster() && this.#node.leaseReadIndex() !== null
  }

  /** Resolves true when ready, false when this member is not the master, or no longer. Bounded in number and time. */
  whenReady(): Promise<boolean> {
    if (this.isReady) return Promise.resolve(true)
    if (this.#masterTerm === 0) return Promise.resolve(false)
    return this.#waiters.wait()
  }

  /** This member has been told to be the master, and may be without a lease at the moment. */
  get isMaster(): boolean {
    return this.#masterTerm !== 0
  }

  onApplied(listener: AppliedListener): () => void {
    this.#listeners.add(listener)
    return () => this.#listeners.delete(listener)
  }

  propose<C extends Command>(command: C): Promise<CommandResult<OutcomeOf<C['type']>>> {
    if (this.#phase === 'new' || this.#phase === 'starting')
      return Promise.resolve(refused('STARTING', 'the metadata server is loading its state'))
    if (this.#phase !== 'running' || this.#masterTerm === 0) return Promise.resolve(notMaster)
    if (!isEncodable(command)) return Promise.resolve(refused('BAD_MESSAGE', 'a text is not well-formed'))
    const tooNew = refusalAboveLevel(command, this.#machine.state.level.inForce, () => this.level)
    if (tooNew !== null) return Promise.resolve(tooNew)
    const { seconds: wallSeconds, nanoseconds: wallNanoseconds } = this.#options.clock.wall()
    const entry: LogCommand = { command, wallSeconds, wallNanoseconds }
    return new Promise((resolve) => {
      const proposal = { entry, resolve: resolve as (result: CommandResult) => void }
      if (this.#proposals.add(proposal)) this.#driver?.wake()
      else resolve(refused('OVERLOADED', 'too many commands wait for the log'))
    })
  }

  // --- for the quorum ---

  get member(): MemberId {
    return this.#present.id
  }

  /** 0 when unknown. */
  get leader(): MemberId {
    return this.#node?.leader ?? 0
  }

  get status(): RaftStatus {
    this.#driver?.catchUp()
    return this.#present.status()
  }

  /** Of a master. */
  get level(): LevelStatus {
    const { announcedLevel = () => null } = this.#options
    return levelStatus(this.#machine.state.level.inForce, this.member, this.configuration, announcedLevel)
  }

  /** In force here. */
  get configuration(): Configuration {
    return this.#present.configuration
  }

  /** Of another member, checked. */
  step(message: Message): void {
    this.#driver?.step(message)
  }

  reportUnreachable(member: MemberId): void {
    this.#node?.reportUnreachable(member)
    this.#driver?.wake()
  }

  reportSnapshot(member: MemberId, receivedIndex: number | null): void {
    this.#node?.reportSnapshot(member, receivedIndex)
    this.#driver?.wake()
  }

  snapshotMessage(to: MemberId, snapshot: Snapshot): Message | null {
    return this.#present.snapshotMessage(to, snapshot)
  }

  get isInstalling(): boolean {
    return this.#node?.isRestoring === true
  }

  holdWindow(isHeld: boolean): void {
    this.#driver?.holdWindow(isHeld)
  }

  proposeConfiguration(change: ConfigurationChange): Accepted | Refusal {
    const outcome = this.#present.proposeConfiguration(change)
    this.#driver?.wake()
    return outcome
  }

  transferLeader(to: MemberId): Accepted | Refusal {
    const outcome = this.#present.transferLeader(to)
    this.#driver?.wake()
    return outcome
  }

  /** Commits what was taken as far as a majority lets us, and the last rows, then closes the store. */
  async close(): Promise<void> {
    if (this.#phase === 'closed' || this.#phase === 'failed') return
    const { store } = this.#options
    if (this.#phase === 'running') {
      this.#phase = 'closing'
      await this.#driver?.finish()
      if (this.#hasFailed()) return
    }
    this.#end('closed', () => {})
    await this.#driver?.abandon()
    await store.close()
  }

  /** As it is: another store takes the place of this one. Resolves when it is closed. */
  async retire(): Promise<void> {
    this.#end('closed', () => {})
    await this.#driver?.abandon()
    await this.#options.store.close()
  }

  // --- inside ---

  get #present(): RaftNode {
    assert(this.#node !== null, 'the log was started')
    return this.#node
  }

  #hasFailed(): boolean {
    return this.#phase === 'failed'
  }

  #isStillMaster(): boolean {
    const node = this.#node
    return node !== null && node.role === 'leader' && node.term === this.#masterTerm
  }

  /** Puts what waits into the log. */
  #gather(): void {
    const node = this.#present
    if (this.#proposals.queuedCount === 0 || this.#driver?.isSyncing === true) return
    // Then the loss of the place is told, and all is settled, in this very turn.
    if (!this.#isStillMaster()) return
    for (let count = 0; count < BATCH_ENTRIES_MAX; count++) {
      const next = this.#proposals.peek()
      if (next === undefined) return
      const index = node.lastIndex + 1
      const outcome = node.propose([encodeLogEntry(next.entry, index)])
      if (outcome.ok) {
        assert(outcome.index === index, 'an entry is put where it was sealed for')
        this.#proposals.place(index, outcome.term)
      } else if (outcome.code === 'ENTRY_TOO_LARGE') {
        this.#proposals.take().resolve(refused('TOO_LARGE', outcome.message))
      } else return
    }
    this.#driver?.wake()
  }

  #apply(entry: Entry): void {
    const { index, term, kind, data } = entry
    const { won, lost } = this.#proposals.committed(index, term)
    lost?.resolve(notMaster)
    if (term === this.#node?.term && this.#node.role === 'leader') this.#masteredTerm = term
    if (kind !== 'command') {
      this.#machine.skip(index)
      if (kind === 'configuration') this.#setConfiguration(decodeConfiguration(data))
      return
    }
    const command = won?.entry ?? decodeLogEntry(data, index)
    const result = this.#machine.apply(command, index)
    for (const listener of this.#listeners) listener(command, result, index)
    won?.resolve(result)
  }

  /** As of the applied index: it travels with the rows. */
  #setConfiguration(configuration: Configuration): void {
    this.#extraRows.push({
      table: META_TABLE,
      key: CONFIGURATION_KEY,
      value: configurationText(configuration),
    })
  }

  #takeRows(): { rows: RowChange[]; appliedIndex: number } {
    const rows = this.#machine.state.collectChanges().concat(this.#extraRows)
    this.#extraRows = []
    return { rows, appliedIndex: this.appliedIndex }
  }

  /** After every turn: has this member won or lost its place, or its lease? */
  #turned(): void {
    const node = this.#present
    if (this.#masterTerm !== 0 && !this.#isStillMaster()) this.#loseMastership()
    if (this.#masterTerm === 0 && node.role === 'leader' && node.term === this.#masteredTerm) {
      this.#masterTerm = node.term
      this.#options.events.becameMaster()
    }
    if (!this.#waiters.isEmpty && this.isReady) this.#waiters.settle(true)
  }

  #loseMastership(): void {
    if (this.#masterTerm === 0) return
    this.#masterTerm = 0
    this.#options.events.lostMastership()
    this.#waiters.settle(false)
    this.#proposals.settle(notMaster)
  }

  #end(phase: 'closed' | 'failed', then: () => void): void {
    if (this.#phase === 'closed' || this.#phase === 'failed') return
    this.#phase = phase
    this.#loseMastership()
    then()
  }

  #failed(error: Error): void {
    if (this.#phase === 'closed' || this.#phase === 'failed') return
    this.#phase = 'failed'
    // Nobody is answered: whether it is on the disk only a restart can tell.
    this.#proposals.forget()
    this.#masterTerm = 0
    this.#waiters.settle(false)
    const { logger, events } = this.#options
    logger.error('the metadata log failed; the process ends', { code: codeOf(error), message: error.message })
    events.failed(error)
  }
}

const notMaster = refused('NOT_MASTER', 'this metadata server is not the master')
