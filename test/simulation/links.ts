/**
 * Partitions that may overlap: each block of a way is counted, so that the end of one fault does not heal
 * what another one still holds.
 */
import type { SimulatedNetwork } from '../../core/testing/simulation/simulated-network.ts'

export class Links {
  readonly #network: SimulatedNetwork
  readonly #blocks = new Map<string, number>()

  constructor(network: SimulatedNetwork) {
    this.#network = network
  }

  block(from: string, to: string): void {
    const key = `${from}>${to}`
    this.#blocks.set(key, (this.#blocks.get(key) ?? 0) + 1)
    this.#network.blockOneWay(from, to)
  }

  unblock(from: string, to: string): void {
    const key = `${from}>${to}`
    const count = (this.#blocks.get(key) ?? 0) - 1
    if (count > 0) this.#blocks.set(key, count)
    else this.#blocks.delete(key)
    if (count > 0) return
    this.#network.heal(from, to)
    if (this.#blocks.has(`${to}>${from}`)) this.#network.blockOneWay(to, from)
  }

  isBlocked(a: string, b: string): boolean {
    return this.#blocks.has(`${a}>${b}`) || this.#blocks.has(`${b}>${a}`)
  }
}
