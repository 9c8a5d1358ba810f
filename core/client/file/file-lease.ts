/**
 * The write lease of one file.
 *
 *   none ──want──▶ acquiring ──▶ held ──idle or recall──▶ returning ──▶ none
 *                                  └──────── ended (rule E3) ──────────▶ none
 *
 * Returning: no new operation begins, what has begun ends, everything is flushed, intents are cleared, then
 * the lease is released with size and times (rules E5, L7, L9).
 */
import { CairnError } from '../../base/errors.ts'
import { CHUNK_SIZE_BYTES } from '../../base/units.ts'
import { asCairnError, leaseLost } from '../session/errors.ts'
import type { FileState } from './file-state.ts'
import { publishFile } from './file-flush.ts'
import { zeroTail } from './file-resize.ts'
import { INTENTS_PER_CLEAR_MAX } from '../session/limits.ts'

export type LeasePhase = 'none' | 'acquiring' | 'held'

export class FileLease {
  readonly #file: FileState
  #phase: LeasePhase = 'none'
  #number = 0
  #waiters: { resolve: () => void; reject: (error: CairnError) => void }[] = []
  #returning: Promise<void> | null = null
  #pausing: Promise<void> | null = null
  #zeroing = false

  constructor(file: FileState) {
    this.#file = file
  }

  get number(): number {
    return this.#number
  }

  get phase(): LeasePhase {
    return this.#phase
  }

  get hasNumber(): boolean {
    return this.#number !== 0
  }

  get isHeld(): boolean {
    return this.#phase === 'held'
  }

  get isReturning(): boolean {
    return this.#returning !== null
  }

  /** Came with `fs.create`. */
  adopt(number: number): void {
    this.#number = number
    this.#phase = 'held'
    this.#file.bumpEra()
    this.#file.lastWriteMs = this.#file.engine.clock.nowMs()
  }

