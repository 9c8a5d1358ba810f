/**
 * A data request on its way through the store: admitted, ordered by the replica's queue, checked under
 * its lock, run, answered. Objects are pooled and their callbacks bound once, so that an operation whose
 * I/O is answered by the page cache allocates nothing of its own.
 *
 * Version, role and lease are checked when the operation *starts*, not when it arrives (rule E2).
 */
import { mark } from '../../base/coverage.ts'
import { assert } from '../../base/assert.ts'
import type { CairnError } from '../../base/errors.ts'
import { PAGE_SIZE_BYTES, PAGES_PER_REGION } from '../../base/units.ts'
import type { WireCode } from '../../wire/codes.ts'
import type { DataAnswer, DataOp, DataRequest } from '../../wire/data.ts'
import type { ChunkStore } from './chunk-store.ts'
import { wireCodeOfDiskError } from '../format/errors.ts'
import { AncestorHolds } from '../replica/ancestors.ts'
import type { Hold, QueuedOperation } from '../replica/operation-queue.ts'
import type { RegionWaiter } from '../replica/region-cache.ts'
import type { Replica } from '../replica/replica.ts'

/** Where answers go; the wire's DataResponder has this form. */
export interface DataReply {
  respond(
    borrowedAnswer: DataAnswer,
    borrowedTable: Uint32Array | Buffer | null,
    ownedPayload: Buffer | null,
  ): void
}

/** Counts what one connection has under way (rule E5: drain). */
export interface RequestOwner {
  requestDone(): void
}

type ReadThrough = 'nothing' | 'absent pages' | 'all pages'

export abstract class Operation implements QueuedOperation, RegionWaiter {
  protected readonly store: ChunkStore
  abstract readonly hold: Hold
  firstPage = 0
  lastPage = 0
  protected replica: Replica | null = null
  protected readonly request: DataRequest = emptyRequest()
  protected payload: Buffer | null = null
  #reply: DataReply | null = null
  #owner: RequestOwner | null = null
  #startedAtMs = 0
  #nextRegion = 0
  #lastRegion = 0
  /** Of an overlay only; made at its first use. */
  #ancestors: AncestorHolds | null = null
  /** Rule S2: which records it needs besides those of the replica itself. */
  protected readonly readsThrough: ReadThrough = 'nothing'
  /** It needs no records of regions that are known to be blank. */
  protected get takesBlank(): boolean {
    return false
  }

  constructor(store: ChunkStore) {
    this.store = store
  }

  /** Takes over the request; the payload moves here. */
  begin(
    request: DataRequest,
    replica: Replica,
    ownedPayload: Buffer | null,
    reply: DataReply,
    owner: RequestOwner | null,
  ): void {
    copyRequest(this.request, request)
    this.replica = replica
    this.payload = ownedPayload
    this.#reply = reply
    this.#owner = owner
    this.#startedAtMs = this.store.clock.nowMs()
    this.firstPage = Math.floor(request.offset / PAGE_SIZE_BYTES)
    this.lastPage =
      request.length === 0
        ? this.firstPage
        : Math.floor((request.offset + request.length - 1) / PAGE_SIZE_BYTES)
  }

  start(): void {
    const code = this.check()
    if (code !== '') this.answer(code)
    else this.run()
  }

  /** Under the lock. '' = go on. */
  protected abstract check(): WireCode | ''
  protected abstract run(): void
  /** Every touched region is in memory. */
  protected abstract onRegionsReady(): void
  /** Forgets everything of this request and goes back to its pool. */
  protected abstract recycle(): void

  get firstRegion(): number {
    return Math.floor(this.firstPage / PAGES_PER_REGION)
  }

  get lastRegion(): number {
    return Math.floor(this.lastPage / PAGES_PER_REGION)
  }

  protected get current(): Replica {
    assert(this.replica !== null, 'an operation under way has its replica')
    return this.replica
  }

