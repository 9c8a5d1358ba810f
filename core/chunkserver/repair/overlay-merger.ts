/**
 * Merging overlays in the background (rule S5): region by region what the parent has and the overlay lacks is taken
 * over; then the overlay reads through the parent's parent, or is flat. One merge at a time, so that no chain changes
 * in its middle; between two regions clients come first. Progress is in the pages themselves: after a restart it is
 * asked for again and finds less to do.
 */
import { CairnError, codeOf } from '../../base/errors.ts'
import { REGIONS_PER_CHUNK } from '../../base/units.ts'
import type { Clock, Timer } from '../../platform/clock.ts'
import type { WireCode } from '../../wire/codes.ts'
import { depthOf, isChainBroken, OVERLAY_DEPTH_MERGED } from '../replica/ancestors.ts'
import type { Replica } from '../replica/replica.ts'
import type { ChunkStore } from '../store/chunk-store.ts'
import { syncReplica } from '../store/page-tasks.ts'
import { commitState, exclusively } from '../store/replica-control.ts'
import { mergeHeldRegion, mergeRegion } from './merge-region.ts'

const WAITING_COUNT_MAX = 100_000
/** Between two regions that were written. */
const PAUSE_MS = 10
/** While so many requests of clients are under way the next region waits, but not for ever. */
const BUSY_DEPTH = 4
const YIELD_COUNT_MAX = 20
const AGAIN_MS_MIN = 1000
const AGAIN_MS_MAX = 60_000

/** `parent`: what the overlay reads through now, durably; 0: it is flat. */
export type TellMerged = (chunk: number, parent: number) => void

interface Wait {
  /** What it is to take over from; another one by now: done. */
  readonly parent: Replica
  readonly pauseMs: number
  readonly notBeforeMs: number
}

export class OverlayMerger {
  readonly #store: ChunkStore
  readonly #clock: Clock
  readonly #tell: TellMerged
  readonly #waiting = new Map<Replica, Wait>()
  #merging: Replica | null = null
  #isRunning = false
  #isClosed = false
  #timer: Timer | null = null
  #wake: () => void = () => undefined

  constructor(store: ChunkStore, clock: Clock, tell: TellMerged) {
    this.#store = store
    this.#clock = clock
    this.#tell = tell
  }

  /** Overlays that need it without an order: too deep, or over something that is gone. */
  start(): void {
    for (const replica of this.#store.replicas.values()) {
      if (replica.parent === null) continue
      if (depthOf(replica) > OVERLAY_DEPTH_MERGED || isChainBroken(replica)) this.want(replica)
    }
  }

