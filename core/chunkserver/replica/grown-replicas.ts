/**
 * Replicas that took new room (rule A2): the master promised it when it granted the intent, and learns with the
 * heartbeats, beside the free space of the same moment, that it is taken.
 */
import type { Replica } from './replica.ts'

/** In one heartbeat; the rest comes with the next one. */
const REPORT_COUNT_MAX = 4096

export class GrownReplicas {
  /** Bounded by the number of replicas. */
  readonly #changed = new Set<Replica>()

  grew(replica: Replica, bytes: number): void {
    replica.grownBytes += bytes
    this.#changed.add(replica)
  }

  /** What changed since the last call. */
  take(): { chunk: number; bytes: number }[] {
    const grown: { chunk: number; bytes: number }[] = []
    for (const replica of this.#changed) {
      if (grown.length === REPORT_COUNT_MAX) break
      this.#changed.delete(replica)
      if (!replica.deleted) grown.push({ chunk: replica.chunk, bytes: replica.grownBytes })
    }
    return grown
  }

  /** Another master: it knows nothing yet. */
  reportAgain(replicas: Iterable<Replica>): void {
    for (const replica of replicas) if (replica.grownBytes > 0) this.#changed.add(replica)
  }
}
