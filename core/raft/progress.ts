/**
 * What a leader knows about one other member, and how fast it may send to it.
 *
 *              rejected, unreachable                      behind the window
 *   +-------+ <--------------------- +-----------+      +----------+
 *   | probe |                        | replicate | ---> | snapshot |
 *   +-------+ ---------------------> +-----------+      +----------+
 *       |    an append was accepted        ^                 |
 *       +--------------------------------> | <---------------+ reported, or the log reaches it again: by probe
 *
 * Probe: one append at a time until the logs are known to agree. Replicate: `nextIndex` runs ahead of the
 * answers, bounded by number and size of what is in flight. Snapshot: nothing until the driver reports.
 */
import { assert } from '../base/assert.ts'
import { Deque } from '../base/deque.ts'
import type { RaftOptions } from './options.ts'

export type ProgressState = 'probe' | 'replicate' | 'snapshot'

interface Inflight {
  readonly lastIndex: number
  readonly sizeBytes: number
}

export class Progress {
  state: ProgressState = 'probe'
  /** The highest index known to be durable there and equal to ours. */
  matchIndex = 0
  /** The next entry to send; always above matchIndex. */
  nextIndex: number
  /** The highest commit index sent, as far as its log reaches. */
  commitSent = 0
  /** Our tick when it last answered. */
  contactTick: number
  /** Our tick when the newest message it answered in the current lease epoch was sent. */
  leaseTick = Number.NEGATIVE_INFINITY
  /** The highest read round it has answered. */
  readSequence = 0
  /** Something may have been lost: send an append, even an empty one. */
  nudge = false
  #probeIsSent = false
  readonly #inflights: Deque<Inflight>
  #inflightBytes = 0
  readonly #inflightBytesMax: number

  constructor(nextIndex: number, nowTick: number, options: RaftOptions) {
    this.nextIndex = nextIndex
    this.contactTick = nowTick
    this.#inflights = new Deque(options.inflightCountMax)
    this.#inflightBytesMax = options.inflightBytesMax
  }

  get isPaused(): boolean {
    switch (this.state) {
      case 'probe':
        return this.#probeIsSent
      case 'replicate':
        return (
          this.#inflights.count === this.#inflights.countMax || this.#inflightBytes >= this.#inflightBytesMax
        )
      default:
        return true
    }
  }

  get inflightCount(): number {
    return this.#inflights.count
  }

  /** An append with entries up to `lastIndex` (or none: `lastIndex` is below nextIndex) is on its way. */
  sent(lastIndex: number, sizeBytes: number): void {
    if (this.state === 'probe') {
      this.#probeIsSent = true
      return
    }
    if (lastIndex < this.nextIndex) return
    assert(this.#inflights.push({ lastIndex, sizeBytes }), 'a full window sends nothing')
    this.#inflightBytes += sizeBytes
    this.nextIndex = lastIndex + 1
  }

  /** The member's log equals ours up to `index`. True when that is news. */
  accepted(index: number): boolean {
    const isNews = index > this.matchIndex
    if (isNews) this.matchIndex = index
    if (this.nextIndex <= index) this.nextIndex = index + 1
    this.#freeThrough(index)
    return isNews
  }

  /** False when the rejection is old news. `agreeIndex` is where the logs may agree. */
  rejected(rejectedIndex: number, agreeIndex: number): boolean {
    if (this.state === 'snapshot') return false
    if (this.state === 'replicate') {
      if (rejectedIndex <= this.matchIndex) return false
      this.becomeProbe()
      this.nextIndex = Math.max(this.matchIndex, Math.min(rejectedIndex - 1, agreeIndex)) + 1
      return true
    }
    if (rejectedIndex !== this.nextIndex - 1) return false
    this.nextIndex = Math.max(Math.min(rejectedIndex, agreeIndex + 1), this.matchIndex + 1)
    this.#probeIsSent = false
    return true
  }

  /** A sign of life: whatever was sent long ago is answered or lost. */
  answeredHeartbeat(): void {
    this.#probeIsSent = false
    if (this.state === 'replicate' && this.isPaused) this.#freeFirst()
  }

  becomeProbe(): void {
    this.state = 'probe'
    this.nextIndex = this.matchIndex + 1
    this.#probeIsSent = false
    this.#forgetInflights()
  }

  becomeReplicate(): void {
    this.state = 'replicate'
    this.nextIndex = this.matchIndex + 1
    this.#forgetInflights()
  }

  becomeSnapshot(): void {
    this.state = 'snapshot'
    this.#forgetInflights()
  }

  #freeFirst(): void {
    const first = this.#inflights.shift()
    if (first !== undefined) this.#inflightBytes -= first.sizeBytes
  }

  #freeThrough(index: number): void {
    for (let first = this.#inflights.peek(); first !== undefined && first.lastIndex <= index; ) {
      this.#freeFirst()
      first = this.#inflights.peek()
    }
  }

  #forgetInflights(): void {
    this.#inflights.clear()
    this.#inflightBytes = 0
  }
}