  /** Of the quorum: '' = accepted, or done already. */
  order(chunk: number, parent: number): WireCode | '' {
    const replica = this.#store.replicas.get(chunk)
    if (replica === undefined || replica.state.version === 0) return 'NO_REPLICA'
    if (replica.damage !== '' || this.#store.failure !== null) return 'DISK_FAILED'
    if (replica.state.parent === parent && parent !== 0) return this.want(replica) ? '' : 'OVERLOADED'
    this.#tell(chunk, replica.state.parent)
    return ''
  }

  /** False: too many wait. */
  want(replica: Replica): boolean {
    const { parent } = replica
    if (parent === null || this.#merging === replica || this.#waiting.has(replica)) return true
    if (this.#waiting.size >= WAITING_COUNT_MAX) return false
    this.#waiting.set(replica, { parent, pauseMs: AGAIN_MS_MIN, notBeforeMs: 0 })
    this.#goOn()
    return true
  }

  get waitingCount(): number {
    return this.#waiting.size
  }

  close(): void {
    this.#isClosed = true
    this.#timer?.cancel()
    this.#timer = null
    this.#wake()
  }

  #goOn(): void {
    if (this.#isRunning) return
    this.#timer?.cancel()
    this.#isRunning = true
    void this.#run().finally(() => {
      this.#isRunning = false
      this.#waitForNext()
    })
  }

  /** Merges whatever is due. */
  async #run(): Promise<void> {
    for (;;) {
      const nowMs = this.#clock.nowMs()
      const due = [...this.#waiting].find(([, { notBeforeMs }]) => notBeforeMs <= nowMs)
      if (due === undefined || this.#isClosed) return
      const [replica, { parent, pauseMs }] = due
      this.#waiting.delete(replica)
      if (replica.deleted || replica.parent !== parent) continue
      this.#merging = replica
      const isDone = await this.#mergeSafely(replica, parent)
      this.#merging = null
      if (isDone) continue
      const notBeforeMs = this.#clock.nowMs() + pauseMs
      this.#waiting.set(replica, { parent, pauseMs: Math.min(AGAIN_MS_MAX, pauseMs * 2), notBeforeMs })
    }
  }

  #waitForNext(): void {
    if (this.#isClosed || this.#waiting.size === 0) return
    const nextMs = Math.min(...[...this.#waiting.values()].map(({ notBeforeMs }) => notBeforeMs))
    this.#timer = this.#clock.setTimer(Math.max(1, nextMs - this.#clock.nowMs()), () => {
      this.#timer = null
      this.#goOn()
    })
  }

  async #mergeSafely(replica: Replica, parent: Replica): Promise<boolean> {
    try {
      return await this.#merge(replica, parent)
    } catch (error) {
      const reason = error instanceof Error ? error.message : String(error)
      this.#store.logger.warn('merge waits', { chunk: replica.chunk, code: codeOf(error), reason })
      return false
    }
  }

  /** False: not now. */
  async #merge(replica: Replica, parent: Replica): Promise<boolean> {
    const below = parent.parent
    const { version } = replica.state
    // Also in the end: one that began anew meanwhile has lost what was taken over before it was synced. A join
    // compares and pulls first: what it takes over need not be copied.
    const isReady = (): boolean =>
      replica.isVerifiable &&
      replica.state.version === version &&
      replica.parent === parent &&
      !this.#isClosed &&
      this.#store.failure === null
    let isComplete = true
    const blank: number[] = []
    for (let region = 0; region < REGIONS_PER_CHUNK; region++) {
      const outcome = await mergeRegion(this.#store, replica, parent, region, isReady)
      if (!isReady()) return false
      if (outcome === 'incomplete') isComplete = false
      if (outcome === 'blank') blank.push(region)
      if (outcome === 'done') await this.#yieldToClients()
    }
    if (!isComplete) return false
    return exclusively(replica, async () => {
      if (!isReady()) return false
      // written meanwhile: their records say *absent* where a flat replica has holes
      for (const region of blank) {
        const outcome = await mergeHeldRegion(this.#store, replica, parent, region)
        if (outcome === 'incomplete') return false
      }
      return this.#readThrough(replica, parent, below)
    })
  }

  /** Rule S3: durable, before the parent may go. */
  async #readThrough(replica: Replica, parent: Replica, below: Replica | null): Promise<boolean> {
    // the parent began anew from nothing meanwhile: what it had of its own parent may have been needed
    if (replica.parent !== parent || parent.parent !== below || replica.deleted) return false
    if (this.#store.closing)
      throw new CairnError('STARTING', 'the store is being closed', { retryable: true })
    await syncReplica(this.#store, replica)
    await commitState(this.#store, replica, (state) => {
      if (below === null) state.becomeFlat()
      else state.becomeOverlay(below.chunk)
    })
    replica.readThrough(below)
    if (below === null) for (const records of replica.regions ?? []) records?.becomeFlat()
    this.#store.logger.info('merged an overlay', { chunk: replica.chunk, parent: below?.chunk ?? 0 })
    this.#tell(replica.chunk, below?.chunk ?? 0)
    return true
  }

  async #yieldToClients(): Promise<void> {
    for (let count = 0; count < YIELD_COUNT_MAX && !this.#isClosed; count++) {
      await new Promise<void>((resolve) => {
        const timer = this.#clock.setTimer(PAUSE_MS, resolve)
        this.#wake = () => {
          timer.cancel()
          resolve()
        }
      })
      if (this.#store.counters.queueDepth <= BUSY_DEPTH) return
    }
  }
}
