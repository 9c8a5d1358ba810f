/** How many bytes the chunk servers have copied from each other: what they say, summed up over their restarts. */
import { setTimeout as pause } from 'node:timers/promises'
import type { QuorumCluster } from '../integration/support/quorum-cluster.ts'

const LOOK_PAUSE_MS = 1_000

export class RepairWatch {
  readonly #cluster: QuorumCluster
  readonly #last = new Map<number, number>()
  readonly #work: Promise<void>
  #isOver = false
  /** As far as it has been seen: what a server copied in its last second may be missing. */
  bytes = 0

  constructor(cluster: QuorumCluster) {
    this.#cluster = cluster
    this.#work = this.#watch()
  }

  async stop(): Promise<void> {
    this.#isOver = true
    await this.#work
  }

  async #watch(): Promise<void> {
    while (!this.#isOver) {
      await this.look()
      await pause(LOOK_PAUSE_MS)
    }
  }

  async look(): Promise<void> {
    try {
      for (const { id, status, pulledBytes } of (await this.#cluster.statistics()).cs) {
        if (status !== 'active') continue
        const last = this.#last.get(id) ?? 0
        // One that was started again begins at 0.
        this.bytes += pulledBytes >= last ? pulledBytes - last : pulledBytes
        this.#last.set(id, pulledBytes)
      }
    } catch {
      // No master for now: the next look sees it.
    }
  }
}