  protected checkVersion(): WireCode | '' {
    const replica = this.current
    if (replica.deleted) return 'NO_REPLICA'
    if (this.request.version !== replica.state.version) {
      if (this.request.version > replica.state.version) this.store.events.onNewerVersion(replica)
      mark('an operation of another version is refused')
      return 'WRONG_VERSION'
    }
    if (replica.failure !== null) return wireCodeOfDiskError(replica.failure)
    return replica.damage === '' ? '' : 'DISK_FAILED'
  }

  protected prepareRegions(): void {
    this.#nextRegion = this.firstRegion
    this.#lastRegion = this.lastRegion
    if (this.#lastRegion - this.#nextRegion < 2) return this.#prepareNext()
    this.store.cache.readAhead(this.current, this.#nextRegion, this.#lastRegion, this.#prepareNext)
  }

  readonly #prepareNext = (): void => {
    const { cache } = this.store
    while (this.#nextRegion <= this.#lastRegion) {
      if (!this.#isReady(this.#nextRegion)) {
        cache.load(this.current, this.#nextRegion, this)
        return
      }
      this.#nextRegion++
    }
    if (this.current.parent === null || this.readsThrough === 'nothing') return this.onRegionsReady()
    this.holdAncestors(this.firstPage, this.lastPage, this.#onHeld)
  }

  #isReady(region: number): boolean {
    const { cache } = this.store
    if (cache.ready(this.current, region) !== null) return true
    return this.takesBlank && this.current.isBlank(region)
  }

  readonly #onHeld = (isHeld: boolean): void => {
    if (isHeld) this.onRegionsReady()
    else this.answer('OVERLOADED')
  }

  /** Until the answer, or `releaseAncestors`. */
  protected holdAncestors(firstPage: number, lastPage: number, done: (isHeld: boolean) => void): void {
    this.#ancestors ??= new AncestorHolds(this.store.cache)
    this.#ancestors.acquire(this.current, firstPage, lastPage, this.readsThrough === 'all pages', done)
  }

  protected releaseAncestors(): void {
    this.#ancestors?.release()
  }

  onRegion(error: CairnError | null): void {
    if (error !== null) {
      this.answer(wireCodeOfDiskError(error))
      return
    }
    this.#nextRegion++
    this.#prepareNext()
  }

  /** The queue of the replica is full: it was never in it. */
  refuseUnqueued(code: WireCode): void {
    this.answer(code)
  }

  protected answer(code: WireCode | '', flags = 0): void {
    this.answerWith(code, flags, this.request.offset, this.request.length, null, null)
  }

  /** Exactly once; ends the operation. */
  protected answerWith(
    code: WireCode | '',
    flags: number,
    offset: number,
    length: number,
    table: Uint32Array | Buffer | null,
    ownedPayload: Buffer | null,
  ): void {
    const replica = this.current
    const reply = this.#reply
    const owner = this.#owner
    if (this.payload !== null) this.store.pool.release(this.payload)
    this.payload = null
    this.#reply = null
    this.#owner = null
    this.store.respond(
      reply,
      this.request.op,
      replica.state.version,
      code,
      flags,
      offset,
      length,
      table,
      ownedPayload,
    )
    this.store.operationDone(this.#startedAtMs)
    this.#ancestors?.release()
    this.replica = null
    replica.queue.finish(this)
    owner?.requestDone()
    this.recycle()
  }
}

function emptyRequest(): DataRequest {
  return {
    op: 1 satisfies DataOp,
    flags: 0,
    version: 0,
    chunk: 0,
    lease: 0,
    session: 0,
    incarnation: 0,
    offset: 0,
    length: 0,
  }
}

function copyRequest(target: DataRequest, source: DataRequest): void {
  target.op = source.op
  target.flags = source.flags
  target.version = source.version
  target.chunk = source.chunk
  target.lease = source.lease
  target.session = source.session
  target.incarnation = source.incarnation
  target.offset = source.offset
  target.length = source.length
}
