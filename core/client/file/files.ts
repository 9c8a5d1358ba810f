/**
 * All inodes that this client has open or holds a lease of; gives leases back that nobody uses, tells the
 * master what was closed, and passes on what the master says (recall, moved chunks, invalidation).
 */
import { mark } from '../../base/coverage.ts'
import type { Timer } from '../../platform/clock.ts'
import type { Attributes, ChunkLocation, ServerAddress } from '../../wire/messages/common.ts'
import type { Engine } from '../session/engine.ts'
import { heldTooLong } from '../session/errors.ts'
import { withinHold } from '../session/hold.ts'
import { FileHandle } from './file-handle.ts'
import { FileState } from './file-state.ts'
import {
  LEASE_IDLE_CROWDED_MS,
  LEASE_IDLE_MS,
  LEASE_RETURNS_IN_PARALLEL_MAX,
  LEASES_MAX,
  RETURN_FLUSH_MS_MAX,
  SURRENDER_FLUSH_MS_MAX,
} from '../session/limits.ts'

const UNTOLD_ERRORS_MAX = 1024
const UNKNOWN_LEASES_MAX = 1024
const CLOSES_PER_CALL_MAX = 1024
/** Closes wait so long for others: the quorum only needs them to let go of unlinked files. */
const CLOSES_DELAY_MS = 50

export class Files {
  readonly #engine: Engine
  readonly #files = new Map<number, FileState>()
  /** Without a handle, and with an error that nobody was told. */
  readonly #untold = new Set<FileState>()
  /** Closed, and the master does not know. */
  #closing: number[] = []
  #closeTimer: Timer | null = null
  #returnsRunning = 0
  /** That were recalled and given back although nobody here knew of them. */
  readonly #unknownLeases = new Set<number>()
  /** Leases that are due to be given back, longest idle first. */
  #dueReturns: FileState[] = []

  constructor(engine: Engine) {
    this.#engine = engine
  }

  get(inode: number): FileState | undefined {
    return this.#files.get(inode)
  }

  get count(): number {
    return this.#files.size
  }

  /** Taken before a question: tells afterwards whether the answer may be older than what we know. */
  mark(): number {
    return this.#engine.eras.last
  }

  /** Attributes from the quorum with what our leases know better. */
  completed(attributes: Attributes, mark: number): Attributes {
    const file = this.#files.get(attributes.inode)
    if (file === undefined) return attributes
    if (file.era <= mark) file.learned(attributes)
    return file.attributes
  }

