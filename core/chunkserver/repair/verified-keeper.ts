/** Keeps on disk when replicas were verified: after opening, now and then while that changes, and at the end. */
import { codeOf } from '../../base/errors.ts'
import type { Timer } from '../../platform/clock.ts'
import { loadVerified, saveVerified } from '../format/verified-file.ts'
import type { ChunkStore } from '../store/chunk-store.ts'

/** Writing a large file costs more, and what is lost is only the order of some minutes: 12 bytes a replica. */
const SAVE_MS_MIN = 10_000
const SAVE_MS_MAX = 600_000
const SAVE_MS_PER_REPLICA = 10

export class VerifiedKeeper {
  readonly #store: ChunkStore
  #timer: Timer | null = null
  #saving: Promise<void> = Promise.resolve()

  constructor(store: ChunkStore) {
    this.#store = store
  }

  /** Never rejects: without the file every replica counts as verified now. */
  async start(): Promise<void> {
    const { disk, verified, replicas, logger } = this.#store
    let known: ReadonlyMap<number, number> = new Map()
    try {
      known = await loadVerified(disk)
    } catch (error) {
      logger.warn('when replicas were verified is not known', { code: codeOf(error) })
    }
    verified.load(replicas.keys(), known)
    this.#wait()
  }

  /** Rejects never. */
  async close(): Promise<void> {
    this.#timer?.cancel()
    this.#timer = null
    await this.#save()
  }

  #wait(): void {
    const { clock, verified } = this.#store
    const delayMs = Math.min(SAVE_MS_MAX, Math.max(SAVE_MS_MIN, verified.size * SAVE_MS_PER_REPLICA))
    this.#timer = clock.setTimer(delayMs, () => {
      void this.#save().then(() => {
        if (this.#timer !== null) this.#wait()
      })
    })
  }

  #save(): Promise<void> {
    const { disk, verified, logger, failure } = this.#store
    this.#saving = this.#saving.then(async () => {
      if (!verified.isChanged || failure !== null) return
      verified.isChanged = false
      try {
        await saveVerified(disk, verified.entries(), verified.size)
      } catch (error) {
        verified.isChanged = true
        logger.warn('when replicas were verified is not written', { code: codeOf(error) })
      }
    })
    return this.#saving
  }
}
