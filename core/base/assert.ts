/**
 * Assertions. An assertion that fails is a bug in Cairn: it stays on in production and takes the
 * process down before it can hurt data. Never assert input from network, disk or a person.
 */

export class AssertionError extends Error {
  override readonly name = 'AssertionError'
}

/** Throws when `condition` is false. `message` says which invariant broke. */
export function assert(condition: boolean, message: string): asserts condition {
  if (!condition) throw new AssertionError(message)
}

/** Narrows away undefined where an invariant guarantees a value. */
export function present<T>(value: T | undefined | null, message: string): T {
  if (value === undefined || value === null) throw new AssertionError(message)
  return value
}