  /** `fs.open` or `fs.create` was answered. */
  opened(attributes: Attributes, mark: number): FileHandle {
    let file = this.#files.get(attributes.inode)
    if (file === undefined) {
      file = new FileState(this.#engine, attributes)
      this.#files.set(attributes.inode, file)
    } else {
      // Close-to-open (rule E4): what was fetched before is kept only if nothing has changed.
      if (!file.lease.hasNumber) {
        if (attributes.generation !== file.attributes.generation) file.readAhead.clear()
        file.locations.validate(attributes.generation)
      }
      this.completed(attributes, mark)
    }
    file.openCount++
    return new FileHandle(file, (closed) => this.#closed(closed))
  }

  unlinked(inode: number, links: number): void {
    const file = this.#files.get(inode)
    if (file !== undefined) file.learned({ ...file.attributes, links })
  }

  /** Lost a name in a rename. */
  replaced(inode: number): void {
    const file = this.#files.get(inode)
    if (file !== undefined) this.unlinked(inode, Math.max(0, file.attributes.links - 1))
  }

  #closed(file: FileState): void {
    file.openCount--
    this.#closing.push(file.inode)
    this.#maybeForget(file)
    if (this.#closing.length === CLOSES_PER_CALL_MAX) this.#maybeSendCloses()
    else this.#armCloses()
  }

  #armCloses(): void {
    this.#closeTimer ??= this.#engine.clock.setTimer(CLOSES_DELAY_MS, () => {
      this.#closeTimer = null
      this.#maybeSendCloses()
    })
  }

  /** Without a session on a connection they wait: its resumption says what is open. */
  #maybeSendCloses(): void {
    if (this.#engine.session.connected) this.#sendCloses()
    else this.#armCloses()
  }

  #sendCloses(): void {
    const all = this.#takeClosing()
    for (let at = 0; at < all.length; at += CLOSES_PER_CALL_MAX) {
      const inodes = all.slice(at, at + CLOSES_PER_CALL_MAX)
      this.#engine.session
        .call('fs.close', { inodes }, { endsWithLink: true })
        .catch((error: unknown) => this.#engine.logger.debug('close not answered', { error: String(error) }))
    }
  }

  #takeClosing(): readonly number[] {
    const all = this.#closing
    this.#closing = []
    this.#closeTimer?.cancel()
    this.#closeTimer = null
    return all
  }

  #maybeForget(file: FileState): void {
    if (file.handleCount > 0 || file.isBusy || file.lease.phase !== 'none') return
    // As Linux does: what nobody was told waits for the next open (rule F5).
    if (file.hasUntoldError && this.#keepUntold(file)) return
    this.#untold.delete(file)
    file.readAhead.clear()
    if (this.#files.get(file.inode) === file) this.#files.delete(file.inode)
  }

  #keepUntold(file: FileState): boolean {
    if (this.#untold.size >= UNTOLD_ERRORS_MAX && !this.#untold.has(file)) return false
    mark('a loss waits for the next open')
    this.#untold.add(file)
    return true
  }

  /** For `session.resume`: one entry for each open. Closes that were not told yet are told by this. */
  openInodes(): number[] {
    this.#takeClosing()
    const inodes: number[] = []
    for (const file of this.#files.values()) for (let i = 0; i < file.openCount; i++) inodes.push(file.inode)
    return inodes
  }

  // --- what the master says ---

  /** Rule L9. Answered at once; the release says that it is done. */
  recalled(inode: number, lease: number, deadlineMs: number): void {
    const file = this.#files.get(inode)
    if (file === undefined || file.leaseNumber !== lease) {
      // Its number is on the way, or nobody here knows of it (any more): nobody else would ever give it back.
      if (file?.lease.phase !== 'acquiring') this.#giveBackUnknown(inode, lease)
      return
    }
    if (file.pinned) {
      // Rule L5: a living block export keeps its lease; who asks is told "busy".
      this.#engine.logger.info('recall of a pinned lease refused', { inode, lease })
      return
    }
    file.lease.giveBack(deadlineMs).then(
      () => this.#maybeForget(file),
      (error: unknown) => this.#engine.logger.warn('recall not obeyed', { inode, error: String(error) }),
    )
  }

  /** What was under it has failed long since (rule E3), or it came with a file whose creator is told later. */
  #giveBackUnknown(inode: number, lease: number): void {
    if (this.#unknownLeases.has(lease)) return
    mark('a lease that its holder does not know is given back')
    for (const oldest of this.#unknownLeases) {
      if (this.#unknownLeases.size < UNKNOWN_LEASES_MAX) break
      this.#unknownLeases.delete(oldest)
    }
    this.#unknownLeases.add(lease)
    this.#engine.leaseReturns.give(inode, lease).catch((error: unknown) => {
      // Asked for again, it is tried again; most often it has ended already.
      this.#unknownLeases.delete(lease)
      this.#engine.logger.info('unknown lease not returned', { inode, lease, error: String(error) })
    })
  }

  /** Whoever is told of this lease now is told too late. */
  hasGivenBack(lease: number): boolean {
    return this.#unknownLeases.has(lease)
  }

  /** Rule R2: these chunks are to be compared. Writers wait for a moment, and ask for their intents again. */
  intentsRecalled(inode: number, lease: number, chunks: readonly number[]): void {
    const file = this.#files.get(inode)
    if (file === undefined || file.leaseNumber !== lease || file.lease.isReturning) return
    const writers = [...file.writers.values()].filter(
      ({ phase, chunk }) => phase === 'active' && chunks.includes(chunk),
    )
    file.intents.surrender(writers, SURRENDER_FLUSH_MS_MAX).catch((error: unknown) => {
      this.#engine.logger.info('intents not given up', { inode, error: String(error) })
    })
  }

  /** Rule S1. Answered at once; that the intents are gone says that it is done. */
  paused(inode: number, lease: number, deadlineMs: number): void {
    const file = this.#files.get(inode)
    if (file === undefined || file.leaseNumber !== lease) return
    file.lease.pause(deadlineMs).catch((error: unknown) => {
      this.#engine.logger.warn('pause not obeyed', { inode, error: String(error) })
    })
  }

  moved(inode: number, locations: readonly ChunkLocation[], servers: readonly ServerAddress[]): void {
    this.#engine.pool.updateAddresses(servers)
    const file = this.#files.get(inode)
    if (file === undefined) return
    for (const location of locations) {
      const writer = file.writers.get(location.index)
      if (writer === undefined || !writer.hasIntent) file.locations.forget(location.index)
      else writer.located(location)
    }
  }

  /** Somebody else changed these. What we hold the lease of nobody else changes. */
  invalidated(all: boolean, inodes: readonly number[]): void {
    const files = all ? [...this.#files.values()] : inodes.map((inode) => this.#files.get(inode))
    for (const file of files) {
      file?.publishedElsewhere()
      if (file === undefined || file.lease.hasNumber) continue
      file.locations.clear()
      file.readAhead.clear()
    }
  }

  /** Rule E3. Open files are declared to the new session, so that unlinked ones stay. */
  sessionExpired(): void {
    this.#takeClosing()
    for (const file of [...this.#files.values()]) {
      file.leaseEnded('session expired')
      file.locations.clear()
      file.readAhead.clear()
      file.openCount = 0
      for (let i = 0; i < file.handleCount; i++) void this.#openAgain(file)
    }
  }

  async #openAgain(file: FileState): Promise<void> {
    const mark = this.mark()
    try {
      const { attributes } = await this.#engine.session.call('fs.open', {
        inode: file.inode,
        truncate: false,
      })
      file.openCount++
      this.completed(attributes, mark)
    } catch (error) {
      this.#engine.logger.warn('file not opened again', { inode: file.inode, error: String(error) })
    }
  }

  // --- housekeeping ---

  /** Called about once a second. */
  tend(nowMs: number): void {
    let leases = 0
    for (const file of this.#files.values()) if (file.lease.isHeld) leases++
    const due: FileState[] = []
    for (const file of [...this.#files.values()]) {
      if (this.#engine.holdTimeoutMs > 0) this.#giveUpHeld(file, nowMs)
      if (!file.lease.isHeld) this.#maybeForget(file)
      else if (isIdle(file, nowMs, leases > LEASES_MAX)) due.push(file)
    }
    this.#dueReturns = due
    this.#startReturns()
  }

  /** Space is short: every lease without an open handle goes back now, with the space promised to it. */
  returnIdle(): boolean {
    if (this.#dueReturns.length === 0) {
      const isClosed = (file: FileState): boolean =>
        file.lease.isHeld && !file.lease.isReturning && file.handleCount === 0 && !file.isBusy
      this.#dueReturns = [...this.#files.values()].filter(isClosed)
      this.#startReturns()
    }
    return this.#returnsRunning > 0
  }

  #giveUpHeld(file: FileState, nowMs: number): void {
    const holdMs = this.#engine.holdTimeoutMs
    for (const write of [...file.unfinishedWrites]) {
      if (nowMs - write.startedMs < holdMs) break
      write.giveUp(heldTooLong(holdMs))
    }
    file.gate.giveUpBefore(nowMs - holdMs, heldTooLong(holdMs))
  }

  #startReturns(): void {
    while (this.#returnsRunning < LEASE_RETURNS_IN_PARALLEL_MAX) {
      const file = this.#dueReturns.shift()
      if (file === undefined) return
      if (file.isBusy || !file.lease.isHeld || file.lease.isReturning) continue
      if (!file.pinned) {
        this.#run(file, file.lease.giveBack(RETURN_FLUSH_MS_MAX))
        continue
      }
      // The lease stays; its intents need not (they make a take-over expensive).
      const idle = [...file.writers.values()].filter((writer) => writer.phase === 'active' && !writer.isBusy)
      if (idle.length > 0) this.#run(file, file.intents.surrender(idle, SURRENDER_FLUSH_MS_MAX))
    }
  }

  #run(file: FileState, task: Promise<void>): void {
    this.#returnsRunning++
    task
      .catch((error: unknown) => {
        file.lastWriteMs = this.#engine.clock.nowMs()
        this.#engine.logger.info('lease not returned', { inode: file.inode, error: String(error) })
      })
      .finally(() => {
        this.#returnsRunning--
        this.#maybeForget(file)
        this.#startReturns()
      })
  }

  /** Gives back everything; for the end of the client. Errors are collected. */
  async close(): Promise<void> {
    const errors: unknown[] = []
    for (const file of [...this.#files.values()]) {
      file.pinned = false
      try {
        await withinHold(this.#engine, file.lease.giveBack(this.#engine.holdTimeoutMs))
      } catch (error) {
        errors.push(error)
      }
      file.readAhead.clear()
    }
    this.#sendCloses()
    if (errors.length > 0) throw errors[0]
  }
}

function isIdle(file: FileState, nowMs: number, crowded: boolean): boolean {
  if (file.isBusy || file.lease.isReturning) return false
  const idleMs = crowded ? LEASE_IDLE_CROWDED_MS : LEASE_IDLE_MS
  if (nowMs - file.lastWriteMs < idleMs) return false
  // What an earlier try began still runs: writes need not wait for it again (rule A3).
  for (const { flusher } of file.writers.values()) if (flusher.isRunning) return false
  return true
}
