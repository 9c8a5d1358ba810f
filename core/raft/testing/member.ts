/**
 * A process around a RaftNode for scripts and simulation: a disk with a sync that takes its time, a state
 * machine that only keeps a digest, a crash that loses what was not synced. It keeps the driver's contract of
 * `Ready` to the letter and no better: a commit index alone is not written, responses wait for the sync.
 */
import { present } from '../../base/assert.ts'
import {
  type Configuration,
  decodeConfiguration,
  type Entry,
  type HardState,
  initialHardState,
  type MemberId,
  type Message,
  type RaftFaults,
  RaftNode,
  type RaftOptions,
  type RaftRandom,
  type Ready,
  type Snapshot,
  TrailingLog,
} from '../index.ts'

/** The state machine as a value: which entry it is at, and a digest of all it has seen. */
export interface Machine {
  readonly index: number
  readonly term: number
  readonly digest: number
  readonly configuration: Configuration
}

/** What travels as "the file": a state and what it is. */
export interface ShippedFile {
  readonly snapshot: Snapshot
  readonly machine: Machine
}

/** What the world around learns; called in the order in which things happen. */
export interface MemberObserver {
  onReady(member: Member, ready: Ready): void
  onApply(member: Member, entry: Entry, before: Machine, after: Machine): void
  send(message: Message): void
}

interface Write {
  readonly ready: Ready
  readonly machine: Machine
}

export interface MemberParts {
  readonly id: MemberId
  readonly configuration: Configuration
  readonly random: RaftRandom
  readonly options: Partial<RaftOptions>
  readonly faults: RaftFaults
  readonly observer: MemberObserver
}

export class Member {
  readonly id: MemberId
  /** Null while the process is dead. */
  node: RaftNode | null = null
  machine: Machine
  readonly #parts: MemberParts
  /** Durable: survives a crash. */
  #diskHardState: HardState = initialHardState
  #diskLog = new TrailingLog()
  #diskMachine: Machine
  #storage = new TrailingLog()
  #writes: Write[] = []
  #files: ShippedFile[] = []

  constructor(parts: MemberParts) {
    this.id = parts.id
    this.#parts = parts
    this.machine = { index: 0, term: 0, digest: 0, configuration: parts.configuration }
    this.#diskMachine = this.machine
  }

  get isAlive(): boolean {
    return this.node !== null
  }

  /** Batches that were handed out and are not synced yet. */
  get unsyncedCount(): number {
    return this.#writes.length
  }

  get logCount(): number {
    return this.#storage.count
  }

  start(): RaftNode {
    this.machine = this.#diskMachine
    this.#storage = copyOf(this.#diskLog)
    const { id, random, options, faults } = this.#parts
    this.node = new RaftNode({
      id,
      storage: this.#storage,
      hardState: this.#diskHardState,
      appliedIndex: this.machine.index,
      configuration: this.machine.configuration,
      random,
      options,
      faults,
    })
    return this.node
  }

  /** Power is cut. The first `survivingCount` unsynced writes reached the disk, and then perhaps one hard state. */
  crash(survivingCount = 0, hardStateSurvives = false): void {
    for (const { ready, machine } of this.#writes.splice(0, survivingCount)) this.#write(ready, machine)
    const torn = this.#writes[0]?.ready
    if (hardStateSurvives) this.#diskHardState = torn?.hardState ?? this.#diskHardState
    this.#writes = []
    this.#files = []
    this.node = null
  }

  /** For scripts: a disk that looks like this before the first start. */
  preload(hardState: HardState, entries: readonly Entry[]): void {
    this.#diskHardState = hardState
    this.#diskLog.append(entries)
  }

  /** For scripts: a disk that forgot what it had acknowledged. */
  loseLog(): void {
    this.#diskLog.reset(0, 0)
    this.#diskMachine = { index: 0, term: 0, digest: 0, configuration: this.#parts.configuration }
  }

  /** Takes and hands on all batches that are ready; messages leave, committed entries are applied. */
  collect(): void {
    const node = this.node
    if (node === null) return
    for (let ready = node.ready(); ready !== null; ready = node.ready()) {
      this.#parts.observer.onReady(this, ready)
      const { snapshot } = ready
      if (snapshot !== null) this.#install(snapshot)
      for (const entry of ready.committed) this.#apply(entry)
      this.#writes.push({ ready, machine: this.machine })
      for (const message of ready.messages) this.#parts.observer.send(message)
    }
  }

  /** The oldest batches have become durable, all in one write. */
  sync(count = 1): void {
    const written = this.#writes.splice(0, count)
    for (const { ready, machine } of written) this.#write(ready, machine)
    for (const { ready } of written) {
      for (const message of ready.responses) this.#parts.observer.send(message)
      this.node?.advance(ready)
    }
  }

  /** The file as a leader would make it now: of what is durable. Null when there is nothing to ship. */
  makeFile(): ShippedFile | null {
    const { index, term, configuration } = this.#diskMachine
    return index === 0 ? null : { snapshot: { index, term, configuration }, machine: this.#diskMachine }
  }

  /** A whole file has arrived; its message is stepped after this. */
  receiveFile(file: ShippedFile): void {
    this.#files = [...this.#files.slice(-3), file]
  }

  /** Cuts the log to its last `keepCount` entries, as far as the durable state allows (rule L10). */
  trim(keepCount: number): void {
    const through = this.#storage.excessThrough(keepCount, Number.POSITIVE_INFINITY, this.#diskMachine.index)
    // A batch on its way may still replace the log by a file.
    if (this.#writes.some(({ ready }) => ready.snapshot !== null)) return
    this.#storage.trimThrough(through)
    this.#diskLog.trimThrough(through)
  }

  #install(snapshot: Snapshot): void {
    const file = this.#files.find(
      (candidate) => candidate.snapshot.index === snapshot.index && candidate.snapshot.term === snapshot.term,
    )
    this.machine = present(file, 'only a file that was received is installed').machine
  }

  #apply(entry: Entry): void {
    const configuration =
      entry.kind === 'configuration' ? decodeConfiguration(entry.data) : this.machine.configuration
    const before = this.machine
    const digest = digestOf(before.digest, entry)
    this.machine = { index: entry.index, term: entry.term, digest, configuration }
    this.#parts.observer.onApply(this, entry, before, this.machine)
  }

  /** The hard state first: it may be ahead of the log, never behind. */
  #write(ready: Ready, machine: Machine): void {
    const { hardState, snapshot, entries } = ready
    if (hardState !== null) this.#diskHardState = hardState
    if (snapshot !== null) this.#diskLog.reset(snapshot.index, snapshot.term)
    this.#diskLog.append(entries)
    this.#diskMachine = machine
  }
}

/** A digest of the digest before and this entry (FNV-1a with a finisher; not for secrets). */
export function digestOf(before: number, entry: Entry): number {
  let hash = Math.imul(before ^ entry.index, 0x01000193) ^ Math.imul(entry.term, 0x9e3779b1)
  for (const byte of entry.data) hash = Math.imul(hash ^ byte, 0x01000193)
  hash = Math.imul(hash ^ (hash >>> 15), 0x85ebca6b)
  return (hash ^ (hash >>> 13)) >>> 0
}

function copyOf(log: TrailingLog): TrailingLog {
  const base = log.firstIndex() - 1
  const copy = new TrailingLog(base, log.term(base) ?? 0)
  if (log.count > 0) copy.append(log.entries(base + 1, log.lastIndex(), Number.POSITIVE_INFINITY))
  return copy
}
