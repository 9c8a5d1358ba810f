/**
 * Flush of one replica: images of the changed page records into their alternate slots, then one
 * fdatasync of the chunk file. Requests that arrive while a sync runs share the next one. The first sync
 * also makes the directory entry durable and records *written* (rules E12, F8).
 *
 * After any error the replica never says OK again until it joined (rule F7).
 */
import { CairnError } from '../../base/errors.ts'
import type { BufferPool } from '../../base/buffer-pool.ts'
import { REGIONS_PER_CHUNK } from '../../base/units.ts'
import type { Disk } from '../../platform/disk.ts'
import {
  chunkDirectory,
  encodeHeader,
  hasRegionBit,
  regionSlotPosition,
  SLOT_BYTES,
} from '../format/chunk-layout.ts'
import type { StoreCounters } from './counters.ts'
import type { LogWaiter, ReplicaLog } from '../format/replica-log.ts'
import type { Replica } from './replica.ts'
import { StateFlag } from '../format/replica-state.ts'

/** Syncs under way at once; one disk has one queue, and the replica log must get its turn. */
const RUNNING_COUNT_MAX = 4

export interface SyncWaiter {
  onSynced(error: CairnError | null): void
}

export interface SyncHost {
  readonly disk: Disk
  readonly pool: BufferPool
  readonly log: ReplicaLog
  readonly counters: StoreCounters
  nowMs(): number
  /** What is dirty now is on its way. */
  onSyncBegins(replica: Replica): void
  /** Bytes whose sync has ended, regions whose records are written, leave the account of the store. */
  onCleaned(bytes: number, regions: number): void
  onSyncFailed(replica: Replica, error: CairnError): void
  onSyncDone(): void
}

export class SyncScheduler {
  readonly host: SyncHost
  readonly #ready: ReplicaSync[] = []
  readonly #running = new Set<ReplicaSync>()
  /** Of the 256 directories, never removed: those whose own entry was synced since the start. */
  readonly durableDirectories = new Set<string>()

  constructor(host: SyncHost) {
    this.host = host
  }

  /** Calls back when everything applied before the call is durable. `force`: sync even when clean (F1). */
  request(replica: Replica, waiter: SyncWaiter | null, force = false): void {
    if (replica.failure !== null || replica.damage !== '' || replica.deleted) {
      const error = replica.failure ?? new CairnError('DISK_FAILED', replica.damage || 'deleted')
      waiter?.onSynced(error)
      return
    }
    const clean = replica.dirtyRegionCount === 0 && replica.unflushedBytes === 0 && !force
    if (clean && replica.sync?.busy !== true) {
      waiter?.onSynced(null)
      return
    }
    replica.sync ??= new ReplicaSync(replica, this)
    replica.sync.request(waiter, !clean)
  }

  /** Age of the oldest sync that has not come back (flag T). */
  oldestAgeMs(nowMs: number): number {
    let oldest = 0
    for (const sync of this.#running) oldest = Math.max(oldest, nowMs - sync.startedAtMs)
    return oldest
  }

  /** Resolves when no sync of the replica is queued or running: its file may be closed. */
  idle(replica: Replica): Promise<void> {
    const sync = replica.sync
    if (sync?.busy !== true) return Promise.resolve()
    return new Promise((resolve) => sync.onIdle(resolve))
  }

  get runningCount(): number {
    return this.#running.size + this.#ready.length
  }

  enqueue(sync: ReplicaSync): void {
    this.#ready.push(sync)
    this.#startSome()
  }

  done(sync: ReplicaSync): void {
    this.#running.delete(sync)
    this.#startSome()
    this.host.onSyncDone()
  }

  #startSome(): void {
    while (this.#running.size < RUNNING_COUNT_MAX) {
      const sync = this.#ready.shift()
      if (sync === undefined) return
      this.#running.add(sync)
      sync.start()
    }
  }
}

export class ReplicaSync implements LogWaiter {
  readonly #replica: Replica
  readonly #scheduler: SyncScheduler
  readonly #host: SyncHost
  #current: SyncWaiter[] = []
  #next: SyncWaiter[] = []
  #again = false
  #state: 'idle' | 'queued' | 'running' = 'idle'
  #image: Buffer | null = null
  readonly #vector: Buffer[] = []
  #region = 0
  #bytes = 0
  readonly #idleCallbacks: (() => void)[] = []
  startedAtMs = 0

  constructor(replica: Replica, scheduler: SyncScheduler) {
    this.#replica = replica
    this.#scheduler = scheduler
    this.#host = scheduler.host
  }

  onIdle(callback: () => void): void {
    this.#idleCallbacks.push(callback)
  }

  get busy(): boolean {
    return this.#state !== 'idle'
  }

