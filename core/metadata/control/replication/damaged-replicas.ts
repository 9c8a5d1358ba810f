/**
 * Replicas whose state a server cannot read. They cannot re-join: they are condemned and an empty replica takes
 * their place. Soft and bounded; a new master learns of them from the reports.
 */
import { condemnedKey } from '../../state/state.ts'

const COUNT_MAX = 100_000

export class DamagedReplicas {
  readonly #keys = new Set<string>()

  get isEmpty(): boolean {
    return this.#keys.size === 0
  }

  add(chunk: number, server: number): void {
    if (this.#keys.size < COUNT_MAX) this.#keys.add(condemnedKey(chunk, server))
  }

  has(chunk: number, server: number): boolean {
    return this.#keys.has(condemnedKey(chunk, server))
  }

  delete(chunk: number, server: number): void {
    this.#keys.delete(condemnedKey(chunk, server))
  }
}
