/**
 * The chunk store: replicas of chunks in one directory of one disk. This file holds what every
 * operation needs: admission, accounts of what is unsynced, background write-back, errors of the disk.
 * Opening and recovery: store-open.ts. Orders of the metadata server: replica-control.ts.
 *
 * Promises: what was answered under (version, role, lease) was allowed by the durable record of the
 * replica at that moment; what `flush` answered survives power loss; pages that do not verify are never
 * handed out. It does not know connections, clients or metadata servers.
 */
import { assert } from '../../base/assert.ts'
import type { BufferPool } from '../../base/buffer-pool.ts'
import { CairnError, codeOf } from '../../base/errors.ts'
import { PAGES_PER_REGION, REGION_SIZE_BYTES } from '../../base/units.ts'
import type { Clock } from '../../platform/clock.ts'
import type { Disk } from '../../platform/disk.ts'
import type { Logger } from '../../platform/logger.ts'
import type { WireCode } from '../../wire/codes.ts'
import { type DataAnswer, DataOp, type DataRequest } from '../../wire/data.ts'
import { ownerOf, withOverlays } from '../replica/ancestors.ts'
import { StoreCounters } from '../replica/counters.ts'
import { isMarked, type MarkWaiter, ReplicaMarks } from '../replica/open-list.ts'
import type { DataReply, Operation, RequestOwner } from './operation.ts'
import { OperationPools } from './operation-pools.ts'
import { RegionCache, type RegionCacheEvents } from '../replica/region-cache.ts'
import { PageState, type RegionRecords } from '../format/region-records.ts'
import type { ReplicaLog } from '../format/replica-log.ts'
import { GrownReplicas } from '../replica/grown-replicas.ts'
import { Replica } from '../replica/replica.ts'
import { StateFlag } from '../format/replica-state.ts'
import { type SyncHost, SyncScheduler, type SyncWaiter } from '../replica/replica-sync.ts'
import type { Superblock, UncleanStop } from '../format/superblock.ts'
import type { SuperblockKeeper } from '../format/superblock-keeper.ts'
import { StoreSpace } from '../replica/store-space.ts'
import { validateRequest } from './validate.ts'
import { VerifiedTimes } from '../replica/verified-times.ts'
import { WriteBack } from '../replica/write-back.ts'
import { type PulledBase, WriteOperation } from './write-operations.ts'

/** Failed writes and syncs after which nothing more is written on the disk (rule F7). */
const WRITE_ERRORS_MAX = 3
/** An answer from the disk that takes longer: flag T. */
const SLOW_IO_MS = 30_000

export interface StoreEvents {
  onBadPages(chunk: number, version: number, pages: number[], reason: string): void
  onBadReplica(chunk: number, version: number, reason: string): void
  /** A request carried a higher version than the replica has (rule E1): ask the metadata server. */
  onNewerVersion(replica: Replica): void
}

export type BasePull = (
  replica: Replica,
  page: number,
  /** Both null: no sources are known yet; `sourcesKnown` of the waiter comes. */
  callback: (error: CairnError | null, base: PulledBase | null) => void,
) => void

export interface StoreParts {
  readonly disk: Disk
  readonly clock: Clock
  readonly logger: Logger
  readonly pool: BufferPool
  readonly log: ReplicaLog
  readonly superblock: SuperblockKeeper
  readonly uncleanStop: UncleanStop
  readonly replicas: Map<number, Replica>
}

