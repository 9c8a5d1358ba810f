/**
 * Write leases as requests see them: recall from another holder, wait for what a dead one left behind, then a
 * command. A recall has a deadline, after which the asker hears EBUSY (rule L9); a dead holder ends by its
 * session. Requests are answered with TRY_AGAIN before their own time-out; the client repeats them.
 */
import { mark } from '../../../base/coverage.ts'
import { CHUNK_SIZE_BYTES } from '../../../base/units.ts'
import type { Timer } from '../../../platform/clock.ts'
import type { leaseMethods } from '../../../wire/messages/metadata.ts'
import type { ParamsOf, ResultOf } from '../../../wire/messages/method.ts'
import { dirtyIndexes } from '../../chunks/leases.ts'
import { type ChunkWaiters, WAIT_MS_MAX } from '../../control/replication/chunk-waiters.ts'
import type { Master } from '../../control/servers/master.ts'
import { wireError } from '../../errors.ts'
import { sizeRefusal } from '../../namespace/file-size.ts'
import { commandLevels } from '../../state/feature-levels.ts'
import { valueOf } from '../../state/result.ts'
import type { InodeRow, LeaseRow } from '../../state/rows.ts'
import type { LeasePublisher } from './file-system-service.ts'
import type { SessionService } from './session-service.ts'

type LeaseMethods = typeof leaseMethods
type Params<N extends keyof LeaseMethods> = ParamsOf<LeaseMethods, N>
type Result<N extends keyof LeaseMethods> = ResultOf<LeaseMethods, N>

const WAITER_COUNT_MAX = 10_000
/** Chunks that one command drops: some milliseconds. */
export const TRUNCATED_CHUNKS_MAX = 512
const STEPS_LEVEL = commandLevels['file.shrink']

interface Recall {
  readonly startedMs: number
  readonly waiters: Set<() => void>
}

export interface LeaseServiceParts {
  readonly master: Master
  readonly sessions: SessionService
  readonly waiters: ChunkWaiters
  /** Chunks that somebody waits for go first. */
  readonly lookFirst: (chunk: number) => void
  /** Nobody gets a lease of this file now. */
  readonly isTaken: (inode: number) => boolean
}

export class LeaseService implements LeasePublisher {
  readonly #parts: LeaseServiceParts
  readonly #recalls = new Map<number, Recall>()
  #waiterCount = 0

  constructor(parts: LeaseServiceParts) {
    this.#parts = parts
  }

