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

interface Question {
  readonly callbacks: LocateCallback[]
}

export class LocationCache {
  readonly #engine: Engine
  readonly #inode: number
  /** Of the answers that are kept; -1: nothing known. */
  #generation = -1
  readonly #known = new Map<number, ChunkLocation | null>()
  /** What is not in here any more when its answer comes is not kept: something newer is known, or nothing. */
  #asked = new Map<number, Question>()
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

  /** By who wrote it: newer than any answer that is on its way. */
  set(location: ChunkLocation): void {
    const { index } = location
    if (this.#known.size >= LOCATIONS_PER_FILE_MAX) this.#known.clear()
    this.#known.set(index, location)
    const question = this.#asked.get(index)
    this.#asked.delete(index)
    answerAll(question, null, location)
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
    // An answer to an earlier question may be older than the reason for dropping everything.
    const unsent = new Set(this.#toAsk)
    this.#asked = new Map([...this.#asked].filter(([index]) => unsent.has(index)))
  }

  /** Asks the master. The answer goes to everybody who waits for it. */
  locate(index: number, callback: LocateCallback): void {
    const question = this.#asked.get(index)
    if (question !== undefined) {
      question.callbacks.push(callback)
      return
    }
    this.#asked.set(index, { callbacks: [callback] })
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
    const questions = indexes.map((index) => this.#asked.get(index))
    this.#engine.session.call('chunk.locate', { inode: this.#inode, indexes }, { rejectTryAgain: true }).then(
      (answer) => {
        this.#engine.pool.updateAddresses(answer.servers)
        for (const [i, index] of indexes.entries()) {
          const location = answer.locations.find((candidate) => candidate.index === index) ?? null
          if (this.#end(index, questions[i])) this.#keep(index, location, answer.generation)
          answerAll(questions[i], null, location)
        }
      },
      (error: unknown) => {
        for (const [i, index] of indexes.entries()) {
          this.#end(index, questions[i])
          answerAll(questions[i], asCairnError(error), null)
        }
      },
    )
  }

  /** False: it had ended before. */
  #end(index: number, question: Question | undefined): boolean {
    if (question === undefined || this.#asked.get(index) !== question) return false
    this.#asked.delete(index)
    return true
  }

  #keep(index: number, location: ChunkLocation | null, generation: number): void {
    if (this.#known.size >= LOCATIONS_PER_FILE_MAX) this.#known.clear()
    // Older entries stay true for this open; the lower number makes the next open drop them if anything moved.
    if (this.#generation < 0) this.#generation = generation
    this.#known.set(index, location)
  }
}

function answerAll(
  question: Question | undefined,
  error: CairnError | null,
  location: ChunkLocation | null,
): void {
  for (const callback of question?.callbacks.splice(0) ?? []) callback(error, location)
}
