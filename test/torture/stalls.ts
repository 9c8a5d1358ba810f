/** How long each client heard nothing, and when: gaps between acknowledged operations. */
import { performance } from 'node:perf_hooks'

export interface Stall {
  readonly client: string
  readonly fromMs: number
  readonly toMs: number
}

export class Stalls {
  readonly #lastMs = new Map<string, number>()
  readonly #longest = new Map<string, Stall>()

  /** Something of this client was acknowledged. */
  beat(client: string): void {
    const nowMs = performance.now()
    const lastMs = this.#lastMs.get(client)
    this.#lastMs.set(client, nowMs)
    if (lastMs === undefined) return
    const longest = this.#longest.get(client)
    if (longest === undefined || nowMs - lastMs > longest.toMs - longest.fromMs)
      this.#longest.set(client, { client, fromMs: lastMs, toMs: nowMs })
  }

  /** Of each client. */
  get longest(): readonly Stall[] {
    return [...this.#longest.values()]
  }
}