  async acquire(session: number, params: Params<'lease.acquire'>): Promise<Result<'lease.acquire'>> {
    const { master, isTaken } = this.#parts
    const holder = this.#otherHolder(params.inode, session)
    if (holder !== undefined) {
      await this.#recall(holder)
      if (this.#otherHolder(params.inode, session) !== undefined) this.#refuseBusy(holder)
    }
    const file = master.state.inodes.get(params.inode)
    if (file !== undefined) await this.#awaitSize(file)
    if (isTaken(params.inode)) throw wireError('TRY_AGAIN', 'the file is being rolled back')
    const result = await master.log.propose({ type: 'lease.acquire', session, ...params })
    // Two asked for a free lease at once, or one came while the recall was answered: the next try recalls it.
    if ('error' in result && result.error === 'EBUSY') {
      mark('two clients asked for a free lease at once')
      throw wireError('TRY_AGAIN', 'somebody else was first')
    }
    return valueOf(result)
  }

  /** Close-to-open: the holder gives the lease back, which publishes size and times. Block exports keep theirs. */
  async publish(inode: number, session: number): Promise<void> {
    if (this.#parts.master.state.copies.get(inode)?.kind === 'rollback')
      throw wireError('TRY_AGAIN', 'the file is being rolled back')
    const holder = this.#otherHolder(inode, session)
    if (holder !== undefined && !holder.pinned) {
      await this.#recall(holder)
      // A size that the holder knows better would be an old file to the reader.
      if (this.#otherHolder(inode, session)?.lease === holder.lease) this.#refuseBusy(holder)
    }
    const file = this.#parts.master.state.inodes.get(inode)
    if (file !== undefined) await this.#awaitSize(file)
  }

  /** Resolves when nobody has the lease, or after a while. A block export keeps its lease (rule L5). */
  async recall(inode: number): Promise<void> {
    const holder = this.#otherHolder(inode, 0)
    if (holder === undefined) return
    if (holder.pinned)
      throw wireError('EBUSY', `inode ${inode} is exported as a block device: stop the export first`)
    await this.#recall(holder)
  }

  async update(session: number, params: Params<'lease.update'>): Promise<Result<'lease.update'>> {
    return valueOf(await this.#parts.master.log.propose({ type: 'lease.update', session, ...params }))
  }

  async release(session: number, params: Params<'lease.release'>): Promise<Result<'lease.release'>> {
    return valueOf(await this.#parts.master.log.propose({ type: 'lease.release', session, ...params }))
  }

  async return(session: number, params: Params<'lease.return'>): Promise<Result<'lease.return'>> {
    return valueOf(await this.#parts.master.log.propose({ type: 'lease.return', session, ...params }))
  }

  async truncate(session: number, params: Params<'lease.truncate'>): Promise<Result<'lease.truncate'>> {
    await this.#truncateInSteps(session, params)
    return valueOf(await this.#parts.master.log.propose({ type: 'lease.truncate', session, ...params }))
  }

  /**
   * Of very many chunks all but the last are cut off before, from the end on: whoever looks meanwhile, or whatever
   * is left by a client that dies meanwhile, sees a shorter file, never a hole.
   */
  async #truncateInSteps(session: number, params: Params<'lease.truncate'>): Promise<void> {
    const { log, state, clock } = this.#parts.master
    const { inode, lease, size, mutation: truncation } = params
    const file = state.inodes.get(inode)
    if (file === undefined || state.level.inForce < STEPS_LEVEL || sizeRefusal(file, size) !== undefined)
      return
    const untilMs = clock.nowMs() + WAIT_MS_MAX
    const keptCount = Math.ceil(size / CHUNK_SIZE_BYTES)
    for (const index of file.chunks.cuts(keptCount, TRUNCATED_CHUNKS_MAX)) {
      const cut = { session, lease, inode, size: index * CHUNK_SIZE_BYTES, truncation }
      const result = await log.propose({ type: 'file.shrink', ...cut })
      // The truncation itself says why, or that it is over.
      if ('error' in result) return
      if (clock.nowMs() > untilMs) throw wireError('TRY_AGAIN', 'the file is being cut step by step')
    }
  }

  async zeroed(session: number, params: Params<'lease.zeroed'>): Promise<Result<'lease.zeroed'>> {
    return valueOf(await this.#parts.master.log.propose({ type: 'lease.zeroed', session, ...params }))
  }

  async unmap(session: number, params: Params<'lease.unmap'>): Promise<Result<'lease.unmap'>> {
    return valueOf(await this.#parts.master.log.propose({ type: 'lease.unmap', session, ...params }))
  }

  /** Leases may have ended: whoever waits for one goes on. */
  leasesEnded(): void {
    for (const [lease, recall] of this.#recalls) {
      if (this.#parts.master.state.leases.has(lease)) continue
      this.#recalls.delete(lease)
      for (const wake of [...recall.waiters]) wake()
    }
  }

  /** It is back, and may not have heard. */
  sessionResumed(session: number): void {
    for (const lease of this.#parts.master.state.leasesBySession.get(session) ?? []) {
      const row = this.#parts.master.state.leases.get(lease)
      if (row !== undefined && this.#recalls.has(lease)) this.#sendRecall(row)
    }
  }

  /** Rule R2. One that is not connected does not write; an older one does not know it and goes on. */
  recallIntents(lease: number, chunks: readonly number[]): void {
    const row = this.#parts.master.state.leases.get(lease)
    if (row === undefined) return
    this.#parts.sessions.recallIntents(row.session, { inode: row.inode, lease, chunks: [...chunks] })
  }

  #otherHolder(inode: number, session: number): LeaseRow | undefined {
    const { state } = this.#parts.master
    const lease = state.leaseByInode.get(inode)
    const row = lease === undefined ? undefined : state.leases.get(lease)
    return row === undefined || row.session === session ? undefined : row
  }

  #refuseBusy(holder: LeaseRow): never {
    const recall = this.#recalls.get(holder.lease)
    const { master } = this.#parts
    const elapsedMs = recall === undefined ? 0 : master.clock.nowMs() - recall.startedMs
    if (elapsedMs < master.parameter('mds.lease.recall_tout')) {
      throw wireError('TRY_AGAIN', 'the lease is being recalled')
    }
    // The next asker starts a recall of its own.
    if (recall?.waiters.size === 0) this.#recalls.delete(holder.lease)
    mark('a recall takes too long')
    throw wireError('EBUSY', `inode ${holder.inode} is being written by session ${holder.session}`)
  }

  /** Resolves when the lease has ended, or after a while. */
  #recall(holder: LeaseRow): Promise<void> {
    const { master } = this.#parts
    let recall = this.#recalls.get(holder.lease)
    if (recall === undefined) {
      recall = { startedMs: master.clock.nowMs(), waiters: new Set() }
      this.#recalls.set(holder.lease, recall)
    }
    this.#sendRecall(holder)
    if (this.#waiterCount >= WAITER_COUNT_MAX)
      throw wireError('OVERLOADED', 'too many requests wait for leases')
    this.#waiterCount += 1
    const { waiters } = recall
    return new Promise((resolve) => {
      let timer: Timer | null = null
      const wake = () => {
        if (!waiters.delete(wake)) return
        timer?.cancel()
        this.#waiterCount -= 1
        resolve()
      }
      waiters.add(wake)
      timer = master.after(WAIT_MS_MAX, wake)
    })
  }

  #sendRecall(holder: LeaseRow): void {
    const { lease, inode, session } = holder
    const deadlineMs = this.#parts.master.parameter('mds.lease.recall_tout')
    this.#parts.sessions.recall(session, { inode, lease, deadlineMs })
  }

  /** Rule F8: the size is true only after what a dead holder may have appended was reconciled. */
  async #awaitSize(file: InodeRow): Promise<void> {
    const { master, waiters, lookFirst } = this.#parts
    const firstIndex = Math.floor(file.size / CHUNK_SIZE_BYTES)
    const tail = dirtyIndexes(master.state, file)
      .filter((index) => index >= firstIndex)
      .map((index) => file.chunks.get(index) ?? 0)
    if (tail.length === 0) return
    for (const chunk of tail) lookFirst(chunk)
    if (!(await waiters.wait(tail)))
      throw wireError('TRY_AGAIN', 'what a dead writer left is being reconciled')
  }
}
