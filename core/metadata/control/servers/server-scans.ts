/**
 * Shows recovery every chunk that a change of a chunk server concerns: writers first, then all the rest, in
 * short steps, however large the server is. A server that changes again in the middle starts over.
 */
import type { ChunkTable } from '../../chunks/chunk-table.ts'

/** Of the chunk table, in one step: about a millisecond when every chunk is on the server. */
const SLOTS_PER_STEP = 8192
const WRITTEN_CHUNKS_PER_STEP = 512

export interface ServerScanParts {
  readonly chunks: ChunkTable
  readonly leases: () => number[]
  readonly defer: (callback: () => void) => void
  /** No more for now: what looks has enough to do. `resume` is called later. */
  readonly isFull: () => boolean
  readonly look: (chunk: number, urgency: 'urgent' | 'later') => void
}

export class ServerScans {
  readonly #parts: ServerScanParts
  /** At most one for each server. */
  readonly #scans = new Map<number, Iterator<void>>()
  #isScheduled = false

  constructor(parts: ServerScanParts) {
    this.#parts = parts
  }

  get isRunning(): boolean {
    return this.#scans.size > 0
  }

  start(server: number): void {
    this.#scans.set(server, this.#scan(server))
    this.resume()
  }

  resume(): void {
    if (this.#isScheduled || this.#scans.size === 0 || this.#parts.isFull()) return
    this.#isScheduled = true
    this.#parts.defer(() => {
      this.#isScheduled = false
      this.#step()
      this.resume()
    })
  }

  #step(): void {
    for (const [server, scan] of this.#scans) {
      if (scan.next().done === true) this.#scans.delete(server)
      return
    }
  }

  *#scan(server: number): Generator<void> {
    const { chunks, leases, look } = this.#parts
    let count = 0
    for (const lease of leases()) {
      for (const chunk of chunks.chunksWithIntent(lease)) {
        if (chunks.get(chunk)?.members.some((member) => member.server === server)) look(chunk, 'urgent')
        if (++count % WRITTEN_CHUNKS_PER_STEP === 0) yield
      }
    }
    for (const chunk of [...chunks.dirtyDeadChunks(), ...chunks.pendingChunks()]) {
      look(chunk, 'urgent')
      if (++count % SLOTS_PER_STEP === 0) yield
    }
    for (let slot = 0; slot >= 0; ) {
      slot = chunks.scanServer(server, slot, SLOTS_PER_STEP, (chunk) => look(chunk, 'later'))
      yield
    }
    // Rule J10: it may be nearer to what is being copied elsewhere.
    for (const chunk of chunks.formerChunks()) {
      if (chunks.formerOf(chunk, server) !== undefined) look(chunk, 'later')
      if (++count % SLOTS_PER_STEP === 0) yield
    }
  }
}
