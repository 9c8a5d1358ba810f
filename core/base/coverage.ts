/**
 * Names of situations that the simulator must have visited: `mark('join-restarted')` where rare code runs.
 * Off (the default) it costs one comparison; on, it counts. Marks are for tests only: nothing may read them.
 */
let counts: Map<string, number> | null = null

/** Notes that this place was reached. `name` is a literal, unique in the project. */
export function mark(name: string): void {
  if (counts === null) return
  counts.set(name, (counts.get(name) ?? 0) + 1)
}

/** Starts counting afresh; returns the counts so far when asked for. */
export function startMarks(): ReadonlyMap<string, number> {
  counts = new Map()
  return counts
}

export function stopMarks(): void {
  counts = null
}