export class ChunkStore implements SyncHost, RegionCacheEvents {
  readonly disk: Disk
  readonly clock: Clock
  readonly logger: Logger
  readonly pool: BufferPool
  readonly log: ReplicaLog
  readonly counters: StoreCounters
  readonly cache: RegionCache
  readonly syncs: SyncScheduler
  readonly writeBack: WriteBack
  readonly #space: StoreSpace
  readonly grown = new GrownReplicas()
  readonly verified: VerifiedTimes
  readonly replicas: Map<number, Replica>
  readonly uncleanStop: UncleanStop
  readonly superblocks: SuperblockKeeper
  events: StoreEvents = { onBadPages() {}, onBadReplica() {}, onNewerVersion() {} }
  basePull: BasePull = (_replica, _page, callback) => callback(null, null)
  /** Rule L2: false while the metadata server has not been heard of for a session time-out. */
  isInTouch: () => boolean = () => true
  /** The server stops: nothing more is admitted. */
  closing = false
  /**
   * The disk is given up for writing: nothing is changed, created or flushed any more. Replicas that did not
   * fail themselves still serve reads and sources: one may be the last in sync of its chunk (rules R1, G2).
   */
  failure: CairnError | null = null
  #writeErrorCount = 0
  checksumErrorSeen = false

  readonly operations = new OperationPools(this)
  readonly #answer: DataAnswer

