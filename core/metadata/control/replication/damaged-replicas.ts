/**
 * Replicas whose state a server cannot read. They cannot re-join: they are condemned and an empty replica takes
 * their place. Soft and bounded; a new master learns of them from the reports.
 */
const COUNT_MAX = 100_000

export class DamagedReplicas {
  readonly #keys = new Set<string>()

  get isEmpty(): boolean {
    return this.#keys.size === 0
  }

  add(chunk: number, server: number): void {
    if (this.#keys.size < COUNT_MAX) this.#keys.add(keyOf(chunk, server))
  }

  has(chunk: number, server: number): boolean {
    return this.#keys.has(keyOf(chunk, server))
  }

  delete(chunk: number, server: number): void {
    // Asked for each replica of a report.
    if (this.#keys.size > 0) this.#keys.delete(keyOf(chunk, server))
  }
}

function keyOf(chunk: number, server: number): string {
  return `${chunk}/${server}`
}
