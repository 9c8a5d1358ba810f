/**
 * Runs a RaftNode: gives it time and messages, makes its Ready batches durable, sends what they say, hands on
 * what is committed. It keeps the contract of `Ready` (raft/types.ts):
 *
 *     turn      node.ready() ── messages leave at once
 *     writer    hard state ─ commit(entries, rows) ─ responses leave ─ apply ─ advance │ next batches
 *                                └ what was durable before is applied meanwhile
 *
 * While the disk writes, turns go on: their batches gather and become the next commit. An entry is applied
 * after it is durable here, so nobody ever reads what a crash could take back. The rows that it changes go
 * into a later commit, together with those of many others; recovery lets Raft commit the entries behind the
 * rows again. Nothing is written when
 * nothing must be. Any error of the disk is fatal: what reached it is unknown, only a restart can tell (rule F7).
 * A disk that does not answer at all is no error yet, but nobody may wait for it: a leader whose commit takes
 * longer than DISK_PATIENCE_MS, while a majority has it, makes way and follows.
 */
import type { Clock, Timer } from '../../platform/clock.ts'
import type { HardStateFile } from '../../platform/hard-state.ts'
import type { RowChange, Store, StoreBatch } from '../../platform/store.ts'
import {
  type Entry,
  entrySizeBytes,
  type HardState,
  type Message,
  type RaftNode,
  type Ready,
  type Snapshot,
  type TrailingLog,
} from '../../raft/index.ts'
import { codeOf } from '../../base/errors.ts'
import { metadataError } from '../errors.ts'
import { encodeEntry } from '../log/codec.ts'
import { Applier, type ApplierHost } from './applier.ts'
import { trimThrough, type WindowLimits } from './recovery.ts'

/** raft/options.ts counts in these. */
export const TICK_MS = 50
/** Batches that wait for the disk; beyond it the node keeps what comes. */
const READIES_MAX = 1_024
/** Committed entries taken from the node at once. */
const COMMITTED_BYTES_MAX = 512 * 1024
const HELD_WINDOW_FACTOR = 4

/**
 * Nothing is acknowledged before it is durable here, so a leader's disk that hangs stops everybody. With the
 * election at once that follows, the pause stays below the 3 s of every other trouble of a master.
 */
const DISK_PATIENCE_MS = 1_500

export interface DriverHost extends ApplierHost {
  /** Before the node is asked for a batch. */
  gather(): void
  send(message: Message): void
  /** Something has moved: role, lease, applied index. */
  turned(): void
  /** It leads no more, because its disk has not answered for so long. */
  resigned(silentMs: number): void
  sendSnapshot(member: number): void
  /** The received file is the state from now on. The driver has stopped. */
  install(snapshot: Snapshot): void
  /** Called once. The driver has stopped. */
  failed(error: Error): void
}

export interface DriverParts {
  readonly node: RaftNode
  readonly log: TrailingLog
  readonly store: Store
  readonly hardStateFile: HardStateFile
  readonly hardState: HardState
  readonly clock: Clock
  readonly window: WindowLimits
  readonly host: DriverHost
}

export class RaftDriver {
  readonly #parts: DriverParts
  readonly #member: number
  readonly #applier: Applier
  #savedTerm: number
  #savedVote: number
  /** The rows of the store are of this index. */
  #storedIndex: number
  #tickedBootMs: number
  #timer: Timer | null = null
  #readies: Ready[] = []
  #queuedCommittedBytes = 0
  #isScheduled = false
  #isWriting = false
  #isSyncing = false
  /** When the disk was given what everything waits for now; null: nothing does. */
  #diskSinceMs: number | null = null
  #running: Promise<void> = Promise.resolve()
  #isStopped = false
  #windowFactor = 1

  constructor(parts: DriverParts, appliedIndex: number) {
    this.#parts = parts
    this.#member = parts.node.id
    this.#savedTerm = parts.hardState.term
    this.#savedVote = parts.hardState.vote
    this.#storedIndex = appliedIndex
    this.#applier = new Applier(parts.host, appliedIndex)
    this.#tickedBootMs = parts.clock.bootMs()
  }

  /** The disk is making a batch durable: what is proposed meanwhile had better wait, and become the next. */
  get isSyncing(): boolean {
    return this.#isSyncing
  }

  start(): void {
    // Nobody to wait for: no pause at the start of a group of one.
    if (this.#parts.node.configuration.voters.length === 1) this.#parts.node.campaign()
    this.#armTick()
    this.wake()
  }

  /** Turns at the end of this event-loop turn. */
  wake(): void {
    if (this.#isScheduled || this.#isStopped) return
    this.#isScheduled = true
    this.#parts.clock.defer(() => {
      this.#isScheduled = false
      this.#turn()
    })
  }

