/** Stands for core/chunkserver/replica/open-list.ts: every region counts as marked, and no record is written. */
import type { MarkWaiter } from '../../core/chunkserver/replica/open-list.ts'
import type { Replica } from '../../core/chunkserver/replica/replica.ts'

export function isMarked(): boolean {
  return true
}

export class ReplicaMarks {
  readonly #replica: Replica

  constructor(replica: Replica) {
    this.#replica = replica
  }

  /** A new lease: known in memory only. */
  add(waiter: MarkWaiter): void {
    for (const state of [this.#replica.state, this.#replica.logged])
      state.lease = Math.max(state.lease, waiter.lease)
    waiter.onMarked(null)
  }
}