  request(waiter: SyncWaiter | null, needed: boolean): void {
    if (this.#state === 'running') {
      // what runs may have begun before the caller's last write: only the next one covers it,
      // unless nothing changed since and the running one takes care of all
      if (needed) this.#again = true
      if (waiter !== null) (needed ? this.#next : this.#current).push(waiter)
      return
    }
    if (waiter !== null) this.#current.push(waiter)
    if (this.#state === 'queued') return
    this.#state = 'queued'
    this.#scheduler.enqueue(this)
  }

  start(): void {
    this.#state = 'running'
    this.startedAtMs = this.#host.nowMs()
    this.#host.counters.syncBegins()
    const replica = this.#replica
    if (replica.deleted || replica.failure !== null) {
      return this.#complete(replica.failure ?? new CairnError('DISK_NOT_FOUND', 'the replica is deleted'))
    }
    if (replica.file === null) return this.#complete(null)
    this.#image = this.#host.pool.acquire(SLOT_BYTES)
    this.#vector[0] = this.#image
    this.#host.onSyncBegins(replica)
    this.#bytes = replica.unflushedBytes
    replica.unflushedBytes = 0
    this.#region = 0
    this.#writeNext(null)
  }

  /** Also the callback of the write before. */
  readonly #writeNext = (error: CairnError | null): void => {
    const replica = this.#replica
    const image = this.#image
    if (error !== null || image === null) return this.#complete(error)
    for (; this.#region < REGIONS_PER_CHUNK; this.#region++) {
      const records = replica.region(this.#region)
      if (records?.dirty !== true) continue
      records.encodeNext(image)
      records.dirty = false
      replica.dirtyRegionCount--
      this.#host.onCleaned(0, 1)
      const bit = 1 << (this.#region & 31)
      const { header } = replica
      // after a crash the records may be there without their bit
      if (!hasRegionBit(header.presentLow, header.presentHigh, this.#region)) this.#headerChanged = true
      if (this.#region < 32) header.presentLow |= bit
      else header.presentHigh |= bit
      const position = regionSlotPosition(this.#region, records.sequence % 2)
      this.#region++
      replica.file?.write(this.#vector, position, this.#writeNext)
      return
    }
    this.#writeHeader(image)
  }

  #headerChanged = false

  /** Only when a region got its first records, or the file is new. */
  #writeHeader(image: Buffer): void {
    const replica = this.#replica
    if (!this.#headerChanged && !replica.rewrite && replica.header.sequence > 0) return this.#sync(null)
    if (!replica.state.isOverlay) return this.#encodeHeader(image)
    // Rule S2: a region that the header promises was flushed once. One that it does not is all absent, also when a
    // loss of power left half of its first image: of a flat replica such pages are adopted (rule P1).
    replica.file?.sync((error) => {
      if (error === null) this.#encodeHeader(image)
      else this.#complete(error)
    })
  }

  #encodeHeader(image: Buffer): void {
    const replica = this.#replica
    this.#headerChanged = false
    replica.header.sequence++
    encodeHeader(image, replica.chunk, replica.header)
    replica.file?.write(this.#vector, (replica.header.sequence % 2) * SLOT_BYTES, this.#sync)
  }

  readonly #sync = (error: CairnError | null): void => {
    if (error !== null) return this.#complete(error)
    this.#replica.file?.sync(this.#onFileSynced)
  }

  readonly #onFileSynced = (error: CairnError | null): void => {
    const replica = this.#replica
    // Rule B3: also where nothing is marked any more, a disk that goes back over what was synced is recognised.
    if (error === null) this.#host.log.maybeTick()
    if (error !== null || replica.isWritten) return this.#complete(error)
    const { disk } = this.#host
    const directory = chunkDirectory(replica.chunk)
    disk.syncDirectory(directory, (directoryError) => {
      if (directoryError !== null) return this.#complete(directoryError)
      if (this.#scheduler.durableDirectories.has(directory)) return this.#logWritten()
      disk.syncDirectory('chunks', (parentError) => {
        if (parentError !== null) return this.#complete(parentError)
        this.#scheduler.durableDirectories.add(directory)
        this.#logWritten()
      })
    })
  }

  #logWritten(): void {
    const replica = this.#replica
    replica.logged.flags |= StateFlag.written
    this.#host.log.append(replica.chunk, replica.logged, this)
  }

  /** *written* is durable. */
  onLogged(error: CairnError | null): void {
    if (error === null) this.#replica.state.flags |= StateFlag.written
    else this.#replica.logged.flags &= ~StateFlag.written
    this.#complete(error)
  }

  #complete(error: CairnError | null): void {
    if (this.#image !== null) this.#host.pool.release(this.#image)
    this.#image = null
    this.#vector.length = 0
    this.#host.counters.syncEnds()
    this.#host.onCleaned(this.#bytes, 0)
    this.#bytes = 0
    if (error !== null && !this.#replica.deleted) this.#host.onSyncFailed(this.#replica, error)
    const waiters = this.#current
    this.#current = this.#next
    this.#next = []
    this.#state = 'idle'
    const again = this.#again
    this.#again = false
    for (const waiter of waiters) waiter.onSynced(error)
    if (again) this.#continue(error)
    if (!this.busy) for (const callback of this.#idleCallbacks.splice(0)) callback()
    this.#scheduler.done(this)
  }

  #continue(error: CairnError | null): void {
    if (error !== null) {
      const late = this.#current
      this.#current = []
      for (const waiter of late) waiter.onSynced(error)
      return
    }
    if (this.#state !== 'idle') return
    this.#state = 'queued'
    this.#scheduler.enqueue(this)
  }
}
