/**
 * Requests that came while the master has no lease: it waits for a majority's answers and then goes on, or it
 * loses its place. One of both comes within an election time-out, so that they need no timer of their own.
 */
const WAITERS_MAX = 4_096

export class ReadyWaiters {
  #waiting: ((isReady: boolean) => void)[] = []

  get isEmpty(): boolean {
    return this.#waiting.length === 0
  }

  wait(): Promise<boolean> {
    if (this.#waiting.length >= WAITERS_MAX) return Promise.resolve(false)
    return new Promise((resolve) => this.#waiting.push(resolve))
  }

  settle(isReady: boolean): void {
    const waiting = this.#waiting
    this.#waiting = []
    for (const resolve of waiting) resolve(isReady)
  }
}
