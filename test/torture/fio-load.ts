/** fio on the mount of one client, again and again: it writes blocks with checksums and verifies all of them. */
import path from 'node:path'
import { performance } from 'node:perf_hooks'
import { setTimeout as pause } from 'node:timers/promises'
import { fioPatterns, fioVerify } from '../integration/support/workloads.ts'
import type { SeededRandom } from '../../core/testing/simulation/seeded-random.ts'
import { isMounted } from '../integration/support/programs.ts'
import type { ClientHost } from './clients.ts'

const SIZE_MIB = 4
const PAUSE_MS_MAX = 4_000

export class FioLoad {
  readonly problems: string[] = []
  roundCount = 0
  /** Rounds that a fault of their own client ended. */
  excusedCount = 0
  readonly #host: ClientHost
  readonly #random: SeededRandom
  readonly #isExcused: (sinceMs: number) => boolean
  #isOver = false
  #work: Promise<void> = Promise.resolve()

  /** `isExcused`: may a round that began then have failed? */
  constructor(host: ClientHost, random: SeededRandom, isExcused: (sinceMs: number) => boolean) {
    this.#host = host
    this.#random = random
    this.#isExcused = isExcused
  }

  start(): void {
    this.#work = this.#run()
  }

  /** Resolves when the last round is over. */
  async stop(): Promise<void> {
    this.#isOver = true
    await this.#work
  }

  async #run(): Promise<void> {
    while (!this.#isOver) {
      await pause(this.#random.below(PAUSE_MS_MAX))
      if (!isMounted(this.#host.mountPoint)) continue
      const [name, parameters] = fioPatterns[this.#random.below(fioPatterns.length)] ?? ['', []]
      const startedMs = performance.now()
      try {
        // Made beforehand: whoever asks a mount that hangs hangs with it.
        await fioVerify(path.join(this.#host.mountPoint, this.#host.name), SIZE_MIB, parameters)
        this.roundCount += 1
      } catch (error) {
        if (this.#isExcused(startedMs)) this.excusedCount += 1
        else this.problems.push(`fio of ${this.#host.name}, ${name}: ${String(error)}`)
      }
    }
  }
}
