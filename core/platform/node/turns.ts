/**
 * Turns of the real event loop for code that simulates one: when everything that promises have to do now is
 * done. Not for servers: it keeps sockets and disks waiting.
 */

/** Runs `callback` when no promise has anything left to do. Call it from within a promise's continuation. */
export function afterPromises(callback: () => void): void {
  // the queue of ticks is looked at when the one of promises is empty
  process.nextTick(callback)
}

/** The same, after sockets, disks and rejections that nobody handled had their turn too. */
export function afterEverything(callback: () => void): void {
  setImmediate(callback)
}