  /** While a copy of the store travels the log keeps more: what comes after the copy must still be there. */
  holdWindow(isHeld: boolean): void {
    this.#windowFactor = isHeld ? HELD_WINDOW_FACTOR : 1
  }

  /** Gives the node the time that has passed on the clock that counts suspend (rule L2): before any question of leases. */
  catchUp(): void {
    if (this.#isStopped) return
    const count = Math.floor((this.#parts.clock.bootMs() - this.#tickedBootMs) / TICK_MS)
    if (count <= 0) return
    this.#tickedBootMs += count * TICK_MS
    this.#parts.node.tick(count)
    this.wake()
  }

  /** Of another member, checked. */
  step(message: Message): void {
    if (this.#isStopped) return
    // A promise made on an old clock would be too short.
    this.catchUp()
    try {
      this.#parts.node.step(message)
    } catch (error) {
      this.#fail(error)
      return
    }
    this.wake()
  }

  /** Everything handed out is durable and applied, and the rows are in the store. Afterwards nothing runs. */
  async finish(): Promise<void> {
    if (this.#isStopped) return
    this.#turn()
    while (this.#isWriting) await this.#running
    if (this.#stopNow()) return
    const { rows, appliedIndex } = this.#applier.takeRows()
    if (rows.length > 0 || appliedIndex > this.#storedIndex)
      await this.#commit({ entries: [], rows, appliedIndex })
  }

  /** As it is. Resolves when the disk has come to rest. */
  async abandon(): Promise<void> {
    this.#stopNow()
    while (this.#isWriting) await this.#running
  }

  #armTick(): void {
    this.#timer = this.#parts.clock.setTimer(TICK_MS, () => {
      this.catchUp()
      this.#maybeResign()
      if (!this.#isStopped) this.#armTick()
    })
  }

  #maybeResign(): void {
    if (this.#diskSinceMs === null || this.#isStopped) return
    const silentMs = this.#parts.clock.nowMs() - this.#diskSinceMs
    if (silentMs < DISK_PATIENCE_MS || !this.#parts.node.maybeResign()) return
    this.#parts.host.resigned(Math.round(silentMs))
    this.wake()
  }

  /** True when it had stopped before. */
  #stopNow(): boolean {
    const wasStopped = this.#isStopped
    this.#isStopped = true
    this.#timer?.cancel()
    return wasStopped
  }

  /** Asked after others have run: the compiler remembers what was. */
  #hasStopped(): boolean {
    return this.#isStopped
  }

  #turn(): void {
    if (this.#isStopped) return
    try {
      this.#take()
      if (!this.#isWriting && this.#readies.length > 0) this.#running = this.#write()
      if (!this.#isStopped) this.#parts.host.turned()
    } catch (error) {
      this.#fail(error)
    }
  }

  #take(): void {
    const { node, host } = this.#parts
    host.gather()
    while (this.#readies.length < READIES_MAX && this.#queuedCommittedBytes < COMMITTED_BYTES_MAX) {
      const ready = node.ready()
      if (ready === null) return
      for (const entry of ready.committed) this.#queuedCommittedBytes += entrySizeBytes(entry)
      this.#readies.push(ready)
      for (const message of ready.messages) host.send(message)
    }
  }

  /** Batch after batch until none waits. Synchronous up to the first thing that must become durable. */
  async #write(): Promise<void> {
    this.#isWriting = true
    try {
      while (this.#readies.length > 0 && !this.#isStopped) {
        const readies = this.#readies
        const isMuch = this.#queuedCommittedBytes >= COMMITTED_BYTES_MAX
        this.#readies = []
        this.#queuedCommittedBytes = 0
        const mustSync = readies.some((ready) => ready.mustSync)
        this.#isSyncing = mustSync
        if (mustSync) this.#diskSinceMs = this.#parts.clock.nowMs()
        if (mustSync && !(await this.#persist(readies))) return
        this.#isSyncing = false
        this.#diskSinceMs = null
        if (this.#isStopped) return
        for (const ready of readies) for (const message of ready.responses) this.#parts.host.send(message)
        const progress = { ready: 0, entry: 0 }
        while (!this.#completeSome(readies, progress)) {
          await this.#endSlice()
          if (this.#hasStopped()) return
        }
        this.#parts.host.turned()
        if (this.#hasStopped()) return
        if (isMuch && !mustSync) {
          // Others get their turn in between.
          this.wake()
          return
        }
        // What became committed by this goes on at once, together with what was proposed meanwhile.
        this.#take()
      }
    } catch (error) {
      this.#fail(error)
    } finally {
      this.#isWriting = false
    }
  }

  /** False when the member ends with it. */
  async #persist(readies: readonly Ready[]): Promise<boolean> {
    const { host } = this.#parts
    const last = readies.findLast((ready) => ready.hardState !== null)?.hardState
    if (
      last !== undefined &&
      last !== null &&
      (last.term !== this.#savedTerm || last.vote !== this.#savedVote)
    ) {
      // First, so that it may be ahead of the log but never behind it.
      await this.#saveHardState(last)
      if (this.#isStopped) return false
    }
    const snapshot = readies.findLast((ready) => ready.snapshot !== null)?.snapshot
    if (snapshot !== undefined && snapshot !== null) {
      this.#stopNow()
      host.install(snapshot)
      return false
    }
    const batch = this.#storeBatch(readies)
    if (batch === null) return true
    const committing = this.#commit(batch)
    const { log } = this.#parts
    for (const ready of readies)
      for (const entry of ready.committed)
        if (log.term(entry.index) === entry.term && !this.#applier.isSliceFull) this.#applier.apply(entry)
    await committing
    this.#applier.beginSlice()
    const { trimThrough: trimmed } = batch
    if (trimmed !== undefined && !this.#isStopped) log.trimThrough(trimmed + 1)
    return true
  }

  /** Null when only term and vote were to be written. */
  #storeBatch(readies: readonly Ready[]): StoreBatch | null {
    const { log, window } = this.#parts
    const entries: Entry[] = []
    let truncateFrom = Number.POSITIVE_INFINITY
    for (const ready of readies) {
      const first = ready.entries[0]
      if (first === undefined) continue
      // Replaced before they were ever written.
      while ((entries.at(-1)?.index ?? 0) >= first.index) entries.pop()
      for (const entry of ready.entries) entries.push(entry)
      truncateFrom = Math.min(truncateFrom, first.index)
    }
    if (entries.length === 0) return null
    const { rows, appliedIndex } = this.#maybeTakeRows()
    const { entriesMax, bytesMax, step } = window
    const factor = this.#windowFactor
    const limits = { entriesMax: entriesMax * factor, bytesMax: bytesMax * factor, step }
    const through = trimThrough(log, limits, this.#storedIndex)
    return {
      entries: entries.map((entry) => ({ index: entry.index, term: entry.term, data: encodeEntry(entry) })),
      rows,
      appliedIndex,
      ...(truncateFrom <= log.lastIndex() ? { truncateFrom } : {}),
      // The entry before the window stays in the store: it tells the term there.
      ...(through > 1 ? { trimThrough: through - 1 } : {}),
    }
  }

  #maybeTakeRows(): { readonly rows: RowChange[]; readonly appliedIndex: number } {
    const { log, window } = this.#parts
    // the window is cut behind the rows only
    const isWindowFull = log.count >= window.entriesMax + window.step
    if (isWindowFull || this.#applier.areRowsDue) return this.#applier.takeRows()
    return { rows: [], appliedIndex: this.#storedIndex }
  }

  /** All of it is durable. Goes on where it stopped; false when others must get their turn first. */
  #completeSome(readies: readonly Ready[], progress: { ready: number; entry: number }): boolean {
    const { node, host } = this.#parts
    for (; progress.ready < readies.length; progress.ready++) {
      const ready = readies[progress.ready] as Ready
      for (; progress.entry < ready.committed.length; progress.entry++) {
        if (this.#applier.isSliceFull) return false
        this.#applier.apply(ready.committed[progress.entry] as Entry)
      }
      progress.entry = 0
      node.advance(ready)
      for (const member of ready.snapshotsNeeded) host.sendSnapshot(member)
    }
    return true
  }

  async #endSlice(): Promise<void> {
    const applier = this.#applier
    if (applier.hasManyRows) {
      this.#diskSinceMs = this.#parts.clock.nowMs()
      await this.#commit({ entries: [], ...applier.takeRows() })
      this.#diskSinceMs = null
    } else await new Promise<void>((resolve) => this.#parts.clock.defer(resolve))
    applier.beginSlice()
  }

  async #saveHardState({ term, vote }: HardState): Promise<void> {
    await this.#parts.hardStateFile.save({ member: this.#member, term, vote })
    this.#savedTerm = term
    this.#savedVote = vote
  }

  async #commit(batch: StoreBatch): Promise<void> {
    try {
      await this.#parts.store.commit(batch)
      this.#storedIndex = batch.appliedIndex
    } catch (error) {
      throw metadataError('STORE_FAILED', codeOf(error), error)
    }
  }

  #fail(error: unknown): void {
    if (this.#stopNow()) return
    this.#parts.host.failed(error instanceof Error ? error : new Error(String(error)))
  }
}