  constructor(parts: StoreParts) {
    this.disk = parts.disk
    this.clock = parts.clock
    this.logger = parts.logger
    this.pool = parts.pool
    this.log = parts.log
    this.superblocks = parts.superblock
    this.uncleanStop = parts.uncleanStop
    this.replicas = parts.replicas
    this.counters = new StoreCounters(parts.clock)
    this.verified = new VerifiedTimes(parts.clock)
    this.cache = new RegionCache(parts.disk, parts.pool, this)
    this.syncs = new SyncScheduler(this)
    this.log.onFailure = (error) => this.fail(error)
    this.writeBack = new WriteBack(parts.clock, this.syncs)
    this.#space = new StoreSpace(parts.disk, parts.logger)
    this.#answer = {
      op: DataOp.read,
      flags: 0,
      code: '',
      version: 0,
      incarnation: this.superblock.incarnation,
      crashes: this.superblock.crashes,
      offset: 0,
      length: 0,
    }
  }

  get superblock(): Superblock {
    return this.superblocks.superblock
  }

  get incarnation(): number {
    return this.superblock.incarnation
  }

  get checksums(): boolean {
    return this.superblock.checksums
  }

  nowMs(): number {
    return this.clock.nowMs()
  }

  /** One data request. Answers through `reply`, exactly once, maybe before it returns. */
  submit(
    request: DataRequest,
    borrowedTable: Buffer,
    ownedPayload: Buffer | null,
    reply: DataReply,
    owner: RequestOwner | null,
  ): void {
    this.counters.queueDepth++
    const replica = this.replicas.get(request.chunk)
    const code = validateRequest(request, borrowedTable, ownedPayload)
    const isGivenUp = this.failure !== null && changesDisk(request.op)
    if (code !== '' || replica === undefined || isGivenUp || this.closing) {
      if (ownedPayload !== null) this.pool.release(ownedPayload)
      const reason = this.closing ? 'STARTING' : replica === undefined ? 'NO_REPLICA' : 'DISK_FAILED'
      const refusal = code === '' ? reason : code
      return this.#refuse(request, replica, reply, owner, refusal)
    }
    const operation = this.operations.take(request.op)
    operation.begin(request, replica, ownedPayload, reply, owner)
    if (operation instanceof WriteOperation) operation.keepChecksums(borrowedTable)
    const mutates = changesDisk(request.op) && request.op !== DataOp.flush
    // Rule E9: nothing overtakes what waits for the disk.
    if (!mutates || !(this.writeBack.isOverloaded || this.writeBack.hasStalled))
      return this.#admit(operation, replica)
    const isWaiting = this.writeBack.stall(() => this.#admit(operation, replica))
    if (!isWaiting) operation.refuseUnqueued('OVERLOADED')
  }

  #admit(operation: Operation, replica: Replica): void {
    if (!replica.queue.submit(operation)) operation.refuseUnqueued('OVERLOADED')
  }

  #refuse(
    request: DataRequest,
    replica: Replica | undefined,
    reply: DataReply,
    owner: RequestOwner | null,
    code: WireCode,
  ): void {
    const version = replica?.state.version ?? 0
    this.respond(reply, request.op, version, code, 0, request.offset, request.length, null, null)
    this.counters.queueDepth--
    owner?.requestDone()
  }

  respond(
    reply: DataReply | null,
    op: DataOp,
    version: number,
    code: string,
    flags: number,
    offset: number,
    length: number,
    table: Uint32Array | Buffer | null,
    ownedPayload: Buffer | null,
  ): void {
    const answer = this.#answer
    answer.op = op
    answer.flags = flags
    answer.code = code
    answer.version = version
    answer.incarnation = this.superblock.incarnation
    answer.crashes = this.superblock.crashes
    answer.offset = offset
    answer.length = length
    reply?.respond(answer, table, ownedPayload)
  }

  operationDone(startedAtMs: number): void {
    const nowMs = this.clock.nowMs()
    this.counters.queueDepth--
    this.counters.latency.add(nowMs - startedAtMs, nowMs)
  }

  loadedRegion(replica: Replica, region: number): RegionRecords {
    const records = replica.regions?.[region] ?? null
    assert(records !== null, 'the regions of an operation under way stay in memory')
    return records
  }

  touch(replica: Replica, records: RegionRecords): void {
    // remembered until the process ends: a sync would fail, and take the replica with it
    if (this.failure !== null) return
    this.writeBack.touch(replica, records)
  }

  wrote(replica: Replica, bytes: number): void {
    this.#space.wrote(bytes)
    this.writeBack.wrote(replica, bytes)
  }

  /** Rule F8: the highest written byte, for the recovery of a file's size. */
  extendWritten(replica: Replica, begin: number, end: number): void {
    for (let region = Math.floor(begin / REGION_SIZE_BYTES); region * REGION_SIZE_BYTES < end; region++) {
      const writtenEnd = Math.min(end - region * REGION_SIZE_BYTES, REGION_SIZE_BYTES)
      this.loadedRegion(replica, region).extendWritten(writtenEnd)
      replica.writtenEnds?.extend(region, writtenEnd)
    }
  }

  mark(replica: Replica, waiter: MarkWaiter): void {
    replica.marks ??= new ReplicaMarks(replica, this.log)
    replica.marks.add(waiter)
  }

  sync(replica: Replica, waiter: SyncWaiter | null, force = false): void {
    this.syncs.request(replica, waiter, force)
  }

  pullBase(
    replica: Replica,
    page: number,
    callback: (error: CairnError | null, base: PulledBase | null) => void,
  ): void {
    this.basePull(replica, page, callback)
  }

  /**
   * Pages under the caller's lock that do not verify: not good until repaired (rule R1); one that an overlay reads
   * through in both, each is repaired for itself. In an overlay only where the region is open (`openForFinding`).
   */
  markBad(replica: Replica, pages: number[], reason: string): void {
    for (const page of pages) {
      const owner = ownerOf(replica, page)
      const region = Math.floor(page / PAGES_PER_REGION)
      const records = owner?.region(region) ?? null
      if (owner === null || records === null) continue
      records.setState(page % PAGES_PER_REGION, PageState.bad)
      if (owner.parent === null || isMarked(owner, region, region)) this.touch(owner, records)
      if (owner !== replica) this.events.onBadPages(owner.chunk, owner.state.version, [page], reason)
    }
    this.reportBad(replica, pages, reason)
  }

  /** `isFault`: found here and now, by what this disk gave. */
  reportBad(replica: Replica, pages: number[], reason: string, isFault = true): void {
    if (isFault) this.counters.badChunk(replica.chunk)
    this.counters.checksumErrors += pages.length
    this.checksumErrorSeen = true
    this.logger.warn('bad pages', { chunk: replica.chunk, page: pages[0], count: pages.length, reason })
    this.events.onBadPages(replica.chunk, replica.state.version, pages, reason)
  }

  onDamage(replica: Replica, reason: string): void {
    this.logger.error('replica is damaged', { chunk: replica.chunk, reason })
    this.#reportBadReplica(replica, reason)
  }

  /** Rule S3: with everything that reads through it. */
  #reportBadReplica(replica: Replica, reason: string): void {
    for (const { chunk, state } of withOverlays(replica)) {
      this.events.onBadReplica(chunk, state.version, reason)
    }
  }

  onFilesFull(): void {
    this.writeBack.start()
  }

  /** Rule R1: costs what could not be read, never the disk. */
  onReadError(replica: Replica, error: CairnError): void {
    this.counters.ioErrors++
    this.logger.error('disk error', { chunk: replica.chunk, code: error.code, reason: error.message })
  }

  onWriteError(replica: Replica, error: CairnError): void {
    this.onReadError(replica, error)
    if (++this.#writeErrorCount >= WRITE_ERRORS_MAX) this.fail(error)
  }

  /** A write failed. A full disk leaves old records over old pages; anything else fails the replica (F7). */
  writeFailed(replica: Replica, error: CairnError): void {
    if (codeOf(error) === 'DISK_NO_SPACE') {
      this.#space.isFull = true
      return
    }
    this.onWriteError(replica, error)
    this.#failReplica(replica, error)
  }

  onSyncFailed(replica: Replica, error: CairnError): void {
    if (replica.deleted) return
    if (codeOf(error) === 'DISK_NO_SPACE') this.#space.isFull = true
    else this.onWriteError(replica, error)
    this.#failReplica(replica, error)
  }

  #failReplica(replica: Replica, error: CairnError): void {
    if (replica.failure !== null) return
    replica.failure = error
    for (const state of [replica.logged, replica.state]) {
      state.flags |= StateFlag.unclean | StateFlag.failed
      state.openLow = -1
      state.openHigh = -1
    }
    this.log.append(replica.chunk, replica.logged, null)
    this.writeBack.drop(replica)
    this.#reportBadReplica(replica, `disk error: ${error.message}`.slice(0, 128))
  }

  /** Gives up the whole disk for writing; the process stays up to say so, and to be read from. */
  fail(error: CairnError): void {
    if (this.failure !== null) return
    this.failure = error
    this.logger.error('the disk is given up', { code: error.code, reason: error.message })
    this.writeBack.releaseStalled()
  }

  onSyncBegins(replica: Replica): void {
    this.writeBack.syncBegins(replica)
  }

  onCleaned(bytes: number, regions: number): void {
    this.writeBack.cleaned(bytes, regions)
  }

  onSyncDone(): void {
    this.writeBack.syncDone()
  }

  refreshSpace(): void {
    this.#space.refresh()
  }

  /** Rule A2. */
  get isFull(): boolean {
    return this.#space.isFull
  }

  get space(): { totalBytes: number; freeBytes: number } {
    return this.#space.report
  }

  /** In sync, as far as this server knows: it can be verified and compared. */
  readonly isVerifiable = (chunk: number): boolean => this.replicas.get(chunk)?.isVerifiable === true

  get oldestIoAgeMs(): number {
    const nowMs = this.clock.nowMs()
    return Math.max(this.syncs.oldestAgeMs(nowMs), this.log.oldestAgeMs(nowMs))
  }

  /** Letters of the guide: C checksums on; H I/O error, h checksum mismatch, T disk does not answer. */
  get flags(): string {
    let flags = this.checksums ? 'C' : ''
    if (this.counters.ioErrors > 0 || this.failure !== null || this.log.failure !== null) flags += 'H'
    if (this.checksumErrorSeen) flags += 'h'
    if (this.oldestIoAgeMs > SLOW_IO_MS) flags += 'T'
    return flags
  }
}

function changesDisk(op: DataOp): boolean {
  return op === DataOp.write || op === DataOp.zero || op === DataOp.flush
}
