/**
 * Where the chunks of one file are, for reading. Valid under the open or lease that fetched it, or while
 * the file's generation is unchanged (rule E4). Questions to the master are batched.
 */
import type { CairnError } from '../../base/errors.ts'
import type { ChunkLocation } from '../../wire/messages/common.ts'
import type { Engine } from '../session/engine.ts'
import { asCairnError } from '../session/errors.ts'
import { INDEXES_PER_CALL_MAX, LOCATIONS_PER_FILE_MAX } from '../session/limits.ts'

/** Null: the chunk does not exist, it reads as zeros. */
export type LocateCallback = (error: CairnError | null, location: ChunkLocation | null) => void

export class LocationCache {
  readonly #engine: Engine
  readonly #inode: number
  /** Of the answers that are kept; -1: nothing known. */
  #generation = -1
  /** Rises when everything is dropped: answers to earlier questions are not kept. */
  #era = 0
  readonly #known = new Map<number, ChunkLocation | null>()
  #asked = new Map<number, LocateCallback[]>()
  #toAsk: number[] = []
  #scheduled = false

  constructor(engine: Engine, inode: number) {
    this.#engine = engine
    this.#inode = inode
  }

  /** Undefined: not known. */
  get(index: number): ChunkLocation | null | undefined {
    return this.#known.get(index)
  }

  set(location: ChunkLocation): void {
    if (this.#known.size >= LOCATIONS_PER_FILE_MAX) this.#known.clear()
    this.#known.set(location.index, location)
  }

  forget(index: number): void {
    this.#known.delete(index)
  }

  /** A fresh open or lease told the generation: keep what is still true (rule E4). */
  validate(generation: number): void {
    if (generation === this.#generation) return
    this.clear()
    this.#generation = generation
  }

  clear(): void {
    this.#known.clear()
    this.#generation = -1
    this.#era++
    // An answer to an earlier question may be older than the reason for dropping everything.
    const unsent = new Map<number, LocateCallback[]>()
    for (const index of this.#toAsk) unsent.set(index, this.#asked.get(index) ?? [])
    for (const index of this.#toAsk) this.#asked.delete(index)
    this.#asked = unsent
  }

  /** Asks the master. The answer goes to everybody who waits for it. */
  locate(index: number, callback: LocateCallback): void {
    const waiting = this.#asked.get(index)
    if (waiting !== undefined) {
      waiting.push(callback)
      return
    }
    this.#asked.set(index, [callback])
    this.#toAsk.push(index)
    if (this.#scheduled) return
    this.#scheduled = true
    this.#engine.clock.defer(() => {
      this.#scheduled = false
      const indexes = this.#toAsk
      this.#toAsk = []
      for (let at = 0; at < indexes.length; at += INDEXES_PER_CALL_MAX)
        this.#ask(indexes.slice(at, at + INDEXES_PER_CALL_MAX))
    })
  }

  #ask(indexes: number[]): void {
    const era = this.#era
    const asked = this.#asked
    this.#engine.session.call('chunk.locate', { inode: this.#inode, indexes }, { rejectTryAgain: true }).then(
      (answer) => {
        this.#engine.pool.updateAddresses(answer.servers)
        for (const index of indexes) {
          const location = answer.locations.find((candidate) => candidate.index === index) ?? null
          if (era === this.#era) this.#keep(index, location, answer.generation)
          answerAll(asked, index, null, location)
        }
      },
      (error: unknown) => {
        for (const index of indexes) answerAll(asked, index, asCairnError(error), null)
      },
    )
  }

  #keep(index: number, location: ChunkLocation | null, generation: number): void {
    if (this.#known.size >= LOCATIONS_PER_FILE_MAX) this.#known.clear()
    // Older entries stay true for this open; the lower number makes the next open drop them if anything moved.
    if (this.#generation < 0) this.#generation = generation
    this.#known.set(index, location)
  }
}

function answerAll(
  asked: Map<number, LocateCallback[]>,
  index: number,
  error: CairnError | null,
  location: ChunkLocation | null,
): void {
  const callbacks = asked.get(index)
  asked.delete(index)
  if (callbacks !== undefined) for (const callback of callbacks) callback(error, location)
}
