/** Events of a simulation by time; those of the same time in the order in which they were planned. */
interface Event {
  readonly time: number
  readonly order: number
  readonly run: () => void
}

export class EventHeap {
  now = 0
  #order = 0
  readonly #events: Event[] = []

  plan(delay: number, run: () => void): void {
    const event = { time: this.now + delay, order: this.#order++, run }
    let at = this.#events.push(event) - 1
    while (at > 0) {
      const above = (at - 1) >> 1
      const parent = this.#events[above]
      if (parent === undefined || isBefore(parent, event)) break
      this.#events[at] = parent
      at = above
    }
    this.#events[at] = event
  }

  /** Runs the next event if it is not later than `until`. */
  runNext(until: number): boolean {
    const first = this.#events[0]
    if (first === undefined || first.time > until) {
      this.now = until
      return false
    }
    const last = this.#events.pop()
    if (last !== undefined && this.#events.length > 0) this.#sink(last)
    this.now = first.time
    first.run()
    return true
  }

  #sink(event: Event): void {
    let at = 0
    for (;;) {
      let below = 2 * at + 1
      let child = this.#events[below]
      if (child === undefined) break
      const right = this.#events[below + 1]
      if (right !== undefined && isBefore(right, child)) {
        below++
        child = right
      }
      if (isBefore(event, child)) break
      this.#events[at] = child
      at = below
    }
    this.#events[at] = event
  }
}

function isBefore(a: Event, b: Event): boolean {
  return a.time < b.time || (a.time === b.time && a.order < b.order)
}