  /** Asks for the lease; the gate is kicked when it is there, or its items fail. */
  want(): void {
    if (this.#phase !== 'none') return
    this.#phase = 'acquiring'
    void this.#acquire()
  }

  /** Resolves when the lease is held. */
  ensure(): Promise<void> {
    if (this.#file.dead) return Promise.reject(leaseLost(this.#file.inode))
    if (this.#phase === 'held') return Promise.resolve()
    return new Promise((resolve, reject) => {
      this.#waiters.push({ resolve, reject })
      this.want()
    })
  }

  async #acquire(): Promise<void> {
    const file = this.#file
    const { session } = file.engine
    const epoch = session.epoch
    try {
      const answer = await session.mutate('lease.acquire', { inode: file.inode, pinned: file.pinned })
      if (epoch !== session.epoch)
        throw new CairnError('EIO', 'the session expired while the lease was asked for')
      file.bumpEra()
      this.#number = answer.lease
      this.#phase = 'held'
      file.lastWriteMs = file.engine.clock.nowMs()
      // Rule E4
      file.locations.validate(answer.attributes.generation)
      file.readAhead.clear()
      file.learned(answer.attributes)
      file.zeroFrom = answer.zeroFrom
      file.deadIndexes = answer.dirty ?? []
      const waiters = this.#waiters
      this.#waiters = []
      for (const waiter of waiters) waiter.resolve()
      file.gate.kick()
    } catch (error) {
      this.#phase = 'none'
      const reason = asCairnError(error)
      const waiters = this.#waiters
      this.#waiters = []
      for (const waiter of waiters) waiter.reject(reason)
      file.gate.fail(reason)
    }
  }

  /** Rule E3: it is gone, whoever said so. FileState.leaseEnded does the rest. */
  ended(): void {
    this.#phase = 'none'
    this.#number = 0
    this.#file.bumpEra()
  }

  /** Rule T1: before anything is written behind the mark. */
  zeroTailSoon(): void {
    if (this.#zeroing) return
    this.#zeroing = true
    this.#file.gate
      .exclusive(() => zeroTail(this.#file))
      .catch((error: unknown) => this.#file.gate.fail(asCairnError(error)))
      .finally(() => {
        this.#zeroing = false
        this.#file.gate.kick()
      })
  }

  /** Gives the lease back. `giveUpAfterMs`: stay the holder when writes or flushes are held longer; 0: never. */
  giveBack(giveUpAfterMs: number): Promise<void> {
    if (this.#number === 0) return Promise.resolve()
    if (this.#returning === null) {
      this.#returning = this.#giveBack(giveUpAfterMs).finally(() => {
        this.#returning = null
      })
    }
    return this.#returning
  }

  async #giveBack(giveUpAfterMs: number): Promise<void> {
    const file = this.#file
    const leftMs = timeLeft(file, giveUpAfterMs)
    await file.gate.exclusive(async () => {
      const number = this.#number
      if (number === 0) return
      try {
        await this.#surrender(number, leftMs())
      } catch (error) {
        // The lease ended meanwhile: said once to everybody (rule E3). Else it stays ours.
        if (this.#number !== number) return
        throw error
      }
    }, giveUpAfterMs)
  }

  /** What has begun ends, everything is flushed and every intent given back; then it goes on (rule S1). */
  async pause(giveUpAfterMs: number): Promise<void> {
    if (this.#pausing !== null || this.#returning !== null || this.#number === 0) return
    const leftMs = timeLeft(this.#file, giveUpAfterMs)
    this.#pausing = this.#file.gate.exclusive(
      () => this.#flushAndClear(this.#number, leftMs()),
      giveUpAfterMs,
    )
    try {
      await this.#pausing
    } finally {
      this.#pausing = null
    }
  }

  /** The lease stays. */
  async #flushAndClear(number: number, giveUpAfterMs: number): Promise<void> {
    const file = this.#file
    if (number === 0) return
    try {
      const writers = [...file.writers.values()].filter((writer) => writer.hasIntent)
      await file.intents.surrender(writers, giveUpAfterMs)
      await publishFile(file)
    } catch (error) {
      // Lost bytes are latched by the file; the intents are gone all the same.
      if (this.#number !== number || asCairnError(error).code === 'EIO') return
      throw error
    }
  }

  async #surrender(number: number, giveUpAfterMs: number): Promise<void> {
    const file = this.#file
    const { session } = file.engine
    const intents = [...file.writers.values()].filter((writer) => writer.hasIntent)
    const unlinked = file.attributes.links === 0 && file.handleCount === 0
    if (unlinked) {
      // Nobody can read it any more: nothing to flush.
      for (const writer of intents) writer.marks.clear()
    }
    try {
      await file.intents.surrender(intents, giveUpAfterMs)
    } catch (error) {
      // Lost bytes are latched by the file; the lease can go all the same.
      if (this.#number !== number || asCairnError(error).code !== 'EIO') throw error
    }
    const behindEnd = intents.filter(
      (writer) => !writer.wasUsed && writer.index * CHUNK_SIZE_BYTES >= file.size,
    )
    // Granted ahead of a stream that ended before.
    for (let at = 0; at < behindEnd.length; at += INTENTS_PER_CLEAR_MAX) {
      const indexes = behindEnd.slice(at, at + INTENTS_PER_CLEAR_MAX).map((writer) => writer.index)
      await session.mutate('lease.unmap', { inode: file.inode, lease: number, indexes })
      for (const index of indexes) file.locations.forget(index)
    }
    await publishFile(file)
    if (this.#number !== number) return
    await file.engine.leaseReturns.give(file.inode, number)
    if (this.#number !== number) return
    this.#phase = 'none'
    this.#number = 0
    file.bumpEra()
    file.zeroFrom = undefined
    file.publishedElsewhere()
    file.dropChunks(() => true)
  }
}

/** What is left of a time when its part is taken; 0: without limit. */
function timeLeft(file: FileState, limitMs: number): () => number {
  const { clock } = file.engine
  const endMs = clock.nowMs() + limitMs
  return () => (limitMs > 0 ? Math.max(1, endMs - clock.nowMs()) : 0)
}
